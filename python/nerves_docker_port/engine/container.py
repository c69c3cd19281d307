"""The requests to the engine about one container: create, start, attach, signal, rename, copy, remove.

This module must not know what a container is for, nor when a request is made.
"""

from __future__ import annotations

import http.client
import io
import json
import posixpath
import struct
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import docker.errors
import requests
import urllib3.exceptions
from packaging.version import Version

from nerves_docker_port import errors
from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine.client import Engine, hang_up
from nerves_docker_port.engine.stream import Stream

STOP_GRACE = 8
"""Seconds between the signals TERM and KILL that the engine sends to stop a container. The container's own script gives
the programs below it five seconds (scripts/session.sh)."""

RUN_TIMEOUT = 60
"""Seconds that a small container may take to end after the end of its output."""

REMOVE_TIMEOUT = 10.0
"""Seconds to wait for the end of a removal that another client or the engine itself has begun."""

CONSOLE_SIZE_API = Version("1.42")
"""The API version from which on a container's terminal can have its size from the start
(https://docs.docker.com/reference/api/engine/version-history/)."""

DETACH_KEYS = "ctrl-@,ctrl-^"
"""The keys that detach the user from a terminal. The engine always has such keys, and its default begins with Ctrl-P,
which the shell uses for the last command. Nobody types the keys here, and Ctrl-@ alone still reaches the shell."""

_READ_SIZE = 256 * 1024
_SMALL_READ = 16 * 1024
_GATHER = 0.002
"""Seconds to wait after a small read, so that the next read gets more. Otherwise a build that writes line by line wakes
this process for each line. With the pause, 500,000 lines take 0.7 of the time and a third of the CPU time."""

_HEADER = struct.Struct(">BxxxL")
_STDERR = 2
"""The number of standard error in the header of a frame."""


class NameTakenError(Exception):
    """The engine already has a container with this name."""


class NoContainerError(Exception):
    """The container does not exist (any more), or it does not run."""


@dataclass(frozen=True)
class Mount:
    """One entry of ``Mounts``. ``source`` is a volume's name or an absolute path on the engine's host."""

    kind: str
    source: str
    target: str
    read_only: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    """The labels that the volume gets if the engine makes it because it does not exist."""

    def to_api(self) -> dict[str, object]:
        """Return the mount as an object of the engine's API. It is not a string, because a path can have any bytes."""
        options = {"VolumeOptions": {"Labels": dict(self.labels)}} if self.labels else {}
        return {"Type": self.kind, "Source": self.source, "Target": self.target, "ReadOnly": self.read_only, **options}


@dataclass(frozen=True)
class Limits:
    """The limits of a container. ``None`` means the engine's default."""

    cpus: Decimal | None = None
    memory: int | None = None
    """The bytes of memory."""
    memory_and_swap: int | None = None
    """The bytes of memory and swap together."""

    def to_api(self) -> dict[str, object]:
        """Return the limits as fields of a ``HostConfig``."""
        limits = {
            "NanoCpus": None if self.cpus is None else int(self.cpus * 10**9),
            "Memory": self.memory,
            "MemorySwap": self.memory_and_swap,
        }
        return {name: limit for name, limit in limits.items() if limit is not None}


