"""The engine: one that already answers, or a private one that runs as long as a process uses it.

A private engine is a `dockerd` with its own socket, data root, exec root and containerd. So it shares nothing with an
engine that the machine may have. A *supervisor*, which is a small separate process, starts `dockerd`, and stops it
when the last user has ended. A user is a process that holds a shared lock on one file. The kernel releases the lock
when the process ends for any reason. So a run that was killed leaves no engine behind, and no run stops an engine that
another run still uses. Engines of other kinds (`integration/kinds.py`) run in the same way, each in places of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from integration.host import (
    WorldError,
    apt_install,
    cache_dir,
    descendants,
    has_apt,
    is_root,
    locked,
    process_start,
    processes_of,
    say,
    unmount,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEFAULT_HOST = "unix:///var/run/docker.sock"
START_SECONDS = 90.0
STOP_SECONDS = 30.0
SWEEP_SECONDS = 5.0
# dockerd and the programs that it starts. `sweep` only ends those with our own runtime directory in their arguments.
ENGINE_PROGRAMS = ("dockerd", "containerd", "containerd-shim", "containerd-shim-runc-v2", "docker-proxy")
PR_SET_PDEATHSIG = 1  # from <linux/prctl.h>


# --- talking to an engine -------------------------------------------------------------------------------------------


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Api:
    """A client for the calls of the Engine API that are needed here. It uses only the standard library."""

    def __init__(self, host: str) -> None:
        """`host` is a value of DOCKER_HOST: `unix://...`, or `tcp://...` without TLS."""
        self.host = host

    def request(
        self, method: str, path: str, *, body: bytes | IO[bytes] | None = None, timeout: float = 600.0
    ) -> tuple[int, bytes]:
        """Make one call; return the status and the body. Raises `OSError` or `HTTPException` if there is no answer."""
        headers = {"Content-Type": "application/x-tar"} if body is not None else {}
        connection = self._connection(timeout)
        try:
            connection.request(method, path, body=body, headers=headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def events(self, path: str, *, body: bytes | IO[bytes], what: str) -> list[dict[str, Any]]:
        """POST a request that is answered by JSON lines; return them. Raises `WorldError` if one is an error."""
        status, answer = self.request("POST", path, body=body)
        lines = [json.loads(line) for line in answer.splitlines() if line.strip()]
        errors = [line.get("error") or line.get("message") for line in lines if "error" in line or status >= 400]
        if errors:
            said = "".join(str(line.get("stream", "")) for line in lines)[-2000:]
            raise WorldError(f"the engine could not {what}: {errors[-1]}\n{said}".rstrip())
        return lines

    def json(self, path: str) -> Any:
        """GET `path`; return the JSON value, or `None` for status 404. Raises `WorldError` for any other error."""
        status, answer = self.request("GET", path)
        if status == 404:
            return None
        if status != 200:
            raise WorldError(f"the engine answered {status} to {path}: {answer.decode(errors='replace').strip()}")
        return json.loads(answer)

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        parts = urllib.parse.urlsplit(self.host)
        if parts.scheme == "unix":
            return _UnixConnection(urllib.parse.unquote(parts.path), timeout)
        if parts.scheme in ("tcp", "http") and parts.hostname and not os.environ.get("DOCKER_TLS_VERIFY"):
            return http.client.HTTPConnection(parts.hostname, parts.port or 2375, timeout=timeout)
        raise WorldError(f"the tests can use an engine at unix:// or plain tcp://, not at {self.host}")


def answers(host: str, timeout: float = 5.0) -> bool:
    """Return whether an engine answers at the endpoint `host` within `timeout` seconds."""
    try:
        status, _ = Api(host).request("GET", "/_ping", timeout=timeout)
    except (OSError, http.client.HTTPException):
        return False
    return status == 200


def configured_host() -> str:
    """Return the endpoint that the docker CLI would use: DOCKER_HOST, the current context, or the default socket."""
    if host := os.environ.get("DOCKER_HOST"):
        return host
    config = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        context = os.environ.get("DOCKER_CONTEXT") or json.loads((config / "config.json").read_text())["currentContext"]
        # The CLI names a context's directory after the SHA-256 of the context's name.
        directory = config / "contexts" / "meta" / hashlib.sha256(context.encode()).hexdigest()
        return str(json.loads((directory / "meta.json").read_text())["Endpoints"]["docker"]["Host"])
    except (OSError, ValueError, KeyError):
        return DEFAULT_HOST


# --- the private engine, for its users ------------------------------------------------------------------------------

_supervisors: list[subprocess.Popen[bytes]] = []
"""The supervisors that this process has started. Python warns if a running child has no reference any more."""


@dataclass(frozen=True)
class Places:
    """The files and directories of one private engine."""

    cache: Path
    run: Path
    kind: str = ""
    """A key of `integration.kinds.KINDS`; empty for the engine that is started if no engine answers."""

    @property
    def host(self) -> str:
        """The endpoint, for DOCKER_HOST."""
        return f"unix://{self.run}/docker.sock"

    @property
    def data(self) -> Path:
        """The data root of dockerd: images, volumes, containers."""
        return self.cache / "data"

    @property
    def users(self) -> Path:
        """The file on which every user holds a shared lock."""
        return self.cache / "users.lock"

    @property
    def keep(self) -> Path:
        """This file exists while the engine has to run without users, because a developer has started it."""
        return self.cache / "keep"

    @property
    def state(self) -> Path:
        """The pid and the start time of the supervisor, written when the engine answers."""
        return self.run / "state.json"

    @property
    def stopping(self) -> Path:
        """The supervisor makes this file when it has decided to stop."""
        return self.run / "stopping"

    @property
    def log(self) -> Path:
        """The output of dockerd and the supervisor."""
        return self.cache / "engine.log"


def places(kind: str = "") -> Places:
    """Return the paths of a private engine. The paths of sockets are short, because at most 107 bytes are allowed.

    The limit is documented in unix(7).
    """
    cache = cache_dir() / (f"engine-{kind}" if kind else "engine")
    cache.mkdir(exist_ok=True)
    name = "ndp-" + hashlib.sha256(str(cache).encode()).hexdigest()[:8]
    base = Path("/run") if os.access("/run", os.W_OK) else Path("/tmp")
    return Places(cache=cache, run=base / name, kind=kind)


def supervisor(where: Places) -> int | None:
    """Return the pid of the engine's supervisor, or `None` if the engine does not run."""
    try:
        state = json.loads(where.state.read_text())
    except (OSError, ValueError):
        return None
    pid = int(state["pid"])
    return pid if process_start(pid) == state["started"] else None


