"""A Dockerfile and its build context, which is the Dockerfile's directory.

This module finds both, chooses the files that are sent to the engine, and computes a digest that shows changes. It does
not know the engine.
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
"""The files that Git, Mix, Nerves and the build itself write into a package. If the Dockerfile is in the package's
directory and copies all of it (`COPY . /src`), the digest leaves these out, because otherwise each build would make a
new image necessary. A file that the Dockerfile itself names is always part of the digest."""


@dataclass(frozen=True)
class Context:
    """The Dockerfile and the directory that an image is built from."""

    dockerfile: Path

    @classmethod
    def find(cls, dockerfile: Path) -> Context | None:
        """Return the context of a configured Dockerfile, or ``None`` if there is no such file.

        If ``dockerfile`` is a directory, the ``Dockerfile`` in it is meant, as with the stock runner's default.
        """
        if dockerfile.is_dir():
            dockerfile /= "Dockerfile"
        return cls(Path(os.path.normpath(dockerfile))) if dockerfile.is_file() else None

    @property
    def root(self) -> Path:
        """The directory to which the paths of COPY and ADD are relative."""
        return self.dockerfile.parent

    def digest(self) -> str:
        """Return a SHA-256 of the Dockerfile and of the files that it uses from the context.

        It covers names, contents, whether a file is executable, and the targets of links. It does not cover times and
        owners, so a fresh clone has the same digest. Only the files that COPY, ADD and RUN --mount name are read,
        because the package's directory may contain gigabytes of other files. Of the image that FROM names, only the
        name is covered. Raises ``OSError``.
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
        """Return a description of syntax in the Dockerfile that only BuildKit knows, or ``None`` if it has none."""
        try:
            return buildkit_only(self.dockerfile.read_text(encoding="utf-8-sig", errors="replace"))
        except OSError:
            return None

    def packed(self) -> tuple[IO[bytes], str]:
        """Return the context as a temporary tar file, which is deleted when it is closed, and the Dockerfile's name.

        Raises ``OSError``.
        """
        name = self.dockerfile.name
        with self._ignore() as ignore:
            files = set(ignore.walk(self.root))
        if self._ignore_file().name != ".dockerignore":
            # The engine's own builder would apply this file in addition.
            files.discard(".dockerignore")
        packed = tempfile.TemporaryFile(prefix="nerves-docker-port-")  # noqa: SIM115  # the caller's
        try:
            create_archive(str(self.root), files=sorted(files), fileobj=packed)
        except BaseException:
            packed.close()
            raise
        return packed, name

    def _ignore_file(self) -> Path:
        """Return the path of `NAME.dockerignore` if it exists, else of `.dockerignore`, as BuildKit does."""
        own = self.dockerfile.with_name(f"{self.dockerfile.name}.dockerignore")
        return own if own.is_file() else self.root / ".dockerignore"

    @contextmanager
    def _ignore(self) -> Iterator[Ignore]:
        """Yield the rules of the ignore file.

        Raises ``RunnerError`` if the file is wrong, also from the body of the `with`: some errors in it are found only
        when a path is compared with a pattern.
        """
        file = self._ignore_file()
        try:
            # The builder itself needs these two files, even if the ignore file names them.
            yield Ignore.read(file, always=(".dockerignore", self.dockerfile.name))
        except PatternError as error:
            raise errors.ignore_file_wrong(str(file), str(error)) from error

    def _used(self, patterns: set[str]) -> Iterator[str]:
        for pattern in patterns:
            for path in _matching(self.root, pattern):
                whole = pattern == "."
                yield from _below(self.root, path, MADE_BY_BUILDS if whole else ())


def sources(text: str) -> set[str]:
    """Return the paths and patterns that a Dockerfile uses, relative to the context. ``.`` means the whole context.

    If this is not certain, the result has more rather than fewer: for a path with a variable, it has the directory
    before the variable.
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
    """Return a description of the first syntax in a Dockerfile that only BuildKit knows, or ``None``."""
    found = []
    for instruction in _instructions(text):
        # ONBUILD stands before an instruction for later.
        word, _, rest = re.sub(r"^ONBUILD\s+", "", instruction, flags=re.IGNORECASE).partition(" ")
        flags, rest = _flags(rest.strip())
        word = word.upper()
        if word in ("RUN", "COPY", "ADD") and re.search(r"(?<!<)<<-?[\"']?[A-Za-z_]", rest):
            # This is reported first, because the lines of its body are wrongly read as instructions.
            return f"a here-document after {word}"
        names = [re.split(r"[= ]", flag[2:])[0] for flag in flags]
        found += [f"{word} --{name}" for name in names if name in _BUILDKIT_FLAGS.get(word, ())]
    if found:
        return found[0]
    # Without BuildKit these variables are empty.
    variable = re.search(r"\$\{?((?:TARGET|BUILD)(?:PLATFORM|OS|ARCH|VARIANT))\b", text)
    if variable is not None:
        return f"the variable {variable[1]}"
    syntax = re.search(r"\A(?:\s*#[^\n]*\n)*?\s*#\s*syntax\s*=\s*(\S+)", text, re.IGNORECASE)
    return None if syntax is None else f"its line `# syntax={syntax[1]}`"


def _instructions(text: str) -> Iterator[str]:
    """Yield the instructions, each as one line. The lines of a here-document's body also appear, which does no harm."""
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
        # The default type of a mount is `bind`, and its default source is the whole context.
        if pairs.get("type", "bind") == "bind" and "from" not in pairs:
            yield _relative(pairs.get("source") or pairs.get("src") or ".")


def _is_remote(source: str) -> bool:
    return "://" in source or source.startswith("git@")


def _relative(source: str) -> str:
    """Return a source as a path relative to the context. It ends before the first part that contains a variable."""
    kept = []
    for part in source.split("/"):
        if "$" in part:
            break
        kept.append(part)
    return posixpath.normpath("/" + "/".join(kept)).lstrip("/") or "."


def _matching(root: Path, pattern: str) -> Iterator[str]:
    """Yield the paths that match a pattern. As in Go's filepath.Match, ``*`` matches a leading dot, but no slash."""
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


def _below(root: Path, path: str, left_out: tuple[str, ...]) -> Iterator[str]:
    """Yield ``path`` and all paths below it, except those directly below it that match a pattern of ``left_out``."""
    if path != ".":
        yield path
    full = root / path
    if full.is_symlink() or not full.is_dir():
        return
    for name in _names(full):
        if not any(fnmatchcase(name, pattern) for pattern in left_out):
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
