"""One container from its beginning to its end: create, attach, start, drain, wait, inspect, remove.

The rules of docs/architecture.md ("Containers") live here. Knows nothing of what it is for.
"""

from __future__ import annotations

import http.client
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal

import docker.errors
import requests
import urllib3.exceptions
from packaging.version import Version

from nerves_docker_port import errors
from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine.client import PROBE_INTERVAL, Engine, hang_up
from nerves_docker_port.engine.stream import Stream

STOP_GRACE = 5
"""Seconds between TERM and KILL for a container that is to end."""

SETTLE_TIMEOUT = 10
"""Seconds that a container may take to have ended once its output has. One that takes longer runs on."""

RECONNECT_TIMEOUT = 2
"""The same where a person waits for the terminal's connection to be made again."""

NAME_TIMEOUT = 10
"""Seconds that an earlier container of the same name may take to go."""

CONSOLE_SIZE_API = Version("1.42")
"""From this API version on, a container's terminal has its size from the start
(https://docs.docker.com/reference/api/engine/version-history/)."""

DETACH_KEYS = "ctrl-@,ctrl-^"
"""What the engine takes for the wish to detach. There is no way to have none, and the default begins with Ctrl-P, the
shell's last command; nobody types this, and of Ctrl-@ alone nothing is lost."""

_READ_SIZE = 256 * 1024
_SMALL_READ = 16 * 1024
_GATHER = 0.002
"""Seconds after a small read, in which more gathers for the next. A build that writes line by line would otherwise have
us woken for each: with the pause, 500,000 lines take 0.7 of the time and a third of the CPU, which are the build's."""

_HEADER = struct.Struct(">BxxxL")


@dataclass(frozen=True)
class Mount:
    """One ``Mounts`` entry. ``source`` is a volume's name or an absolute path on the engine's host."""

    kind: str
    source: str
    target: str
    read_only: bool = False

    def to_api(self) -> dict[str, object]:
        """As the engine's API wants it. A structure, never a string: a path may hold anything."""
        return {"Type": self.kind, "Source": self.source, "Target": self.target, "ReadOnly": self.read_only}


@dataclass(frozen=True)
class Limits:
    """What a container may take of its engine; ``None`` leaves it to the engine."""

    cpus: Decimal | None = None
    memory: int | None = None
    """Bytes."""
    memory_and_swap: int | None = None
    """Bytes of both together."""

    def to_api(self) -> dict[str, object]:
        """As part of a ``HostConfig``."""
        limits = {
            "NanoCpus": None if self.cpus is None else int(self.cpus * 10**9),
            "Memory": self.memory,
            "MemorySwap": self.memory_and_swap,
        }
        return {name: limit for name, limit in limits.items() if limit is not None}


@dataclass(frozen=True)
class Spec:
    """A container to run. ``entrypoint`` and ``user`` are the image's where they are ``None``."""

    name: str
    image: str
    command: Sequence[str]
    workdir: str
    env: Sequence[str]
    mounts: Sequence[Mount]
    labels: Mapping[str, str] = field(default_factory=dict)
    entrypoint: Sequence[str] | None = None
    user: str | None = None
    limits: Limits = field(default_factory=Limits)
    network: str | None = None
    """A network at the engine; ``None`` is the engine's default."""
    networked: bool = True
    """Without, it has a network of its own that nobody sets up."""
    console: tuple[int, int] | None = None
    """Rows and columns of a terminal that the container gets; ``None`` where the output goes to a log."""


@dataclass(frozen=True)
class Exit:
    """How a container ended."""

    status: int
    out_of_memory: bool
    container: str = ""
    """Its id. It is there until the ``ended`` that gave it is left."""
    finished_at: str = ""
    """When its first process ended, by the engine's clock (RFC 3339); empty where that is not known."""


def run(
    engine: Engine,
    spec: Spec,
    on_output: Callable[[bytes], None],
    on_warning: Callable[[str], None],
    cancellation: Cancellation,
) -> Exit:
    """Run ``spec`` to its end; see ``ended``."""
    with ended(engine, spec, on_output, on_warning, cancellation) as done:
        return done


