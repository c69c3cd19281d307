"""Copies a file or a directory of the build tree to the host.

The copy is written under a temporary name in the same directory and renamed at the end, so it is never incomplete. A
helper that was killed leaves that file or directory behind, and the next copy from the same volume removes it. The
container is not trusted, so a name that it sends must not lead out of the copy or through a symbolic link.
"""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
import secrets
import shutil
import stat
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from nerves_docker_port import errors
from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine import archive
from nerves_docker_port.engine.archive import Member
from nerves_docker_port.engine.container import NoContainerError
from nerves_docker_port.record.reporter import Reporter
from nerves_docker_port.volume.lock import session_name
from nerves_docker_port.volume.session import Session
from nerves_docker_port.volume.steps import Step
from nerves_docker_port.workspace.changes import LinkError, directory_below
from nerves_docker_port.workspace.mounted import Workspace, bash
from nerves_docker_port.workspace.packing import TEMPORARY

_BLOCK = 1 << 20
_PERMISSIONS = 0o777
"""The mode bits that are kept. A setuid program would run here with the rights of the user who copied it."""

_NOT_THERE, _OUTSIDE, _NO_FILE = 3, 4, 5
"""Exit statuses of scripts/find.sh."""

_REPORT_EVERY = 0.5
"""Seconds between two reports of progress."""


@dataclass(frozen=True)
class Copied:
    """The result of a copy."""

    path: Path
    size: int
    """The size of all files together, in bytes."""
    warnings: list[str] = field(default_factory=list)
    """Warnings for the user about files that could not be copied."""


def path_in_tree(given: str, workdirs: tuple[str, ...]) -> str:
    """Return ``given`` as a path relative to the build directory, whose possible paths are ``workdirs``.

    Raises ``RunnerError`` ``:bad_request`` if the text of the path leads out of the directory. Symbolic links are
    checked later, by scripts/find.sh.
    """
    path = posixpath.normpath(given) if given else given
    for workdir in workdirs:
        if path == workdir or path.startswith(f"{workdir}/"):
            path = posixpath.relpath(path, workdir)
    if not path or path.startswith("/") or path.split("/")[0] == "..":
        raise errors.not_in_build_tree(given, workdirs[0])
    return path


def place_for(path: str, target: str, name: str) -> Path:
    """Return where ``path`` is copied to: ``target`` or, if it is a directory or ends with a slash, a path in it.

    ``name`` is used as the name of a copy of the whole build directory. Raises ``RunnerError`` ``:bad_request`` if the
    directory does not exist.
    """
    place = Path(target)
    if place.is_dir() or target.endswith("/"):
        place = place / (posixpath.basename(path) if path != "." else name)
    if not place.parent.is_dir():
        raise errors.no_directory_for_copy(str(place.parent))
    return place


def bring(
    session: Session, workspace: Workspace, path: str, place: Path, reporter: Reporter, cancellation: Cancellation
) -> Copied:
    """Copy ``path`` of the build directory to ``place``, completely or not at all.

    Raises ``RunnerError``.
    """
    found = _find(session, workspace, path, cancellation)
    engine = session.engine
    try:
        with (
            engine.failures("while it handed over files of the build tree"),
            archive.tree(engine, session.container, found, cancellation) as members,
        ):
            if members is None:
                raise errors.not_there_in_build_tree(path, workspace.workdir)
            return write(members, place, session.volume, _Progress(path, reporter, cancellation))
    except NoContainerError as error:
        raise errors.container_gone(session_name(workspace.volume)) from error
    except tarfile.TarError as error:
        cancellation.check()
        raise errors.copy_broke_off(path, str(error)) from error
    except errors.RunnerError:
        # A cancellation closes the connection, so the error may look as if the engine was lost.
        cancellation.check()
        raise


def _find(session: Session, workspace: Workspace, path: str, cancellation: Cancellation) -> str:
    """Return the path in the container, with its symbolic links resolved."""
    output = bytearray()
    step = Step("find", [*bash("find", "find.sh"), workspace.workdir, path])
    # The step is not part of the container's command, because that is sent as JSON, and a path need not be UTF-8.
    failure = session.run([step], output.extend, lambda _: None, lambda _: None, cancellation)
    found = os.fsdecode(bytes(output).partition(b"\0")[2].partition(b"\0")[0])
    if failure is None:
        return found
    if failure.status == _OUTSIDE:
        raise errors.leads_out_of_build_tree(path, found, workspace.workdir)
    if failure.status == _NOT_THERE:
        raise errors.not_there_in_build_tree(path, workspace.workdir, found)
    if failure.status == _NO_FILE:
        raise errors.nothing_to_copy(path)
    raise errors.container_gone(session_name(workspace.volume))


class _Progress:
    """Reports how much has been copied, and raises if the flow was cancelled."""

    def __init__(self, path: str, reporter: Reporter, cancellation: Cancellation) -> None:
        self._what = f"Copying {path}"
        self._reporter = reporter
        self._cancellation = cancellation
        self._next = time.monotonic() + _REPORT_EVERY

    def __call__(self, size: int) -> None:
        self._cancellation.check()
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _REPORT_EVERY
            self._reporter.progress(self._what, size, None, "bytes")


