"""Reads a .dockerignore exactly as the docker CLI does, and decides which files of a context are left out.

The rules are those of github.com/moby/patternmatcher (its packages ``ignorefile`` and ``patternmatcher``) and of the
walk in github.com/moby/go-archive (``TarWithOptions``), with all their peculiarities. The docker SDK has rules of its
own, without escapes and ``[^a]``. tests/engine/test_dockerignore.py compares this module with the CLI.
"""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import groupby
from pathlib import Path

_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_TRIM = re.compile(f"^[{_SPACE}]+|[{_SPACE}]+$")

_BYTE_ORDER_MARK = "\ufeff"

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
"""The named classes of Go's regular expressions. patternmatcher copies the content of brackets to such an expression
unchanged, so these classes work in a .dockerignore."""


class PatternError(ValueError):
    """The CLI refuses a pattern. The text of the error says why."""


@dataclass(frozen=True)
class Pattern:
    """One line of the file, cleaned and without its ``!``."""

    text: str
    is_exception: bool

    def matches(self, path: str) -> bool:
        """Return whether the pattern matches ``path`` itself. The caller checks the parent directories."""
        return self._expression.search(path) is not None

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        try:
            return re.compile(self._whole(), re.ASCII)
        except re.error as error:
            raise PatternError(f"syntax error in pattern {self.text!r}") from error

    def _whole(self) -> str:
        text = self.text
        # patternmatcher compares a pattern as plain text if it has no wildcard but one `**` at its beginning or end.
        if not re.search(r"[*?\[\]\\]", text.replace("**", "")):
            before, *after = text.split("**")
            if not after:
                return rf"^{re.escape(text)}\Z"
            if text.startswith("**") and len(after) == 1:
                suffix = after[0]
                start = "(?s:.*/)?" if suffix.startswith("/") else "(?s:.*)"
                return rf"^{start}{re.escape(suffix.removeprefix('/'))}\Z"
            if text.endswith("**") and len(after) == 1:
                return rf"^{re.escape(before)}(?s:.*)\Z"
        # patternmatcher reads such a pattern with Go's text/scanner, which ignores a byte order mark at the beginning.
        return _for_python(f"^{_translated(text.removeprefix(_BYTE_ORDER_MARK))}$")


class Ignore:
    """The patterns of one file in their order."""

    def __init__(self, lines: Iterable[str]) -> None:
        """Make the patterns from cleaned lines. Raises ``PatternError``."""
        self._patterns = [pattern for pattern in map(_pattern, lines) if pattern is not None]
        self._directories: dict[str, tuple[bool, tuple[bool, ...]]] = {}

    @classmethod
    def read(cls, path: Path, *, always: Sequence[str] = ()) -> Ignore:
        """Read a file, which need not exist. The paths in ``always`` are never left out. Raises ``OSError``."""
        try:
            # `read_text` would turn a lone carriage return into the end of a line. For the CLI only a newline is one.
            text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
        except FileNotFoundError:
            text = ""
        lines = [line.removesuffix("\r") for line in text.split("\n")]
        found = [_cleaned(line) for line in lines if not line.startswith("#")]
        ignore = cls(found)
        return cls([*found, *(f"!{name}" for name in always if ignore._matches(name, ())[0])])

    def takes(self, path: str) -> bool:
        """Return whether the file or directory ``path``, relative to the context, is sent to the engine."""
        parent = posixpath.dirname(path)
        seen, parent_matches = self._directory(parent) if parent else (True, ())
        return seen and not self._matches(path, parent_matches)[0]

    def walk(self, root: Path) -> Iterator[str]:
        """Yield the relative paths of all files and directories below ``root`` that are sent. Raises ``OSError``."""
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
        """Return whether the walk reads a directory, and which patterns match it or a directory above it."""
        if path not in self._directories:
            parent = posixpath.dirname(path)
            seen, parent_matches = self._directory(parent) if parent else (True, ())
            left_out, matches = self._matches(path, parent_matches)
            # A directory that is left out is read only if the text of an exception begins with its path.
            if left_out:
                seen = seen and any(
                    pattern.is_exception and f"{pattern.text}/".startswith(f"{path}/") for pattern in self._patterns
                )
            self._directories[path] = seen, matches
        return self._directories[path]

    def _matches(self, path: str, parent: tuple[bool, ...]) -> tuple[bool, tuple[bool, ...]]:
        """Return whether ``path`` is left out, and which patterns match it or a parent.

        patternmatcher's function for this is ``MatchesUsingParentResults``.
        """
        left_out = False
        matches = []
        for index, pattern in enumerate(self._patterns):
            matched = bool(parent) and parent[index]
            # An exception is compared only if the path is left out so far, any other pattern only if it is not.
            if not matched and pattern.is_exception == left_out:
                matched = pattern.matches(path)
            matches.append(matched)
            if matched:
                left_out = not pattern.is_exception
        return left_out, tuple(matches)


