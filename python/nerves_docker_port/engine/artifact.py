"""Copies the artifact from the build directory to the host, and checks that it is complete and undamaged.

The engine's archive call returns the file as a tar stream. It can read a volume through a container that has ended. One
pass copies, checks and hashes the file. This works for an engine on another host, too, and the file on the host belongs
to the user who runs Mix.
"""

from __future__ import annotations

import errno
import glob
import hashlib
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

import requests

from nerves_docker_port import errors
from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine import archive
from nerves_docker_port.engine.client import Engine
from nerves_docker_port.engine.container import NoContainerError

_CHUNK = 1 << 20

_MAX_UNCHECKED = 8
"""Chunks that may be copied before they are checked."""

_STALE_AFTER = 3600
"""Seconds. If a partial file has not grown for so long, the helper that wrote it is dead."""


@dataclass(frozen=True)
class Artifact:
    """An artifact on the host."""

    path: Path
    size: int
    """Bytes."""
    sha256: str
    """Hexadecimal."""


def fetch(
    engine: Engine, container: str, source: str, target: Path, *, log: str, session: str, cancellation: Cancellation
) -> Artifact:
    """Copy the file ``source`` of the container to ``target`` on the host.

    The file has a temporary name in the same directory until it is complete. ``log`` is the path of the log that an
    error names. Raises ``RunnerError``: ``:artifact_missing`` if the file does not exist or is damaged, ``:disk_full``,
    ``:cancelled``, and the error for a directory that cannot be written.
    """
    partial = target.with_name(f".{target.name}.{session}.part")
    _remove_stale_parts(target)
    try:
        with (
            engine.failures("while it handed over the artifact"),
            _open_source(engine, container, source, target, log, cancellation) as content,
            _host_failures(target),
            partial.open("xb") as file,
        ):
            artifact = _copy(content, file, target, log, cancellation)
        with _host_failures(target):
            partial.replace(target)
    except errors.RunnerError:
        # A cancellation closes the connection, which looks like a lost engine. Report the cancellation instead.
        cancellation.check()
        raise
    finally:
        partial.unlink(missing_ok=True)
    return artifact


def _remove_stale_parts(target: Path) -> None:
    """Remove the partial files of helpers that were killed: those that have not been written for a long time."""
    for partial in target.parent.glob(f".{glob.escape(target.name)}.*.part"):
        with suppress(OSError):
            if time.time() - partial.stat().st_mtime > _STALE_AFTER:
                partial.unlink()


def is_whole(artifact: Artifact) -> bool:
    """Return whether the file still exists and has the size and the hash that ``artifact`` states."""
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
def _open_source(
    engine: Engine, container: str, source: str, target: Path, log: str, cancellation: Cancellation
) -> Iterator[IO[bytes]]:
    """Open the file ``source`` in the container for reading, out of the engine's tar stream."""
    try:
        with archive.opened(engine, container, source, cancellation) as content:
            if content is None:
                raise errors.artifact_missing(str(target), f"there is no {source} in the build directory", log)
            yield content
    except NoContainerError as error:
        raise errors.container_gone(container[:12]) from error
    except tarfile.TarError as error:
        raise errors.artifact_missing(str(target), f"the engine's copy broke off: {error}", log) from error


def _copy(content: IO[bytes], file: IO[bytes], target: Path, log: str, cancellation: Cancellation) -> Artifact:
    digest = hashlib.sha256()
    checker = _new_checker(target.name)
    size = 0
    # The check unpacks the file, which takes three times as long as everything else together. zlib releases the GIL, so
    # the check runs in a second thread. Measured on two busy cores, that takes 0.92 of the time of one thread.
    with ThreadPoolExecutor(max_workers=1) as check_thread:
        checks: deque[Future[None]] = deque()
        try:
            while data := content.read(_CHUNK):
                cancellation.check()
                checks.append(check_thread.submit(checker.feed, data))
                file.write(data)
                digest.update(data)
                size += len(data)
                if len(checks) > _MAX_UNCHECKED:
                    checks.popleft().result()
            cancellation.check()
            file.flush()
            # The content must be on the disk before `fetch` renames the file: a power cut could otherwise leave a
            # file with the final name and without its content.
            os.fsync(file.fileno())
            for check in checks:
                check.result()
        except checker.damaged as error:
            raise errors.artifact_missing(str(target), f"it is damaged: {error}", log) from error
    if not checker.complete:
        raise errors.artifact_missing(str(target), "it ends in the middle", log)
    return Artifact(target, size, digest.hexdigest())


class _Checker(Protocol):
    """Checks a file while it is copied."""

    complete: bool
    """Whether the bytes so far are a complete file."""
    damaged: tuple[type[Exception], ...]
    """The exceptions that ``feed`` raises for a damaged file."""

    def feed(self, data: bytes) -> None:
        """Check the next bytes of the file."""


class _Compressed:
    """Checks a compressed file by unpacking it, which verifies its checksums.

    The file may consist of several compressed streams, one after the other. The unpacked bytes are discarded, and at
    most ``_CHUNK`` of them are in memory.
    """

    def __init__(self, new: Callable[[], Any], damaged: type[Exception]) -> None:
        self._new = new
        self.damaged: tuple[type[Exception], ...] = (damaged,)
        self._stream = new()
        self.complete = False

    def feed(self, data: bytes) -> None:
        while data:
            if self._stream.eof:
                # Zeros may follow the compressed data as padding, for example from a tape (gzip manual, "Tapes").
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
    """Checks a file whose format we cannot read: it only must not be empty."""

    complete = False
    damaged: tuple[type[Exception], ...] = ()

    def feed(self, data: bytes) -> None:
        self.complete = self.complete or bool(data)


def _new_checker(name: str) -> _Checker:
    if name.endswith(".gz"):
        # 31 = 15 (the largest window) + 16 (a gzip header), see inflateInit2 in zlib.h.
        return _Compressed(lambda: zlib.decompressobj(wbits=31), zlib.error)
    if name.endswith(".xz"):
        # Only toolchains are .xz files, and some Pythons have no lzma module (pyenv on a machine without liblzma).
        with suppress(ImportError):
            import lzma

            return _Xz(lzma.LZMADecompressor, lzma.LZMAError)
    return _NotEmpty()


@contextmanager
def _host_failures(target: Path) -> Iterator[None]:
    """Turn an error of the host's file system into a ``RunnerError``."""
    try:
        yield
    except OSError as error:
        if isinstance(error, requests.RequestException) or error.errno is None:
            raise
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise errors.disk_full(f"No space is left on the host for the artifact {target}.") from error
        raise errors.not_writable(str(target.parent), "The download directory", os.strerror(error.errno)) from error
