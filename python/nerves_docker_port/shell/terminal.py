"""The person's terminal, and a container's terminal at it: raw mode, sizes, bytes both ways, and everything as it was.

Knows neither the engine nor what runs in the container. One thread, which waits in `select`; only to tell the engine a
size, a request like any other, there is a second one.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import re
import select
import signal
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from nerves_docker_port import errors
from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine.stream import Stream

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on

DEFAULT_SIZE = (24, 80)
"""Rows and columns of a terminal that does not know its size (a serial line): terminfo's vt100."""

TICK = 0.5
"""Seconds between two looks at an outer terminal, which sends us no signals."""

_READ_SIZE = 64 * 1024
_LIMIT = 256 * 1024
"""Bytes that may wait for a slow side before the other side is no longer read."""

_FLUSH_TIMEOUT = 5.0
"""Seconds that a terminal which takes nothing (Ctrl-S) is given for the last output."""

Attributes = list[Any]


class Screen:
    """Which of the terminal's private modes a program has changed, so that they can be changed back.

    It is kept in memory that a forked process shares, for whoever survives.
    """

    # (mode, its state on a sane terminal): xterm's "DEC Private Mode Set". Cursor keys, cursor, mouse, focus events,
    # alternate screen, bracketed paste. https://invisible-island.net/xterm/ctlseqs/ctlseqs.html
    _MODES = (
        *((1, False), (25, True), (9, False), (1000, False), (1002, False), (1003, False), (1004, False)),
        *((1005, False), (1006, False), (1015, False), (47, False), (1047, False), (1049, False), (2004, False)),
    )
    _SEQUENCE = re.compile(rb"\x1b\[\?([0-9;]{1,40})([hl])")
    _LONGEST = 44

    def __init__(self) -> None:
        self._changed = mmap.mmap(-1, len(self._MODES))
        self._places = {b"%d" % mode: (place, sane) for place, (mode, sane) in enumerate(self._MODES)}
        self._tail = b""

    def note(self, data: bytes) -> None:
        """``data`` is written to the terminal."""
        data = self._tail + data
        end = 0
        if b"\x1b[?" in data:
            for match in self._SEQUENCE.finditer(data):
                end = match.end()
                for mode in match[1].split(b";"):
                    if mode in self._places:
                        place, sane = self._places[mode]
                        self._changed[place] = (match[2] == b"h") != sane
        # A sequence may be cut by the read.
        start = data.rfind(b"\x1b", max(end, len(data) - self._LONGEST))
        self._tail = data[start:] if start >= 0 else b""

    def undo(self) -> bytes:
        """What sets everything back that is not as it should be."""
        changed = [mode for (mode, sane), is_changed in zip(self._MODES, self._changed[:], strict=True) if is_changed]
        sane = dict(self._MODES)
        return b"".join(b"\x1b[?%d%c" % (mode, b"h" if sane[mode] else b"l") for mode in changed) + b"\x1b>\x1b[0m"


class Terminal:
    """The terminal at standard input and output."""

    def __init__(self) -> None:
        """Raises ``RunnerError`` where there is none."""
        if not (os.isatty(0) and os.isatty(1)):
            raise errors.no_terminal()
        self.fd = self._own_descriptor()
        self.attributes: Attributes = termios.tcgetattr(self.fd)
        self.raw_attributes: Attributes = _raw(self.attributes)
        self.screen = Screen()

    @staticmethod
    def _own_descriptor() -> int:
        """A descriptor of the terminal that never waits.

        Not 0 with another flag: the flag would be that of everybody who has the terminal open, the person's shell among
        them. Where the terminal cannot be opened by its name (it may be somebody else's, after `su`), it is the
        controlling one.
        """
        flags = os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC
        for path in (_name(0), "/dev/tty"):
            with suppress(OSError):
                return os.open(path, flags)
        raise errors.no_terminal()

    def size(self) -> tuple[int, int]:
        """Rows and columns. Raises ``OSError`` where the terminal is gone."""
        return window_size(self.fd)

    @contextmanager
    def raw(self) -> Iterator[None]:
        """Every key is the program's while the body runs. However it ends, the modes are those from before."""
        self.enter_raw()
        try:
            yield
        finally:
            self.restore()

    def enter_raw(self) -> None:
        """Set the modes for a program at the other end of a stream. What was typed ahead is kept."""
        with suppress(termios.error):
            termios.tcsetattr(self.fd, termios.TCSANOW, self.raw_attributes)

    def restore(self) -> None:
        """Set the modes from the beginning."""
        # Nothing to restore where the terminal is gone.
        with suppress(termios.error):
            termios.tcsetattr(self.fd, termios.TCSANOW, self.attributes)

    def reset_screen(self) -> None:
        """Undo what a program that was ended did to the screen."""
        with suppress(OSError):
            os.write(self.fd, self.screen.undo())


