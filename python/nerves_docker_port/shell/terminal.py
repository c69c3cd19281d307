"""The person's terminal, and a container's terminal at it: raw mode, sizes, bytes both ways, and everything as it was.

Knows neither the engine nor what runs in the container. One thread, which waits in `select`; only to tell the engine a
size, a request like any other, there is a second one.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import termios
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from nerves_docker_port import errors
from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine.stream import Stream
from nerves_docker_port.shell.screen import Screen

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on

DEFAULT_SIZE = (24, 80)
"""Rows and columns of a terminal that does not know its size (a serial line): terminfo's vt100."""

TICK = 0.5
"""Seconds between two looks at a terminal whose new size no signal tells us."""

_READ_SIZE = 64 * 1024
_LIMIT = 256 * 1024
"""Bytes that may wait for a slow side before the other side is no longer read."""

_WAITING_WRITE_SIZE = 256
"""Bytes that are written at once to a terminal where a write may wait: few, so that it seldom does."""

_FLUSH_TIMEOUT = 5.0
"""Seconds that a terminal which takes nothing (Ctrl-S) is given for the last output."""

_FOLLOW_TIMEOUT = 5.0
"""Seconds that `script` is given to give our terminal the size of the one around it."""

Attributes = list[Any]


class Terminal:
    """The terminal at standard input and output."""

    def __init__(self, stdin: int = 0, stdout: int = 1) -> None:
        """Raises ``RunnerError`` where there is none."""
        if not (os.isatty(stdin) and os.isatty(stdout)):
            raise errors.no_terminal()
        self.is_controlling = _is_controlling(stdin)
        """Whether the kernel sends us a signal when the size changes and when the terminal goes."""
        self.fd = self._own_descriptor(stdin, stdout)
        self._write_size = _WAITING_WRITE_SIZE if os.get_blocking(self.fd) else _READ_SIZE
        self.attributes: Attributes = termios.tcgetattr(self.fd)
        self.raw_attributes: Attributes = _raw(self.attributes)
        self.screen = Screen()

    def _own_descriptor(self, stdin: int, stdout: int) -> int:
        """A descriptor of the terminal that never waits, where one can be had.

        Not standard input with another flag: the flag would be that of everybody who has the terminal open, the
        person's shell among them. Where the terminal cannot be opened by its name, because it is somebody else's (after
        `su`), it can be opened as the controlling one. If it is not that either (`su -c` begins a session without one),
        there is only the descriptor that we were given.
        """
        flags = os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC
        with suppress(OSError):
            return os.open(os.ttyname(stdin), flags)
        if self.is_controlling:
            with suppress(OSError):
                return os.open("/dev/tty", flags)
        for fd in (stdin, stdout):
            if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR:
                return os.dup(fd)
        raise errors.no_terminal()

    def size(self) -> tuple[int, int]:
        """Rows and columns. Raises ``OSError`` where the terminal is gone."""
        return window_size(self.fd)

    def enter_raw(self) -> None:
        """Set the modes for a program at the other end of a stream: every key is the program's.

        What was typed ahead is kept.
        """
        with suppress(termios.error):
            termios.tcsetattr(self.fd, termios.TCSANOW, self.raw_attributes)

    def restore(self) -> None:
        """Set the modes from the beginning."""
        # Nothing to restore where the terminal is gone.
        with suppress(termios.error):
            termios.tcsetattr(self.fd, termios.TCSANOW, self.attributes)

    def save_screen(self) -> None:
        """Make the terminal remember what ``reset_screen`` is to set back."""
        self._write_all(self.screen.save)

    def reset_screen(self, *, has_line_editor: bool = False) -> None:
        """Undo what programs did to the screen. With ``has_line_editor``, a shell has the terminal already."""
        self._write_all(self.screen.undo(has_line_editor=has_line_editor))

    def write(self, data: bytes | bytearray) -> int:
        """Write what fits in of ``data``; how much that was. Raises ``OSError`` where the terminal is gone."""
        try:
            return os.write(self.fd, data[: self._write_size])
        except BlockingIOError:
            return 0

    def flush(self, waiting: bytearray) -> None:
        """Write all of ``waiting``, unless the terminal takes nothing. Raises ``OSError`` where it is gone."""
        deadline = time.monotonic() + _FLUSH_TIMEOUT
        while waiting and select.select([], [self.fd], [], max(0.0, deadline - time.monotonic()))[1]:
            del waiting[: self.write(waiting)]

    def _write_all(self, data: bytes) -> None:
        with suppress(OSError):
            self.flush(bytearray(data))


