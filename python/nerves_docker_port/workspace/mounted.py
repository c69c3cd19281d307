"""How a container sees the host: its working directory, environment, mounts, and the user that its steps run as.

This module has the workspace that mounts the host's directories, for both generations of image. For an engine that
cannot see these directories, ``copied.py`` has a subclass that overrides what is different there. The flows use both
in the same way.
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
"""The ccache directory's name in the build user's home, where Buildroot expects it (BR2_CCACHE_DIR)."""
CLEAN = ("/usr/bin/env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
"""The words before a program of ours in a container, so that it gets no variable of the image or of the settings."""
_FIRST = f"{STATE}/environment"
"""The file with the environment of the container's first program, for the program that prepares the container."""
_BELOW = f"{STATE}/tmp/environment"
"""The file with the environment that the steps get: that of the first program, as the image's entrypoint changed it."""


@dataclass(frozen=True)
class Workspace:
    """What the containers of one package and one image get: user, environment, mounts, programs and limits."""

    request: Request
    image: Image
    generation: Generation
    volume: str
    uid: int
    gid: int
    """The caller's uid and gid in the containers. Both are 0 with a rootless engine, whose root is the caller."""
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
        """Whether the image's entrypoint makes the caller's user from `UID` and `GID`, as images up to 1.27 do."""
        return self.generation.entrypoint_makes_user and bool(self.image.entrypoint)

    def session(self, flow: str, steps: Sequence[Step], final: Step | None, token: str) -> Spec:
        """Return the container of a session that runs ``steps``, and later ones, as the build user.

        ``flow`` names the flow in the container's labels. ``final`` is the step that ``Session.finish`` runs.
        """
        below = [*bash("steps", "environment.sh", "kills.sh", "steps.sh"), *to_arguments(token, steps, final)]
        return self._spec(flow, below, token)

    def shell(self, console: tuple[int, int], token: str) -> Spec:
        """Return the container of a shell in the build directory. ``console`` is the terminal's rows and columns."""
        shell = [*bash("shell", "environment.sh", "shell.sh"), *self.create_build.command]
        return replace(self._spec("shell", self._at_terminal(shell, token), token), console=console)

    def command(self, words: Sequence[str], console: tuple[int, int], token: str) -> Spec:
        """Return the container of the command ``words``. ``console`` is the terminal's rows and columns."""
        run = [*bash("run", "environment.sh", "kills.sh", "run.sh"), token, *self.create_build.command, *words]
        return replace(self._spec("run", self._at_terminal(run, token), token), console=console)

    def reading(self, token: str) -> Spec:
        """Return the container through which the build directory is read.

        It mounts only the build volume, and its steps run as root.
        """
        # `_prepare` is not called: it would read the package on the host.
        spec = self._container("copy", (), token)
        steps = [*bash("read", "say.sh", "here.sh"), token, *_keep_environment(_BELOW)]
        steps += bash("steps", "environment.sh", "kills.sh", "steps.sh")
        steps += to_arguments(token, (), None)
        return replace(spec, command=steps, mounts=spec.mounts[:1], env=(), network=None, networked=False)

    @property
    def create_build(self) -> Step:
        """The step that prepares the build directory."""
        return Step("create_build", [f"{PLATFORM}/{CREATE_BUILD}", self.defconfig, self.workdir])

    def _at_terminal(self, program: list[str], _token: str) -> list[str]:
        """Return the words of the command that runs ``program`` at a session's terminal."""
        return program

    @property
    def input_dirs(self) -> list[str]:
        """The directories in the container that `make system` may read, without the build directory."""
        configured = [mount.target for mount in self.request.settings.mounts]
        return [self.package_dir, PLATFORM, *configured]

    def questions(
        self, engine: Engine, token: str, tell: Callable[[str], None], _cancellation: Cancellation
    ) -> Questions:
        """Return the functions that answer the scripts of the session with this ``token``.

        A function calls ``tell`` with each warning for the user.
        """

        def elsewhere(_container: str, _asked: str) -> None:
            raise errors.other_directory(str(self.request.package.path))

        return {
            "owner": lambda made, _asked: self._answer_owner(engine, made, token),
            "elsewhere": elsewhere,
            **cache.questions(engine, self.request.settings, tell),
        }

    def bringing_back(self, _token: str) -> list[Step]:
        """Return the steps that bring changes of the package's directory to the host.

        There are none here, because the container writes to the host's own directory.
        """
        return []

    def is_current(self) -> bool:
        """Return whether a session sees the package's and the platform's directories as they are on the host now."""
        return True

    def _answer_owner(self, engine: Engine, made: str, token: str) -> None:
        """Tell the container which user the build must have.

        The container has made a file as the image's own user (become_caller.sh). If that file belongs to the caller
        on the host, the image's own user can stay. Otherwise that user must get the caller's uid and gid.
        """
        probe = self.request.package.path / f".nerves-owner-{token}"
        # A file that this process makes in the same directory shows what the caller's owner is there.
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
        """Return the words of the program that prepares the container as root and then becomes the build user."""
        look = [token, *self._recognised()]
        caller = [str(self.uid), str(self.gid)]
        if self.makes_user:
            return [
                *bash("prepare", "say.sh", "look.sh", "give_ssh.sh", "environment.sh", "give_workdir.sh"),
                *look,
                *caller,
            ]
        become = [token, *caller, self.package_dir]
        return [
            *bash("prepare", "say.sh", "look.sh", "give_ssh.sh", "environment.sh", "become_caller.sh"),
            *look,
            *become,
        ]

    def _recognised(self) -> list[str]:
        """Return the arguments by which scripts/look.sh recognises the host's directories.

        These are the path of the id file in the container, its content, and the path of a file of the platform. All
        three are empty if there is no id file that the container could see.
        """
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
        # The entrypoint may change the environment. Without one, become_caller.sh has saved it.
        entrypoint = [*self.image.entrypoint, *_keep_environment(_BELOW)] if self.image.entrypoint else []
        return self._container(flow, [*self._prepare(token), *entrypoint, *below], token)

    def _container(self, flow: str, command: Sequence[str], token: str) -> Spec:
        """Return the container of a session whose script runs ``command``."""
        patience = str(self.request.settings.patience)
        return Spec(
            name=session_name(self.volume),
            image=self.image.id,
            entrypoint=[*_keep_environment(_FIRST), *bash("session", "kills.sh", "session.sh"), token, patience],
            command=command,
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
        ccache = cache.environment(settings, self.ccache_dir)
        # The setting `env` may replace TERM. settings.py refuses the other names.
        return [f"{name}={value}" for name, value in {**self.proxies, **env, **ccache, **settings.env}.items()]

    @property
    def ccache_dir(self) -> str:
        """The directory of the compile cache in the container."""
        return posixpath.join(self.home, CCACHE)

    def _mounts(self) -> list[Mount]:
        return [
            # `clean` may remove the volume just before this container uses it. The engine then makes it again, so the
            # labels of the volume are given here, too.
            Mount("volume", self.volume, self.workdir, labels=labels_of(self.volume, self.request.package)),
            Mount("bind", str(self.request.names.download_dir), DOWNLOADS),
            Mount("bind", str(self.request.package.path), self.package_dir),
            Mount("bind", str(self.request.platform.path), PLATFORM),
        ]

    def _ssh_mounts(self) -> list[Mount]:
        """Return the mounts of the caller's ssh keys or agent. Many a CI machine has no keys."""
        settings = self.request.settings
        directory = self.request.home / ".ssh"
        if settings.ssh == "dir":
            return [Mount("bind", str(directory), SSH, read_only=True)] if directory.is_dir() else []
        if settings.ssh_agent is None:
            return []
        mounts = [Mount("bind", str(settings.ssh_agent), SSH_AGENT)]
        # Without known_hosts, ssh would ask whether to trust a host's key, and nobody could answer.
        known_hosts = directory / "known_hosts"
        if known_hosts.is_file():
            mounts.append(Mount("bind", str(known_hosts), posixpath.join(SSH, "known_hosts"), read_only=True))
        return mounts

    def _configured_mounts(self) -> list[Mount]:
        settings = self.request.settings
        mounts = [Mount("bind", str(mount.source), mount.target, mount.read_only) for mount in settings.mounts]
        if settings.ccache is not None:
            mounts.append(Mount("bind", str(settings.ccache), self.ccache_dir))
        return mounts


def limits(engine: Engine, settings: Settings) -> Limits:
    """Return the limits of a container for these settings.

    The engine refuses more CPUs than it has. Machines of many sizes share a package's configuration, so the number is
    reduced to what the engine has. Docker limits swap only together with memory ("You should always set the memory
    limit when using memory-swap"), so if only swap is configured, memory is limited to all memory of the engine.
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
    """Return the words of a command that runs the scripts ``files`` one after the other. The arguments follow them.

    ``name`` is part of the name that the process list shows. bash is in every builder image (steps.sh). The scripts get
    none of the variables of the container (scripts/keep_environment.sh).
    """
    return [*CLEAN, "/bin/bash", "-c", scripts.text(*files), f"nerves-docker-port-{name}"]


def shown(command: Sequence[str]) -> Sequence[str]:
    """Return the words of a command as a user may see them: if it is the result of ``bash``, from its name on."""
    ours = len(CLEAN)
    return command[ours + 3 :] if tuple(command[:ours]) == CLEAN else command


def _keep_environment(file: str) -> list[str]:
    """Return the words of a program that saves its environment in ``file`` and then runs the words that follow."""
    return ["/bin/bash", "-p", "-c", scripts.text("keep_environment.sh"), "nerves-docker-port-environment", file]
