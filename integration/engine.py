"""The engine: the one that answers here already, or a private one that lasts as long as somebody uses it.

A private engine is a `dockerd` of its own socket, data root, exec root and containerd, so that it shares nothing with
an engine that the machine may have. It belongs to a *supervisor*, a small process of its own: that starts `dockerd`,
and stops it when the last user is gone. Users hold a shared lock on one file; the lock goes with the process, however
that ends, so an engine is never left behind by a run that was killed, and one run never stops the engine under another.
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
    from collections.abc import Iterator

DEFAULT_HOST = "unix:///var/run/docker.sock"
START_SECONDS = 90.0
STOP_SECONDS = 30.0
SWEEP_SECONDS = 5.0
# What dockerd starts besides itself; only those with our own runtime directory in their arguments are ever touched.
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
    """As much of the Engine API as the world needs, spoken with the standard library."""

    def __init__(self, host: str) -> None:
        """`host` is what DOCKER_HOST would hold: `unix://...` or `tcp://...` without TLS."""
        self.host = host

    def request(
        self, method: str, path: str, *, body: bytes | IO[bytes] | None = None, timeout: float = 600.0
    ) -> tuple[int, bytes]:
        """One call; the status and the whole answer. Raises `OSError` or `HTTPException` when there is no answer."""
        headers = {"Content-Type": "application/x-tar"} if body is not None else {}
        connection = self._connection(timeout)
        try:
            connection.request(method, path, body=body, headers=headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def events(self, path: str, *, body: bytes | IO[bytes], what: str) -> list[dict[str, Any]]:
        """POST something that answers with a stream of JSON lines; an error among them becomes a `WorldError`."""
        status, answer = self.request("POST", path, body=body)
        lines = [json.loads(line) for line in answer.splitlines() if line.strip()]
        errors = [line.get("error") or line.get("message") for line in lines if "error" in line or status >= 400]
        if errors:
            said = "".join(str(line.get("stream", "")) for line in lines)[-2000:]
            raise WorldError(f"the engine could not {what}: {errors[-1]}\n{said}".rstrip())
        return lines

    def json(self, path: str) -> Any:
        """GET something; `None` when there is no such thing."""
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
    """Whether an engine answers at that endpoint."""
    try:
        status, _ = Api(host).request("GET", "/_ping", timeout=timeout)
    except (OSError, http.client.HTTPException):
        return False
    return status == 200


def configured_host() -> str:
    """The endpoint that the docker CLI would use: DOCKER_HOST, the current context's, or the default socket."""
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


# --- the private engine, seen by those who use it -------------------------------------------------------------------


@dataclass(frozen=True)
class Places:
    """Where the private engine of one cache directory keeps what."""

    cache: Path
    run: Path

    @property
    def host(self) -> str:
        """What DOCKER_HOST has to be."""
        return f"unix://{self.run}/docker.sock"

    @property
    def data(self) -> Path:
        """Images, volumes, containers."""
        return self.cache / "data"

    @property
    def users(self) -> Path:
        """Locked, shared, by every user."""
        return self.cache / "users.lock"

    @property
    def keep(self) -> Path:
        """There while a developer wants the engine to stay without users."""
        return self.cache / "keep"

    @property
    def state(self) -> Path:
        """The supervisor's pid and start time, once the engine answers."""
        return self.run / "state.json"

    @property
    def stopping(self) -> Path:
        """There from the moment at which the supervisor has decided to stop."""
        return self.run / "stopping"

    @property
    def log(self) -> Path:
        """What dockerd and the supervisor print."""
        return self.cache / "engine.log"


def places() -> Places:
    """The private engine's places. Short ones for its sockets: their paths may have no more than 107 bytes."""
    cache = cache_dir() / "engine"
    cache.mkdir(exist_ok=True)
    name = "ndp-" + hashlib.sha256(str(cache).encode()).hexdigest()[:8]
    base = Path("/run") if os.access("/run", os.W_OK) else Path("/tmp")
    return Places(cache=cache, run=base / name)


def supervisor() -> int | None:
    """The pid of the running private engine's supervisor."""
    try:
        state = json.loads(places().state.read_text())
    except (OSError, ValueError):
        return None
    pid = int(state["pid"])
    return pid if process_start(pid) == state["started"] else None


@contextlib.contextmanager
def engine() -> Iterator[str]:
    """An engine for as long as the block lasts; gives its endpoint, for DOCKER_HOST."""
    if _foreign_engine_answers():
        yield configured_host()
        return
    _install_engine()
    if _foreign_engine_answers():  # where systemd runs, installing the package starts one
        yield configured_host()
        return
    with _private_engine() as host:
        yield host


def _foreign_engine_answers() -> bool:
    host = configured_host()
    return host != places().host and answers(host)


@contextlib.contextmanager
def _private_engine() -> Iterator[str]:
    where = places()
    with where.users.open("w") as users:
        # Waits while a supervisor that has decided to stop is at it.
        fcntl.flock(users, fcntl.LOCK_SH)
        _start_supervisor(where)
        try:
            yield where.host
        finally:
            pid = supervisor()
            fcntl.flock(users, fcntl.LOCK_UN)
            _see_it_stop(where, pid)


