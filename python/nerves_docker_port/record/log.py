"""A container's output on its way: all of it to the log file, Buildroot's headlines to the person.

Knows neither engine nor port. Works on whole reads, not on lines: a build writes hundreds of megabytes, of which a few
thousand lines are headlines.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from nerves_docker_port import errors
from nerves_docker_port.printing import from_output
from nerves_docker_port.record import standout

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on

_LONGEST_HEADLINE = 4096
"""Bytes. A longer line is shown as far as this."""

LAST_LINES = 16
"""How many lines an error shows, as the stock runner."""
_LONGEST_LAST = 16 * 1024
"""Bytes. A build may end in one line of 50 MB."""

_END = 256 * 1024


class Headlines:
    """Finds the headlines in a stream of reads, each once and in order, however the reads cut them."""

    def __init__(self) -> None:
        # The unfinished last line, as far as it can matter: its beginning.
        self._line = b""
        self._skipping = False

    def feed(self, data: bytes) -> list[bytes]:
        """The headlines that ``data`` completes: without controls and surrounding blanks."""
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
        first = standout.HEADLINE.match(data, 0, last)
        return _shown([*([first[0]] if first else []), *standout.NEXT_HEADLINES.findall(data, 0, last)])

    def finish(self) -> list[bytes]:
        """The headline that the stream ended in, if it did: a last line without its newline."""
        line, self._line, self._skipping = self._line, b"", False
        return _shown([line] if standout.HEADLINE.match(line) else [])

    def _keep(self, line: bytes) -> None:
        """Remember the unfinished line if it is a headline or can still become one."""
        if standout.may_become_headline(line):
            self._line = line
        else:
            self._skipping = True


def _shown(headlines: list[bytes]) -> list[bytes]:
    return standout.shown([line[:_LONGEST_HEADLINE] for line in headlines])


def clean(line: bytes) -> bytes:
    """``line`` as it is shown: no controls, no surrounding blanks."""
    return from_output(line[:_LONGEST_HEADLINE]).strip().encode()


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
        self.keep(data)
        self._show(self._headlines.feed(data))

    def keep(self, data: bytes) -> None:
        """Keep ``data``, and show nothing of it. Raises ``RunnerError`` ``:disk_full``."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise self._error(error) from error

    def note(self, text: str) -> None:
        """Keep a line of our own, so that a reader of the file knows what happened to it."""
        self.write(f"\n[nerves_docker_port] {text}\n".encode())

    def end_step(self) -> None:
        """A step's output has ended: what it left of a line does not run into the next step's."""
        self._show(self._headlines.finish())

    def last_lines(self) -> str:
        """The last lines of the file, as text."""
        return "\n".join(self._tail(_LONGEST_LAST)[-LAST_LINES:])

    def end(self) -> str:
        """The last 256 KiB of the file, as text: enough to find out why a step failed."""
        return "\n".join(self._tail(_END))

    def _tail(self, limit: int) -> list[str]:
        with self.path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - limit))
            return [from_output(line).rstrip() for line in file.read().splitlines()]

    def _show(self, headlines: list[bytes]) -> None:
        if headlines:
            self._on_headlines(b"\n".join(headlines))

    def _error(self, error: OSError) -> errors.RunnerError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return errors.disk_full(f"No space is left on the host for the log {self.path}.", str(self.path))
        return errors.not_writable(str(self.path), "The log", str(error.strerror))
