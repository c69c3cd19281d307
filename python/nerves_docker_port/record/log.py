"""Writes the whole output of a container to the log file, and shows Buildroot's headlines in it to the user.

The module works on whole reads and not on single lines, because a build writes hundreds of megabytes, of which only a
few thousand lines are headlines. It knows neither the engine nor the port.
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
"""The most bytes of a headline that are shown."""

LAST_LINES = 16
"""How many lines of the log an error shows. The stock runner shows as many."""
_LAST_LINES_SIZE = 16 * 1024
"""The most bytes in which these lines are looked for, because a build may end with one line of 50 MB."""

_END_SIZE = 256 * 1024
"""How many bytes at the end of the log are searched for the cause of a failure."""


class Headlines:
    """Finds the headlines in the output, each once and in order, even if a headline is cut into several reads."""

    def __init__(self) -> None:
        # The part of the unfinished last line that is still needed: its beginning if the line may be a headline,
        # otherwise (`_skipping`) its last bytes, because a headline of another package may begin there.
        self._line = b""
        self._skipping = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the headlines that are complete with ``data``, without control characters and surrounding blanks."""
        if self._skipping:
            end = data.find(b"\n")
            line = self._line + (data if end < 0 else data[:end])
            inserted = line.find(standout.USUAL_MARK)
            if inserted >= 0:
                data = line[inserted:] + data[len(line) - len(self._line) :]
            elif end < 0:
                self._line = line[-len(standout.USUAL_MARK) :]
                return []
            else:
                data = data[end + 1 :]
            self._line, self._skipping = b"", False
        elif self._line:
            data = self._line + data
            self._line = b""
        last = data.rfind(b"\n") + 1
        self._keep(data[last:])
        if b">>>" not in data:
            return []
        found = _in_lines(data, last)
        mark = standout.USUAL_MARK
        if data.count(mark, 0, last) > b"\n".join(found).count(mark):
            data = standout.with_headlines_on_own_lines(data[:last])
            found = _in_lines(data, len(data))
        return _shown(found)

    def finish(self) -> list[bytes]:
        """Return the last line if it is a headline without a newline at its end."""
        line = b"" if self._skipping else self._line
        self._line, self._skipping = b"", False
        return _shown([line] if standout.HEADLINE.match(line) else [])

    def _keep(self, line: bytes) -> None:
        """Remember the unfinished line if it is a headline or can still become one."""
        inserted = line.find(standout.USUAL_MARK)
        if standout.may_become_headline(line[:_LONGEST_HEADLINE]):
            self._line = line[:_LONGEST_HEADLINE]
        elif inserted >= 0:
            self._line = line[inserted : inserted + _LONGEST_HEADLINE]
        else:
            self._line, self._skipping = line[-len(standout.USUAL_MARK) :], True


def _in_lines(data: bytes, end: int) -> list[bytes]:
    """Return the headlines that are at the beginning of a line in ``data[:end]``, which must be whole lines."""
    first = standout.HEADLINE.match(data, 0, end)
    return [*([first[0]] if first else []), *standout.NEXT_HEADLINES.findall(data, 0, end)]


def _shown(headlines: list[bytes]) -> list[bytes]:
    return standout.shown([line[:_LONGEST_HEADLINE] for line in headlines])


def clean(line: bytes) -> bytes:
    """Return ``line`` as it is shown, without control characters and surrounding blanks."""
    return from_output(line[:_LONGEST_HEADLINE]).strip().encode()


class BuildLog:
    """The log file of one flow. It is truncated when the flow begins, and gets every byte of every step.

    Each read from the engine is written at once, so the file always has all output that was read. ``on_headlines`` is
    called with the headlines of a read, joined by newlines.
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
        """Write ``data`` to the file, and show the headlines in it. Raises ``RunnerError`` ``:disk_full``."""
        self.keep(data)
        self._show(self._headlines.feed(data))

    def keep(self, data: bytes) -> None:
        """Write ``data`` to the file, and show nothing. Raises ``RunnerError`` ``:disk_full``."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise self._error(error) from error

    def note(self, text: str) -> None:
        """Write a line of the runner itself, which tells a reader of the file what happened (for example, a gap)."""
        self.write(f"\n[nerves_docker_port] {text}\n".encode())

    def end_step(self) -> None:
        """End the output of a step, so that an unfinished last line is not joined with the next step's first line."""
        self._show(self._headlines.finish())

    def last_lines(self) -> str:
        """Return the last lines of the file as text."""
        return "\n".join(self._tail(_LAST_LINES_SIZE)[-LAST_LINES:])

    def end(self) -> str:
        """Return the last 256 KiB of the file as text, which is enough to find out why a step failed."""
        return "\n".join(self._tail(_END_SIZE))

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