class Outer:
    """The terminal around ours, and Mix, which runs there.

    Between Mix and us there is `script` with a terminal of its own, as `InteractiveCmd` arranges it. Being in another
    session, `script` hears neither of a new size nor of the end of the outer terminal. So we look ourselves.
    """

    def __init__(self, path: str | None, mix: int | None) -> None:
        self._fd = -1
        self._mix = mix
        if path is not None:
            with suppress(OSError):
                self._fd = os.open(path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)

    @property
    def is_watched(self) -> bool:
        """Whether there is anything to look at."""
        return self._fd >= 0 or self._mix is not None

    def size(self) -> tuple[int, int] | None:
        """Rows and columns, ``None`` if it is not known. Raises ``OSError`` where the terminal is gone."""
        return window_size(self._fd) if self._fd >= 0 else None

    def is_gone(self) -> bool:
        """Whether nobody is left to be told anything."""
        try:
            self.size()
        except OSError:
            return True
        return self.mix_is_gone()

    def mix_is_gone(self) -> bool:
        """Whether the Mix that started us has ended."""
        if self._mix is None:
            return False
        try:
            os.kill(self._mix, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False


class Wakeup:
    """Makes `select` return for a signal. Only in the main thread; once in a process."""

    def __init__(self) -> None:
        self.fd, self._write_fd = os.pipe()
        for fd in (self.fd, self._write_fd):
            os.set_blocking(fd, False)

    def __enter__(self) -> Self:
        self._before = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self._before)
        os.close(self.fd)
        os.close(self._write_fd)

    def clear(self) -> None:
        """Forget the signals so far."""
        with suppress(BlockingIOError):
            os.read(self.fd, 4096)


