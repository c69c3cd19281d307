"""What goes from the host into a copied workspace: which files, packed as one tar while they are read.

Knows neither the engine nor what becomes of the files there. scripts/list.sh leaves out the same names.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from nerves_docker_port import errors

Kind: TypeAlias = Literal["package", "platform", "other"]

State: TypeAlias = tuple[int, int, int, int]
"""What tells without reading it that a file is another than before: mode, size, and both times in nanoseconds."""

TEMPORARY = ".nerves-docker-port-"
"""What the names of our own unfinished files begin with (changes.py)."""

_BLOCK = 1 << 20
_PADDING = 512
"""The size of a tar file's blocks."""

_TOP = {
    # What Mix writes there, and what only belongs to the host.
    "package": frozenset({"_build", "deps", ".nerves", "build.log", "archive.log", "run.log"}),
    # create-build.sh extracts Buildroot into the platform itself, and the copy keeps it.
    "platform": frozenset({"_build", "deps"}),
    "other": frozenset[str](),
}


@dataclass(frozen=True)
class Tree:
    """A directory, or a single file, and what it is called in the tar file."""

    kind: Kind
    path: Path
    name: str
    without: frozenset[Path] = frozenset()
    """Directories below it that are left out: downloads and artifacts, which are large and of no use there."""


def is_left_out(kind: Kind, parts: tuple[str, ...]) -> bool:
    """Whether the file of this path below a package's or platform's directory is not the other side's business."""
    if kind == "other":
        return False
    buildroot = kind == "platform" and parts[0].startswith("buildroot")
    return buildroot or parts[0] in _TOP[kind] or ".git" in parts or parts[-1].startswith(TEMPORARY)


def snapshot(trees: tuple[Tree, ...]) -> dict[Path, State]:
    """The state of every file and link of the trees. Raises ``RunnerError``."""
    found = ((path, status) for tree in trees for path, _, status in _walk(tree) if not stat.S_ISDIR(status.st_mode))
    return {path: state_of(status) for path, status in found}


def state_of(status: os.stat_result) -> State:
    """The state of one file."""
    return status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns


class Packed:
    """A tar file of trees and small files. It is made while it is iterated over, but its length is known before.

    Modes, times to the nanosecond and symbolic links are kept, hard links become files of their own, everything is
    root's, and sockets, pipes and devices are left out.
    """

    def __init__(self, trees: tuple[Tree, ...], files: Mapping[str, bytes], check: Callable[[], None]) -> None:
        """``files`` are names and contents; they come last. ``check`` is called before each piece, and may raise.

        Raises ``RunnerError`` where something cannot be read; so does the iteration.
        """
        self._check = check
        # Each with its header, and with the number of bytes that belong to it.
        self._parts: list[tuple[bytes, Path | bytes, int]] = []
        for tree in trees:
            for path, name, status in _walk(tree):
                check()
                member = _member(path, name, status)
                self._parts.append((_header(member), path, member.size))
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            self._parts.append((_header(member), content, member.size))

    def __len__(self) -> int:
        """Bytes."""
        return sum(len(header) + size + -size % _PADDING for header, _, size in self._parts) + 2 * _PADDING

    def __iter__(self) -> Iterator[bytes]:
        """The pieces, some of them empty."""
        for header, source, size in self._parts:
            yield header
            if isinstance(source, bytes):
                yield source
            elif size:
                yield from self._read(source, size)
            yield bytes(-size % _PADDING)
        # The end of a tar file is two blocks of zeros.
        yield bytes(2 * _PADDING)

    def _read(self, path: Path, left: int) -> Iterator[bytes]:
        """As many bytes of a file as its header says, although the file may change while it is read."""
        try:
            with path.open("rb") as file:
                while left > 0:
                    self._check()
                    data = file.read(min(left, _BLOCK)) or bytes(min(left, _BLOCK))
                    left -= len(data)
                    yield data
        except OSError as error:
            raise errors.not_readable(str(path), str(error.strerror)) from error


def _member(path: Path, name: str, status: os.stat_result) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.mode = stat.S_IMODE(status.st_mode)
    # A float cannot hold nanoseconds since 1970; PAX has the time as text.
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
    """The tree's own directory or file, then what is in it: path, name in the tar file, status. Links are not followed.

    The tree itself may be a link: then it is what the link points to.
    """
    try:
        status = tree.path.stat()
        yield tree.path, tree.name, status
        if stat.S_ISDIR(status.st_mode):
            yield from _below(tree, tree.path, ())
    except OSError as error:
        raise errors.not_readable(str(error.filename or tree.path), str(error.strerror)) from error


def _below(tree: Tree, directory: Path, parts: tuple[str, ...]) -> Iterator[tuple[Path, str, os.stat_result]]:
    with os.scandir(directory) as listed:
        entries = sorted(listed, key=lambda entry: entry.name)
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
