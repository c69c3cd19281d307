"""Chooses the host's files for a copied workspace, and packs them as one tar file while they are read.

scripts/list.sh leaves out the same names. The module does not know the engine, or what happens to the files there.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from nerves_docker_port import errors

Kind: TypeAlias = Literal["package", "platform", "other"]

State: TypeAlias = tuple[int, int, int, int]
"""A file's mode, size, and mtime and ctime in nanoseconds. They show a change without reading the file.

Of a directory, only the mode counts, and the other three are 0."""

TEMPORARY = ".nerves-docker-port-"
"""The prefix of the temporary names of files that are being written (changes.py, tree.py)."""

PERMISSIONS = 0o777
"""The mode bits that are sent, and that are applied on the host."""

_GONE = "in/gone"
"""The name of the member in place of a file that was removed while the tar file was made. No script uses it."""

_BLOCK = 1 << 20
_PADDING = 512
"""The size of a tar file's blocks in bytes."""

_LEFT_OUT = {
    # Mix and the runner write these. The build does not need them.
    "package": frozenset({"_build", "deps", ".nerves", "build.log", "archive.log", "run.log"}),
    # is_left_out also leaves out `buildroot*`: create-build.sh extracts it into the platform, and the copy keeps it.
    "platform": frozenset({"_build", "deps"}),
    "other": frozenset[str](),
}
"""The names directly in a tree's directory that are not sent."""


@dataclass(frozen=True)
class Tree:
    """A directory or a single file, and its name in the tar file."""

    kind: Kind
    path: Path
    name: str
    without: frozenset[Path] = frozenset()
    """Directories below ``path`` that are left out: downloads and artifacts, which are large and not needed there."""


def is_left_out(kind: Kind, parts: tuple[str, ...]) -> bool:
    """Return whether the file ``parts`` below a tree's directory is neither sent nor brought back."""
    if kind == "other":
        return False
    buildroot = kind == "platform" and parts[0].startswith("buildroot")
    return buildroot or parts[0] in _LEFT_OUT[kind] or ".git" in parts or parts[-1].startswith(TEMPORARY)


def snapshot(trees: tuple[Tree, ...]) -> dict[Path, State]:
    """Return the state of every file, link and directory of the trees.

    Raises ``RunnerError`` if a directory cannot be read.
    """
    return {path: state_of(status) for tree in trees for path, _, status in _walk(tree)}


def fingerprint(states: Mapping[Path, State]) -> str:
    """Return a digest that is different if a state is different, or if another file has it."""
    lines = (f"{path}\0{state}\n".encode("utf-8", "surrogateescape") for path, state in states.items())
    return hashlib.sha256(b"".join(lines)).hexdigest()


def state_of(status: os.stat_result) -> State:
    """Return the state of one file, link or directory."""
    if stat.S_ISDIR(status.st_mode):
        # The times of a directory also change with the files in it that are left out.
        return status.st_mode, 0, 0, 0
    return status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns


