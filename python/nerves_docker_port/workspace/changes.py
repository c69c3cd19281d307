"""Applies the changes that a build or a shell has made in the copy of the package to the package on the host.

If the user has changed the same file in the meantime, both files are kept. Every file is written under a temporary name
and then renamed. The container is not trusted, so a path that it sends must not lead out of the package's directory or
through a symbolic link. scripts/list.sh describes the format of the tar file that is read here. The module knows
neither the engine nor the scripts.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import IO

from nerves_docker_port import errors
from nerves_docker_port.workspace.packing import PERMISSIONS, TEMPORARY, is_left_out

_RECORD = re.compile(
    r"h (?P<sha>[0-9a-f]{64})  \./(?P<file>.+)"
    r"|[dm] (?P<mode>[0-7]{1,4}) \./(?P<moded>.+)"
    r"|l \./(?P<link>.+?)//(?P<target>.*)",
    re.DOTALL,
)
_BLOCK = 1 << 20
_SYMLINK_ERRORS = (errno.ELOOP, errno.ENOTDIR)
"""The errors of opening a symbolic link with ``O_NOFOLLOW | O_DIRECTORY``: ELOOP on macOS, ENOTDIR on Linux."""


@dataclass(frozen=True)
class Content:
    """The content at a path."""

    kind: str
    """``file``, ``link`` or ``other``. Content of the kind ``other`` counts as different from all that is sent."""
    value: str = ""
    """The SHA-256 of a file, or the target of a link."""


@dataclass
class Applied:
    """The result of `apply`."""

    written: list[Path] = field(default_factory=list)
    """The files on the host that were changed or made."""
    warnings: list[str] = field(default_factory=list)
    """Warnings for the user."""


@dataclass(frozen=True)
class _Base:
    """The contents of files and links, and the modes of files and directories, that the container got from the host.

    The keys are paths.
    """

    contents: dict[str, Content]
    modes: dict[str, int]


def apply(changes: IO[bytes], package: Path) -> Applied:
    """Apply ``changes``, the tar file of scripts/list.sh, to the directory ``package``.

    Raises ``RunnerError`` ``:bad_request`` or ``:disk_full`` if the host's file system refuses a change, and
    ``tarfile.TarError`` if ``changes`` is damaged or incomplete. After an error, the changes that were already applied
    stay, and the same changes can be applied again.
    """
    applied = Applied()
    base = _Base({}, {})
    # The names of directories of the build that have another name on the host, because something else has theirs.
    renamed: dict[tuple[str, ...], str] = {}
    directories: list[tuple[tuple[str, ...], tarfile.TarInfo]] = []
    with tarfile.open(fileobj=changes, mode="r|", errors="surrogateescape") as tar:
        for member in tar:
            if member.name == "base":
                base = _base(_content(tar, member))
            elif member.name == "deleted":
                names = [name.removeprefix("./") for name in _texts(_content(tar, member))]
                there = {name for name in names if os.path.lexists(package / name)}
                # Of a removed directory, only the directory itself is named.
                tops = [name for name in sorted(there) if os.path.dirname(name) not in there]  # noqa: PTH120
                if tops:
                    applied.warnings.append(errors.deleted_in_build(tops, str(package)))
            elif (parts := _parts(member, applied)) is not None:
                placed = _with_free_directories(package, parts, renamed, applied, is_directory=member.isdir())
                with _host_failures(package, "/".join(placed)):
                    if member.isdir():
                        _make_directory(package, placed, base, applied)
                        directories.append((placed, member))
                    else:
                        with directory_below(package, placed[:-1]) as directory:
                            _place(tar, member, directory, package, placed, base, applied)
        # This is done last and the innermost first, because a directory must be writable while files are made in it.
        for placed, member in reversed(directories):
            with _host_failures(package, "/".join(placed)):
                _set_directory_mode(package, placed, member.mode & PERMISSIONS, base, applied)
    return applied


def _parts(member: tarfile.TarInfo, applied: Applied) -> tuple[str, ...] | None:
    """Return the names in the path of a member. Warn and return ``None`` if the member is not accepted."""
    parts = tuple(member.name.removeprefix("./").split("/"))
    if not member.name.startswith("./") or any(part in ("", ".", "..") for part in parts):
        reason = "its path leads out of the package's directory"
    elif is_left_out("package", parts):
        reason = "files of this name stay where they are"
    elif not (member.isreg() or member.issym() or member.isdir()):
        reason = "it is neither a file, a directory nor a symbolic link"
    else:
        return parts
    applied.warnings.append(errors.not_brought_back(member.name, reason))
    return None


def _with_free_directories(
    package: Path, parts: tuple[str, ...], renamed: dict[tuple[str, ...], str], applied: Applied, *, is_directory: bool
) -> tuple[str, ...]:
    """Return ``parts`` with another name for each directory whose name belongs to a file or a link on the host.

    No link is followed, so the path does not lead out of the package's directory. If ``is_directory``, the last part
    is a directory, too. ``renamed`` keeps the names, so that the user is told of each once.
    """
    placed: tuple[str, ...] = ()
    for index, part in enumerate(parts):
        there = package.joinpath(*placed, part)
        if (index < len(parts) - 1 or is_directory) and not _is_free_for_directory(there):
            original = parts[: index + 1]
            if original not in renamed:
                names = (f"{part}.from-build{number}" for number in chain([""], map(".{}".format, count(2))))
                renamed[original] = next(name for name in names if _is_free_for_directory(there.with_name(name)))
                kept = there.with_name(renamed[original])
                applied.warnings.append(errors.replaced_in_build(str(there), str(kept)))
            part = renamed[original]  # noqa: PLW2901
        placed = (*placed, part)
    return placed


def _is_free_for_directory(path: Path) -> bool:
    """Return whether there is a directory under this path, or nothing."""
    return not os.path.lexists(path) or (path.is_dir() and not path.is_symlink())


def _make_directory(package: Path, parts: tuple[str, ...], base: _Base, applied: Applied) -> None:
    """Make a directory that is new in the build. One that the user has removed meanwhile is not made again."""
    path = package.joinpath(*parts)
    if not path.is_dir() and "/".join(parts) not in base.modes:
        with directory_below(package, parts):
            applied.written.append(path)


def _set_directory_mode(package: Path, parts: tuple[str, ...], mode: int, base: _Base, applied: Applied) -> None:
    """Set the mode of a directory that the build has made or whose mode it has changed."""
    path = package.joinpath(*parts)
    if path in applied.written:
        path.chmod(mode)
    elif path.is_dir():
        with directory_below(package, parts[:-1]) as directory:
            if _set_mode(directory, parts[-1], mode, base.modes.get("/".join(parts))):
                applied.written.append(path)


class LinkError(Exception):
    """A parent directory of a file is a link, or is not a directory. The text of the error is its path."""


def _place(
    tar: tarfile.TarFile,
    member: tarfile.TarInfo,
    directory: int,
    package: Path,
    parts: tuple[str, ...],
    base: _Base,
    applied: Applied,
) -> None:
    """Write one file or link into the open ``directory``, under another name if the user has changed it, too."""
    name, path = parts[-1], "/".join(parts)
    temporary = f"{TEMPORARY}{secrets.token_hex(8)}"
    try:
        new = _unpack(tar, member, directory, temporary)
        here = _content_at(directory, name)
        mode = member.mode & PERMISSIONS
        if here == new:
            if new.kind == "file" and _set_mode(directory, name, mode, base.modes.get(path)):
                applied.written.append(package / path)
            return
        unchanged_here = here == base.contents.get(path)
        if unchanged_here:
            os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
            applied.written.append(package / path)
            return
        beside = _free_name(directory, name, new)
        if beside is not None:
            os.rename(temporary, beside, src_dir_fd=directory, dst_dir_fd=directory)
            kept = package.joinpath(*parts[:-1], beside)
            warning = errors.both_changed
            if here is not None and name not in os.listdir(directory):
                # A file system that ignores case finds a file with another name.
                warning = errors.differs_in_case
            elif here is not None and here.kind == "other":
                warning = errors.replaced_in_build
            applied.warnings.append(warning(str(package / path), str(kept)))
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)


def _unpack(tar: tarfile.TarFile, member: tarfile.TarInfo, directory: int, name: str) -> Content:
    """Write a member under the temporary name ``name``, and return its content."""
    if member.issym():
        os.symlink(member.linkname, name, dir_fd=directory)
        return Content("link", member.linkname)
    digest = hashlib.sha256()
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=directory)
    with os.fdopen(descriptor, "wb") as file:
        content = tar.extractfile(member)
        while content is not None and (data := content.read(_BLOCK)):
            file.write(data)
            digest.update(data)
        file.flush()
        os.fchmod(descriptor, member.mode & PERMISSIONS)
        # The content must be on the disk before the file gets its final name.
        os.fsync(descriptor)
    return Content("file", digest.hexdigest())


def _content_at(directory: int, name: str) -> Content | None:
    """Return the content that the host has under this name, or ``None`` if nothing has the name."""
    try:
        mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(mode):
        return Content("link", os.readlink(name, dir_fd=directory))
    if not stat.S_ISREG(mode):
        return Content("other")
    digest = hashlib.sha256()
    with os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory), "rb") as file:
        while data := file.read(_BLOCK):
            digest.update(data)
    return Content("file", digest.hexdigest())


def _set_mode(directory: int, name: str, mode: int, sent: int | None) -> bool:
    """Set the mode of a file or a directory to ``mode``, unless the user has changed the mode in the meantime.

    ``sent`` is the mode with which it was sent to the container. Return whether the mode was set.
    """
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
    try:
        here = stat.S_IMODE(os.fstat(descriptor).st_mode)
        if here == mode or here != sent:
            return False
        os.fchmod(descriptor, mode)
        return True
    finally:
        os.close(descriptor)


def _free_name(directory: int, name: str, new: Content) -> str | None:
    """Return a free name for the file of the build, or ``None`` if an earlier attempt has already written the file."""
    number = 1
    while True:
        beside = f"{name}.from-build" if number == 1 else f"{name}.from-build.{number}"
        there = _content_at(directory, beside)
        if there is None:
            return beside
        if there == new:
            return None
        number += 1


@contextmanager
def directory_below(package: Path, parts: tuple[str, ...]) -> Iterator[int]:
    """Open the directory ``parts`` below ``package``, and make it if it is missing. Yields its file descriptor.

    No symbolic link is followed. Raises ``LinkError`` if one of the directories is a link, and ``OSError``.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    current = os.open(package, flags)
    try:
        for index, part in enumerate(parts):
            with suppress(FileExistsError):
                os.mkdir(part, dir_fd=current)
            try:
                inner = os.open(part, flags | os.O_NOFOLLOW, dir_fd=current)
            except OSError as error:
                if error.errno in _SYMLINK_ERRORS:
                    raise LinkError("/".join(parts[: index + 1])) from error
                raise
            os.close(current)
            current = inner
        yield current
    finally:
        os.close(current)


