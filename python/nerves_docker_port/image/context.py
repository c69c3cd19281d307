"""A Dockerfile and its context: where they are, what of the context goes to the engine, and whether they changed.

The context is the Dockerfile's directory. Knows no engine.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO

from docker.utils.build import create_archive

from nerves_docker_port import errors
from nerves_docker_port.image.ignore import Ignore, PatternError, component

MADE_BY_BUILDS = (
    *(".git", ".nerves", ".elixir_ls", "_build", "deps"),
    *("build.log", "archive.log", "run.log", "Config.in", "*-portable-*.tar.?z"),
)
"""What Git, Mix, Nerves and the build itself write into a package. Where a whole context counts (`COPY . /src`, and the
Dockerfile is in the package's directory) these do not, or every build would be followed by a new image. What the
Dockerfile names itself counts whatever it is called."""


@dataclass(frozen=True)
class Context:
    """What an image is built from."""

    dockerfile: Path

    @classmethod
    def find(cls, dockerfile: Path) -> Context | None:
        """The context of a configured Dockerfile, or ``None`` where there is no such file.

        A directory stands for the ``Dockerfile`` in it: that is what the stock runner's default names.
        """
        if dockerfile.is_dir():
            dockerfile /= "Dockerfile"
        return cls(Path(os.path.normpath(dockerfile))) if dockerfile.is_file() else None

    @property
    def root(self) -> Path:
        """The directory that COPY and ADD start from."""
        return self.dockerfile.parent

    def digest(self) -> str:
        """A SHA-256 of all that the image depends on here: the Dockerfile and what it takes from the context.

        Names, contents, whether a file is executable, where a link points; no times and no owners, so a fresh clone has
        the same. Only what COPY, ADD and RUN --mount name is read: a package's directory may hold gigabytes that they
        do not. An image that the Dockerfile begins with (FROM) counts by its name.
        Raises ``OSError``.
        """
        text = self.dockerfile.read_bytes()
        digest = hashlib.sha256(text)
        with self._ignore() as ignore:
            used = [
                path for path in sorted(set(self._used(sources(text.decode("utf-8", "replace"))))) if ignore.takes(path)
            ]
        for path in used:
            full = self.root / path
            if full.is_symlink():
                kind, content = "link", os.fsencode(full.readlink())
            elif full.is_file():
                kind = "program" if os.access(full, os.X_OK) else "file"
                content = _hash_of(full)
            else:
                kind, content = "directory", b""
            digest.update(b"\0%s\0%s\0%d\0%s" % (kind.encode(), os.fsencode(path), len(content), content))
        return digest.hexdigest()

    def buildkit_only(self) -> str | None:
        """What the Dockerfile has that only BuildKit knows, in words; ``None`` where there is nothing of that kind."""
        try:
            return buildkit_only(self.dockerfile.read_text(encoding="utf-8-sig", errors="replace"))
        except OSError:
            return None

    def packed(self) -> tuple[IO[bytes], str]:
        """The context as a tar file that vanishes when it is closed, and the Dockerfile's name in it.

        Raises ``OSError``.
        """
        name = self.dockerfile.name
        with self._ignore() as ignore:
            files = set(ignore.walk(self.root))
        if self._ignore_file().name != ".dockerignore":
            # The engine's own builder would apply it on top.
            files.discard(".dockerignore")
        packed = tempfile.TemporaryFile(prefix="nerves-docker-port-")  # noqa: SIM115  # the caller's
        try:
            create_archive(str(self.root), files=sorted(files), fileobj=packed)
        except BaseException:
            packed.close()
            raise
        return packed, name

    def _ignore_file(self) -> Path:
        """`NAME.dockerignore` goes before `.dockerignore`, as with BuildKit."""
        own = self.dockerfile.with_name(f"{self.dockerfile.name}.dockerignore")
        return own if own.is_file() else self.root / ".dockerignore"

    @contextmanager
    def _ignore(self) -> Iterator[Ignore]:
        """What is left out. Some of the file's errors are found only when a path is compared with a pattern."""
        file = self._ignore_file()
        try:
            # The builder reads these two itself, whether or not they are left out of the image.
            yield Ignore.read(file, always=(".dockerignore", self.dockerfile.name))
        except PatternError as error:
            raise errors.ignore_file_wrong(str(file), str(error)) from error

    def _used(self, patterns: set[str]) -> Iterator[str]:
        for pattern in patterns:
            for path in _matching(self.root, pattern):
                whole = pattern == "."
                yield from _below(self.root, path, MADE_BY_BUILDS if whole else ())


def sources(text: str) -> set[str]:
    """The paths and patterns in the context that a Dockerfile uses, relative; ``.`` is all of it.

    More rather than less where it cannot be told: a variable stands for everything that it could.
    """
    found: set[str] = set()
    for instruction in _instructions(text):
        word, _, rest = instruction.strip().partition(" ")
        flags, rest = _flags(rest.strip())
        if word.upper() in ("COPY", "ADD"):
            if not any(flag.startswith("--from=") for flag in flags):
                found.update(_relative(source) for source in _arguments(rest)[:-1] if not _is_remote(source))
        elif word.upper() == "RUN":
            found.update(_bind_mounts(flags))
    return found


_BUILDKIT_FLAGS = {
    "RUN": ("mount", "network", "security", "device"),
    "COPY": ("link", "chmod", "exclude", "parents"),
    "ADD": ("link", "chmod", "checksum", "exclude", "keep-git-dir", "unpack"),
    "HEALTHCHECK": ("start-interval",),
}
"""The flags of instructions that the engine's own builder does not know (docs.docker.com/reference/dockerfile/)."""


def buildkit_only(text: str) -> str | None:
    """The first thing in a Dockerfile that the engine's own builder does not know, in words."""
    found = []
    for instruction in _instructions(text):
        word, _, rest = instruction.partition(" ")
        flags, rest = _flags(rest.strip())
        word = word.upper()
        if word in ("RUN", "COPY", "ADD") and re.search(r"(?<!<)<<-?[\"']?[A-Za-z_]", rest):
            # Before all else: what follows is not read as it is meant.
            return f"a here-document after {word}"
        names = [re.split(r"[= ]", flag[2:])[0] for flag in flags]
        found += [f"{word} --{name}" for name in names if name in _BUILDKIT_FLAGS.get(word, ())]
    if found:
        return found[0]
    # Without BuildKit these are empty.
    variable = re.search(r"\$\{?((?:TARGET|BUILD)(?:PLATFORM|OS|ARCH|VARIANT))\b", text)
    if variable is not None:
        return f"the variable {variable[1]}"
    syntax = re.search(r"\A(?:\s*#[^\n]*\n)*?\s*#\s*syntax\s*=\s*(\S+)", text, re.IGNORECASE)
    return None if syntax is None else f"its line `# syntax={syntax[1]}`"


def _instructions(text: str) -> Iterator[str]:
    """The instructions, each in one line. Bodies of here-documents come as if they were some: that harms nothing."""
    escape = re.match(r"(?:\s*#[^\n]*\n)*?\s*#\s*escape\s*=\s*(`)", text, re.IGNORECASE)
    ending = escape[1] if escape else "\\"
    pending = ""
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("#") or not stripped:
            continue
        if stripped.endswith(ending):
            pending += stripped[:-1] + " "
            continue
        yield pending + stripped
        pending = ""
    if pending:
        yield pending


def _flags(rest: str) -> tuple[list[str], str]:
    flags = []
    while rest.startswith("--"):
        flag, _, rest = rest.partition(" ")
        flags.append(flag)
        rest = rest.strip()
    return flags, rest


def _arguments(rest: str) -> list[str]:
    if rest.startswith("["):
        try:
            words = json.loads(rest)
        except ValueError:
            words = None
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            return words
    return rest.split()


def _bind_mounts(flags: list[str]) -> Iterator[str]:
    for flag in flags:
        if not flag.startswith("--mount="):
            continue
        items = [item.partition("=") for item in flag.removeprefix("--mount=").split(",")]
        pairs = {name: value for name, _, value in items}
        # A mount without a type is a bind mount, and one without a source is of the whole context.
        if pairs.get("type", "bind") == "bind" and "from" not in pairs:
            yield _relative(pairs.get("source") or pairs.get("src") or ".")


def _is_remote(source: str) -> bool:
    return "://" in source or source.startswith("git@")


def _relative(source: str) -> str:
    """A source as a path below the context's root. What a variable would decide is cut off: its directory counts."""
    kept = []
    for part in source.split("/"):
        if "$" in part:
            break
        kept.append(part)
    return posixpath.normpath("/" + "/".join(kept)).lstrip("/") or "."


def _matching(root: Path, pattern: str) -> Iterator[str]:
    """The paths that a pattern means. As with Go's filepath.Match, ``*`` matches no slash, and a leading dot too."""
    if pattern == ".":
        yield "."
        return
    found = [""]
    for part in pattern.split("/"):
        if re.search(r"[*?\[\\]", part):
            try:
                matches = component(part).fullmatch
            except PatternError:
                return
            found = [posixpath.join(path, name) for path in found for name in _names(root / path) if matches(name)]
        else:
            found = [posixpath.join(path, part) for path in found]
    yield from (path for path in found if os.path.lexists(root / path))


def _below(root: Path, path: str, but: tuple[str, ...]) -> Iterator[str]:
    """``path`` and all that is below it, but for what has such a name at the top."""
    if path != ".":
        yield path
    full = root / path
    if full.is_symlink() or not full.is_dir():
        return
    for name in _names(full):
        if not any(fnmatchcase(name, pattern) for pattern in but):
            yield from _below(root, name if path == "." else posixpath.join(path, name), ())


def _names(directory: Path) -> list[str]:
    try:
        return sorted(path.name for path in directory.iterdir())
    except NotADirectoryError:
        return []


def _hash_of(path: Path) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            digest.update(data)
    return digest.digest()