@contextmanager
def ended(
    engine: Engine,
    spec: Spec,
    on_output: Callable[[bytes], None],
    on_warning: Callable[[str], None],
    cancellation: Cancellation,
) -> Iterator[Exit]:
    """Run ``spec`` to its end and give every byte of its output to ``on_output``, standard error among it.

    The body finds the container ended, and can have the engine read files out of it. Whatever happens, the container is
    gone afterwards. Raises ``RunnerError``.
    """
    doing = f"while it ran the container {spec.name}"
    cancellation.check()
    with _created(engine, spec, doing, on_warning) as container:
        with engine.failures(doing), _still_there(spec.name):
            # Attached before the start, so that no byte is missed: the engine keeps no log to read it from later.
            output = _Output(engine, container, doing)
            with closing(output), cancellation.on_cancel(lambda: _interrupt(engine, container, output)):
                engine.api.start(container)
                # A cancellation that came before the start found nothing to stop.
                cancellation.check()
                status = _follow(engine, container, spec.name, output, on_output, on_warning, cancellation)
            done = _exit(engine, container, status)
        yield done


def run_on_terminal(
    engine: Engine,
    spec: Spec,
    converse: Callable[[Stream, Callable[[int, int], None]], None],
    on_warning: Callable[[str], None],
    cancellation: Cancellation,
) -> Exit:
    """Run ``spec``, which has a console, to its end, with somebody at the other end of its terminal.

    ``converse`` gets the stream of that terminal, and what tells the engine another size (rows, columns); it returns
    when the stream ends. It is called again where the stream ended but the container did not. Whatever happens, the
    container is gone afterwards. Raises ``RunnerError``.
    """
    doing = f"while it ran the container {spec.name}"
    cancellation.check()
    with _created(engine, spec, doing, on_warning) as container, engine.failures(doing), _still_there(spec.name):

        def resize(rows: int, columns: int) -> None:
            # A terminal of the wrong size is no reason to end; that the engine is lost is noticed elsewhere.
            with suppress(docker.errors.DockerException, requests.RequestException):
                engine.api.resize(container, rows, columns)

        stream = _attach_terminal(engine, container)
        engine.api.start(container)
        if spec.console is not None:
            resize(*spec.console)
        while True:
            try:
                converse(stream, resize)
            finally:
                stream.close()
            cancellation.check()
            status = _wait(engine, container, RECONNECT_TIMEOUT)
            if status is not None:
                return _exit(engine, container, status)
            stream = _attach_terminal(engine, container)


def stop(engine: Engine, container: str) -> None:
    """End a container: TERM, then KILL. One that is gone or not running is fine."""
    with engine.cleaning_up():
        engine.api.stop(container, timeout=STOP_GRACE)


def _interrupt(engine: Engine, container: str, output: _Output) -> None:
    stop(engine, container)
    # Where it could not be stopped, the flow must not wait for it to end; it is removed by force.
    output.hang_up()


def _follow(
    engine: Engine,
    container: str,
    name: str,
    output: _Output,
    on_output: Callable[[bytes], None],
    on_warning: Callable[[str], None],
    cancellation: Cancellation,
) -> int:
    """Pass the output on until the container has ended; its exit status.

    A stream that breaks looks like one that ends: only the container's state tells them apart.
    """
    while True:
        whole = output.drain(on_output)
        cancellation.check()
        output.check()
        status = _wait(engine, container, SETTLE_TIMEOUT)
        cancellation.check()
        if status is None:
            on_warning(f"The connection to the output of {name} was lost; what it wrote meanwhile is not in the log.")
            output.attach()
            cancellation.check()
        else:
            if not whole:
                on_warning(f"The output of {name} broke off; the last of it is not in the log.")
            return status


@contextmanager
def _created(engine: Engine, spec: Spec, doing: str, on_warning: Callable[[str], None]) -> Iterator[str]:
    with engine.failures(doing):
        container = _create(engine, spec)
    try:
        yield container
    except BaseException:
        with engine.cleaning_up():
            remove(engine, container)
        raise
    try:
        with engine.failures(f"while it removed the container of {spec.name}"):
            remove(engine, container)
    except errors.RunnerError as error:
        # It has done its work. The next command removes what is left.
        on_warning(error.message)