def variables(where: Places) -> dict[str, str]:
    """Return the environment variables that lead the docker CLI, and the helper, to the running engine."""
    return dict(json.loads(where.state.read_text())["variables"])


@contextlib.contextmanager
def engine() -> Iterator[str]:
    """Provide an engine while the block runs; yields its endpoint, for DOCKER_HOST."""
    if _foreign_engine_answers():
        yield configured_host()
        return
    install_engine()
    if _foreign_engine_answers():  # with systemd, the installation of the package starts an engine
        yield configured_host()
        return
    with private_engine(places()) as where:
        yield where.host


def _foreign_engine_answers() -> bool:
    host = configured_host()
    return host != places().host and answers(host)


@contextlib.contextmanager
def private_engine(where: Places) -> Iterator[Places]:
    """Provide the private engine of these places while the block runs. Its programs must be installed."""
    with where.users.open("w") as users:
        # This waits for a supervisor that is about to stop, because it holds the lock exclusively.
        fcntl.flock(users, fcntl.LOCK_SH)
        _start_supervisor(where)
        try:
            yield where
        finally:
            pid = supervisor(where)
            fcntl.flock(users, fcntl.LOCK_UN)
            _wait_for_stop(where, pid)


def keep(where: Places) -> None:
    """Start the private engine, and keep it running until `stop` is called."""
    with where.users.open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        where.keep.touch()
        _start_supervisor(where)


