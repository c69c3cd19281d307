"""How a container sees the host: its working directory, environment, mounts, and the user it works as.

The one place that decides this, for both generations of image. The recipe does not know the difference.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

from nerves_docker_port import errors
from nerves_docker_port.engine.client import Engine
from nerves_docker_port.engine.container import Limits, Mount, Spec
from nerves_docker_port.image.ensure import Image
from nerves_docker_port.request.request import Generation, Request, container_path
from nerves_docker_port.request.settings import Settings
from nerves_docker_port.volume.build_volume import container_labels

PLATFORM = "/nerves/env/platform"
DOWNLOADS = "/nerves/dl"
HOME = "/home/nerves"
SSH = "/nerves/ssh"
SSH_AGENT = "/nerves/ssh-agent.sock"

# Gives the build user, at $home, the ssh files of the caller: OpenSSH takes keys only from files that nobody but their
# owner may read, so a mount will not do for a user of another uid, and it would hide the image's known_hosts. The
# copies are in the container's own layer and go with it. Symbolic links to what is not in the container are left out.
# UseKeychain is an option of Apple's ssh, an error for any other (Apple Technical Note TN2449).
_GIVE_SSH = r"""
if [ -d /nerves/ssh ]; then
  [ -d "$ndp_home/.ssh" ] || mkdir -p "$ndp_home/.ssh"
  ndp_known=$(cat "$ndp_home/.ssh/known_hosts" /root/.ssh/known_hosts 2>/dev/null) || :
  (
    umask 077
    cd /nerves/ssh
    find . '(' -type d -o -type f -o -type l ')' -exec sh -c '
      for f; do
        if [ -f "$f" ]; then cat "$f" > "$0/$f"
        elif [ ! -L "$f" ] && [ ! -d "$0/$f" ]; then mkdir "$0/$f"
        fi
      done' "$ndp_home/.ssh" {} + || :
    ndp_known=$(
      (cat "$ndp_home/.ssh/known_hosts" || :; printf '\n%s\n' "$ndp_known") 2>/dev/null | awk 'NF && !seen[$0]++'
    )
    [ -z "$ndp_known" ] || printf '%s\n' "$ndp_known" > "$ndp_home/.ssh/known_hosts"
    # No other file of the person's is read but by way of this one.
    [ -f "$ndp_home/.ssh/config" ] || exit 0
    export LC_ALL=C
    grep -rliZE '^[[:space:]]*UseKeychain' "$ndp_home/.ssh" | xargs -0r sed -i -E '/^[[:space:]]*UseKeychain/Id' || :
  )
  chmod 700 "$ndp_home/.ssh"
  chown -R "$ndp_uid:$ndp_gid" "$ndp_home/.ssh"
fi
"""

# Runs as root before the container's command, then becomes the person who ran Mix. Arguments: uid, gid, the command.
#
# The image's user `nerves` has a uid of its own (1005 from nerves_system_br 1.28.1 on), and that user may not
# write anybody else's package directory (nerves #402). It keeps its name, home and sudo rule, but gets the uid and
# gid of the caller. Its entries go first: an image may already have a user with that uid (Ubuntu's have `ubuntu`,
# 1000), and a look-up by uid takes the first. Not `usermod`: it walks the whole home, the build tree included.
#
# What is exported to the container may have any name that does not begin with ndp_: the steps must see it as it is.
#
# Every flow begins with this, and each program in it costs a millisecond or two: the shell does by itself what it can.
# (0.7 of the time that it took with `id`, `grep` and `mkdir`.)
_BECOME_CALLER = (
    r"""
set -e
ndp_uid=$1 ndp_gid=$2; shift 2
ndp_home=/home/nerves
ndp_found= ndp_others=
others() {
  ndp_others=
  [ -f "$1" ] || return 0
  while IFS= read -r ndp_line || [ -n "$ndp_line" ]; do
    case $ndp_line in nerves:*) ndp_found=$ndp_line ;; *) ndp_others="$ndp_others$ndp_line
" ;; esac
  done < "$1"
}
others /etc/passwd
case $ndp_found in
  nerves:*:"$ndp_uid":"$ndp_gid":*:*:*) ;;
  *)
    printf '%s\n%s' "nerves:x:$ndp_uid:$ndp_gid::$ndp_home:/bin/bash" "$ndp_others" > /etc/passwd
    others /etc/group
    printf '%s\n%s' "nerves:x:$ndp_gid:" "$ndp_others" > /etc/group
    ;;
