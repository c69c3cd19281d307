"""What the engine can be asked to do with one container: create, start, attach, signal, rename, copy, remove.

Knows neither what a container is for nor when any of this is done.
"""

from __future__ import annotations

import http.client
import io
import json
import posixpath
import struct
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
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
"""Seconds between the engine's TERM and its KILL for a container that is to end. The container's own script gives the
programs below it five seconds (scripts/session.sh)."""

RUN_TIMEOUT = 60
"""Seconds that a small container may take to have ended once its output has."""

REMOVE_TIMEOUT = 10.0
"""Seconds to wait for a removal that somebody else has begun."""

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


class NameTakenError(Exception):
    """The engine has a container of this name already."""


class NoContainerError(Exception):
    """The container is not there (any more), or it does not run."""


@dataclass(frozen=True)
class Mount:
    """One ``Mounts`` entry. ``source`` is a volume's name or an absolute path on the engine's host."""

    kind: str
    source: str
    target: str
    read_only: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    """Of the volume, where the engine makes it because it is not there."""

    def to_api(self) -> dict[str, object]:
        """As the engine's API wants it. A structure, never a string: a path may hold anything."""
        options = {"VolumeOptions": {"Labels": dict(self.labels)}} if self.labels else {}
        return {"Type": self.kind, "Source": self.source, "Target": self.target, "ReadOnly": self.read_only, **options}


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
    """A container to make."""

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
    """A network at the engine; ``None`` is the engine's default."""
    networked: bool = True
    """Without, it has a network of its own that nobody sets up."""
    console: tuple[int, int] | None = None
    """Rows and columns of a terminal that the container gets; ``None`` where the output goes to a log."""
    user: str = "0:0"
    """Who its first program is. The scripts of a session begin as root and become somebody else."""
    removes_itself: bool = True
    """The container goes when it has ended, although nobody asks for that: its helper may be dead."""
    host_config: Mapping[str, object] = field(default_factory=dict)
    """Further fields of the ``HostConfig``; where one is decided here, that counts."""

    def to_api(self, api_version: Version) -> dict[str, object]:
        """The body of the request that creates it."""
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
            # An image may name another signal, which the container's script would not understand.
            "StopSignal": "SIGTERM",
            "HostConfig": {
                **self.host_config,
                "Mounts": [mount.to_api() for mount in self.mounts],
                # The engine keeps no second copy of the log; the stream runs several times faster for it.
                "LogConfig": {"Type": "none", "Config": {}},
                "AutoRemove": self.removes_itself,
                # The script is the first program itself: bash passes signals to its traps and waits for orphans, and
                # not every engine has an init program (Podman without catatonit).
                "Init": False,
                **self.limits.to_api(),
                **console_size,
                **({} if self.network is None else {"NetworkMode": self.network}),
            },
        }


def create(engine: Engine, spec: Spec) -> str:
    """Create a container, do not start it; its id. Raises ``NameTakenError``, and what the SDK raises."""
    try:
        config = spec.to_api(Version(engine.api_version))
        return str(engine.api.create_container_from_config(config, spec.name, engine.platform)["Id"])
    except docker.errors.APIError as error:
        if _says_name_taken(error):
            raise NameTakenError(spec.name) from error
        raise


_NOT_THERE = ("no such container", "is not running", "container state improper")
"""What engines say of a container that is gone or has ended. Docker answers 404 or 409 with it, Podman also 500."""


@contextmanager
def there() -> Iterator[None]:
    """Turns the engine's answer that a container is gone or does not run into ``NoContainerError``."""
    try:
        yield
    except docker.errors.APIError as error:
        said = str(error.explanation or "").lower()
        # A status of 404 alone proves nothing: old engines also give it where the command is not in the image.
        if any(words in said for words in _NOT_THERE) or (error.status_code == 404 and not said):
            raise NoContainerError(said) from error
        raise


def start(engine: Engine, container: str) -> None:
    """Start a container. Raises ``NoContainerError``."""
    with there():
        engine.api.start(container)


def inspect(engine: Engine, container: str) -> Mapping[str, Any] | None:
    """What the engine knows of the container with this name or id, ``None`` if there is none."""
    try:
        found: Mapping[str, Any] = engine.api.inspect_container(container)
    except docker.errors.NotFound:
        return None
    return found


def list_all(engine: Engine) -> list[Mapping[str, Any]]:
    """Every container at the engine, running or not, as the engine's list has them.

    Without filters: on some engines they match more than they say, and two questions would take two requests.
    """
    found: list[Mapping[str, Any]] = engine.api.containers(all=True)
    return found


def signal(engine: Engine, container: str, name: str, *, timeout: float) -> None:
    """Send a signal to the container's first program. Raises ``NoContainerError``.

    ``timeout`` is how many seconds the engine may take.
    """
    with there():
        check(engine.api.post(engine.url(f"/containers/{container}/kill"), params={"signal": name}, timeout=timeout))


def rename(engine: Engine, container: str, name: str) -> None:
    """Give a container another name, in one step. Raises ``NameTakenError`` and ``NoContainerError``."""
    try:
        with there():
            engine.api.rename(container, name)
    except docker.errors.APIError as error:
        if _says_name_taken(error):
            raise NameTakenError(name) from error
        raise


def _says_name_taken(error: docker.errors.APIError) -> bool:
    # Docker answers 409; Podman answers 500 with these words.
    return error.status_code == 409 or "already in use" in str(error.explanation)


def stop(engine: Engine, container: str) -> None:
    """End a container: TERM, and KILL after ``STOP_GRACE`` seconds. One that is gone or not running is fine."""
    with suppress(NoContainerError), there():
        engine.api.stop(container, timeout=STOP_GRACE)