def stop(where: Places, *, now: bool = False) -> bool:
    """Let the private engine stop when its last user has ended, or at once with `now`. Return whether it still runs."""
    where.keep.unlink(missing_ok=True)
    pid = supervisor(where)
    if pid is None:
        with locked(f"{where.cache.name}-start"):
            if supervisor(where) is None and where.run.exists():
                sweep(where)  # its supervisor was killed
        return False
    if now:
        os.kill(pid, signal.SIGTERM)
        _wait_for_end(where, pid)
    else:
        _wait_for_stop(where, pid)
    return process_start(pid) is not None


def install_engine() -> None:
    """Make sure that `dockerd` is installed. Raises `WorldError` if that is not possible."""
    if shutil.which("dockerd") and shutil.which("iptables"):
        if is_root():
            return
        raise WorldError("no engine answers. Start docker, or run this as root: then it starts one of its own.")
    if not (has_apt() and is_root()):
        raise WorldError(
            "no engine answers and none can be started here. Start Docker (or podman with its API socket) and let "
            "DOCKER_HOST name it; on Debian, run this as root and it installs and starts an engine of its own."
        )
    apt_install(["docker.io", "iptables"], "no engine answers")


def _start_supervisor(where: Places) -> None:
    """Start a supervisor if none runs, and wait until the engine answers. The caller must hold the users' lock."""
    with locked(f"{where.cache.name}-start"):
        if supervisor(where) is not None:
            return
        say(f"starting {where.kind or 'a private engine'}")
        where.cache.mkdir(parents=True, exist_ok=True)
        with where.log.open("wb") as log:
            child = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("world.py")), "supervise", where.kind],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        _supervisors.append(child)
        deadline = time.monotonic() + START_SECONDS
        while supervisor(where) is None:
            if child.poll() is not None or time.monotonic() > deadline:
                child.terminate()
                end = "\n".join(where.log.read_text(errors="replace").splitlines()[-15:])
                raise WorldError(f"{where.kind or 'dockerd'} does not come up:\n{end}\n(all of it is in {where.log})")
            time.sleep(0.05)


def _wait_for_stop(where: Places, pid: int | None) -> None:
    """Wait until the engine has ended, unless others use it. A CI job may hang if a daemon still runs at its end."""
    if pid is None:
        return
    deadline = time.monotonic() + 3.0
    while process_start(pid) is not None:
        if where.stopping.exists():
            _wait_for_end(where, pid)
            return
        if where.keep.exists() or time.monotonic() > deadline:
            return
        time.sleep(0.05)


def _wait_for_end(where: Places, pid: int) -> None:
    deadline = time.monotonic() + 2 * STOP_SECONDS
    while process_start(pid) is not None:
        if time.monotonic() > deadline:
            raise WorldError(f"the engine's supervisor (pid {pid}) does not end; see {where.log}")
        time.sleep(0.05)


# --- the supervisor -------------------------------------------------------------------------------------------------


@dataclass
class Started:
    """An engine that a supervisor has started."""

    daemon: subprocess.Popen[bytes]
    variables: dict[str, str]
    """The environment variables that lead the docker CLI, and the helper, to the engine."""
    owner: int | None = None
    """The uid that will own the engine's socket; `None` if root owns it."""
    process: int | None = None
    """The pid of the process that gets SIGTERM at the end; `None` for `daemon` itself."""