esac
# What the engine made on the way to a mount is root's, too. What is mounted there is not ours to give.
[ -d "$ndp_home" ] || mkdir -p "$ndp_home"
# Of both: device and owner.
ndp_here=$(stat -c '%d %u' "$ndp_home" .)
ndp_owner=${ndp_here##* } ndp_here=${ndp_here%% *}
find "$ndp_home" -xdev -path "$PWD" -prune -o ! -uid "$ndp_uid" -printf '%D %p\0' 2>/dev/null \
  | sed -zn "s/^$ndp_here //p" | xargs -0r chown -h "$ndp_uid:$ndp_gid" 2>/dev/null || :
"""
    + _GIVE_SSH
    + r"""
# The build tree is given over once, the top last: what is interrupted is taken up again by the next container.
[ "$ndp_owner" = "$ndp_uid" ] || find . -xdev -depth ! -uid "$ndp_uid" -exec chown -h "$ndp_uid:$ndp_gid" {} +
# The output's pipe belongs to root by now; `> /dev/stderr` opens it anew: both outputs of a step are this one.
chown "$ndp_uid" "/proc/$$/fd/1" 2>/dev/null || :
export HOME="$ndp_home"
# GNU tar's and coreutils' configure refuse to run as root without this.
[ "$ndp_uid" != 0 ] || export FORCE_UNSAFE_CONFIGURE=1
exec setpriv --reuid="$ndp_uid" --regid="$ndp_gid" --init-groups "$@"
"""
)


# For images whose entrypoint makes the user: it must find the build directory to be that user's. Not touched where it
# is: a change there is how `archive` knows that it has to pack again.
_GIVE_WORKDIR = (
    r"""
set -e
ndp_uid=$1 ndp_gid=$2; shift 2
[ "$(stat -c %u:%g .)" = "$ndp_uid:$ndp_gid" ] || chown "$ndp_uid:$ndp_gid" .
# Where either is 0, the entrypoint stays root. Otherwise it makes a user, and does not furnish a home that is there.
if [ "$ndp_uid" = 0 ] || [ "$ndp_gid" = 0 ]; then
  ndp_home=/root
else
  ndp_home=/home/nerves
  if [ -d /nerves/ssh ] || [ -d "$ndp_home" ]; then
    mkdir -p "$ndp_home"
    cp -a /etc/skel/. "$ndp_home/" 2>/dev/null || :
    ndp_here=$(stat -c %d "$ndp_home")
    find "$ndp_home" -xdev -printf '%D %p\0' | sed -zn "s/^$ndp_here //p" | xargs -0r chown -h "$ndp_uid:$ndp_gid"
  fi
fi
"""
    + _GIVE_SSH
    + r"""
# A shell's terminal is the shell's.
[ ! -t 1 ] || chown "$ndp_uid" "/proc/$$/fd/1"
exec "$@"
"""
)


@dataclass(frozen=True)
class Workspace:
    """One package's way into containers of one image."""

    request: Request
    image: Image
    generation: Generation
    volume: str
    session: str
    uid: int
    gid: int
    """Of the caller as the containers see them: 0 with a rootless engine, whose root is the caller."""
    limits: Limits = field(default_factory=Limits)

    @property
    def workdir(self) -> str:
        """The build directory in the container."""
        return self.generation.workdir

    @property
    def home(self) -> str:
        """The build user's home in the container."""
        return "/root" if self.makes_user and 0 in (self.uid, self.gid) else HOME

    @property
    def package_dir(self) -> str:
        """The package's directory in the container."""
        return container_path("/nerves/env", self.request.package.app)

    @property
    def defconfig(self) -> str:
        """The system's defconfig in the container."""
        return container_path(self.package_dir, self.request.package.defconfig)

    @property
    def makes_user(self) -> bool:
        """Whether the image's own entrypoint makes the caller's user: those up to 1.27 do, from `UID` and `GID`."""
        return self.generation.entrypoint_makes_user and bool(self.image.entrypoint)

    def container(self, name: str, command: Sequence[str]) -> Spec:
        """The container that runs a command as the build user."""
        prepare = _GIVE_WORKDIR if self.makes_user else _BECOME_CALLER
        return self._spec(
            name,
            command,
            env=self._env(self.uid, self.gid),
            mounts=[*self._mounts(), *self._ssh_mounts(), *self._configured_mounts()],
            entrypoint=(
                *("/bin/sh", "-c", prepare, "nerves-docker-port"),
                *(str(self.uid), str(self.gid)),
                *self.image.entrypoint,
            ),
            user="0:0",
        )

    def changed_container(self, since: str) -> Spec:
        """The container that names something in the build directory that changed after ``since``, if there is any.

        Asked is the time of the last change of the inode, which no program sets back (GNU find, "-newerXY").
        """
        spec = self._spec(
            "check_tree",
            [".", "-xdev", "-newerct", f"@{since}", "-print", "-quit"],
            env=[],
            mounts=self._mounts()[:1],
            entrypoint=("find",),
            user="0:0",
        )
        # It needs none, and setting one up takes the engine as long as all the rest.
        return replace(spec, network=None, networked=False)

    def _spec(
        self,
        name: str,
        command: Sequence[str],
        *,
        env: Sequence[str],
        mounts: Sequence[Mount],
        entrypoint: Sequence[str] | None,
        user: str | None,
    ) -> Spec:
        return Spec(
            name=f"{self.volume}-{name.replace('_', '-')}-{self.session[:8]}",
            image=self.image.id,
            command=command,
            workdir=self.workdir,
            env=env,
            mounts=mounts,
            labels=container_labels(self.volume, name, self.session),
            entrypoint=entrypoint,
            user=user,
            limits=self.limits,
            network=self.request.settings.network,
        )

    def _env(self, uid: int, gid: int) -> list[str]:
        settings = self.request.settings
        env = {"UID": str(uid), "GID": str(gid), "TERM": self.request.term, "NERVES_BR_DL_DIR": DOWNLOADS}
        if settings.ssh_agent is not None:
            env["SSH_AUTH_SOCK"] = SSH_AGENT
        # A setting may say another TERM; of the others it cannot (settings.py).
        return [f"{name}={value}" for name, value in {**env, **settings.env}.items()]

    def _mounts(self) -> list[Mount]:
        return [
            Mount("volume", self.volume, self.workdir),
            Mount("bind", str(self.request.names.download_dir), DOWNLOADS),
            Mount("bind", str(self.request.package.path), self.package_dir),
            Mount("bind", str(self.request.platform.path), PLATFORM),
        ]

    def _ssh_mounts(self) -> list[Mount]:
        """The caller's ssh keys, where there are any (many a CI has none), or the agent that has them."""
        settings = self.request.settings
        directory = self.request.home / ".ssh"
        if settings.ssh == "dir":
            return [Mount("bind", str(directory), SSH, read_only=True)] if directory.is_dir() else []
        if settings.ssh_agent is None:
            return []
        mounts = [Mount("bind", str(settings.ssh_agent), SSH_AGENT)]
        # Without it, ssh would ask whether a host is the right one, and there is nobody to answer.
        known_hosts = directory / "known_hosts"
        if known_hosts.is_file():
            mounts.append(Mount("bind", str(known_hosts), posixpath.join(SSH, "known_hosts"), read_only=True))
        return mounts

    def _configured_mounts(self) -> list[Mount]:
        settings = self.request.settings
        mounts = [Mount("bind", str(mount.source), mount.target, mount.read_only) for mount in settings.mounts]
        if settings.ccache is not None:
            mounts.append(Mount("bind", str(settings.ccache), posixpath.join(self.home, ".buildroot-ccache")))
        return mounts


def open_workspace(engine: Engine, request: Request, image: Image, volume: str, session: str) -> Workspace:
    """The workspace for ``request`` on ``engine``, once what the settings name has been found or made.

    Raises ``RunnerError`` ``:bad_request``.
    """
    _check_settings(engine, request)
    rootless = engine.capabilities.rootless
    return Workspace(
        request=request,
        image=image,
        generation=request.platform.generation() or image.generation(),
        volume=volume,
        session=session,
        uid=0 if rootless else request.uid,
        gid=0 if rootless else request.gid,
        limits=_limits(engine, request.settings),
    )


def _check_settings(engine: Engine, request: Request) -> None:
    """See that what the settings name is there: the engine's own words for it would be about something else."""
    settings = request.settings
    for mount in settings.mounts:
        if not mount.source.exists():
            raise errors.mount_source_missing(str(mount.source), mount.target)
    if settings.ssh_agent is not None and not settings.ssh_agent.is_socket():
        raise errors.ssh_agent(
            f"`ssh: :agent` wants the ssh agent, but SSH_AUTH_SOCK names no socket: {settings.ssh_agent}"
        )
    if settings.network is not None:
        networks = engine.networks()
        if settings.network not in networks:
            raise errors.network_missing(settings.network, networks)
    if settings.ccache is not None:
        try:
            settings.ccache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise errors.not_writable(str(settings.ccache), "The ccache directory", str(error.strerror)) from error


def _limits(engine: Engine, settings: Settings) -> Limits:
    """The engine's limits for the settings.

    More CPUs than there are would be refused: a package's configuration is shared by machines of many sizes. Swap can
    only be limited together with memory ("You should always set the memory limit when using memory-swap"), so without a
    limit of its own memory is limited to all of it.
    """
    capabilities = engine.capabilities
    cpus, memory, total = settings.cpus, settings.memory, None
    if cpus is not None and capabilities.cpus:
        cpus = min(cpus, Decimal(capabilities.cpus))
    if settings.swap is not None:
        memory = memory or capabilities.memory or None
        total = None if memory is None else memory + settings.swap
    return Limits(cpus, memory, total)