def remove(engine: Engine, container: str) -> None:
    """Remove a container by force, running or not. One that is gone is fine; one that is just going is waited for."""
    try:
        engine.api.remove_container(container, force=True, v=True)
    except docker.errors.APIError as error:
        if error.status_code == 404:
            return
        # 409: "removal of container is already in progress": somebody else does it, or the engine after its end.
        if error.status_code != 409:
            raise
        deadline = time.monotonic() + REMOVE_TIMEOUT
        while inspect(engine, container) is not None and time.monotonic() < deadline:
            time.sleep(0.01)


def run(engine: Engine, spec: Spec, cancellation: Cancellation) -> tuple[int, bytes]:
    """Run a small container to its end and remove it; its exit status and its output. Raises ``RunnerError``."""
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
    """Write a file of root's into the container's own layer. Raises ``NoContainerError``."""
    directory, name = posixpath.split(path)
    put_files(engine, container, directory, {name: data})


def put_files(engine: Engine, container: str, directory: str, files: Mapping[str, bytes]) -> None:
    """Write files of root's into a directory of the container's own layer, in this order.

    Raises ``NoContainerError``.
    """
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o644
            tar.addfile(member, io.BytesIO(data))
    with there():
        engine.api.put_archive(container, directory, packed.getvalue())


@dataclass(frozen=True)
class End:
    """How a container ended, as far as the engine's events tell."""

    status: int | None = None
    """The exit status of its first program; ``None`` where the events do not tell it."""
    out_of_memory: bool = False
    killed: bool = False
    """Somebody sent KILL, or removed it by force."""


def how_it_ended(engine: Engine, container: str) -> End:
    """What the engine remembers of the end of a container that has been removed meanwhile.

    The engine keeps its last events (Docker: 256) and gives those of one container
    (https://docs.docker.com/reference/api/engine/, "Monitor events").
    """
    now = engine.now()
    response = engine.api.get(
        engine.url("/events"),
        # With a moment in the future the engine would wait for it.
        params={"since": "0", "until": f"{now:.9f}", "filters": json.dumps({"container": [container]})},
        timeout=engine.api.timeout,
    )
    check(response)
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
    """The output of one container, attached to.

    The stream is read as the body of an HTTP answer. The SDK's ``attach`` asks for an upgraded connection and then
    reads its bare socket, past what the HTTP client has already buffered, so bytes that arrive with the headers are
    lost. Without the upgrade the body is the same stream, up to the end of the connection.
    """

    def __init__(self, engine: Engine, container: str) -> None:
        """Attach. Raises ``NoContainerError``, and what the SDK and requests raise."""
        self._response = self._ask(engine, container)
        with there():
            check(self._response)
        # The answer had to come in time; a build may be silent for as long as it likes.
        engine.wait_forever(self._response)
        # A frame whose end has not arrived yet: the beginning of its header, or how much of its payload is to come.
        self._header = b""
        self._remaining = 0
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
        """Whether what was read so far ends with a whole frame."""
        return self._remaining == 0 and not self._header

    def read(self) -> bytes | None:
        """What has arrived, waited for; ``None`` when the stream has ended, be it well or because it broke.

        Each frame has a header of eight bytes: the stream (1 byte), three zeros, the length (4 bytes, big endian)
        (https://docs.docker.com/reference/api/engine/, "Stream format" of ContainerAttach).
        """
        while True:
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
                    self._remaining = _HEADER.unpack_from(data, position)[1]
                    position += _HEADER.size
                taken = data[position : position + self._remaining]
                payloads.append(taken)
                position += len(taken)
                self._remaining -= len(taken)
            self._gather = size < _SMALL_READ
            if output := b"".join(payloads):
                return output

    def hang_up(self) -> None:
        """Make ``read`` return ``None``, from another thread. What has arrived is still read."""
        hang_up(self._response)

    def close(self) -> None:
        """Give the connection back, read to its end or not."""
        self._response.close()


class CommandOutput(Output):
    """What a further program in a container writes to its standard output."""

    def __init__(self, engine: Engine, container: str, command: Sequence[str], user: str) -> None:
        """Start ``command`` as ``user``. Raises ``NoContainerError``, and what the SDK and requests raise."""
        self._command = command
        self._user = user
        super().__init__(engine, container)

    def _ask(self, engine: Engine, container: str) -> requests.Response:
        with there():
            made = engine.api.exec_create(container, list(self._command), stderr=False, user=self._user)
        return engine.api.post(
            engine.url(f"/exec/{made['Id']}/start"),
            json={"Detach": False, "Tty": False},
            stream=True,
            timeout=engine.api.timeout,
        )


def attach_terminal(engine: Engine, container: str) -> Stream:
    """The container's terminal, both ways: the connection itself, once the engine has answered.

    With the words for an upgrade, which some proxies want to see; any answer but an error will do.
    Raises ``NoContainerError``, and what the SDK and requests raise.
    """
    response = engine.api.post(
        engine.url(f"/containers/{container}/attach"),
        params={"stream": "1", "stdin": "1", "stdout": "1", "stderr": "1", "detachKeys": DETACH_KEYS},
        headers={"Connection": "Upgrade", "Upgrade": "tcp"},
        stream=True,
        timeout=engine.api.timeout,
    )
    with there():
        check(response)
    return Stream(response)


def resize(engine: Engine, container: str, rows: int, columns: int) -> None:
    """Tell a container's terminal its size. That the engine does not take it is no reason to end."""
    with suppress(docker.errors.DockerException, requests.RequestException):
        engine.api.resize(container, rows, columns)


def check(response: requests.Response) -> None:
    """Raise the SDK's error for an answer that is one."""
    try:
        response.raise_for_status()
    except requests.HTTPError as error:
        docker.errors.create_api_error_from_http_exception(error)
