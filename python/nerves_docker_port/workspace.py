"""How a step sees the host: its working directory, environment, mounts, and the user it works as.

The one place that decides this, for both generations of image (CONTRACT 1). The recipe does not know the difference.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

from nerves_docker_port.container import Mount, Spec
from nerves_docker_port.engine import Engine
from nerves_docker_port.image import Image
from nerves_docker_port.request import Generation, Request, container_path
from nerves_docker_port.volume import container_labels

PLATFORM = "/nerves/env/platform"
DOWNLOADS = "/nerves/dl"
HOME = "/home/nerves"

# Runs as root before the step's command, then becomes the person who ran Mix. Arguments: uid, gid, the command.
#
# The image's user `nerves` has a uid of its own (1005 from nerves_system_br 1.28.1 on), and that user may not
# write anybody else's package directory (nerves #402). It keeps its name, home and sudo rule, but gets the uid and
# gid of the caller. Its entries go first: an image may already have a user with that uid (Ubuntu's have `ubuntu`,
# 1000), and a look-up by uid takes the first. Not `usermod`: it walks the whole home, the build tree included.
_BECOME_CALLER = r"""
set -e
uid=$1 gid=$2; shift 2
home=/home/nerves
if [ "$(id -u nerves 2>/dev/null):$(id -g nerves 2>/dev/null)" != "$uid:$gid" ]; then
  passwd=$(grep -v '^nerves:' /etc/passwd) || :
  group=$(grep -v '^nerves:' /etc/group) || :
  printf '%s\n' "nerves:x:$uid:$gid::$home:/bin/bash" "$passwd" > /etc/passwd
  printf '%s\n' "nerves:x:$gid:" "$group" > /etc/group
  mkdir -p "$home"
  find "$home" -xdev -path "$PWD" -prune -o ! -uid "$uid" -exec chown -h "$uid:$gid" {} + 2>/dev/null || :
fi
# The build tree is given over once, the top last: what is interrupted is taken up again by the next step.
[ "$(stat -c %u .)" = "$uid" ] || find . -xdev -depth ! -uid "$uid" -exec chown -h "$uid:$gid" {} +
# The output's pipes belong to root by now; `> /dev/stderr` opens them anew. By way of a copy of 2: while its own 2 goes
# elsewhere, so does (in dash) the shell's.
exec 8>&2
chown "$uid" "/proc/$$/fd/1" "/proc/$$/fd/8" 2>/dev/null || :
exec 8>&-
export HOME="$home"
# GNU tar's and coreutils' configure refuse to run as root without this.
[ "$uid" != 0 ] || export FORCE_UNSAFE_CONFIGURE=1
exec setpriv --reuid="$uid" --regid="$gid" --init-groups "$@"
"""


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

    @property
    def workdir(self) -> str:
        """The build directory in the container."""
        return self.generation.workdir

    @property
    def package_dir(self) -> str:
        """The package's directory in the container."""
        return container_path("/nerves/env", self.request.package.app)

    @property
    def defconfig(self) -> str:
        """The system's defconfig in the container."""
        return container_path(self.package_dir, self.request.package.defconfig)

    @property
    def chown_steps(self) -> bool:
        """Whether the volume goes to the user in a step of its own: an old image, its entrypoint makes the user."""
        return self.generation.chown_steps and bool(self.image.entrypoint)

    def step(self, name: str, command: Sequence[str]) -> Spec:
        """The container for one step of the build."""
        become = None
        if not self.chown_steps:
            become = (
                *("/bin/sh", "-c", _BECOME_CALLER, "nerves-docker-port"),
                *(str(self.uid), str(self.gid)),
                *self.image.entrypoint,
            )
        return self._spec(
            name,
            command,
            env=self._env(self.uid, self.gid),
            mounts=[*self._mounts(), *self._ssh_mount()],
            entrypoint=become,
            user=None if become is None else "0:0",
        )

    def chown_step(self) -> Spec:
        """The container that gives the build directory to the caller, as the stock runner does it for old images."""
        return self._spec(
            "chown",
            ["chown", f"{self.uid}:{self.gid}", self.workdir],
            env=self._env(0, 0),
            mounts=self._mounts(),
            entrypoint=None,
            user=None,
        )

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
        )

    def _env(self, uid: int, gid: int) -> list[str]:
        return [f"UID={uid}", f"GID={gid}", f"TERM={self.request.term}", f"NERVES_BR_DL_DIR={DOWNLOADS}"]

    def _mounts(self) -> list[Mount]:
        return [
            Mount("volume", self.volume, self.workdir),
            Mount("bind", str(self.request.names.download_dir), DOWNLOADS),
            Mount("bind", str(self.request.package.path), self.package_dir),
            Mount("bind", str(self.request.platform.path), PLATFORM),
        ]

    def _ssh_mount(self) -> list[Mount]:
        """The caller's ssh keys, where there are any: many a CI has none."""
        directory = self.request.home / ".ssh"
        return (
            [Mount("bind", str(directory), posixpath.join(HOME, ".ssh"), read_only=True)] if directory.is_dir() else []
        )


def open_workspace(engine: Engine, request: Request, image: Image, volume: str, session: str) -> Workspace:
    """The workspace for ``request`` on ``engine``."""
    rootless = engine.capabilities.rootless
    return Workspace(
        request=request,
        image=image,
        generation=request.platform.generation() or image.generation(),
        volume=volume,
        session=session,
        uid=0 if rootless else request.uid,
        gid=0 if rootless else request.gid,
    )
