"""Writes the artifact on the host while it arrives, and checks that it is complete and undamaged.

A step of the session sends the file (scripts/copy.sh). One pass writes, checks and hashes it. This works for an engine
on another host, too, and the file on the host belongs to the user who runs Mix.
"""

from __future__ import annotations

import glob
import hashlib
import os
import time
import zlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from nerves_docker_port import errors
from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.flows.place import host_failures, partial_path

if TYPE_CHECKING:
    from typing_extensions import Self

_CHUNK = 1 << 20

_MAX_UNCHECKED = 32
"""Pieces of the file that may be written before they are checked. A piece has at most 256 KiB."""

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


def _remove_stale_parts(target: Path) -> None:
    """Remove the partial files of helpers that were killed: those that have not been written for a long time."""
    for partial in target.parent.glob(partial_path(Path(glob.escape(target.name)), "*").name):
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


class Incoming:
    """An artifact that is arriving for ``target`` on the host.

    The file has a temporary name in the same directory until it is complete. Every method raises ``RunnerError``:
    ``:artifact_missing`` if the file is damaged, ``:disk_full``, ``:cancelled``, and the error for a directory that
    cannot be written.
    """

    def __init__(self, target: Path, *, log: str, session: str, cancellation: Cancellation) -> None:
        """``log`` is the path of the log that an error names, and ``session`` makes the temporary name unique."""
        self._target = target
        self._log = log
        self._cancellation = cancellation
        self._partial = partial_path(target, session)
        self._file: IO[bytes] | None = None
        # The check unpacks the file, which takes three times as long as everything else together. zlib releases the
        # GIL, so the check runs in a second thread. Measured on two busy cores, that takes 0.92 of the time of one
        # thread.
        self._check_thread = ThreadPoolExecutor(max_workers=1)
        self._checks: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._check_thread.shutdown(cancel_futures=True)
        if self._file is not None:
            # If the disk is full, what is still in the buffer cannot be written, and it is not needed any more.
            with suppress(OSError):
                self._file.close()
            self._partial.unlink(missing_ok=True)

    def begin(self) -> Callable[[bytes], None]:
        """Begin a new file, also after a part of it has arrived. Return the function that takes its content."""
        with host_failures(self._target):
            if self._file is None:
                _remove_stale_parts(self._target)
                self._file = self._partial.open("xb")
            self._file.seek(0)
            self._file.truncate()
        self._checks.clear()
        self._checker = _new_checker(self._target.name)
        self._digest = hashlib.sha256()
        self._size = 0
        return self._take

    def _take(self, data: bytes) -> None:
        self._cancellation.check()
        assert self._file is not None
        self._checks.append(self._check_thread.submit(self._checker.feed, data))
        with host_failures(self._target):
            self._file.write(data)
        self._digest.update(data)
        self._size += len(data)
        if len(self._checks) > _MAX_UNCHECKED:
            self._await_check()

    def _await_check(self) -> None:
        try:
            self._checks.popleft().result()
        except self._checker.damaged as error:
            raise errors.artifact_missing(str(self._target), f"it is damaged: {error}", self._log) from error

    def finish(self) -> Artifact:
        """Give the file its final name, after it has arrived completely."""
        self._cancellation.check()
        assert self._file is not None
        with host_failures(self._target):
            self._file.flush()
            # The content must be on the disk before the file is renamed: a power cut could otherwise leave a file with
            # the final name and without its content.
            os.fsync(self._file.fileno())
        while self._checks:
            self._await_check()
        if not self._checker.complete:
            raise errors.artifact_missing(str(self._target), "it ends in the middle", self._log)
        with host_failures(self._target):
            self._partial.replace(self._target)
        return Artifact(self._target, self._size, self._digest.hexdigest())


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
