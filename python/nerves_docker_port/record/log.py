"""A container's output on its way: all of it to the log file, Buildroot's headlines to the person.

Knows neither engine nor port. Works on whole reads, not on lines: a build writes hundreds of megabytes, of which a few
thousand lines are headlines.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from nerves_docker_port import errors

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on

# A headline begins its line: `>>> name version Step`, in Buildroot's own output inverse: support/misc/utils.mk and
# `MESSAGE` in package/pkg-utils.mk write `$(TERM_BOLD)>>> ...`, which is ESC[7m where tput knows `smso`.
_HEADLINE = re.compile(rb"(?:\x1b\[7m)?>>>[^\n]*")
# Those that follow a line. `re` finds a pattern's first byte with memchr: six times as fast as `^` at every byte.
_NEXT_HEADLINES = re.compile(rb"\n((?:\x1b\[7m)?>>>[^\n]*)")
_ESCAPE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
_LONGEST_HEADLINE = 4096
"""Bytes. A longer line is shown as far as this."""

LAST_LINES = 16
"""How many lines an error shows, as the stock runner."""
_LONGEST_LAST = 16 * 1024
"""Bytes. A build may end in one line of 50 MB."""


class Headlines:
    """Finds the headlines in a stream of reads, each once and in order, however the reads cut them."""

    def __init__(self) -> None:
        # The unfinished last line, as far as it can matter: its beginning.
        self._line = b""
        self._skipping = False

    def feed(self, data: bytes) -> list[bytes]:
        """The headlines that ``data`` completes: without escape sequences and surrounding blanks."""
        if self._skipping:
            end = data.find(b"\n")
            if end < 0:
                return []
            data = data[end + 1 :]
            self._skipping = False
        elif self._line:
            data = self._line + data
            self._line = b""
        last = data.rfind(b"\n") + 1
        self._keep(data[last : last + _LONGEST_HEADLINE])
        if b">>>" not in data:
            return []
        first = _HEADLINE.match(data, 0, last)
        return _clean_all([*([first[0]] if first else []), *_NEXT_HEADLINES.findall(data, 0, last)])

    def finish(self) -> list[bytes]:
        """The headline that the stream ended in, if it did: a last line without its newline."""
        line, self._line, self._skipping = self._line, b"", False
        return [clean(line)] if _HEADLINE.match(line) else []

    def _keep(self, line: bytes) -> None:
        """Remember the unfinished line if it is a headline or can still become one."""
        begun = line.startswith((b">>>", b"\x1b[7m>>>"))
        if begun or b">>>".startswith(line) or b"\x1b[7m>>>".startswith(line):
            self._line = line
        else:
            self._skipping = True


def clean(line: bytes) -> bytes:
    """``line`` as it is shown: no escape sequences, no carriage return, no surrounding blanks."""
    return _ESCAPE.sub(b"", line[:_LONGEST_HEADLINE]).replace(b"\r", b"").strip()


def _clean_all(lines: list[bytes]) -> list[bytes]:
    """``clean`` for each. Together they take 0.4 of the time where they hold no escapes but Buildroot's own."""
    text = b"\n".join([line[:_LONGEST_HEADLINE] for line in lines])
    text = text.replace(b"\x1b[7m", b"").replace(b"\x1b[27m", b"").replace(b"\r", b"")
    if b"\x1b" in text:
        return [clean(line) for line in lines]
    return [line.strip() for line in text.split(b"\n")] if lines else []


class BuildLog:
    """The log file of one flow, truncated at its start; every byte of every step goes in.

    Each read from the engine is one write: the file is never behind what was read. ``on_headlines`` gets the headlines
    of a read, joined by newlines.
    """

    def __init__(self, path: Path, on_headlines: Callable[[bytes], None]) -> None:
        self.path = path
        self._on_headlines = on_headlines
        self._headlines = Headlines()
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise self._error(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def write(self, data: bytes) -> None:
        """Keep ``data`` and show the headlines in it. Raises ``RunnerError`` ``:disk_full``."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise self._error(error) from error
        self._show(self._headlines.feed(data))

    def note(self, text: str) -> None:
        """Keep a line of our own, so that a reader of the file knows what happened to it."""
        self.write(f"\n[nerves_docker_port] {text}\n".encode())

    def end_step(self) -> None:
        """A step's output has ended: what it left of a line does not run into the next step's."""
        self._show(self._headlines.finish())

    def last_lines(self) -> str:
        """The last lines of the file, as text."""
        with self.path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _LONGEST_LAST))
            lines = file.read().splitlines()[-LAST_LINES:]
        return "\n".join(_ESCAPE.sub(b"", line).decode("utf-8", "replace").rstrip() for line in lines)

    def _show(self, headlines: list[bytes]) -> None:
        if headlines:
            self._on_headlines(b"\n".join(headlines))

    def _error(self, error: OSError) -> errors.RunnerError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return errors.disk_full(f"No space is left on the host for the log {self.path}.", str(self.path))
        return errors.not_writable(str(self.path), "The log", str(error.strerror))