class Outer:
    """The terminal around ours, and Mix, which runs there.

    Between Mix and us there is `script` with a terminal of its own, as `InteractiveCmd` arranges it. Being in another
    session, `script` hears neither of a new size nor of the end of the outer terminal. So we look ourselves.

    Where the outer terminal is somebody else's (after `su`), we cannot open it. But `script` has it open, and each time
    that `script` gets SIGWINCH, it gives our terminal the size of the one around it (seen with util-linux 2.38). So we
    send it that signal.
    """

    def __init__(self, path: str | None, mix: int | None) -> None:
        self._fd = -1
        self._mix = mix
        if path is not None:
            with suppress(OSError):
                self._fd = os.open(path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._script = _parent_of_session() if self._fd < 0 and self.is_watched else None

    @property
    def is_watched(self) -> bool:
        """Whether there is anything to look at."""
        return self._fd >= 0 or self._mix is not None

    def resize(self, fd: int) -> None:
        """Give our terminal, at ``fd``, the size of the outer one, or have that done soon.

        Raises ``OSError`` where one of them is gone.
        """
        if self._fd >= 0:
            size = window_size(self._fd)
            if size != window_size(fd):
                _set_window_size(fd, size)
        elif self._script is not None:
            # Who does not know that signal ignores it (signal(7)).
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self._script, signal.SIGWINCH)

    def can_resize(self, fd: int) -> bool:
        """Whether ``resize`` works, which is tried out where only `script` can do it.

        Raises ``OSError`` where our terminal is gone.
        """
        if self._fd >= 0 or not self.is_watched:
            return True
        before = window_size(fd)
        wrong = (before[0], before[1] + 1)
        _set_window_size(fd, wrong)
        deadline = time.monotonic() + _FOLLOW_TIMEOUT
        while time.monotonic() < deadline and self._script is not None:
            self.resize(fd)
            time.sleep(0.02)
            if window_size(fd) != wrong:
                return True
        _set_window_size(fd, before)
        return False

    def is_gone(self) -> bool:
        """Whether nobody is left to be told anything."""
        try:
            if self._fd >= 0:
                window_size(self._fd)
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


class _Wakeup:
    """Makes `select` return. For a whole process: both ends stay open, since a signal may come at any time."""

    def __init__(self) -> None:
        self.fd, self._write_fd = os.pipe()
        for fd in (self.fd, self._write_fd):
            os.set_blocking(fd, False)

    def wake(self) -> None:
        """From any thread."""
        # A full pipe wakes, too.
        with suppress(BlockingIOError):
            os.write(self._write_fd, b"\0")

    def clear(self) -> None:
        """Forget it."""
        with suppress(BlockingIOError):
            os.read(self.fd, 4096)


