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
from pathlib import Path
from typing import IO

from nerves_docker_port import errors
from nerves_docker_port.workspace.packing import TEMPORARY, is_left_out

_RECORD = re.compile(
    r"h (?P<sha>[0-9a-f]{64})  \./(?P<file>.+)"
    r"|m (?P<mode>[0-7]{1,4}) \./(?P<moded>.+)"
    r"|l \./(?P<link>.+?)//(?P<target>.*)",
    re.DOTALL,
)
_BLOCK = 1 << 20
_PERMISSIONS = 0o777
"""The mode bits that are applied. Bits such as setuid are not."""

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
    """The contents and modes that the container got from the host, by path.

    A path has more than one content if a session died while it replaced one content with another.
    """

    contents: dict[str, set[Content]]
    modes: dict[str, set[int]]


def apply(changes: IO[bytes], package: Path) -> Applied:
    """Apply ``changes``, the tar file of scripts/list.sh, to the directory ``package``.

    Raises ``RunnerError`` ``:bad_request`` or ``:disk_full`` if the host's file system refuses a change, and
    ``tarfile.TarError`` if ``changes`` is damaged or incomplete. After an error, the changes that were already applied
    stay, and the same changes can be applied again.
    """
    applied = Applied()
    base = _Base({}, {})
    with _host_failures(package), tarfile.open(fileobj=changes, mode="r|", errors="surrogateescape") as tar:
        for member in tar:
            if member.name == "base":
                base = _base(_content(tar, member))
            elif member.name == "deleted":
                names = [name.removeprefix("./") for name in _texts(_content(tar, member))]
                there = [name for name in names if os.path.lexists(package / name)]
                if there:
                    applied.warnings.append(errors.deleted_in_build(there, str(package)))
            else:
                _apply_member(tar, member, package, base, applied)
    return applied


def _apply_member(tar: tarfile.TarFile, member: tarfile.TarInfo, package: Path, base: _Base, applied: Applied) -> None:
    parts = tuple(member.name.removeprefix("./").split("/"))
    if not member.name.startswith("./") or any(part in ("", ".", "..") for part in parts):
        applied.warnings.append(errors.not_brought_back(member.name, "its path leads out of the package's directory"))
        return
    if is_left_out("package", parts):
        applied.warnings.append(errors.not_brought_back(member.name, "files of this name stay where they are"))
        return
    if not (member.isreg() or member.issym()):
        applied.warnings.append(errors.not_brought_back(member.name, "it is neither a file nor a symbolic link"))
        return
    try:
        with directory_below(package, parts[:-1]) as directory:
            _place(tar, member, directory, package, parts, base, applied)
    except LinkError as error:
        reason = f"here, {error} is not a directory, so the path leads somewhere else"
        applied.warnings.append(errors.not_brought_back(member.name, reason))


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
        mode = member.mode & _PERMISSIONS
        if here == new:
            if new.kind == "file" and _set_mode(directory, name, mode, base.modes.get(path, set())):
                applied.written.append(package / path)
            return
        unchanged_here = here in base.contents[path] if path in base.contents else here is None
        if unchanged_here:
            os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
            applied.written.append(package / path)
            return
        beside = _free_name(directory, name, new)
        if beside is not None:
            os.rename(temporary, beside, src_dir_fd=directory, dst_dir_fd=directory)
            kept = package.joinpath(*parts[:-1], beside)
            applied.warnings.append(errors.both_changed(str(package / path), str(kept)))
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
        os.fchmod(descriptor, member.mode & _PERMISSIONS)
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


def _set_mode(directory: int, name: str, mode: int, sent: set[int]) -> bool:
    """Set the mode of a file to ``mode``, unless the user has changed the mode in the meantime.

    ``sent`` has the modes with which the file was sent to the container. Return whether the mode was set.
    """
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
    try:
        here = stat.S_IMODE(os.fstat(descriptor).st_mode)
        if here == mode or here not in sent:
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
            base.contents.setdefault(match["file"], set()).add(Content("file", match["sha"]))
        elif match["link"]:
            base.contents.setdefault(match["link"], set()).add(Content("link", match["target"]))
        else:
            base.modes.setdefault(match["moded"], set()).add(int(match["mode"], 8))
    return base


def _texts(data: bytes) -> list[str]:
    """Return the texts in ``data``, which end with a NUL each, decoded as Python decodes the host's paths."""
    return [os.fsdecode(text) for text in data.split(b"\0") if text]


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    return b"" if file is None else file.read()


@contextmanager
def _host_failures(package: Path) -> Iterator[None]:
    """Turn an error of the host's file system into a ``RunnerError``."""
    try:
        yield
    except OSError as error:
        # An error of the HTTP client has no number. It is not an error of the file system.
        if error.errno is None:
            raise
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise errors.disk_full(
                f"No space is left on the host for what the build has changed in {package}."
            ) from error
        where = str(package if error.filename is None else package / os.fsdecode(error.filename))
        raise errors.not_writable(where, "The package's file", os.strerror(error.errno)) from error
