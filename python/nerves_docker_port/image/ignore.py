"""What a .dockerignore leaves out of a build's context, exactly as the docker CLI reads it.

The rules are those of github.com/moby/patternmatcher (its packages ``ignorefile`` and ``patternmatcher``) and of the
walk in github.com/moby/go-archive (``TarWithOptions``), including what is odd in them. The docker SDK reads the file in
its own way, which knows neither escapes nor ``[^a]``. tests/engine/test_dockerignore.py asks the CLI itself.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_TRIM = re.compile(f"^[{_SPACE}]+|[{_SPACE}]+$")

_POSIX_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": r"\x00-\x7f",
    "blank": r"\t ",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\t\n\v\f\r ",
    "upper": "A-Z",
    "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}
"""As in Go's regular expressions, into which patternmatcher turns a pattern without looking at what is in brackets."""


class PatternError(ValueError):
    """A pattern that the CLI refuses, in words."""


@dataclass(frozen=True)
class Pattern:
    """One line of the file, cleaned: without its ``!``."""

    text: str
    is_exception: bool

    def matches(self, path: str) -> bool:
        """Whether the pattern means ``path`` itself. Parents are the caller's business."""
        return self._expression.search(path) is not None

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        try:
            return re.compile(f"^{self._body()}\\Z", re.ASCII)
        except re.error as error:
            raise PatternError(f"syntax error in pattern {self.text!r}") from error

    def _body(self) -> str:
        text = self.text
        # With nothing else in it, a pattern is compared as it is, and so is what is before or after its one `**`.
        if not re.search(r"[*?\[\]\\]", text.replace("**", "")):
            before, *after = text.split("**")
            if not after:
                return re.escape(text)
            if text.startswith("**") and len(after) == 1:
                suffix = after[0]
                start = "(?s:.*/)?" if suffix.startswith("/") else "(?s:.*)"
                return start + re.escape(suffix.removeprefix("/"))
            if text.endswith("**") and len(after) == 1:
                return f"{re.escape(before)}(?s:.*)"
        return _translated(text)


class Ignore:
    """The patterns of one file, in their order."""

    def __init__(self, lines: Iterable[str]) -> None:
        """Raises ``PatternError``."""
        self._patterns = [pattern for pattern in map(_pattern, lines) if pattern is not None]
        self._directories: dict[str, tuple[bool, tuple[bool, ...]]] = {}

    @classmethod
    def read(cls, path: Path, *, always: Sequence[str] = ()) -> Ignore:
        """From a file, which need not exist; what ``always`` names is never left out. Raises ``OSError``."""
        try:
            # Not by `read_text`: a line ends with a newline, and with nothing else that Python takes for an end.
            text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
        except FileNotFoundError:
            text = ""
        lines = [line.removesuffix("\r") for line in text.split("\n")]
        found = [_cleaned(line) for line in lines if not line.startswith("#")]
        ignore = cls(found)
        return cls([*found, *(f"!{name}" for name in always if ignore._matches(name, ())[0])])

    def takes(self, path: str) -> bool:
        """Whether what is at ``path``, relative to the context, goes to the engine."""
        parent = posixpath.dirname(path)
        seen, parent_matches = self._directory(parent) if parent else (True, ())
        return seen and not self._matches(path, parent_matches)[0]

    def walk(self, root: Path) -> Iterator[str]:
        """The files and directories below ``root`` that go to the engine, as relative paths. Raises ``OSError``."""
        yield from self._below(root, "")

    def _below(self, root: Path, directory: str) -> Iterator[str]:
        with os.scandir(root / directory) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            path = posixpath.join(directory, entry.name)
            if self.takes(path):
                yield path
            if entry.is_dir(follow_symlinks=False) and self._directory(path)[0]:
                yield from self._below(root, path)

    def _directory(self, path: str) -> tuple[bool, tuple[bool, ...]]:
        """Whether the walk looks into a directory, and which patterns it or a directory above it matches."""
        if path not in self._directories:
            parent = posixpath.dirname(path)
            seen, parent_matches = self._directory(parent) if parent else (True, ())
            left_out, matches = self._matches(path, parent_matches)
            # One that is left out is looked into only for an exception that is written below it.
            if left_out:
                seen = seen and any(
                    pattern.is_exception and f"{pattern.text}/".startswith(f"{path}/") for pattern in self._patterns
                )
            self._directories[path] = seen, matches
        return self._directories[path]

    def _matches(self, path: str, parent: tuple[bool, ...]) -> tuple[bool, tuple[bool, ...]]:
        """``MatchesUsingParentResults``: whether ``path`` is left out, and which patterns match it or a parent."""
        left_out = False
        matches = []
        for index, pattern in enumerate(self._patterns):
            matched = bool(parent) and parent[index]
            # Only an exception can change what is left out, and only another pattern what is not.
            if not matched and pattern.is_exception == left_out:
                matched = pattern.matches(path)
            matches.append(matched)
            if matched:
                left_out = not pattern.is_exception
        return left_out, tuple(matches)


