"""How a container sees the host: its working directory, environment, mounts, and the user it works as.

The one place that decides this, for both generations of image. The recipe does not know the difference.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path

from nerves_docker_port import errors, scripts
from nerves_docker_port.engine.client import Engine
from nerves_docker_port.engine.container import Limits, Mount, Spec
from nerves_docker_port.image.ensure import Image
from nerves_docker_port.request.request import Generation, Request, container_path
from nerves_docker_port.request.settings import Settings
from nerves_docker_port.volume.build_volume import labels_of
from nerves_docker_port.volume.lock import container_labels, session_name
from nerves_docker_port.volume.steps import Step, to_words

PLATFORM = "/nerves/env/platform"
DOWNLOADS = "/nerves/dl"
HOME = "/home/nerves"
SSH = "/nerves/ssh"
SSH_AGENT = "/nerves/ssh-agent.sock"


@dataclass(frozen=True)
class Workspace:
    """One package's way into containers of one image."""

    request: Request
    image: Image
    generation: Generation
    volume: str
    uid: int
    gid: int
    """Of the caller as the containers see them: 0 with a rootless engine, whose root is the caller."""
    limits: Limits = field(default_factory=Limits)
    proxies: Mapping[str, str] = field(default_factory=dict)
    """The proxy variables that ``docker run`` would give a container."""

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

    def session(self, flow: str, steps: Sequence[Step], token: str) -> Spec:
        """The container that runs ``steps``, and later ones, as the build user. ``flow`` is what it is for."""
        below = [*_bash("steps", scripts.text("steps.sh")), token, *to_words(steps)]
        return self._spec(flow, below, token)

    def shell(self, console: tuple[int, int], token: str) -> Spec:
        """The container with a shell in the build directory, at a terminal of so many rows and columns."""
        words = [f"{PLATFORM}/create-build.sh", self.defconfig, self.workdir]
        below = [*_bash("shell", scripts.text("shell.sh")), *words]
        return replace(self._spec("shell", below, token), console=console)

    @property
    def input_dirs(self) -> list[str]:
        """The directories in the container, the build directory aside, that `make system` may read."""
        configured = [mount.target for mount in self.request.settings.mounts]
        return [self.package_dir, PLATFORM, *configured]

    def probe(self, token: str) -> Path:
        """The file on the host that scripts/become_caller.sh may make in the package's directory."""
        return self.request.package.path / f".nerves-owner-{token}"

    def _spec(self, flow: str, below: Sequence[str], token: str) -> Spec:
        caller = (str(self.uid), str(self.gid))
        if self.makes_user:
            prepare = [*_bash("prepare", scripts.text("give_ssh.sh", "give_workdir.sh")), *caller]
        else:
            prepare = [*_bash("prepare", scripts.text("give_ssh.sh", "become_caller.sh"))]
            prepare += [token, *caller, self.package_dir]
        return Spec(
            name=session_name(self.volume),
            image=self.image.id,
            entrypoint=[*_bash("session", scripts.text("session.sh")), token, str(self.request.settings.patience)],
            command=[*prepare, *self.image.entrypoint, *below],
            workdir=self.workdir,
            env=self._env(self.uid, self.gid),
            mounts=[*self._mounts(), *self._ssh_mounts(), *self._configured_mounts()],
            labels=container_labels(self.volume, flow),
            limits=self.limits,
            network=self.request.settings.network,
            host_config=self.request.settings.host_config,
        )

    def _env(self, uid: int, gid: int) -> list[str]:
        settings = self.request.settings
        env = {"UID": str(uid), "GID": str(gid), "TERM": self.request.term, "NERVES_BR_DL_DIR": DOWNLOADS}
        if settings.ssh_agent is not None:
            env["SSH_AUTH_SOCK"] = SSH_AGENT
        # A setting may say another TERM; of the others it cannot (settings.py).
        return [f"{name}={value}" for name, value in {**self.proxies, **env, **settings.env}.items()]

    def _mounts(self) -> list[Mount]:
        return [
            # A `clean` may remove the volume in the moment before the container holds it. The engine makes it again.
            Mount("volume", self.volume, self.workdir, labels=labels_of(self.volume, self.request.package)),
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


def open_workspace(engine: Engine, request: Request, image: Image, volume: str) -> Workspace:
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
        uid=0 if rootless else request.uid,
        gid=0 if rootless else request.gid,
        limits=_limits(engine, request.settings),
        proxies=engine.proxy_environment(request.settings.env),
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


def _bash(name: str, program: str) -> list[str]:
    """The words that run a program of ours; its arguments follow. bash is in every builder image (steps.sh)."""
    return ["/bin/bash", "-c", program, f"nerves-docker-port-{name}"]
