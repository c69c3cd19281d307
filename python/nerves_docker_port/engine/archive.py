"""Files into a container and out of it, by the engine's archive call, as streams: nothing is held in memory as a whole.

Works on the container's own layer and on its volumes, whether it runs or not.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from email.utils import parsedate_to_datetime
from typing import IO, Protocol, TypeAlias

import docker.errors
import requests
import urllib3.exceptions

from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine.client import REQUEST_TIMEOUT, Engine, hang_up
from nerves_docker_port.engine.container import check, there

_CHUNK = 1 << 20

_END = bytes(1024)
"""What a whole tar file ends with: two blocks of zeros (POSIX.1-2017, pax, "ustar Interchange Format")."""


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


def read_file(engine: Engine, container: str, path: str) -> bytes | None:
    """The content of a small file of the container; ``None`` where there is no such regular file.

    Raises ``NoContainerError``, ``ConnectionError`` where the answer breaks off, and what the SDK raises.
    """
    return read_file_and_time(engine, container, path, REQUEST_TIMEOUT)[0]


def read_file_and_time(engine: Engine, container: str, path: str, timeout: float) -> tuple[bytes | None, float | None]:
    """What ``read_file`` gives, and when the engine answered.

    The time is by the engine's own clock: seconds since 1970, to half a second; ``None`` where the answer has no date.
    ``timeout`` is how many seconds the engine may take. Raises as ``read_file`` does.
    """
    try:
        with _packed(engine, container, path, None, timeout) as body:
            if body is None:
                return None, None
            with _first_file(body) as content:
                return None if content is None else content.read(), body.date
    except (tarfile.TarError, urllib3.exceptions.HTTPError) as error:
        raise ConnectionError(str(error)) from error


@contextmanager
def opened(
    engine: Engine, container: str, path: str, cancellation: Cancellation | None = None
) -> Iterator[IO[bytes] | None]:
    """The content of a file of the container while the body runs; ``None`` where there is no such regular file.

    A ``cancellation`` ends the content early. Raises ``NoContainerError``, ``tarfile.TarError`` where the answer breaks
    off, and what the SDK raises.
    """
    with _packed(engine, container, path, cancellation) as body:
        if body is None:
            yield None
            return
        with _first_file(body) as content:
            yield content


@contextmanager
def _first_file(body: _Body) -> Iterator[IO[bytes] | None]:
    """The content of the first file of a tar file, if that is a regular one."""
    with tarfile.open(fileobj=body, mode="r|", bufsize=_CHUNK) as tar:
        member = tar.next()
        yield None if member is None or not member.isreg() else tar.extractfile(member)


@contextmanager
def tree(engine: Engine, container: str, path: str, cancellation: Cancellation) -> Iterator[Iterator[Member] | None]:
    """A file or directory of the container with all that is below it; ``None`` where there is no such path.

    The members come one after the other, and the content of one can be read until the next is asked for. The last one
    comes only where the engine has sent the archive to its end: an engine that fails in the middle ends its answer as
    if it were complete, so the end of the archive itself is looked for. Raises as ``opened`` does.
    """
    with _packed(engine, container, path, cancellation) as body:
        if body is None:
            yield None
            return
        with tarfile.open(fileobj=body, mode="r|", bufsize=_CHUNK, errors="surrogateescape") as tar:
            yield _members(tar, body)


Member: TypeAlias = tuple[tarfile.TarInfo, IO[bytes] | None]
"""What a tar file says of one of its files, and the content of a regular one."""


def _members(tar: tarfile.TarFile, body: _Body) -> Iterator[Member]:
    for member in tar:
        yield member, tar.extractfile(member) if member.isreg() else None
    while body.read(_CHUNK):
        pass
    if body.tail != _END:
        raise tarfile.ReadError("it ends in the middle")


@contextmanager
def _packed(
    engine: Engine, container: str, path: str, cancellation: Cancellation | None, timeout: float = REQUEST_TIMEOUT
) -> Iterator[_Body | None]:
    response = engine.api.get(
        engine.url(f"/containers/{container}/archive"),
        # Bytes, because a path need not be UTF-8.
        params={"path": os.fsencode(path)},
        # The engine would compress it otherwise.
        headers={"Accept-Encoding": "identity"},
        stream=True,
        timeout=timeout,
    )
    with response, cancellation.on_cancel(lambda: hang_up(response)) if cancellation else nullcontext():
        try:
            with there():
                check(response)
        except docker.errors.NotFound:
            yield None
            return
        yield _Body(response)


class _Body(io.RawIOBase):
    """A response's body for ``tarfile``, which reads until it has what it asked for."""

    def __init__(self, response: requests.Response) -> None:
        super().__init__()
        self._read = response.raw.read
        self.tail = b""
        """The last bytes that were read."""
        self.date = _date(response)
        """When the engine answered, by its own clock: seconds since 1970; ``None`` where it does not say."""

    def read(self, size: int = -1) -> bytes:
        """The next ``size`` bytes, fewer at the end."""
        data: bytes = self._read(size if size >= 0 else None)
        self.tail = (self.tail + data)[-len(_END) :] if len(data) < len(_END) else data[-len(_END) :]
        return data


def _date(response: requests.Response) -> float | None:
    try:
        # The date is cut to whole seconds.
        return parsedate_to_datetime(response.headers["Date"]).timestamp() + 0.5
    except (KeyError, ValueError):
        return None