def component(pattern: str) -> re.Pattern[str]:
    """Return the expression for one part of a path in COPY or ADD, by the rules of Go's ``filepath.Match``.

    Raises ``PatternError``.
    """
    if not re.fullmatch(f"(?:{_TOKEN})*", pattern, re.DOTALL):
        raise PatternError(f"syntax error in pattern {pattern!r}")

    def translated(token: re.Match[str]) -> str:
        text = token[0]
        if text.startswith("["):
            inverted = text.startswith("[^")
            ranges = re.findall(rf"({_CHARACTER})(?:-({_CHARACTER}))?", text[2 if inverted else 1 : -1], re.DOTALL)
            # A range whose end is before its beginning is empty.
            ends = [(low[-1], (high or low)[-1]) for low, high in ranges]
            found = [f"{re.escape(low)}-{re.escape(high)}" for low, high in ends if low <= high]
            if not found:
                return "(?s:.)" if inverted else "(?!)"
            return f"[{'^' if inverted else ''}{''.join(found)}]"
        return {"*": "[^/]*", "?": "[^/]"}.get(text) or re.escape(text[-1])

    return re.compile(re.sub(_TOKEN, translated, pattern, flags=re.DOTALL), re.DOTALL)


def _cleaned(line: str) -> str:
    """Return a line as ``ignorefile.ReadAll`` does."""
    text = _TRIM.sub("", line)
    mark = "!" if text.startswith("!") else ""
    text = _TRIM.sub("", text.removeprefix("!"))
    if text:
        text = _clean(text)
        if len(text) > 1:
            text = text.removeprefix("/")
    return mark + text


def _pattern(line: str) -> Pattern | None:
    """Return the pattern that ``patternmatcher.New`` makes of a line, or ``None`` for an empty line."""
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
    """Return a path as Go's ``filepath.Clean`` does. ``normpath`` would keep two leading slashes."""
    cleaned = posixpath.normpath(path)
    return "/" + cleaned.lstrip("/") if cleaned.startswith("/") else cleaned


_CHARACTER = r"(?:\\.|[^\\\]-])"
_TOKEN = rf"\\.|[^\\\[]|\[(?:\^(?!\])|(?!\^))(?:{_CHARACTER}(?:-{_CHARACTER})?)+\]"
"""One element of a pattern of ``filepath.Match``: an escape, a character, or a class."""


# The `*` at the beginning, and the text up to the next `*` that is not in brackets.
_CHUNK = r"(\**)((?:\\.?|\[(?:\\.?|[^\]\\])*\]?|[^*\[\\])*)"


def _check(pattern: str) -> None:
    """Raise ``PatternError`` for a pattern that patternmatcher refuses.

    patternmatcher compares a new pattern with "." by ``filepath.Match``, only to find its errors: an empty bracket, a
    bracket that is not closed, and a backslash at the end. But this comparison ends at the first part between two `*`
    that does not match, so it does not see errors after that part.
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
    """Return a pattern as an expression of Go, made character by character in the same way as patternmatcher does.

    patternmatcher does not treat brackets specially, so it replaces a `*` in them, too. It tries to escape `|`, `{` and
    `}`, but its table is too small for them. So in a pattern with a wildcard, a `|` divides the expression in two, and
    `{2}` is a repetition.
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
        elif character in ".+()$":
            found += f"\\{character}"
        elif character == "\\" and rest:
            found += f"\\{rest[0]}"
            rest = rest[1:]
        else:
            found += character
    return found


