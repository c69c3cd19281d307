"""How steps are passed to a session's container, and the marks that the container writes when a step has ended.

scripts/steps.sh describes the format of both. This module must know neither the engine nor what a step is for.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_LONGEST_NAME = 32
_MARK = re.compile(rb"([0-9]{1,9}) ([a-z_]{1,%d}) ([0-9]{1,3}) ([0-9]{1,15})" % _LONGEST_NAME)
_LONGEST_MARK = 9 + 1 + _LONGEST_NAME + 1 + 3 + 1 + 15 + 1

NOT_KNOWN = 999_999_999
"""The number of killed processes in a mark if the container could not read it (scripts/kills.sh)."""


@dataclass(frozen=True)
class Step:
    """One command that runs in the build directory. ``name`` consists of lower-case letters and underscores."""

    name: str
    command: Sequence[str]


@dataclass(frozen=True)
class Mark:
    """A message in the container's output. It says that a step has ended, or something about the whole session."""

    number: int
    """The number of the step, counted from 1 in each session, or 0 if the mark is about the session."""
    name: str
    status: int
    """The exit status of the step."""
    killed: int
    """The number of processes that were killed because memory ran out while the step ran, or ``NOT_KNOWN``.

    A mark about the session can have another number here: its sender's process id, or the size of a file.
    """


def new_token() -> str:
    """Return the secret of one session's marks, without which a line of the log could look like a mark."""
    return secrets.token_hex(16)


def to_arguments(token: str, steps: Sequence[Step], final: Step | None) -> list[str]:
    """Return the arguments of scripts/steps.sh. ``final`` is the step that runs on ``Session.finish``."""
    later = [] if final is None else _to_words([final])
    return [token, str(len(later)), *later, *_to_words(steps)]


def _to_words(steps: Sequence[Step]) -> list[str]:
    words: list[str] = []
    for step in steps:
        words += [step.name, str(len(step.command)), *step.command]
    return words


def to_file(first: int, steps: Sequence[Step]) -> bytes:
    """Return the content of the file ``steps``, which scripts/steps.sh reads. ``first`` is the first step's number."""
    words = [str(first), *_to_words(steps)]
    return b"".join(word.encode("utf-8", "surrogateescape") + b"\0" for word in words)


def marks_in(ended: bytes) -> list[Mark]:
    """Return the marks in the file ``ended``, which has one in each line."""
    found = (_MARK.fullmatch(line) for line in ended.splitlines())
    return [_mark(match) for match in found if match is not None]


class Splitter:
    """Takes the marks out of a container's output, even if a mark arrives in several reads.

    ``on_output`` gets every byte that the steps wrote, and ``on_mark`` gets each mark, in the order of their arrival.
    """

    def __init__(self, token: str, on_output: Callable[[bytes], None], on_mark: Callable[[Mark], None]) -> None:
        self._begin = b"\x1e" + token.encode() + b" "
        self._on_output = on_output
        self._on_mark = on_mark
        # The end of the last read, if it can be the beginning of a mark.
        self._unfinished = b""

    def feed(self, data: bytes) -> bytes:
        """Take ``data``, the result of a read, up to the first mark in it. Return the bytes that follow that mark.

        The caller must feed the returned bytes next. So it can react to a mark before it gets the output after it.
        """
        # The byte 0x1e is very rare in a log, and the search for one byte is much faster than the search for a mark.
        if not self._unfinished and b"\x1e" not in data:
            self._on_output(data)
            return b""
        data, self._unfinished = self._unfinished + data, b""
        start = 0
        while (found := data.find(self._begin, start)) >= 0:
            match = _MARK.match(data, found + len(self._begin))
            if match is None or data[match.end() : match.end() + 1] != b"\x1e":
                start = found + 1
                continue
            self._pass_on(data[:found])
            self._on_mark(_mark(match))
            return data[match.end() + 1 :]
        keep = self._beginning_of_mark(data)
        self._unfinished = data[keep:]
        self._pass_on(data[:keep])
        return b""

    def finish(self) -> None:
        """Treat the beginning of an unfinished mark as output, because the stream has ended or the connection broke."""
        unfinished, self._unfinished = self._unfinished, b""
        self._pass_on(unfinished)

    def _pass_on(self, data: bytes) -> None:
        if data:
            self._on_output(data)

    def _beginning_of_mark(self, data: bytes) -> int:
        """Return the index in ``data`` of a mark that the next read may complete, or the length of ``data``."""
        start = data.find(b"\x1e", max(0, len(data) - len(self._begin) - _LONGEST_MARK))
        while start >= 0:
            begun = data[start:]
            if self._begin.startswith(begun) or (begun.startswith(self._begin) and b"\x1e" not in begun[1:]):
                return start
            start = data.find(b"\x1e", start + 1)
        return len(data)


class FileReceiver:
    """Takes the files that scripts/copy.sh writes out of a container's standard error."""

    def __init__(self, token: str) -> None:
        self._output: list[bytes] = []
        self._splitter = Splitter(token, self._output.append, self._on_mark)
        # Content that arrives before `expect` is called.
        self._early_content: list[bytes] = []
        self._begin: Callable[[], Callable[[bytes], None]] = lambda: self._early_content.append
        self._on_content: Callable[[bytes], None] = self._early_content.append
        # The bytes of the file that are still missing, or None if no file has begun.
        self._remaining: int | None = None
        self.is_lost = False
        """Whether a connection was lost, and no file has begun since then."""

    def expect(self, begin: Callable[[], Callable[[bytes], None]]) -> None:
        """Call ``begin`` for each file that begins, and pass the content of the file to the function it returns."""
        self._begin = begin
        if self._remaining is not None:
            self._on_content = begin()
            for data in self._early_content:
                self._on_content(data)
        self._early_content.clear()

    def has_taken_file(self) -> bool:
        """Return whether a file has arrived completely. If it has, further files are ignored until ``expect``."""
        if self._remaining != 0:
            return False
        self._begin = lambda: lambda _data: None
        self._remaining = None
        return True

    def lose(self) -> None:
        """Ignore everything until the next file begins, because a connection was lost and the rest has no beginning."""
        self._early_content.clear()
        self._remaining = None
        self.is_lost = True

    def feed(self, data: bytes) -> bytes:
        """Take the result of a read of standard error, and return what is not a part of a file."""
        while data:
            if self._remaining:
                content, data = data[: self._remaining], data[self._remaining :]
                self._remaining -= len(content)
                self._on_content(content)
            else:
                data = self._splitter.feed(data)
        output = b"".join(self._output)
        self._output.clear()
        return b"" if self.is_lost else output

    def _on_mark(self, mark: Mark) -> None:
        self._remaining = mark.killed
        self._on_content = self._begin()
        self.is_lost = False


def _mark(match: re.Match[bytes]) -> Mark:
    return Mark(int(match[1]), match[2].decode(), int(match[3]), int(match[4]))