def write(members: Iterator[Member], place: Path, volume: str, progress: Callable[[int], None]) -> Copied:
    """Write the members of a tar file as ``place``. The first member is the copied file or directory itself.

    A file may replace a file. A directory may replace an empty directory. The caller has reserved ``volume``. So what
    an earlier copy from this volume has left in the directory is removed, because nobody writes it any more.
    ``progress`` is called with the number of bytes so far. Raises ``RunnerError``, and ``tarfile.TarError`` if
    ``members`` is damaged or incomplete.
    """
    if place.is_dir() and not place.is_symlink() and any(place.iterdir()):
        raise errors.copy_onto_directory(str(place))
    prefix = f"{TEMPORARY}{hashlib.sha256(volume.encode()).hexdigest()[:16]}-"
    partial = place.with_name(f"{prefix}{secrets.token_hex(8)}")
    with _host_failures(place):
        for left in place.parent.glob(f"{prefix}*"):
            # A later copy can remove what cannot be removed now.
            with suppress(OSError):
                _remove(left)
        try:
            writer = _Writer(partial, progress)
            for member, content in members:
                writer.add(member, content)
            writer.finish()
            is_directory = partial.is_dir() and not partial.is_symlink()
            if is_directory and os.path.lexists(place) and not place.is_dir():
                raise errors.copy_onto_file(str(place))
            partial.rename(place)
        except (ValueError, OverflowError) as error:
            # A name or a time that no file can have.
            raise tarfile.ReadError(str(error)) from error
        finally:
            _remove(partial)
    return Copied(place, writer.size, writer.warnings)


class _Writer:
    """Writes the members of a tar file, the first of them as ``path``, which must not exist yet."""

    def __init__(self, path: Path, progress: Callable[[int], None]) -> None:
        self._directory = path.parent
        self._name = path.name
        self._progress = progress
        self._root: str | None = None
        """The name of the first member in the tar file."""
        self._directories: list[tuple[tuple[str, ...], tarfile.TarInfo]] = []
        self.size = 0
        self.warnings: list[str] = []

    def add(self, member: tarfile.TarInfo, content: IO[bytes] | None) -> None:
        """Write one member."""
        self._progress(self.size)
        parts = self._parts(member.name)
        try:
            with directory_below(self._directory, parts[:-1]) as directory:
                self._place(member, content, directory, parts)
        except LinkError as error:
            raise tarfile.ReadError(f"{member.name} lies behind the link {error}") from error

    def finish(self) -> None:
        """Set the modes and times of the directories, the innermost first.

        This is done last, because a directory must be writable as long as members are written into it.
        """
        if self._root is None:
            raise tarfile.ReadError("it is empty")
        if not os.path.lexists(self._directory / self._name):
            raise errors.nothing_to_copy(self._root)
        for parts, member in reversed(self._directories):
            with directory_below(self._directory, parts) as directory:
                os.utime(directory, (member.mtime, member.mtime))
                os.fchmod(directory, member.mode & _PERMISSIONS)

    def _parts(self, name: str) -> tuple[str, ...]:
        parts = name.rstrip("/").split("/")
        if self._root is None:
            self._root = parts[0]
        if parts[0] != self._root or any(part in ("", ".", "..") for part in parts):
            raise tarfile.ReadError(f"{name} is not below {self._root}")
        return (self._name, *parts[1:])

    def _place(
        self, member: tarfile.TarInfo, content: IO[bytes] | None, directory: int, parts: tuple[str, ...]
    ) -> None:
        name = parts[-1]
        try:
            if member.isdir():
                os.mkdir(name, 0o700, dir_fd=directory)
                self._directories.append((parts, member))
            elif member.issym():
                os.symlink(member.linkname, name, dir_fd=directory)
                os.utime(name, (member.mtime, member.mtime), dir_fd=directory, follow_symlinks=False)
            elif member.islnk():
                self._hard_link(member, directory, name)
            elif member.isreg():
                self._file(member, content, directory, name)
            else:
                self.warnings.append(errors.not_copied(member.name, "it is neither a file, a directory nor a link"))
        except FileExistsError:
            # macOS' file system ignores case, and the Linux kernel has files whose names differ only in case.
            self.warnings.append(errors.not_copied(member.name, "there is another file of this name already"))

    def _hard_link(self, member: tarfile.TarInfo, directory: int, name: str) -> None:
        other = self._parts(member.linkname)
        try:
            with directory_below(self._directory, other[:-1]) as source:
                os.link(other[-1], name, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            self.warnings.append(errors.not_copied(member.name, f"nor was {member.linkname!r}, which is the same file"))

    def _file(self, member: tarfile.TarInfo, content: IO[bytes] | None, directory: int, name: str) -> None:
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=directory)
        with os.fdopen(descriptor, "wb") as file:
            while content is not None and (data := content.read(_BLOCK)):
                if data.count(0) == len(data):
                    # A hole, as an image's file system has many: it takes no room there, and need not here.
                    file.seek(len(data), os.SEEK_CUR)
                else:
                    file.write(data)
                self.size += len(data)
                self._progress(self.size)
            # This writes what is in the buffer, and makes a hole at the end a part of the file.
            file.truncate()
            os.fchmod(descriptor, member.mode & _PERMISSIONS)
            os.utime(descriptor, (member.mtime, member.mtime))


def _remove(path: Path) -> None:
    """Remove a file, or a directory with all that is in it, even if its modes forbid it. It may be missing."""

    def allow(function: Callable[[str], object], path: str, _error: object) -> None:
        with suppress(OSError):
            os.chmod(os.path.dirname(path), stat.S_IRWXU)  # noqa: PTH101, PTH120
            os.chmod(path, stat.S_IRWXU)  # noqa: PTH101
            function(path)

    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, onerror=allow)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _host_failures(place: Path) -> Iterator[None]:
    """Turn an error of the host's file system into a ``RunnerError``."""
    try:
        yield
    except OSError as error:
        # An error of the HTTP client has no number. It is not an error of the file system.
        if error.errno is None or isinstance(error, (ConnectionError, TimeoutError)):
            raise
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise errors.disk_full(f"No space is left on the host for {place}.") from error
        raise errors.not_writable(str(place.parent), "The directory", os.strerror(error.errno)) from error
