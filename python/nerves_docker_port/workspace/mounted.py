"""How a container sees the host: its working directory, environment, mounts, and the user it works as.

This is the workspace with the host's directories mounted, for both generations of image. ``copied`` has the one for an
engine that does not see them, and overrides what is different there. The recipe does not know which one it has.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal

from nerves_docker_port import errors, scripts
from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine import container
from nerves_docker_port.engine.client import Engine
from nerves_docker_port.engine.container import Limits, Mount, Spec
from nerves_docker_port.image.ensure import Image
from nerves_docker_port.request.request import Generation, Request, container_path
from nerves_docker_port.request.settings import Settings
from nerves_docker_port.volume.build_volume import ID_FILE, labels_of
from nerves_docker_port.volume.lock import container_labels, session_name
from nerves_docker_port.volume.session import STATE, Questions
from nerves_docker_port.volume.steps import Step, to_arguments
from nerves_docker_port.workspace import cache

PLATFORM = "/nerves/env/platform"
DOWNLOADS = "/nerves/dl"
HOME = "/home/nerves"
SSH = "/nerves/ssh"
SSH_AGENT = "/nerves/ssh-agent.sock"
CREATE_BUILD = "create-build.sh"
CCACHE = ".buildroot-ccache"
"""In the build user's home, where Buildroot looks for it (BR2_CCACHE_DIR)."""


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
    def is_copy(self) -> bool:
        """Whether containers get copies of the host's directories, and not the directories themselves."""
        return False

    @property
    def user(self) -> str:
        """The build user as the engine's API names it."""
        return f"{self.uid}:{self.gid}"

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

    def session(self, flow: str, steps: Sequence[Step], final: Step | None, token: str) -> Spec:
        """The container that runs ``steps``, and later ones, as the build user. ``flow`` is what it is for.

        ``final`` is the step that ``Session.finish`` runs.
        """
        below = [*bash("steps", "steps.sh"), *to_arguments(token, steps, final)]
        return self._spec(flow, below, token)

    def shell(self, console: tuple[int, int], token: str) -> Spec:
        """The container with a shell in the build directory, at a terminal of so many rows and columns."""
        shell = [*bash("shell", "shell.sh"), *self.create_build.command]
        return replace(self._spec("shell", self._at_terminal(shell, token), token), console=console)

    def command(self, words: Sequence[str], console: tuple[int, int], token: str) -> Spec:
        """The container with one command in the build directory, at a terminal of so many rows and columns."""
        run = [*bash("run", "run.sh"), token, *self.create_build.command, *words]
        return replace(self._spec("run", self._at_terminal(run, token), token), console=console)

    def reading(self, token: str) -> Spec:
        """The container through which the build directory is read: it sees nothing else, and its steps run as root."""
        spec = self._spec("copy", (), token)
        steps = [*bash("read", "say.sh", "here.sh"), token, *bash("steps", "steps.sh")]
        steps += to_arguments(token, (), None)
        return replace(spec, command=steps, mounts=spec.mounts[:1], env=())

    @property
    def create_build(self) -> Step:
        """The step that prepares the build directory."""
        return Step("create_build", [f"{PLATFORM}/{CREATE_BUILD}", self.defconfig, self.workdir])

    def _at_terminal(self, program: list[str], _token: str) -> list[str]:
        """The words of the program at a session's terminal, which runs ``program``."""
        return program

    @property
    def input_dirs(self) -> list[str]:
        """The directories in the container, the build directory aside, that `make system` may read."""
        configured = [mount.target for mount in self.request.settings.mounts]
        return [self.package_dir, PLATFORM, *configured]

    def questions(
        self, engine: Engine, token: str, tell: Callable[[str], None], _cancellation: Cancellation
    ) -> Questions:
        """What answers the scripts of a session with this ``token``; ``tell`` gets warnings."""

        def elsewhere(_container: str, _asked: str) -> None:
            raise errors.other_directory(str(self.request.package.path))

        return {
            "owner": lambda made, _asked: self._answer_owner(engine, made, token),
            "elsewhere": elsewhere,
            **cache.questions(engine, self.request.settings, tell),
        }

    def bringing_back(self, _token: str) -> list[Step]:
        """The steps that bring what was changed in the package's directory to the host: here, it is there already."""
        return []

    def is_current(self) -> bool:
        """Whether a session sees the package's and the platform's directories as they are on the host now."""
        return True

    def _answer_owner(self, engine: Engine, made: str, token: str) -> None:
        """The container asks whom the file belongs to that it has made as the image's own user (become_caller.sh)."""
        probe = self.request.package.path / f".nerves-owner-{token}"
        # The owner of what this process makes there.
        own = probe.with_name(f"{probe.name}-caller")
        own.touch()
        try:
            answer = "image" if probe.stat().st_uid == own.stat().st_uid else "caller"
        except OSError:
            answer = "caller"
        finally:
            own.unlink()
        with suppress(OSError):
            probe.unlink()
        container.put_file(engine, made, f"{STATE}/owner", f"{answer}\n".encode())

    def _prepare(self, token: str) -> list[str]:
        """The words of the program that prepares the container, as root, and then becomes the build user."""
        look = [token, *self._recognised()]
        caller = [str(self.uid), str(self.gid)]
        if self.makes_user:
            return [*bash("prepare", "say.sh", "look.sh", "give_ssh.sh", "give_workdir.sh"), *look, *caller]
        become = [token, *caller, self.package_dir]
        return [*bash("prepare", "say.sh", "look.sh", "give_ssh.sh", "become_caller.sh"), *look, *become]

    def _recognised(self) -> list[str]:
        """What scripts/look.sh recognises the host's directories by."""
        id_file, package = self.request.names.build_path / ID_FILE, self.request.package.path
        if not id_file.is_relative_to(package):
            return ["", "", ""]
        inside = container_path(self.package_dir, id_file.relative_to(package).as_posix())
        try:
            content = id_file.read_text(errors="replace").strip()
        except OSError:
            return ["", "", ""]
        script = CREATE_BUILD if (self.request.platform.path / CREATE_BUILD).is_file() else ""
        return [inside, content, script and container_path(PLATFORM, script)]

    def _spec(self, flow: str, below: Sequence[str], token: str) -> Spec:
        if self.request.settings.remote_cache is not None:
            below = [*bash("ccache", "say.sh", "ccache.sh"), token, *below]
        return Spec(
            name=session_name(self.volume),
            image=self.image.id,
            entrypoint=[*bash("session", "session.sh"), token, str(self.request.settings.patience)],
            command=[*self._prepare(token), *self.image.entrypoint, *below],
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
        return [
            f"{name}={value}"
            for name, value in {**self.proxies, **env, **cache.environment(settings), **settings.env}.items()
        ]

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
            mounts.append(Mount("bind", str(settings.ccache), posixpath.join(self.home, CCACHE)))
        return mounts


def limits(engine: Engine, settings: Settings) -> Limits:
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


def bash(name: str, *files: str) -> list[str]:
    """The words that run a program of ours, of these scripts one after the other; its arguments follow.

    bash is in every builder image (steps.sh).
    """
    return ["/bin/bash", "-c", scripts.text(*files), f"nerves-docker-port-{name}"]