def keep() -> str:
    """Start the private engine and let it stay until `stop`; gives its endpoint."""
    where = places()
    _install_engine()
    with where.users.open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        where.keep.touch()
        _start_supervisor(where)
    return where.host


def stop(*, now: bool = False) -> bool:
    """Let the private engine go: it stops when the last user has gone, or at once with `now`. Whether it still runs."""
    where = places()
    where.keep.unlink(missing_ok=True)
    pid = supervisor()
    if pid is None:
        with locked("engine-start"):
            if supervisor() is None and where.run.exists():
                _sweep(where)  # its supervisor was killed
        return False
    if now:
        os.kill(pid, signal.SIGTERM)
        _await_end(pid)
    else:
        _see_it_stop(where, pid)
    return process_start(pid) is not None


def _install_engine() -> None:
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
    """Start a supervisor unless one runs; returns when the engine answers. The caller holds the users' lock."""
    with locked("engine-start"):
        if supervisor() is not None:
            return
        say("starting a private engine")
        where.cache.mkdir(parents=True, exist_ok=True)
        with where.log.open("wb") as log:
            child = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("world.py")), "supervise"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while supervisor() is None:
            if child.poll() is not None or time.monotonic() > deadline:
                child.terminate()
                end = "\n".join(where.log.read_text(errors="replace").splitlines()[-15:])
                raise WorldError(f"dockerd does not come up:\n{end}\n(all of it is in {where.log})")
            time.sleep(0.05)


def _see_it_stop(where: Places, pid: int | None) -> None:
    """Wait for the engine's end unless somebody else has it: a daemon that outlives its run can hang CI."""
    if pid is None:
        return
    deadline = time.monotonic() + 3.0
    while process_start(pid) is not None:
        if where.stopping.exists():
            _await_end(pid)
            return
        if where.keep.exists() or time.monotonic() > deadline:
            return
        time.sleep(0.05)


def _await_end(pid: int) -> None:
    deadline = time.monotonic() + 2 * STOP_SECONDS
    while process_start(pid) is not None:
        if time.monotonic() > deadline:
            raise WorldError(f"the engine's supervisor (pid {pid}) does not end; see {places().log}")
        time.sleep(0.05)


# --- the supervisor -------------------------------------------------------------------------------------------------


def supervise() -> int:
    """Run `dockerd` until nobody uses it, it is told to end, or dockerd ends. The exit status is 1 if dockerd ended."""
    where = places()
    told: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: told.append(received))
    _sweep(where)
    where.run.mkdir(mode=0o755, parents=True)
    daemon = _start_dockerd(where)
    failed = False
    with where.users.open("w") as users:
        try:
            while not told and not _unused(where, users):
                if daemon.poll() is not None:
                    failed = True
                    break
                if not where.state.exists() and answers(where.host, timeout=1.0):
                    _write_state(where)
                time.sleep(0.1)
            where.stopping.touch()
        finally:
            _end(daemon)
            _sweep(where)
    return 1 if failed else 0


def _unused(where: Places, users: IO[str]) -> bool:
    """Whether nobody holds the users' lock. If so it is ours from here on: who comes now waits until we are gone."""
    if where.keep.exists():
        return False
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write_state(where: Places) -> None:
    pid = os.getpid()
    new = where.state.with_suffix(".new")
    new.write_text(json.dumps({"pid": pid, "started": process_start(pid)}))
    new.replace(where.state)


def _start_dockerd(where: Places) -> subprocess.Popen[bytes]:
    libc = ctypes.CDLL(None, use_errno=True)

    def die_with_supervisor() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    argv = [
        "dockerd",
        f"--host={where.host}",
        f"--data-root={where.data}",
        f"--exec-root={where.run}/exec",
        f"--pidfile={where.run}/docker.pid",
        # A containerd that the machine runs already may be used: then under a name of our own.
        f"--containerd-namespace={where.run.name}",
        f"--containerd-plugins-namespace={where.run.name}-plugins",
        # No bridge and no packet filter rules: nothing here needs a container's network, a bridge's addresses can clash
        # with the machine's, and rules would stay behind. `--network host` still works.
        "--bridge=none",
        "--iptables=false",
        "--ip6tables=false",
        "--ip-forward=false",
        "--ip-masq=false",
        "--shutdown-timeout=5",
    ]
    # dockerd 20.10 keeps a record of the network of every container that ever ran without one, and takes a tenth of a
    # second for each when it starts: minutes after a run of the tests. Our networks are made anew at every start.
    (where.data / "network" / "files" / "local-kv.db").unlink(missing_ok=True)
    return subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=sys.stdout.fileno(),
        stderr=sys.stderr.fileno(),
        preexec_fn=die_with_supervisor,  # noqa: PLW1509 - this process has one thread
    )


def _end(daemon: subprocess.Popen[bytes]) -> None:
    daemon.terminate()
    try:
        daemon.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def _sweep(where: Places) -> None:
    """Remove what a private engine leaves: processes and mounts when it was killed, its runtime directory always."""
    left = processes_of(where.run, ENGINE_PROGRAMS)
    left += [one for pid in left for one in descendants(pid)]  # a container outlives its shim
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
