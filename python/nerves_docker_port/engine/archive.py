"""Files into a container and out of it, by the engine's archive call, as streams: nothing is held in memory as a whole.

Works on the container's own layer and on its volumes, whether it runs or not.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import IO, Protocol

import docker.errors
import requests

from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine.client import REQUEST_TIMEOUT, Engine, hang_up
from nerves_docker_port.engine.container import check, there

_CHUNK = 1 << 20


class Pieces(Protocol):
    """Bytes that come piece by piece, and whose number is known before."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[bytes]: ...


def put(engine: Engine, container: str, directory: str, packed: Pieces) -> None:
    """Unpack the tar file ``packed`` in a directory of the container.

    Raises ``NoContainerError``, what the SDK raises, and what ``packed`` raises.
    """
    response = engine.api.put(
        engine.url(f"/containers/{container}/archive"),
        params={"path": directory},
        headers={"Content-Type": "application/x-tar"},
        data=packed,
        timeout=REQUEST_TIMEOUT,
    )
    with there():
        check(response)


@contextmanager
def opened(
    engine: Engine, container: str, path: str, cancellation: Cancellation | None = None
) -> Iterator[IO[bytes] | None]:
    """The content of a file of the container while the body runs; ``None`` where there is no such regular file.

    A ``cancellation`` ends the content early. Raises ``NoContainerError``, ``tarfile.TarError`` where the answer breaks
    off, and what the SDK raises.
    """
    response = engine.api.get(
        engine.url(f"/containers/{container}/archive"),
        params={"path": path},
        # The engine would compress it otherwise.
        headers={"Accept-Encoding": "identity"},
        stream=True,
        timeout=REQUEST_TIMEOUT,
    )
    with response, cancellation.on_cancel(lambda: hang_up(response)) if cancellation else nullcontext():
        try:
            with there():
                check(response)
        except docker.errors.NotFound:
            yield None
            return
        with tarfile.open(fileobj=_Body(response), mode="r|", bufsize=_CHUNK) as tar:
            member = tar.next()
            yield None if member is None or not member.isreg() else tar.extractfile(member)


class _Body(io.RawIOBase):
    """A response's body for ``tarfile``, which reads until it has what it asked for."""

    def __init__(self, response: requests.Response) -> None:
        super().__init__()
        self._read = response.raw.read

    def read(self, size: int = -1) -> bytes:
        """The next ``size`` bytes, fewer at the end."""
        data: bytes = self._read(size if size >= 0 else None)
        return data