def _base(data: bytes) -> _Base:
    base = _Base({}, {})
    for match in filter(None, (_RECORD.fullmatch(text) for text in _texts(data))):
        if match["file"]:
            base.contents[match["file"]] = Content("file", match["sha"])
        elif match["link"]:
            base.contents[match["link"]] = Content("link", match["target"])
        else:
            base.modes[match["moded"]] = int(match["mode"], 8)
    return base


def _texts(data: bytes) -> list[str]:
    """Return the texts in ``data``, which end with a NUL each, decoded as Python decodes the host's paths."""
    return [os.fsdecode(text) for text in data.split(b"\0") if text]


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    return b"" if file is None else file.read()


@contextmanager
def _host_failures(package: Path, path: str) -> Iterator[None]:
    """Turn an error of the host's file system about ``path`` in the package into a ``RunnerError``."""
    try:
        yield
    except LinkError as error:
        raise errors.package_not_writable(str(package / path), f"{error} is no longer a directory") from error
    except OSError as error:
        # An error of the HTTP client has no number, or is one of these. It is not an error of the file system.
        if error.errno is None or isinstance(error, (ConnectionError, TimeoutError)):
            raise
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise errors.disk_full(
                f"No space is left on the host for what the build has changed in {package}."
            ) from error
        raise errors.package_not_writable(str(package / path), os.strerror(error.errno)) from error