@dataclass(frozen=True)
class Spec:
    """The description of a container to make."""

    name: str
    image: str
    entrypoint: Sequence[str]
    command: Sequence[str] = ()
    workdir: str = ""
    env: Sequence[str] = ()
    mounts: Sequence[Mount] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    network: str | None = None
    """The name of a network at the engine, or ``None`` for the engine's default."""
    networked: bool = True
    """Whether the container has a network. If it is false, the engine sets up no network for it."""
    console: tuple[int, int] | None = None
    """The rows and columns of the container's terminal, or ``None`` if the container has no terminal."""
    user: str = "0:0"
    """The user of its first program. The scripts of a session begin as root and then change to another user."""
    removes_itself: bool = True
    """Whether the engine removes the container after its end. The helper may be dead then."""
    host_config: Mapping[str, object] = field(default_factory=dict)
    """Further fields of the ``HostConfig``. A field that this class sets itself has priority."""

    def to_api(self, api_version: Version) -> dict[str, object]:
        """Return the body of the request that makes the container."""
        console_size = {"ConsoleSize": list(self.console)} if self.console and api_version >= CONSOLE_SIZE_API else {}
        return {
            "Image": self.image,
            "Entrypoint": list(self.entrypoint),
            "Cmd": list(self.command),
            "WorkingDir": self.workdir,
            "Env": list(self.env),
            "Labels": dict(self.labels),
            "User": self.user,
            "AttachStdin": self.console is not None,
            "OpenStdin": self.console is not None,
            "StdinOnce": False,
            "Tty": self.console is not None,
            "NetworkDisabled": not self.networked,
            # An image can name another signal, which the container's script does not handle.
            "StopSignal": "SIGTERM",
            "HostConfig": {
                **self.host_config,
                "Mounts": [mount.to_api() for mount in self.mounts],
                # Without a second copy of the log at the engine, the output stream is several times faster.
                "LogConfig": {"Type": "none", "Config": {}},
                "AutoRemove": self.removes_itself,
                # The script itself is the first program, because bash handles signals by its traps and waits for
                # orphans. Besides, not every engine has an init program (Podman without catatonit).
                "Init": False,
                **self.limits.to_api(),
                **console_size,
                **({} if self.network is None else {"NetworkMode": self.network}),
            },
        }


def create(engine: Engine, spec: Spec) -> str:
    """Make a container without starting it, and return its id. Raises ``NameTakenError``, and the SDK's errors."""
    try:
        config = spec.to_api(Version(engine.api_version))
        return str(engine.api.create_container_from_config(config, spec.name, engine.platform)["Id"])
    except docker.errors.APIError as error:
        if _says_name_taken(error):
            raise NameTakenError(spec.name) from error
        raise


_NOT_THERE = ("no such container", "is not running", "container state improper")
"""Parts of the message that a container is gone or has ended. Docker's status is 404 or 409, and Podman's also 500."""


@contextmanager
def missing_container_errors() -> Iterator[None]:
    """Raise ``NoContainerError`` if the engine answers in the body that a container is gone or does not run."""
    try:
        yield
    except docker.errors.APIError as error:
        said = str(error.explanation or "").lower()
        # The status 404 alone is not enough, because old engines also use it if the command is not in the image.
        if any(words in said for words in _NOT_THERE) or (error.status_code == 404 and not said):
            raise NoContainerError(said) from error
        raise


def start(engine: Engine, container: str) -> None:
    """Start a container. Raises ``NoContainerError``, and the SDK's errors."""
    with missing_container_errors():
        engine.api.start(container)


def inspect(engine: Engine, container: str) -> Mapping[str, Any] | None:
    """Return what the engine knows about the container with this name or id, or ``None`` if it does not exist."""
    try:
        # While Podman removes a container, its status is 500: "... does not exist in database: no such container".
        with missing_container_errors():
            found: Mapping[str, Any] = engine.api.inspect_container(container)
    except (docker.errors.NotFound, NoContainerError):
        return None
    return found


def list_all(engine: Engine) -> list[Mapping[str, Any]]:
    """Return every container in the engine's list, whether it runs or not.

    No filter is used, because on some engines a filter also matches other containers, and because two filters would
    take two requests.
    """
    found: list[Mapping[str, Any]] = engine.api.containers(all=True)
    return found


def signal(engine: Engine, container: str, name: str, *, timeout: float) -> None:
    """Send a signal to the container's first program. Raises ``NoContainerError``.

    ``timeout`` is how many seconds the engine may take.
    """
    with missing_container_errors():
        raise_for_error(
            engine.api.post(engine.url(f"/containers/{container}/kill"), params={"signal": name}, timeout=timeout)
        )


def rename(engine: Engine, container: str, name: str) -> None:
    """Give a container another name, in one step. Raises ``NameTakenError`` and ``NoContainerError``."""
    try:
        with missing_container_errors():
            engine.api.rename(container, name)
    except docker.errors.APIError as error:
        if _says_name_taken(error):
            raise NameTakenError(name) from error
        raise


def _says_name_taken(error: docker.errors.APIError) -> bool:
    # Docker answers 409; Podman answers 500 with these words.
    return error.status_code == 409 or "already in use" in str(error.explanation)


def stop(engine: Engine, container: str) -> None:
    """Stop a container by TERM, and by KILL after ``STOP_GRACE`` seconds, if it still exists and runs."""
    with suppress(NoContainerError), missing_container_errors():
        engine.api.stop(container, timeout=STOP_GRACE)