def component(pattern: str) -> re.Pattern[str]:
    """One part of a path in COPY or ADD, as Go's ``filepath.Match`` reads it. Raises ``PatternError``."""
    if not re.fullmatch(f"(?:{_TOKEN})*", pattern, re.DOTALL):
        raise PatternError(f"syntax error in pattern {pattern!r}")

    def translated(token: re.Match[str]) -> str:
        text = token[0]
        if text.startswith("["):
            start, content = ("[^", text[2:-1]) if text.startswith("[^") else ("[", text[1:-1])
            return (
                start + re.sub(r"\\?(.)", lambda each: each[1] if each[0] == "-" else re.escape(each[1]), content) + "]"
            )
        return {"*": "[^/]*", "?": "[^/]"}.get(text) or re.escape(text[-1])

    return re.compile(re.sub(_TOKEN, translated, pattern, flags=re.DOTALL), re.DOTALL)


def _cleaned(line: str) -> str:
    """A line as ``ignorefile.ReadAll`` gives it."""
    text = _TRIM.sub("", line)
    mark = "!" if text.startswith("!") else ""
    text = _TRIM.sub("", text.removeprefix("!"))
    if text:
        text = _clean(text)
        if len(text) > 1:
            text = text.removeprefix("/")
    return mark + text


def _pattern(line: str) -> Pattern | None:
    """A pattern as ``patternmatcher.New`` makes it."""
    text = _TRIM.sub("", line)
    if not text:
        return None
    text = _clean(text)
    if text == "!":
        raise PatternError('illegal exclusion pattern: "!"')
    pattern = Pattern(text.removeprefix("!"), text.startswith("!"))
    _check(pattern.text)
    return pattern


def _clean(path: str) -> str:
    """``filepath.Clean``: as ``normpath``, which keeps two leading slashes."""
    cleaned = posixpath.normpath(path)
    return "/" + cleaned.lstrip("/") if cleaned.startswith("/") else cleaned


_CHARACTER = r"(?:\\.|[^\\\]-])"
_TOKEN = rf"\\.|[^\\\[]|\[(?:\^(?!\])|(?!\^))(?:{_CHARACTER}(?:-{_CHARACTER})?)+\]"
"""What a pattern of ``filepath.Match`` is made of: an escape, a character, or a class."""


# What is before the next `*` that is not in brackets.
_CHUNK = r"(\**)((?:\\.?|\[(?:\\.?|[^\]\\])*\]?|[^*\[\\])*)"


def _check(pattern: str) -> None:
    """Refuse what patternmatcher does: it compares a new pattern with "." by ``filepath.Match``, to see its errors.

    Those are a bracket that is not closed or is empty, and a backslash at the end; but the comparison ends, without a
    look at the rest, at the first part between two `*` that does not fit.
    """
    name = "."
    while pattern and (found := re.match(_CHUNK, pattern, re.DOTALL)):
        star, chunk = found.groups()
        pattern = pattern[found.end() :]
        if star and not chunk:
            return
        expression = component(chunk)
        for start in range(len(name) + 1 if star else 1):
            fits = expression.match(name, start)
            if fits is not None and (fits.end() == len(name) or pattern):
                name = name[fits.end() :]
                break
        else:
            return


def _translated(pattern: str) -> str:
    """A pattern as a regular expression, built as patternmatcher builds its own: character by character.

    It pays no heed to brackets, so a `*` in them becomes an expression there, too; and a `|` that stands beside a
    wildcard divides the expression in two.
    """
    found = ""
    rest = pattern
    while rest:
        character, rest = rest[0], rest[1:]
        if character == "*" and rest.startswith("*"):
            rest = rest[1:].removeprefix("/")
            found += "(?:.*/)?" if rest else ".*"
        elif character == "*":
            found += "[^/]*"
        elif character == "?":
            found += "[^/]"
        elif character in ".+(){}$":
            found += f"\\{character}"
        elif character == "\\" and rest:
            found += f"\\{rest[0]}"
            rest = rest[1:]
        else:
            found += character
    return _for_python(found)


def _for_python(expression: str) -> str:
    """A regular expression of Go's, as Python has to be given it: what it has in brackets is read otherwise."""
    found, position = "", 0
    while position < len(expression):
        character = expression[position]
        if character != "[":
            step = 2 if character == "\\" else 1
            found += _escaped(expression[position : position + step], "afnrtvdDsSwWbBAz")
            position += step
            continue
        # Go: a bracket right after the opening one (or its `^`) is an ordinary character.
        start = position + (2 if expression.startswith("[^", position) else 1)
        found += expression[position:start]
        position = start
        while position < len(expression) and (expression[position] != "]" or position == start):
            named = re.compile(r"\[:([a-z]+):\]").match(expression, position)
            if named is not None and named[1] in _POSIX_CLASSES:
                found += _POSIX_CLASSES[named[1]]
                position = named.end()
                continue
            step = 2 if expression[position] == "\\" else 1
            part = expression[position : position + step]
            found += f"\\{part}" if part in ("[", "]", "&", "~", "|") else _escaped(part, "afnrtvdDsSwW")
            position += step
        found += "]" if position < len(expression) else ""
        position += 1
    return found


def _escaped(part: str, known: str) -> str:
    """A character, or an escape: all but letters and digits stand for themselves, and of those Go knows ``known``."""
    if len(part) < 2:
        return part
    if not (part[1].isascii() and part[1].isalnum()):
        return re.escape(part[1])
    if part[1] not in known:
        raise re.error(f"invalid escape sequence {part}")
    return r"\Z" if part == r"\z" else part