class Conversation:
    """A person's terminal and a container's, connected: callable as ``container.run_on_terminal`` wants it."""

    def __init__(self, terminal: Terminal, outer: Outer, cancellation: Cancellation) -> None:
        self._terminal = terminal
        self._outer = outer
        self._cancellation = cancellation
        self._follow_outer()
        self._size = terminal.size()
        self.has_begun = False
        """Whether there has been a container at the other end."""

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns that the engine has been told, or is to be told first."""
        return self._size

    def __call__(self, stream: Stream, resize: Callable[[int, int], None]) -> None:
        """Pass bytes both ways until the stream ends. Raises ``:cancelled`` when the terminal, or Mix, is gone."""
        self.has_begun = True
        with Wakeup() as wakeup, _Resizer(resize) as resizer, _on(signal.SIGWINCH), self._on_continue():
            try:
                with self._terminal.raw():
                    try:
                        self._pass_on(stream, wakeup, resizer)
                    except OSError as error:
                        raise errors.cancelled("the terminal was closed") from error
            except BaseException:
                self._terminal.reset_screen()
                raise

    def _pass_on(self, stream: Stream, wakeup: Wakeup, resizer: _Resizer) -> None:
        to_container, to_terminal = bytearray(), bytearray()
        while True:
            self._see_sizes(resizer)
            self._cancellation.check()
            data = stream.read() if stream.has_early else None
            if data is None:
                readable, writable = self._wait(stream, wakeup, len(to_container), len(to_terminal))
                if wakeup.fd in readable:
                    wakeup.clear()
                if self._terminal.fd in readable:
                    to_container += self._typed()
                if stream.read_fd in readable:
                    data = stream.read()
                if stream.write_fd in writable:
                    del to_container[: stream.write(bytes(to_container))]
                if self._terminal.fd in writable:
                    self._show(to_terminal)
            if data is not None:
                if not data:
                    break
                self._terminal.screen.note(data)
                to_terminal += data
        self._flush(to_terminal)

    def _wait(self, stream: Stream, wakeup: Wakeup, typed: int, shown: int) -> tuple[list[int], list[int]]:
        """What can be read and written, once anything can. A side that is full makes the other side wait."""
        reads, writes = [wakeup.fd], []
        if typed < _LIMIT:
            reads.append(self._terminal.fd)
        if shown < _LIMIT:
            reads.append(stream.read_fd)
        if typed:
            writes.append(stream.write_fd)
        if shown:
            writes.append(self._terminal.fd)
        # Not poll: macOS' does not know terminals.
        readable, writable, _ = select.select(reads, writes, [], TICK if self._outer.is_watched else None)
        return readable, writable

    def _typed(self) -> bytes:
        try:
            data = os.read(self._terminal.fd, _READ_SIZE)
        except BlockingIOError:
            return b""
        # Raw modes know no end of file; a terminal that is gone has one.
        if not data:
            raise errors.cancelled("the terminal was closed")
        return data

    def _show(self, waiting: bytearray) -> None:
        with suppress(BlockingIOError):
            del waiting[: os.write(self._terminal.fd, waiting[:_READ_SIZE])]

    def _flush(self, waiting: bytearray) -> None:
        deadline = time.monotonic() + _FLUSH_TIMEOUT
        while waiting and select.select([], [self._terminal.fd], [], max(0.0, deadline - time.monotonic()))[1]:
            self._show(waiting)

    def _see_sizes(self, resizer: _Resizer) -> None:
        if self._outer.mix_is_gone():
            raise errors.cancelled("Mix has ended")
        self._follow_outer()
        size = self._terminal.size()
        if size != self._size:
            self._size = size
            resizer.tell(size)

    def _follow_outer(self) -> None:
        """Our terminal gets the size of the one around it."""
        outer = self._outer.size()
        if outer is not None and outer != window_size(self._terminal.fd):
            fcntl.ioctl(self._terminal.fd, termios.TIOCSWINSZ, struct.pack("HHHH", *outer, 0, 0))

    @contextmanager
    def _on_continue(self) -> Iterator[None]:
        """Who stopped us (`kill -STOP`) got a terminal with the modes of a shell, and we get one with those."""
        with _on(signal.SIGCONT, self._terminal.enter_raw):
            yield


class _Resizer:
    """Tells the engine the latest size, in a thread of its own: an engine that is slow must not stop the keys."""

    def __init__(self, resize: Callable[[int, int], None]) -> None:
        self._resize = resize
        self._changed = threading.Condition()
        self._wanted: tuple[int, int] | None = None
        self._ended = False

    def __enter__(self) -> Self:
        threading.Thread(target=self._run, name="resize", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()

    def tell(self, size: tuple[int, int]) -> None:
        """``size`` is the size from now on."""
        with self._changed:
            self._wanted = size
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._wanted is None and not self._ended:
                    self._changed.wait()
                if self._ended:
                    return
                size, self._wanted = self._wanted, None
            assert size is not None
            self._resize(*size)


def window_size(fd: int) -> tuple[int, int]:
    """Rows and columns of the terminal at ``fd``. Raises ``OSError`` where it is gone."""
    rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
    return (rows, columns) if rows and columns else DEFAULT_SIZE


@contextmanager
def _on(number: signal.Signals, do: Callable[[], None] | None = None) -> Iterator[None]:
    """A signal that ends a `select` while the body runs, and does ``do``."""

    def handle(_number: int, _frame: object) -> None:
        if do is not None:
            do()

    before = signal.signal(number, handle)
    try:
        yield
    finally:
        signal.signal(number, before)


def _name(fd: int) -> str:
    try:
        return os.ttyname(fd)
    except OSError:
        return "/dev/tty"


def _raw(attributes: Attributes) -> Attributes:
    """The modes as cfmakeraw(3) sets them: every byte passes at once and unchanged, both ways."""
    iflag, oflag, cflag, lflag, ispeed, ospeed, control = attributes
    iflag &= ~(
        termios.IGNBRK
        | termios.BRKINT
        | termios.PARMRK
        | termios.ISTRIP
        | termios.INLCR
        | termios.IGNCR
        | termios.ICRNL
        | termios.IXON
    )
    oflag &= ~termios.OPOST
    lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    cflag = cflag & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    control = list(control)
    control[termios.VMIN], control[termios.VTIME] = 1, 0
    return [iflag, oflag, cflag, lflag, ispeed, ospeed, control]