def remove(engine: Engine, container: str) -> None:
    """Remove a container by force, if it still exists. If it is already being removed, wait for that."""
    deadline = time.monotonic() + REMOVE_TIMEOUT
    while True:
        try:
            engine.api.remove_container(container, force=True, v=True)
        except docker.errors.APIError as error:
            if error.status_code == 404:
                return
            # 409 means "removal of container is already in progress": another client removes it, or the engine itself.
            # Podman answers 500 if the container ends at this moment: "... could not be stopped: ... container state
            # improper".
            said = str(error.explanation).lower()
            if error.status_code != 409 and not any(words in said for words in _NOT_THERE):
                raise
        else:
            return
        if inspect(engine, container) is None or time.monotonic() > deadline:
            return
        time.sleep(0.05)


def run(engine: Engine, spec: Spec, cancellation: Cancellation) -> tuple[int, bytes]:
    """Run a small container to its end and remove it. Return its exit status and its output. Raises ``RunnerError``."""
    with engine.failures(f"while it ran the container {spec.name}"):
        made = create(engine, replace(spec, removes_itself=False))
        try:
            output = Output(engine, made)
            with closing(output), cancellation.on_cancel(output.hang_up):
                start(engine, made)
                written = bytearray()
                while (data := output.read()) is not None:
                    written += data
            cancellation.check()
            return int(engine.api.wait(made, timeout=RUN_TIMEOUT)["StatusCode"]), bytes(written)
        except NoContainerError as error:
            raise errors.container_gone(spec.name) from error
        finally:
            remove(engine, made)


def put_file(engine: Engine, container: str, path: str, data: bytes) -> None:
    """Write a file that belongs to root into the container's own layer. Raises ``NoContainerError``."""
    directory, name = posixpath.split(path)
    put_files(engine, container, directory, {name: data})


def put_files(engine: Engine, container: str, directory: str, files: Mapping[str, bytes]) -> None:
    """Write files that belong to root into a directory of the container's own layer, in the order of ``files``.

    Raises ``NoContainerError``.
    """
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o644
            tar.addfile(member, io.BytesIO(data))
    with missing_container_errors():
        engine.api.put_archive(container, directory, packed.getvalue())


@dataclass(frozen=True)
class End:
    """How a container ended, as far as the engine's events say."""

    status: int | None = None
    """The exit status of its first program, or ``None`` if the events do not say it."""
    out_of_memory: bool = False
    killed: bool = False
    """Whether somebody sent the signal KILL to the container or removed it by force."""


def how_it_ended(engine: Engine, container: str) -> End:
    """Return how a container ended that the engine has already removed, from the engine's last events.

    Docker keeps the last 256 events (https://docs.docker.com/reference/api/engine/, "Monitor events").
    """
    now = engine.now()
    response = engine.api.get(
        engine.url("/events"),
        # The engine would wait until a time in the future.
        params={"since": "0", "until": f"{now:.9f}", "filters": json.dumps({"container": [container]})},
        timeout=engine.api.timeout,
    )
    raise_for_error(response)
    status, out_of_memory, killed = None, False, False
    for line in response.content.splitlines():
        with suppress(ValueError, AttributeError):
            event = json.loads(line)
            action, attributes = str(event.get("Action")), event.get("Actor", {}).get("Attributes", {})
            out_of_memory = out_of_memory or action == "oom"
            killed = killed or (action == "kill" and str(attributes.get("signal")) in ("9", "SIGKILL", "killed"))
            if action in ("die", "died"):
                status = int(attributes.get("exitCode", attributes.get("containerExitCode", "")))
    return End(status, out_of_memory, killed)


