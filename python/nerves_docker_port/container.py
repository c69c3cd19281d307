"""One step, one container: create, attach, start, drain, wait, inspect, remove.

The rules of docs/architecture.md ("Containers") live here. Knows nothing of what the step is for.
"""

from __future__ import annotations

import http.client
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import docker.errors
import requests
import urllib3.exceptions

from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine import Engine

STOP_GRACE = 5
"""Seconds between TERM and KILL for a container that is to end."""

_READ_SIZE = 256 * 1024
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


@dataclass(frozen=True)
class Exit:
    """How a container ended."""

    status: int
    out_of_memory: bool


def run(
    engine: Engine,
    spec: Spec,
    on_output: Callable[[bytes], None],
    on_warning: Callable[[str], None],
    cancellation: Cancellation,
) -> Exit:
    """Run ``spec`` to its end and give every byte of its output to ``on_output``, standard error among it.

    Whatever happens, the container is gone afterwards. Raises ``RunnerError``.
    """
    doing = f"in the step {spec.name}"
    cancellation.check()
    with (
        engine.failures(doing),
        _created(engine, spec) as container,
        cancellation.on_cancel(lambda: stop(engine, container)),
    ):
        # Attached before the start, so that no byte is missed: the engine keeps no log to read it from later.
        stream = _attach(engine, container)
        engine.api.start(container)
        while True:
            with suppress(urllib3.exceptions.HTTPError, http.client.HTTPException, OSError):
                # A stream that breaks looks like one that ends; only the container's state tells them apart.
                _drain(stream, on_output)
            cancellation.check()
            status = _wait(engine, container)
            if status is not None:
                break
            on_warning(
                f"The connection to the output of {spec.name} was lost; what it wrote meanwhile is not in the log."
            )
            stream = _attach(engine, container)
        cancellation.check()
        state = engine.api.inspect_container(container)["State"]
        return Exit(status, bool(state.get("OOMKilled")))


def stop(engine: Engine, container: str) -> None:
    """End a container: TERM, then KILL. One that is gone or not running is fine."""
    with suppress(docker.errors.DockerException, requests.RequestException):
        engine.api.stop(container, timeout=STOP_GRACE)


@contextmanager
def _created(engine: Engine, spec: Spec) -> Iterator[str]:
    config: dict[str, object] = {
        "Image": spec.image,
        "Cmd": list(spec.command),
        "WorkingDir": spec.workdir,
        "Env": list(spec.env),
        "Labels": dict(spec.labels),
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": False,
        "HostConfig": {
            "Mounts": [mount.to_api() for mount in spec.mounts],
            # The engine keeps no second copy of the log; the stream runs several times faster for it.
            "LogConfig": {"Type": "none", "Config": {}},
            # A first process that passes signals on and reaps: make as process 1 would ignore TERM (signal(7) handlers
            # that are not set are ignored for process 1).
            "Init": True,
        },
    }
    if spec.entrypoint is not None:
        config["Entrypoint"] = list(spec.entrypoint)
    if spec.user is not None:
        config["User"] = spec.user
    container = str(engine.api.create_container_from_config(config, spec.name)["Id"])
    try:
        yield container
    finally:
        _remove(engine, container)


def _remove(engine: Engine, container: str) -> None:
    try:
        engine.api.remove_container(container, force=True, v=True)
    except docker.errors.APIError as error:
        # 409: "removal of container is already in progress", somebody else does it.
        if error.status_code not in (404, 409):
            raise


def _attach(engine: Engine, container: str) -> requests.Response:
    """The container's output as a response whose body is the stream.

    Not the SDK's ``attach``: that asks for an upgraded connection and then reads its bare socket, past what the HTTP
    client has already buffered, so bytes that arrive with the headers are lost. Without the upgrade the body is the
    same stream, up to the end of the connection.
    """
    response = engine.api.post(
        engine.url(f"/containers/{container}/attach"),
        params={"stream": 1, "stdout": 1, "stderr": 1},
        stream=True,
        # A build may be silent for as long as it likes.
        timeout=None,
    )
    if response.status_code >= 400:
        raise docker.errors.APIError(response.text, response, response.text)
    return response


def _drain(response: requests.Response, on_output: Callable[[bytes], None]) -> None:
    """Give the payload of the engine's frames to ``on_output`` until the stream ends.

    Each frame has a header of eight bytes: the stream (1 byte), three zeros, the length (4 bytes, big endian)
    (https://docs.docker.com/reference/api/engine/, "Stream format" of ContainerAttach).
    """
    pending = b""
    remaining = 0
    with response:
        while data := response.raw.read1(_READ_SIZE):
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
            if payloads:
                on_output(b"".join(payloads))


def _wait(engine: Engine, container: str) -> int | None:
    """The exit status of a container whose stream has ended, or ``None`` if it runs on regardless."""
    try:
        return int(engine.api.wait(container, timeout=10)["StatusCode"])
    except requests.Timeout:
        return None
    except requests.ConnectionError as error:
        # How requests reports urllib3's timeout while a body is read.
        if "timed out" in str(error):
            return None
        raise
