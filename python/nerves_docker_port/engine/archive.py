"""Copies files into a container and out of it, by the engine's archive call.

The call works for the container's own layer and for its volumes, whether the container runs or not. The files are
streams, so that no large file is in memory as a whole.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from email.utils import parsedate_to_datetime
from typing import IO, Protocol, TypeAlias, cast

import docker.errors
import requests
import urllib3.exceptions

from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine.client import REQUEST_TIMEOUT, Engine, hang_up
from nerves_docker_port.engine.container import missing_container_errors, raise_for_error

_CHUNK = 1 << 20

_END = bytes(1024)
"""The end of a complete tar file, which is two blocks of zeros (POSIX.1-2017, pax, "ustar Interchange Format")."""


class Pieces(Protocol):
    """An iterator over pieces of bytes, whose length is the total number of bytes."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[bytes]: ...


def put(engine: Engine, container: str, directory: str, packed: Pieces) -> None:
    """Unpack the tar file ``packed`` in a directory of the container.

    Raises ``NoContainerError``, the SDK's errors, and the errors of ``packed``.
    """
    response = engine.api.put(
        engine.url(f"/containers/{container}/archive"),
        params={"path": directory},
        headers={"Content-Type": "application/x-tar"},
        data=packed,
        timeout=REQUEST_TIMEOUT,
    )
    with missing_container_errors():
        raise_for_error(response)


def read_file(engine: Engine, container: str, path: str) -> bytes | None:
    """Return the content of a small file in the container, or ``None`` if the path is not a regular file.

    Raises ``NoContainerError``, ``ConnectionError`` if the answer breaks off, and the SDK's errors.
    """
    return read_file_and_time(engine, container, path, REQUEST_TIMEOUT)[0]


def read_file_and_time(engine: Engine, container: str, path: str, timeout: float) -> tuple[bytes | None, float | None]:
    """Return the result of ``read_file``, and the time of the answer by the engine's own clock.

    The time is in seconds since 1970 and has an error of at most half a second. It is ``None`` if the answer has no
    date. ``timeout`` is in seconds. Raises the errors of ``read_file``.
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
def opened(engine: Engine, container: str, path: str) -> Iterator[IO[bytes] | None]:
    """Yield the content of a file in the container, or ``None`` if the path is not a regular file.

    Raises ``NoContainerError``, ``tarfile.TarError`` if the answer breaks off, and the SDK's errors.
    """
    with _packed(engine, container, path, None) as body:
        if body is None:
            yield None
            return
        with _first_file(body) as content:
            yield content


@contextmanager
def opened_in_pieces(engine: Engine, container: str, path: str, size: int) -> Iterator[IO[bytes]]:
    """Yield the content of a file in the container that split(1) has divided into pieces of ``size`` bytes.

    The names of the pieces are ``path`` with a number, from ``.000000`` on. Each piece is a request of its own, and
    Docker answers other requests about the container between them. Raises the errors of ``opened``, also while the
    content is read.
    """
    with closing(_Joined(lambda number: opened(engine, container, f"{path}.{number:06}"), size)) as joined:
        yield cast("IO[bytes]", joined)


class _Joined(io.RawIOBase):
    """The contents of the files that ``open_piece`` opens by number, one after the other."""

    def __init__(self, open_piece: Callable[[int], AbstractContextManager[IO[bytes] | None]], size: int) -> None:
        super().__init__()
        self._open_piece = open_piece
        self._size = size
        self._number = 0
        self._stack = ExitStack()
        self._content: IO[bytes] | None = None
        self._left = 0
        self._is_over = False

    def read(self, size: int = -1) -> bytes:
        """Return at most ``size`` bytes, and none only at the end."""
        while not self._is_over:
            if self._content is None:
                self._content = self._stack.enter_context(self._open_piece(self._number))
                self._number += 1
                self._left = self._size
            data = b"" if self._content is None else self._content.read(size)
            if data:
                self._left -= len(data)
                return data
            self._stack.close()
            self._content = None
            # The last piece is smaller, or it is missing.
            self._is_over = self._left > 0
        return b""

    def close(self) -> None:
        """Close the connection."""
        self._stack.close()
        super().close()


@contextmanager
def _first_file(body: _Body) -> Iterator[IO[bytes] | None]:
    """Yield the content of the first file in a tar file, or ``None`` if it is not a regular file."""
    with tarfile.open(fileobj=body, mode="r|", bufsize=_CHUNK) as tar:
        member = tar.next()
        yield None if member is None or not member.isreg() else tar.extractfile(member)


@contextmanager
def tree(engine: Engine, container: str, path: str, cancellation: Cancellation) -> Iterator[Iterator[Member] | None]:
    """Yield an iterator over a file or directory in the container and everything in it.

    Yield ``None`` if the path does not exist. The content of a member can be read until the iterator gives the next
    one. The iterator raises ``tarfile.TarError`` if the end of the archive is missing, because an engine that fails in
    the middle ends its answer as if it were complete. Raises the errors of ``opened``.
    """
    with _packed(engine, container, path, cancellation) as body:
        if body is None:
            yield None
            return
        with tarfile.open(fileobj=body, mode="r|", bufsize=_CHUNK, errors="surrogateescape") as tar:
            yield _members(tar, body)


Member: TypeAlias = tuple[tarfile.TarInfo, IO[bytes] | None]
"""The header of a file in a tar file, and its content if it is a regular file."""


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
        # The path is bytes, because it may not be UTF-8.
        params={"path": os.fsencode(path)},
        # Without this header the engine would compress the answer.
        headers={"Accept-Encoding": "identity"},
        stream=True,
        timeout=timeout,
    )
    with response, cancellation.on_cancel(lambda: hang_up(response)) if cancellation else nullcontext():
        try:
            with missing_container_errors():
                raise_for_error(response)
        except docker.errors.NotFound:
            yield None
            return
        yield _Body(response)


class _Body(io.RawIOBase):
    """The body of an HTTP response, as a file that ``tarfile`` can read."""

    def __init__(self, response: requests.Response) -> None:
        super().__init__()
        self._read = response.raw.read
        self.tail = b""
        """The last bytes that were read, as many as ``_END`` has."""
        self.date = _date(response)
        """The time of the answer by the engine's clock, in seconds since 1970, or ``None`` if it has no date."""

    def read(self, size: int = -1) -> bytes:
        """Return the next ``size`` bytes, or fewer at the end."""
        data: bytes = self._read(size if size >= 0 else None)
        self.tail = (self.tail + data)[-len(_END) :] if len(data) < len(_END) else data[-len(_END) :]
        return data


def _date(response: requests.Response) -> float | None:
    try:
        # The date has whole seconds only, rounded down. Half a second is added, so that the error is half a second.
        return parsedate_to_datetime(response.headers["Date"]).timestamp() + 0.5
    except (KeyError, ValueError):
        return None