def _create(engine: Engine, spec: Spec) -> str:
    config: dict[str, object] = {
        "Image": spec.image,
        "Cmd": list(spec.command),
        "WorkingDir": spec.workdir,
        "Env": list(spec.env),
        "Labels": dict(spec.labels),
        "AttachStdout": True,
        "AttachStderr": True,
        "AttachStdin": spec.console is not None,
        "OpenStdin": spec.console is not None,
        "Tty": spec.console is not None,
        "NetworkDisabled": not spec.networked,
        # An image may say another, and then nobody would pass it on to make.
        "StopSignal": "SIGTERM",
        "HostConfig": {
            "Mounts": [mount.to_api() for mount in spec.mounts],
            # The engine keeps no second copy of the log; the stream runs several times faster for it.
            "LogConfig": {"Type": "none", "Config": {}},
            # A first process that passes signals on and reaps: make as process 1 would ignore TERM (signal(7) handlers
            # that are not set are ignored for process 1).
            "Init": True,
            **spec.limits.to_api(),
            **_console_size(engine, spec),
            **({} if spec.network is None else {"NetworkMode": spec.network}),
        },
    }
    if spec.entrypoint is not None:
        config["Entrypoint"] = list(spec.entrypoint)
    if spec.user is not None:
        config["User"] = spec.user
    deadline = time.monotonic() + NAME_TIMEOUT
    while True:
        try:
            return str(engine.api.create_container_from_config(config, spec.name)["Id"])
        except docker.errors.APIError as error:
            # 409: the name is taken. A flow that is run again may find its last container still being removed.
            if error.status_code != 409:
                raise
            if time.monotonic() > deadline:
                raise errors.container_name_taken(spec.name) from error
        time.sleep(0.1)


def _console_size(engine: Engine, spec: Spec) -> dict[str, object]:
    if spec.console is None or Version(engine.capabilities.api_version) < CONSOLE_SIZE_API:
        return {}
    return {"ConsoleSize": list(spec.console)}


@contextmanager
def _still_there(name: str) -> Iterator[None]:
    try:
        yield
    except docker.errors.NotFound as error:
        # Old engines say 404, too, where the command is not in the image.
        if "no such container" not in str(error.explanation or "no such container").lower():
            raise
        raise errors.container_gone(name) from error


def remove(engine: Engine, container: str) -> None:
    """Remove a container by force, running or not. One that is gone, or just going, is fine."""
    try:
        engine.api.remove_container(container, force=True, v=True)
    except docker.errors.APIError as error:
        # 409: "removal of container is already in progress", somebody else does it.
        if error.status_code not in (404, 409):
            raise


def _wait(engine: Engine, container: str, timeout: int) -> int | None:
    """The exit status of a container whose stream has ended, or ``None`` if it runs on regardless."""
    try:
        return int(engine.api.wait(container, timeout=timeout)["StatusCode"])
    except requests.Timeout:
        pass
    except requests.ConnectionError as error:
        # How requests reports urllib3's timeout while a body is read.
        if "timed out" not in str(error):
            raise
    state = engine.api.inspect_container(container)["State"]
    return None if state["Running"] else int(state["ExitCode"])


def _exit(engine: Engine, container: str, status: int) -> Exit:
    try:
        state = engine.api.inspect_container(container)["State"]
    except docker.errors.NotFound:
        # Somebody else removed it, but it had ended, and its status is known.
        return Exit(status, out_of_memory=False, container=container)
    return Exit(
        status,
        out_of_memory=bool(state.get("OOMKilled")),
        container=container,
        finished_at=str(state.get("FinishedAt") or ""),
    )