class Output:
    """A connection to the output of one container.

    The SDK's ``attach`` asks for an upgraded connection and then reads the socket itself. It loses the bytes that
    arrive together with the headers, because the HTTP client has already read them into its buffer. So this class asks
    for no upgrade, and reads the same stream as the body of the HTTP answer.
    """

    def __init__(self, engine: Engine, container: str, filter_stderr: Callable[[bytes], bytes] | None = None) -> None:
        """Attach to the container. Raises ``NoContainerError``, and the errors of the SDK and requests.

        ``filter_stderr`` gets what the container writes to standard error, and returns the part of it that is output.
        """
        self._response = self._ask(engine, container)
        with missing_container_errors():
            raise_for_error(self._response)
        # The timeout was for the answer. A build can be without output for any time.
        engine.wait_forever(self._response)
        # A frame that has not completely arrived: the beginning of its header, and the rest of its payload in bytes.
        self._header = b""
        self._remaining = 0
        self._stream = 0
        self._filter_stderr = filter_stderr
        self._gather = False

    def _ask(self, engine: Engine, container: str) -> requests.Response:
        return engine.api.post(
            engine.url(f"/containers/{container}/attach"),
            params={"stream": 1, "stdout": 1, "stderr": 1},
            stream=True,
            timeout=engine.api.timeout,
        )

    @property
    def is_whole(self) -> bool:
        """Whether the bytes that were read so far end with a complete frame."""
        return self._remaining == 0 and not self._header

    def read(self) -> bytes | None:
        """Wait for output and return it. Return ``None`` if the stream has ended or the connection broke.

        The result can be empty.

        Each frame has a header of eight bytes: the stream (1 byte), three zeros, the length (4 bytes, big endian)
        (https://docs.docker.com/reference/api/engine/, "Stream format" of ContainerAttach).
        """
        if self._gather:
            time.sleep(_GATHER)
        try:
            data = self._response.raw.read1(_READ_SIZE)
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError):
            return None
        if not data:
            return None
        size = len(data)
        if self._header:
            data, self._header = self._header + data, b""
        payloads = []
        position, end = 0, len(data)
        while position < end:
            if self._remaining == 0:
                if end - position < _HEADER.size:
                    self._header = data[position:]
                    break
                self._stream, self._remaining = _HEADER.unpack_from(data, position)
                position += _HEADER.size
            taken = data[position : position + self._remaining]
            position += len(taken)
            self._remaining -= len(taken)
            if self._stream == _STDERR and self._filter_stderr is not None:
                taken = self._filter_stderr(taken)
            payloads.append(taken)
        self._gather = size < _SMALL_READ
        return b"".join(payloads)

    def hang_up(self) -> None:
        """Make ``read`` in another thread return ``None``, after it has returned the output that has arrived."""
        hang_up(self._response)

    def close(self) -> None:
        """Close the connection."""
        self._response.close()


class CommandOutput(Output):
    """The standard output of a further program in a container."""

    def __init__(self, engine: Engine, container: str, command: Sequence[str], user: str) -> None:
        """Start ``command`` as ``user``. Raises ``NoContainerError``, and the errors of the SDK and requests."""
        self._command = command
        self._user = user
        super().__init__(engine, container)

    def _ask(self, engine: Engine, container: str) -> requests.Response:
        with missing_container_errors():
            made = engine.api.exec_create(container, list(self._command), stderr=False, user=self._user)
        return engine.api.post(
            engine.url(f"/exec/{made['Id']}/start"),
            json={"Detach": False, "Tty": False},
            stream=True,
            timeout=engine.api.timeout,
        )


def attach_terminal(engine: Engine, container: str) -> Stream:
    """Attach to the container's terminal, and return a stream for its input and output.

    The request asks for an upgrade of the connection, because some proxies need that. Any answer that is not an error
    is accepted. Raises ``NoContainerError``, and the errors of the SDK and requests.
    """
    response = engine.api.post(
        engine.url(f"/containers/{container}/attach"),
        params={"stream": "1", "stdin": "1", "stdout": "1", "stderr": "1", "detachKeys": DETACH_KEYS},
        headers={"Connection": "Upgrade", "Upgrade": "tcp"},
        stream=True,
        timeout=engine.api.timeout,
    )
    with missing_container_errors():
        raise_for_error(response)
    return Stream(response)


def resize(engine: Engine, container: str, rows: int, columns: int) -> None:
    """Set the size of a container's terminal. An error is ignored, because the shell also works without it."""
    with suppress(docker.errors.DockerException, requests.RequestException):
        engine.api.resize(container, rows, columns)


def raise_for_error(response: requests.Response) -> None:
    """Raise the SDK's error if the answer is an error."""
    try:
        response.raise_for_status()
    except requests.HTTPError as error:
        docker.errors.create_api_error_from_http_exception(error)
