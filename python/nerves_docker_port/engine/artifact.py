"""Bringing the archive of a built system from the build directory to the host: whole, checked, or not at all.

The engine hands it over as a tar stream (its archive call reads a volume through a container that has ended), so one
pass copies, checks and hashes; it works for an engine anywhere, and what is written belongs to who runs Mix.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import io
import os
import tarfile
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import docker.errors
import requests

from nerves_docker_port import errors
from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine.client import REQUEST_TIMEOUT, Engine, hang_up

_CHUNK = 1 << 20

_AHEAD = 8
"""Chunks that may have been copied, but not yet been checked."""

_STALE = 3600
"""Seconds after which a part that does not grow is nobody's."""


@dataclass(frozen=True)
class Artifact:
    """The archive of a built system on the host."""

    path: Path
    size: int
    """Bytes."""
    sha256: str
    """Hexadecimal."""


def fetch(
    engine: Engine, container: str, source: str, target: Path, *, log: str, session: str, cancellation: Cancellation
) -> Artifact:
    """Copy the file ``source`` of a container to ``target`` on the host.

    ``target`` appears when it is complete: until then it has another name in the same directory. Raises ``RunnerError``
    ``:artifact_missing`` where there is no such file or it is not whole, ``:disk_full``, ``:cancelled``.
    """
    partial = target.with_name(f".{target.name}.{session}.part")
    _sweep(target)
    try:
        with (
            engine.failures("while it handed over the artifact"),
            _handed_over(engine, container, source, target, log, cancellation) as content,
            _host_failures(target),
            partial.open("xb") as file,
        ):
            artifact = _copy(content, file, target, log, cancellation)
        with _host_failures(target):
            partial.replace(target)
    except errors.RunnerError:
        # Hanging up for a cancellation looks like an engine that is lost.
        cancellation.check()
        raise
    finally:
        partial.unlink(missing_ok=True)
    return artifact


def _sweep(target: Path) -> None:
    """Remove the parts that killed helpers left: those that nobody has written to for long."""
    for partial in target.parent.glob(f".{glob.escape(target.name)}.*.part"):
        with suppress(OSError):
            if time.time() - partial.stat().st_mtime > _STALE:
                partial.unlink()


def is_whole(artifact: Artifact) -> bool:
    """Whether the file is still there, with the size and content that ``artifact`` says."""
    try:
        if artifact.path.stat().st_size != artifact.size:
            return False
        digest = hashlib.sha256()
        with artifact.path.open("rb") as file:
            while data := file.read(_CHUNK):
                digest.update(data)
    except OSError:
        return False
    return digest.hexdigest() == artifact.sha256


@contextmanager
def _handed_over(
    engine: Engine, container: str, source: str, target: Path, log: str, cancellation: Cancellation
) -> Iterator[IO[bytes]]:
    """The content of the file ``source``, out of the tar stream that the engine makes of it."""
    response = engine.api.get(
        engine.url(f"/containers/{container}/archive"),
        params={"path": source},
        # The archive is compressed already; the engine would pack it a second time.
        headers={"Accept-Encoding": "identity"},
        stream=True,
        timeout=REQUEST_TIMEOUT,
    )
    with response, cancellation.on_cancel(lambda: hang_up(response)):
        if response.status_code == 404 and "no such container" in response.text.lower():
            raise errors.container_gone(container[:12])
        if response.status_code == 404:
            raise errors.artifact_missing(str(target), f"there is no {source} in the build directory", log)
        try:
            response.raise_for_status()
        except requests.HTTPError as error:
            docker.errors.create_api_error_from_http_exception(error)
        try:
            with tarfile.open(fileobj=_Raw(response), mode="r|", bufsize=_CHUNK) as tar:
                member = tar.next()
                content = None if member is None or not member.isreg() else tar.extractfile(member)
                if content is None:
                    raise errors.artifact_missing(str(target), f"{source} is not a regular file", log)
                yield content
        except tarfile.TarError as error:
            raise errors.artifact_missing(str(target), f"the engine's copy broke off: {error}", log) from error