class _Output:
    """The output of one container, attached to; it may be attached to again where it breaks."""

    def __init__(self, engine: Engine, container: str, doing: str) -> None:
        self._engine = engine
        self._container = container
        self._doing = doing
        self._heard = time.monotonic()
        self._lost: errors.RunnerError | None = None
        self.attach()

    def attach(self) -> None:
        """Connect to what the container writes from now on."""
        self._stream = _attach(self._engine, self._container)

    def drain(self, on_output: Callable[[bytes], None]) -> bool:
        """Give the output to ``on_output`` until the stream ends; whether it ended between two frames."""
        ended = threading.Event()
        threading.Thread(target=self._watch, args=(ended,), name="watch", daemon=True).start()
        try:
            return _drain(self._stream, on_output, self._hear)
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError):
            return False
        finally:
            ended.set()

    def check(self) -> None:
        """Raise the error of an engine that has stopped answering."""
        if self._lost is not None:
            raise self._lost

    def close(self) -> None:
        """Give the connection back, read to its end or not."""
        self._stream.close()

    def hang_up(self) -> None:
        """Make ``drain`` return, from another thread. What has arrived is still read."""
        hang_up(self._stream)

    def _hear(self) -> None:
        self._heard = time.monotonic()

    def _watch(self, ended: threading.Event) -> None:
        """Where nothing is heard, see that there is still something to hear, and hang up where there is not.

        A build may be silent, but a frozen engine is silent, too, and so is a connection that died on its way.
        """
        stopped = False
        pause: float = PROBE_INTERVAL
        while not ended.wait(pause):
            pause = PROBE_INTERVAL - (time.monotonic() - self._heard)
            if pause > 0:
                stopped = False
                continue
            pause = PROBE_INTERVAL
            if self._is_running():
                stopped = False
            elif stopped:
                self.hang_up()
                return
            else:
                stopped = True

    def _is_running(self) -> bool:
        try:
            with self._engine.failures(self._doing):
                return bool(self._engine.api.inspect_container(self._container)["State"]["Running"])
        except errors.RunnerError as error:
            if error.code is errors.Code.ENGINE_UNREACHABLE:
                self._lost = error
                self.hang_up()
            return False


def _attach(engine: Engine, container: str) -> requests.Response:
    """The container's output as a response whose body is the stream.

    Not the SDK's ``attach``: that asks for an upgraded connection and then reads its bare socket, past what the HTTP
    client has already buffered, so bytes that arrive with the headers are lost. Without the upgrade the body is the
    same stream, up to the end of the connection.
    """
    api = engine.api
    response = api.post(
        engine.url(f"/containers/{container}/attach"),
        params={"stream": 1, "stdout": 1, "stderr": 1},
        stream=True,
        timeout=api.timeout,
    )
    try:
        response.raise_for_status()
    except requests.HTTPError as error:
        docker.errors.create_api_error_from_http_exception(error)
    # The answer had to come in time; a build may be silent for as long as it likes.
    api._disable_socket_timeout(api._get_raw_response_socket(response))  # type: ignore[attr-defined]  # noqa: SLF001
    return response


def _attach_terminal(engine: Engine, container: str) -> Stream:
    """The container's terminal, both ways: the connection itself, once the engine has answered.

    With the words for an upgrade, which some proxies want to see; any answer but an error will do.
    """
    response = engine.api.post(
        engine.url(f"/containers/{container}/attach"),
        params={"stream": "1", "stdin": "1", "stdout": "1", "stderr": "1", "detachKeys": DETACH_KEYS},
        headers={"Connection": "Upgrade", "Upgrade": "tcp"},
        stream=True,
        timeout=engine.api.timeout,
    )
    try:
        response.raise_for_status()
    except requests.HTTPError as error:
        docker.errors.create_api_error_from_http_exception(error)
    return Stream(response)


def _drain(response: requests.Response, on_output: Callable[[bytes], None], on_read: Callable[[], None]) -> bool:
    """Give the payload of the engine's frames to ``on_output`` until the stream ends; whether the last one was whole.

    Each frame has a header of eight bytes: the stream (1 byte), three zeros, the length (4 bytes, big endian)
    (https://docs.docker.com/reference/api/engine/, "Stream format" of ContainerAttach).
    """
    pending = b""
    remaining = 0
    with response:
        while data := response.raw.read1(_READ_SIZE):
            on_read()
            if pending:
                data, pending = pending + data, b""
            payloads = []
            position, end = 0, len(data)
            while position < end:
                if remaining == 0:
                    if end - position < _HEADER.size:
                        pending = data[position:]
                        break
                    remaining = _HEADER.unpack_from(data, position)[1]
                    position += _HEADER.size
                taken = data[position : position + remaining]
                payloads.append(taken)
                position += len(taken)
                remaining -= len(taken)
            if output := b"".join(payloads):
                on_output(output)
            if end < _SMALL_READ:
                time.sleep(_GATHER)
    return remaining == 0 and not pending