_REPEAT = re.compile(r"[*?]|\{(0|[1-9]\d*)(,(0|[1-9]\d*)?)?\}", re.ASCII)
_LARGEST_REPEAT = 1000
_NUMBER = re.compile(r"\\(?:([1-7][0-7]{1,2}|0[0-7]{0,2})|x([0-9A-Fa-f]{2})|x\{([0-9A-Fa-f]+)\})")
_NAMED = {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_PERL_CLASSES = {"d": "0-9", "s": r"\t\n\f\r ", "w": "0-9A-Za-z_"}
_UNICODE_CLASS = re.compile(r"\\([pP])(?:\{(\^?)([^}]*)\}|([^{]))", re.DOTALL)
_CATEGORIES = re.compile(r"L[lmotu]?|M[cen]?|N[dlo]?|P[cdefios]?|S[ckmo]?|Z[lps]?|C[cfos]?")
"""The general categories of Unicode that Go's regular expressions know."""
_LAST_CHARACTER = 0x10FFFF


def _for_python(expression: str) -> str:
    """Return the Python expression for an expression of Go that ``_translated`` has made.

    The rules are those of Go's regexp/syntax with Perl's flags. Raises ``re.error``.
    """
    found: list[str] = []
    position = 0
    repeated = False
    while position < len(expression):
        repeat = _REPEAT.match(expression, position)
        if repeat is not None:
            # Go allows no repetition of a repetition, and no repetition at the beginning of an alternative.
            if repeated or found[-1] == "|":
                raise re.error(f"{repeat[0]} repeats nothing")
            found[-1] = f"(?:{found[-1]}){_repetition(repeat)}"
            position, repeated = repeat.end(), True
            continue
        repeated = False
        if expression.startswith("(?:.*/)", position):
            found.append("(?:.*/)")
            position += len("(?:.*/)")
        elif expression.startswith("\\Q", position):
            end = expression.find("\\E", position)
            end = len(expression) if end < 0 else end
            found += map(re.escape, expression[position + 2 : end])
            position = end + 2
        elif expression[position] == "[":
            part, position = _class(expression, position + 1)
            found.append(part)
        elif expression[position] == "\\":
            part, position = _escape(expression, position)
            found.append(part)
        else:
            character = expression[position]
            found.append({"^": "^", "$": r"\Z", "|": "|", ".": "."}.get(character) or re.escape(character))
            position += 1
    return "".join(found)


def _repetition(repeat: re.Match[str]) -> str:
    if not repeat[0].startswith("{"):
        return repeat[0]
    low = int(repeat[1])
    high = int(repeat[3]) if repeat[3] else low
    if max(low, high) > _LARGEST_REPEAT or high < low:
        raise re.error(f"invalid repeat count {repeat[0]}")
    return repeat[0]


def _escape(expression: str, position: int) -> tuple[str, int]:
    """Return the Python expression for the escape at ``position``, outside of brackets, and the position after it."""
    following = expression[position + 1 : position + 2]
    if following in ("b", "B", "A"):
        return f"\\{following}", position + 2
    if following == "z":
        return r"\Z", position + 2
    if following in ("p", "P"):
        content, position = _unicode_class(expression, position)
        return f"[{content}]", position
    if following.lower() in _PERL_CLASSES:
        return f"[{'^' if following.isupper() else ''}{_PERL_CLASSES[following.lower()]}]", position + 2
    character, position = _escaped(expression, position)
    return re.escape(character), position


def _escaped(expression: str, position: int) -> tuple[str, int]:
    """Return the character that the escape at ``position`` means, and the position after the escape."""
    number = _NUMBER.match(expression, position)
    if number is not None:
        code = int(number[1], 8) if number[1] else int(number[2] or number[3], 16)
        if code > _LAST_CHARACTER:
            raise re.error(f"invalid escape sequence {number[0]}")
        return chr(code), number.end()
    following = expression[position + 1 : position + 2]
    # Go accepts no other letters and digits here.
    if following in _NAMED:
        return _NAMED[following], position + 2
    if not following or (following.isascii() and following.isalnum()) or not following.isascii():
        raise re.error(f"invalid escape sequence \\{following}")
    return following, position + 2


def _class(expression: str, position: int) -> tuple[str, int]:
    """Return the Python expression for the class whose content begins at ``position``, and the position after it."""
    start = "["
    if expression.startswith("^", position):
        start, position = "[^", position + 1
    found, first = "", True
    # A `]` directly after the opening bracket, or its `^`, is an ordinary character.
    while first or not expression.startswith("]", position):
        first = False
        named = re.compile(r"\[:(\^?)([a-z]+):\]").match(expression, position)
        perl = re.compile(r"\\([dswDSW])").match(expression, position)
        if named is not None:
            if named[2] not in _POSIX_CLASSES:
                raise re.error(f"invalid character class {named[0]}")
            found += _inverted(_POSIX_CLASSES[named[2]]) if named[1] else _POSIX_CLASSES[named[2]]
            position = named.end()
        elif perl is not None:
            content = _PERL_CLASSES[perl[1].lower()]
            found += _inverted(content) if perl[1].isupper() else content
            position = perl.end()
        elif expression.startswith(("\\p", "\\P"), position):
            content, position = _unicode_class(expression, position)
            found += content
        else:
            low, position = _member(expression, position)
            high = low
            if expression.startswith("-", position) and not expression.startswith("]", position + 1):
                high, position = _member(expression, position + 1)
            if high < low:
                raise re.error(f"invalid character class range {low}-{high}")
            found += f"{re.escape(low)}-{re.escape(high)}"
    return f"{start}{found}]", position + 1


def _member(expression: str, position: int) -> tuple[str, int]:
    """Return the character at ``position`` in brackets, and the position after it."""
    if position >= len(expression):
        raise re.error("missing closing ]")
    if expression[position] == "\\":
        return _escaped(expression, position)
    return expression[position], position + 1


def _inverted(content: str) -> str:
    """Return the content of a class that has all characters except those of the class with this ``content``."""
    inside = re.compile(f"[{content}]")
    # The classes have only ASCII characters.
    others = (chr(code) for code in range(0x80) if not inside.match(chr(code)))
    return "".join(map(re.escape, others)) + f"\x80-{chr(_LAST_CHARACTER)}"


def _unicode_class(expression: str, position: int) -> tuple[str, int]:
    r"""Return the content of the class ``\p{L}``, ``\pL`` or ``\P{L}`` at ``position``, and the position after it.

    Raises ``re.error``, and ``PatternError`` for the name of a script, because Python does not know the scripts.
    """
    found = _UNICODE_CLASS.match(expression, position)
    if found is None:
        raise re.error("a name of a class is missing")
    name = found[4] or found[3]
    if name != "Any" and not _CATEGORIES.fullmatch(name):
        raise PatternError(f"{found[0]} is not supported: only general categories of Unicode are, such as \\p{{L}}")
    inverted = (found[1] == "P") != bool(found[2])
    return _category("" if name == "Any" else name, inverted=inverted), found.end()


@cache
def _category(name: str, *, inverted: bool) -> str:
    """Return the content of the class of the characters whose category begins with ``name``, or of all others."""

    def belongs(code: int) -> bool:
        # A byte of a name that is not UTF-8 is a lone surrogate in Python, and U+FFFD in Go.
        category = unicodedata.category("\ufffd" if 0xD800 <= code < 0xE000 else chr(code))
        # Characters that are not assigned have no category in Go.
        return (name == "" or (category != "Cn" and category.startswith(name))) != inverted

    ranges = [list(codes) for inside, codes in groupby(range(_LAST_CHARACTER + 1), belongs) if inside]
    # Python has no empty class. This lone surrogate does not occur in a name.
    return "".join(f"{re.escape(chr(codes[0]))}-{re.escape(chr(codes[-1]))}" for codes in ranges) or "\ud800"