class Packed:
    """A tar file of trees and small files. An iteration makes its pieces, but its length is known before.

    Modes, times to the nanosecond and symbolic links are kept. A hard link becomes a separate file. All files belong to
    root. Sockets, pipes and devices are left out.
    """

    def __init__(self, trees: tuple[Tree, ...], files: Mapping[str, bytes], check: Callable[[], None]) -> None:
        """Choose the files of ``trees``; ``files`` has the names and contents of small files, which come last.

        ``check`` is called before each piece, and may raise. Raises ``RunnerError`` if something cannot be read; so
        does the iteration.
        """
        self._check = check
        # The header, the file or its content, and the content's size in bytes.
        self._parts: list[tuple[bytes, Path | bytes, int]] = []
        for tree in trees:
            for path, name, status in _walk(tree):
                check()
                # A link can be removed since its directory was listed.
                with suppress(FileNotFoundError):
                    member = _member(path, name, status)
                    self._parts.append((_header(member), path, member.size))
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            self._parts.append((_header(member), content, member.size))

    def __len__(self) -> int:
        """Return the length of the tar file in bytes."""
        return sum(len(header) + size + -size % _PADDING for header, _, size in self._parts) + 2 * _PADDING

    def __iter__(self) -> Iterator[bytes]:
        """Yield the pieces of the tar file. Some are empty."""
        for header, source, size in self._parts:
            padding = -size % _PADDING
            if isinstance(source, Path) and size:
                yield from self._read(header, source, size, padding)
            else:
                yield header
                if isinstance(source, bytes):
                    yield source
                yield bytes(padding)
        # The end of a tar file is two blocks of zeros.
        yield bytes(2 * _PADDING)

    def _read(self, header: bytes, path: Path, left: int, padding: int) -> Iterator[bytes]:
        """Yield the member of a file, with the size in the header even if the file becomes shorter or longer meanwhile.

        If the file was removed since it was chosen, yield a member of the same length with the name ``_GONE``.
        """
        try:
            with path.open("rb") as file:
                yield header
                while left > 0:
                    self._check()
                    data = file.read(min(left, _BLOCK)) or bytes(min(left, _BLOCK))
                    left -= len(data)
                    yield data
        except FileNotFoundError:
            gone = tarfile.TarInfo(_GONE)
            gone.size = len(header) + left + padding - _PADDING
            # In this format, the header has one block for a file of any size.
            yield gone.tobuf(tarfile.GNU_FORMAT)
            while left > 0:
                yield bytes(min(left, _BLOCK))
                left -= _BLOCK
            yield bytes(len(header) - _PADDING)
        except OSError as error:
            raise errors.not_readable(str(path), str(error.strerror)) from error
        yield bytes(padding)


def _member(path: Path, name: str, status: os.stat_result) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    # Some engines keep bits such as setuid here, and then lose them when the owner is changed.
    member.mode = stat.S_IMODE(status.st_mode) & PERMISSIONS
    # A float is not precise enough for nanoseconds since 1970, so the PAX header has the time as text.
    seconds, nanoseconds = divmod(status.st_mtime_ns, 10**9)
    member.mtime, member.pax_headers = seconds, {"mtime": f"{seconds}.{nanoseconds:09}"}
    if stat.S_ISDIR(status.st_mode):
        member.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(status.st_mode):
        member.type, member.linkname = tarfile.SYMTYPE, str(path.readlink())
    else:
        member.size = status.st_size
    return member


def _header(member: tarfile.TarInfo) -> bytes:
    return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _walk(tree: Tree) -> Iterator[tuple[Path, str, os.stat_result]]:
    """Yield the path, the name in the tar file, and the status of the tree's directory or file, then of all below it.

    If the tree's path itself is a symbolic link, it is followed. Links below it are not.
    """
    try:
        status = tree.path.stat()
        yield tree.path, tree.name, status
        if stat.S_ISDIR(status.st_mode):
            yield from _below(tree, tree.path, ())
    except OSError as error:
        raise errors.not_readable(str(error.filename or tree.path), str(error.strerror)) from error


def _below(tree: Tree, directory: Path, parts: tuple[str, ...]) -> Iterator[tuple[Path, str, os.stat_result]]:
    try:
        with os.scandir(directory) as listed:
            entries = sorted(listed, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        if not parts:
            raise
        # Removed or replaced since the directory above it was listed.
        return
    for entry in entries:
        path, inner = directory / entry.name, (*parts, entry.name)
        if is_left_out(tree.kind, inner) or path in tree.without:
            continue
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            # Removed since the directory was listed.
            continue
        if stat.S_ISDIR(status.st_mode):
            yield path, f"{tree.name}/{'/'.join(inner)}", status
            yield from _below(tree, path, inner)
        elif stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
            yield path, f"{tree.name}/{'/'.join(inner)}", status