class Conversation:
    """A person's terminal and a container's, connected: callable as ``container.run_on_terminal`` wants it.

    It is called once for each connection to the container's terminal. The terminal is raw from the first call to the
    end of the ``with`` block, also between two connections, so every key is the program's; keys that no connection has
    taken are kept for the next. At the end of the block the terminal is as it was before.
    """

    def __init__(self, terminal: Terminal, outer: Outer, cancellation: Cancellation) -> None:
        self._terminal = terminal
        self._outer = outer
        self._cancellation = cancellation
        self._outer.resize(terminal.fd)
        self._size = terminal.size()
        self._keys = bytearray()
        """What was typed and no connection has taken yet."""
        self._wakeup = _Wakeup()
        self.has_begun = False
        """Whether there has been a container at the other end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.has_begun:
            self._terminal.restore()
            self._terminal.reset_screen()

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns that the engine has been told, or is to be told first."""
        return self._size

    def wake(self) -> None:
        """Have another look at the size, and at the modes. From any thread."""
        self._wakeup.wake()

    def __call__(self, stream: Stream, resize: Callable[[int, int], None]) -> None:
        """Pass bytes both ways until the stream ends. Raises ``:cancelled`` when the terminal, or Mix, is gone."""
        to_terminal = bytearray()
        with self._cancellation.on_cancel(self.wake), _Resizer(resize) as resizer:
            self._terminal.enter_raw()
            if self.has_begun:
                to_terminal += self._lost()
                # A new size is what programs draw everything anew for. `docker attach` does the same.
                rows, columns = self._size
                resizer.tell((rows + 1, columns + 1), (rows, columns))
            else:
                self.has_begun = True
                self._terminal.save_screen()
            try:
                self._pass_on(stream, resizer, to_terminal)
                self._terminal.flush(to_terminal)
            except OSError as error:
                raise errors.cancelled("the terminal was closed") from error

    def _lost(self) -> bytes:
        """What the person is told when a connection was lost.

        What a connection took just before it was lost may have arrived or not, and typing it again for the person could
        run a command twice. So the person is to look.
        """
        # It begins with a sequence of its own, because the last one may have been cut.
        text = b"\x1b[0m\r\n%s\r\n" % errors.SHELL_CONNECTED_AGAIN.encode()
        self._terminal.screen.note(text)
        return text

    def _pass_on(self, stream: Stream, resizer: _Resizer, to_terminal: bytearray) -> None:
        while True:
            self._see_sizes(resizer)
            self._cancellation.check()
            self._wait(stream, to_terminal)
            # Reading goes first: a connection that has ended must not take keys.
            if len(to_terminal) < _LIMIT:
                data = stream.read()
                if data == b"":
                    return
                if data is not None:
                    self._terminal.screen.note(data)
                    to_terminal += data
            if self._keys:
                del self._keys[: stream.write(bytes(self._keys[:_READ_SIZE]))]

    def _wait(self, stream: Stream, to_terminal: bytearray) -> None:
        """Wait until something can be done, and do what is the terminal's.

        A side that is full makes the other side wait.
        """
        reads, writes = [self._wakeup.fd], []
        if len(self._keys) < _LIMIT:
            reads.append(self._terminal.fd)
        if len(to_terminal) < _LIMIT:
            reads.append(stream.read_fd)
        if self._keys:
            writes.append(stream.write_fd)
        if to_terminal:
            writes.append(self._terminal.fd)
        looks = self._outer.is_watched or not self._terminal.is_controlling
        timeout = 0 if stream.has_early else TICK if looks else None
        # Not poll: macOS' does not know terminals.
        readable, writable, _ = select.select(reads, writes, [], timeout)
        if self._wakeup.fd in readable:
            self._wakeup.clear()
            # Who stopped us (`kill -STOP`) got a terminal with the modes of a shell.
            self._terminal.enter_raw()
        if self._terminal.fd in readable:
            self._keys += self._typed()
        if self._terminal.fd in writable:
            del to_terminal[: self._terminal.write(to_terminal)]

    def _typed(self) -> bytes:
        try:
            data = os.read(self._terminal.fd, _READ_SIZE)
        except BlockingIOError:
            return b""
        # Raw modes know no end of file; a terminal that is gone has one.
        if not data:
            raise errors.cancelled("the terminal was closed")
        return data

    def _see_sizes(self, resizer: _Resizer) -> None:
        if self._outer.mix_is_gone():
            raise errors.cancelled("Mix has ended")
        self._outer.resize(self._terminal.fd)
        size = self._terminal.size()
        if size != self._size:
            self._size = size
            resizer.tell(size)


class _Resizer:
    """Tells the engine the latest size, in a thread of its own: an engine that is slow must not stop the keys."""

    def __init__(self, resize: Callable[[int, int], None]) -> None:
        self._resize = resize
        self._changed = threading.Condition()
        self._wanted: tuple[tuple[int, int], ...] = ()
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

    def tell(self, *sizes: tuple[int, int]) -> None:
        """``sizes`` are what the engine is to be told, one after the other; the last is the size from now on."""
        with self._changed:
            self._wanted = sizes
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._wanted or self._ended):
                    self._changed.wait()
                if self._ended:
                    return
                (rows, columns), *rest = self._wanted
                self._wanted = tuple(rest)
            self._resize(rows, columns)


def window_size(fd: int) -> tuple[int, int]:
    """Rows and columns of the terminal at ``fd``. Raises ``OSError`` where it is gone."""
    rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
    return (rows, columns) if rows and columns else DEFAULT_SIZE


def _set_window_size(fd: int, size: tuple[int, int]) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))


def _is_controlling(fd: int) -> bool:
    """Whether the terminal at ``fd`` is this process's controlling one."""
    try:
        os.tcgetpgrp(fd)
    except OSError:
        return False
    return True


def _parent_of_session() -> int | None:
    """The process that started our session, if it can be found: `script`, below which Mix runs us."""
    leader = os.getsid(0)
    if leader == os.getpid():
        return os.getppid()
    try:
        # proc(5): the fourth field, and the second, in parentheses, may hold anything.
        return int(Path(f"/proc/{leader}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


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