def supervise(where: Places, start: Callable[[Places], Started]) -> int:
    """Run an engine until it has no user, a signal arrives, or it ends by itself (then the exit status is 1)."""
    received_signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: received_signals.append(received))
    sweep(where)
    where.run.mkdir(mode=0o755, parents=True)
    started = start(where)
    failed = False
    with where.users.open("w") as users:
        try:
            while not received_signals and not _unused(where, users):
                if started.daemon.poll() is not None:
                    failed = True
                    break
                if not where.state.exists() and answers(where.host, timeout=1.0):
                    if started.owner is not None:
                        os.chown(where.host.removeprefix("unix://"), started.owner, started.owner)
                    _write_state(where, started.variables)
                time.sleep(0.1)
            where.stopping.touch()
        finally:
            end(started.daemon, started.process)
            sweep(where)
    return 1 if failed else 0


def _unused(where: Places, users: IO[str]) -> bool:
    """Return whether nobody holds the users' lock.

    If so, this process holds it now, and a new user waits until this process has ended.
    """
    if where.keep.exists():
        return False
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write_state(where: Places, variables: dict[str, str]) -> None:
    pid = os.getpid()
    new = where.state.with_suffix(".new")
    new.write_text(json.dumps({"pid": pid, "started": process_start(pid), "variables": variables}))
    new.replace(where.state)


def dockerd_command(where: Places) -> list[str]:
    """Return the command line of a `dockerd` that uses only the places `where` and shares nothing with another one."""
    return [
        "dockerd",
        f"--host={where.host}",
        f"--data-root={where.data}",
        f"--exec-root={where.run}/exec",
        f"--pidfile={where.run}/docker.pid",
        # dockerd may use a containerd that the machine already runs. Our own namespaces keep the two apart.
        f"--containerd-namespace={where.run.name}",
        f"--containerd-plugins-namespace={where.run.name}-plugins",
        # No bridge and no packet filter rules: no test needs the network of a container, the addresses of a bridge can
        # conflict with the machine's, and rules would remain after the engine has stopped. `--network host` works.
        "--bridge=none",
        "--iptables=false",
        "--ip6tables=false",
        "--ip-forward=false",
        "--ip-masq=false",
        "--shutdown-timeout=5",
    ]


def start_dockerd(where: Places) -> Started:
    """Start the private `dockerd`. It writes to the standard output and error of this process."""
    forget_networks(where.data)
    daemon = subprocess.Popen(
        dockerd_command(where),
        stdin=subprocess.DEVNULL,
        stdout=sys.stdout.fileno(),
        stderr=sys.stderr.fileno(),
        preexec_fn=die_with_parent,  # noqa: PLW1509 - this process has one thread
    )
    return Started(daemon, {"DOCKER_HOST": where.host})


def forget_networks(data: Path) -> None:
    """Remove the records of networks below the data root of a `dockerd` that does not run.

    dockerd 20.10 keeps a record for every container that ever ran without a network, and needs a tenth of a second for
    each record when it starts. After a run of the tests that takes minutes. The file can be removed, because dockerd
    makes our networks again at every start.
    """
    for file in (data / "network", *data.glob("*.*/network")):  # with --userns-remap, the directory of the mapped ids
        (file / "files" / "local-kv.db").unlink(missing_ok=True)


def die_with_parent(number: signal.Signals = signal.SIGTERM) -> None:
    """Make the kernel send this process the signal when its parent ends for any reason.

    A child calls this before it runs its program.
    """
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number)


def end(daemon: subprocess.Popen[bytes], process: int | None = None) -> None:
    """Stop a daemon, and wait for its end. `process` is the pid that gets SIGTERM, if it is not the daemon itself."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process or daemon.pid, signal.SIGTERM)
    try:
        daemon.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def sweep(where: Places) -> None:
    """Remove the runtime directory of a private engine that has ended, and processes and mounts if it was killed."""
    left = processes_of(where.run, ENGINE_PROGRAMS)
    left += [one for pid in left for one in descendants(pid)]  # a container goes on running after its shim was killed
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + SWEEP_SECONDS
        while left and time.monotonic() < deadline:
            time.sleep(0.1)
            left = [pid for pid in left if process_start(pid) is not None]
    unmount(where.run)
    unmount(where.data)
    shutil.rmtree(where.run, ignore_errors=True)