class _Raw(io.RawIOBase):
    """A response's body for ``tarfile``, which reads until it has what it asked for."""

    def __init__(self, response: requests.Response) -> None:
        super().__init__()
        self._read = response.raw.read

    def read(self, size: int = -1) -> bytes:
        """The next ``size`` bytes, fewer at the end."""
        data: bytes = self._read(size if size >= 0 else None)
        return data


def _copy(content: IO[bytes], file: IO[bytes], target: Path, log: str, cancellation: Cancellation) -> Artifact:
    digest = hashlib.sha256()
    whole = _checker(target.name)
    size = 0
    # Unpacking takes three times as long as the rest together, and zlib lets go of the GIL: aside, the whole
    # takes 0.92 of the time on two busy cores.
    with ThreadPoolExecutor(max_workers=1) as aside:
        checks: deque[Future[None]] = deque()
        try:
            while data := content.read(_CHUNK):
                cancellation.check()
                checks.append(aside.submit(whole.feed, data))
                file.write(data)
                digest.update(data)
                size += len(data)
                if len(checks) > _AHEAD:
                    checks.popleft().result()
            cancellation.check()
            file.flush()
            # The name must not be on the disk before the content is.
            os.fsync(file.fileno())
            for check in checks:
                check.result()
        except whole.damaged as error:
            raise errors.artifact_missing(str(target), f"it is damaged: {error}", log) from error
    if not whole.complete:
        raise errors.artifact_missing(str(target), "it ends in the middle", log)
    return Artifact(target, size, digest.hexdigest())


class _Checker(Protocol):
    """Reads along to the end of a file."""

    complete: bool
    damaged: tuple[type[Exception], ...]
    """What ``feed`` raises where the file is not what it should be."""

    def feed(self, data: bytes) -> None:
        """The next bytes."""


class _Compressed:
    """Reads a compressed file to its end, checksums included; several streams one after the other are one file.

    Keeps nothing of what it unpacks, and never unpacks more than ``_CHUNK`` at a time.
    """

    def __init__(self, new: Callable[[], Any], damaged: type[Exception]) -> None:
        self._new = new
        self.damaged: tuple[type[Exception], ...] = (damaged,)
        self._stream = new()
        self.complete = False

    def feed(self, data: bytes) -> None:
        while data:
            if self._stream.eof:
                # Zeros may fill a file up (gzip(1), "--rsyncable" and tapes).
                if not data.strip(b"\0"):
                    return
                self._stream = self._new()
            data = self._unpack(data)
            self.complete = self._stream.eof

    def _unpack(self, data: bytes) -> bytes:
        self._stream.decompress(data, _CHUNK)
        return bytes(self._stream.unconsumed_tail or self._stream.unused_data)


class _Xz(_Compressed):
    def _unpack(self, data: bytes) -> bytes:
        self._stream.decompress(data, _CHUNK)
        while not (self._stream.needs_input or self._stream.eof):
            self._stream.decompress(b"", _CHUNK)
        return bytes(self._stream.unused_data) if self._stream.eof else b""


class _NotEmpty:
    """For a kind of file that we cannot read."""

    complete = False
    damaged: tuple[type[Exception], ...] = ()

    def feed(self, data: bytes) -> None:
        self.complete = self.complete or bool(data)


def _checker(name: str) -> _Checker:
    if name.endswith(".gz"):
        # 31: the largest window, and a gzip header (zlib.h, inflateInit2).
        return _Compressed(lambda: zlib.decompressobj(wbits=31), zlib.error)
    if name.endswith(".xz"):
        # Only toolchains are such files, and many a Python is built without (pyenv on a machine without liblzma).
        with suppress(ImportError):
            import lzma

            return _Xz(lzma.LZMADecompressor, lzma.LZMAError)
    return _NotEmpty()


@contextmanager
def _host_failures(target: Path) -> Iterator[None]:
    """Our words for what the host's file system refuses."""
    try:
        yield
    except OSError as error:
        if isinstance(error, requests.RequestException) or error.errno is None:
            raise
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise errors.disk_full(f"No space is left on the host for the artifact {target}.") from error
        raise errors.not_writable(str(target.parent), "The download directory", os.strerror(error.errno)) from error
