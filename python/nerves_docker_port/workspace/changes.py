"""What a build or a person in a shell has changed in the copy of the package, applied to the package itself.

Nothing is lost and nothing is overwritten that the person has changed meanwhile: then both files are kept. Everything
is written with a temporary name and renamed. The container is not trusted: no path in what it sends leads out of the
package's directory, and none leads through a symbolic link. Knows neither the engine nor scripts; the form of what is
read here is written down in scripts/list.sh.
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
"""Those that are brought back; setuid and the like stay away."""

_SYMLINK_ERRORS = (errno.ELOOP, errno.ENOTDIR)
"""What ``O_NOFOLLOW | O_DIRECTORY`` says of a link: Linux ENOTDIR, macOS ELOOP."""


@dataclass(frozen=True)
class Content:
    """What a path holds: the SHA-256 of a file, or the target of a link."""

    kind: str
    """``file``, ``link`` or ``other``, which is never the same as anything."""
    value: str = ""


@dataclass
class Applied:
    """What became of the changes."""

    written: list[Path] = field(default_factory=list)
    """Files of the host that were changed or made."""
    warnings: list[str] = field(default_factory=list)
    """In words for the person."""


@dataclass(frozen=True)
class _Base:
    """What the container got: of one path more than one content where a session died while it took over another."""

    contents: dict[str, set[Content]]
    modes: dict[str, set[int]]


def apply(changes: IO[bytes], package: Path) -> Applied:
    """Apply ``changes``, the tar file of scripts/list.sh, to the directory ``package``.

    Raises ``RunnerError`` ``:bad_request`` or ``:disk_full`` where the host's file system refuses it, and
    ``tarfile.TarError`` where ``changes`` breaks off. Then what was applied so far stays, and it can be done again.
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
                _one(tar, member, package, base, applied)
    return applied


def _one(tar: tarfile.TarFile, member: tarfile.TarInfo, package: Path, base: _Base, applied: Applied) -> None:
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
    """A directory on the way to a file is a link, or no directory; its text is the path."""


def _place(
    tar: tarfile.TarFile,
    member: tarfile.TarInfo,
    directory: int,
    package: Path,
    parts: tuple[str, ...],
    base: _Base,
    applied: Applied,
) -> None:
    """Bring one file or link into the open ``directory``, under its own name or beside."""
    name, path = parts[-1], "/".join(parts)
    temporary = f"{TEMPORARY}{secrets.token_hex(8)}"
    try:
        new = _unpack(tar, member, directory, temporary)
        here = _there(directory, name)
        mode = member.mode & _PERMISSIONS
        if here == new:
            if new.kind == "file" and _set_mode(directory, name, mode, base.modes.get(path, set())):
                applied.written.append(package / path)
            return
        as_it_came = here in base.contents[path] if path in base.contents else here is None
        if as_it_came:
            os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
            applied.written.append(package / path)
            return
        beside = _beside(directory, name, new)
        if beside is not None:
            os.rename(temporary, beside, src_dir_fd=directory, dst_dir_fd=directory)
            kept = package.joinpath(*parts[:-1], beside)
            applied.warnings.append(errors.both_changed(str(package / path), str(kept)))
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)


def _unpack(tar: tarfile.TarFile, member: tarfile.TarInfo, directory: int, name: str) -> Content:
    """Write a member under a temporary name; what it holds."""
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
        # The name must not be on the disk before the content is.
        os.fsync(descriptor)
    return Content("file", digest.hexdigest())


def _there(directory: int, name: str) -> Content | None:
    """What the host has under this name; ``None`` if there is nothing."""
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


def _set_mode(directory: int, name: str, mode: int, came: set[int]) -> bool:
    """Give a file whose content is the same the mode that it was given there, unless it has another here meanwhile."""
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
    try:
        here = stat.S_IMODE(os.fstat(descriptor).st_mode)
        if here == mode or here not in came:
            return False
        os.fchmod(descriptor, mode)
        return True
    finally:
        os.close(descriptor)


def _beside(directory: int, name: str, new: Content) -> str | None:
    """A free name for what the build has made; ``None`` where an earlier attempt has put it there already."""
    number = 1
    while True:
        beside = f"{name}.from-build" if number == 1 else f"{name}.from-build.{number}"
        there = _there(directory, beside)
        if there is None:
            return beside
        if there == new:
            return None
        number += 1


@contextmanager
def directory_below(package: Path, parts: tuple[str, ...]) -> Iterator[int]:
    """The directory below ``package``, open; made where it is missing. No link is followed on the way.

    Raises ``LinkError``, and ``OSError``.
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
    """What ends with a NUL each, whatever bytes it has, as the host's paths are written in Python."""
    return [os.fsdecode(text) for text in data.split(b"\0") if text]


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    return b"" if file is None else file.read()


@contextmanager
def _host_failures(package: Path) -> Iterator[None]:
    """Our words for what the host's file system refuses."""
    try:
        yield
    except OSError as error:
        # What the HTTP client raises has no number.
        if error.errno is None:
            raise
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise errors.disk_full(
                f"No space is left on the host for what the build has changed in {package}."
            ) from error
        where = str(package if error.filename is None else package / os.fsdecode(error.filename))
        raise errors.not_writable(where, "The package's file", os.strerror(error.errno)) from error
