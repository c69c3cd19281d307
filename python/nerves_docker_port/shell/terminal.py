"""Connects the user's terminal with the terminal of a container, and restores the user's terminal at the end.

This module sets the raw mode, passes bytes in both directions, and passes on changes of the size. One thread does this
and waits in `select`. A second thread sends new sizes to the engine, because such a request may take long. The module
knows neither the engine nor the program in the container.
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
"""Rows and columns that are used if a terminal does not know its size (a serial line): those of terminfo's vt100."""

TICK = 0.5
"""Seconds between two checks of the size of a terminal that sends no signal when its size changes."""

_READ_SIZE = 64 * 1024
_LIMIT = 256 * 1024
"""Bytes that may be waiting to be written to one side. If there are more, the other side is not read."""

_BLOCKING_WRITE_SIZE = 256
"""Bytes that are written at once to a terminal whose writes may block. With few bytes they seldom do."""

_FLUSH_TIMEOUT = 5.0
"""Seconds after which the last output is given up, if the terminal takes none (Ctrl-S)."""

_FOLLOW_TIMEOUT = 5.0
"""Seconds within which `script` must copy the size of the outer terminal to ours."""

Attributes = list[Any]


class Terminal:
    """The terminal at standard input and output."""

    def __init__(self, stdin: int = 0, stdout: int = 1) -> None:
        """Open the terminal. Raises ``RunnerError`` if standard input or output is not a terminal."""
        if not (os.isatty(stdin) and os.isatty(stdout)):
            raise errors.no_terminal()
        self.is_controlling = _is_controlling(stdin)
        """Whether the kernel sends this process a signal when the size changes or the terminal is closed."""
        self.fd = self._own_descriptor(stdin, stdout)
        self._write_size = _BLOCKING_WRITE_SIZE if os.get_blocking(self.fd) else _READ_SIZE
        self.attributes: Attributes = termios.tcgetattr(self.fd)
        self.raw_attributes: Attributes = _raw(self.attributes)
        self.screen = Screen()

    def _own_descriptor(self, stdin: int, stdout: int) -> int:
        """Return a new descriptor of the terminal, non-blocking if possible.

        Standard input itself is not made non-blocking, because all processes that share it, such as the user's shell,
        would get a non-blocking descriptor, too. The terminal is opened by its name. If that fails because the device
        belongs to another user (after `su`), it is opened as the controlling terminal. If this process has none
        (`su -c` begins a session without one), the result is a copy of the given descriptor, which blocks.
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
        """Return the rows and columns. Raises ``OSError`` if the terminal is gone."""
        return window_size(self.fd)

    def enter_raw(self) -> None:
        """Set the raw modes, in which every key is sent to the program in the container.

        Keys that were typed before are kept.
        """
        with suppress(termios.error):
            termios.tcsetattr(self.fd, termios.TCSANOW, self.raw_attributes)

    def restore(self) -> None:
        """Set the modes that the terminal had at the beginning."""
        # This fails if the terminal is gone. Then there is nothing to restore.
        with suppress(termios.error):
            termios.tcsetattr(self.fd, termios.TCSANOW, self.attributes)

    def save_screen(self) -> None:
        """Tell the terminal to remember the modes that ``reset_screen`` restores."""
        self._write_all(self.screen.save)

    def reset_screen(self, *, has_line_editor: bool = False) -> None:
        """Reset the modes that programs changed. ``has_line_editor`` says that a shell uses the terminal already."""
        self._write_all(self.screen.undo(has_line_editor=has_line_editor))

    def write(self, data: bytes | bytearray) -> int:
        """Write as much of ``data`` as the terminal takes now, and return how many bytes.

        Raises ``OSError`` if the terminal is gone.
        """
        try:
            return os.write(self.fd, data[: self._write_size])
        except BlockingIOError:
            return 0

    def flush(self, waiting: bytearray) -> None:
        """Write all of ``waiting``, unless the terminal takes nothing for some seconds.

        Raises ``OSError`` if the terminal is gone.
        """
        deadline = time.monotonic() + _FLUSH_TIMEOUT
        while waiting and select.select([], [self.fd], [], max(0.0, deadline - time.monotonic()))[1]:
            del waiting[: self.write(waiting)]

    def _write_all(self, data: bytes) -> None:
        with suppress(OSError):
            self.flush(bytearray(data))


class Outer:
    """The outer terminal, in which Mix runs.

    `InteractiveCmd` runs the helper below `script`, which has a terminal of its own. `script` is not in Mix's session,
    so it gets no signal when the outer terminal changes its size or is closed. So the helper checks both itself.

    If the outer terminal belongs to another user (after `su`), the helper cannot open it. But `script` has it open, and
    each time `script` gets SIGWINCH, it copies the size of the outer terminal to the helper's (seen with util-linux
    2.38). So the helper sends it that signal.
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
        """Whether Mix waits for this command, so that its terminal and its process have to be checked."""
        return self._fd >= 0 or self._mix is not None

    def resize(self, fd: int) -> None:
        """Copy the size of the outer terminal to the helper's terminal at ``fd``, or make `script` do so soon.

        Raises ``OSError`` if one of the terminals is gone.
        """
        if self._fd >= 0:
            size = window_size(self._fd)
            if size != window_size(fd):
                _set_window_size(fd, size)
        elif self._script is not None:
            # If the process is not `script`, this does no harm: SIGWINCH is ignored by default (signal(7)).
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self._script, signal.SIGWINCH)

    def can_resize(self, fd: int) -> bool:
        """Return whether ``resize`` works. If only `script` can copy the size, this is tried out.

        Raises ``OSError`` if the helper's terminal is gone.
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
        """Return whether the outer terminal was closed or Mix has ended, so that nobody would read a message."""
        try:
            if self._fd >= 0:
                window_size(self._fd)
        except OSError:
            return True
        return self.mix_is_gone()

    def mix_is_gone(self) -> bool:
        """Return whether the Mix that started this command has ended."""
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
    """A pipe that makes `select` return. Both ends are never closed, because a signal may come at any time."""

    def __init__(self) -> None:
        self.fd, self._write_fd = os.pipe()
        for fd in (self.fd, self._write_fd):
            os.set_blocking(fd, False)

    def wake(self) -> None:
        """Make `select` return. Any thread may call this."""
        # If the pipe is full, `select` returns anyway.
        with suppress(BlockingIOError):
            os.write(self._write_fd, b"\0")

    def clear(self) -> None:
        """Empty the pipe."""
        with suppress(BlockingIOError):
            os.read(self.fd, 4096)


class Conversation:
    """Connects the user's terminal with a container's terminal.

    ``container.run_on_terminal`` calls the object once for each connection to the container's terminal. The user's
    terminal is raw from the first call to the end of the ``with`` block, also between two connections, so every key is
    for the program. Keys that no connection has taken are kept for the next one. At the end of the block the terminal
    is restored.
    """

    def __init__(self, terminal: Terminal, outer: Outer, cancellation: Cancellation) -> None:
        self._terminal = terminal
        self._outer = outer
        self._cancellation = cancellation
        self._outer.resize(terminal.fd)
        self._size = terminal.size()
        self._keys = bytearray()
        """The keys that no connection has taken yet."""
        self._wakeup = _Wakeup()
        self.has_begun = False
        """Whether a connection to the container's terminal was made."""

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
        """The rows and columns that were sent to the engine, or that the container's terminal has to begin with."""
        return self._size

    def wake(self) -> None:
        """Check the size and set the modes again. Any thread may call this."""
        self._wakeup.wake()

    def __call__(self, stream: Stream, resize: Callable[[int, int], None]) -> None:
        """Pass bytes in both directions until the stream ends.

        Raises ``RunnerError`` ``:cancelled`` if the terminal was closed, Mix has ended, or the command was cancelled.
        """
        to_terminal = bytearray()
        with self._cancellation.on_cancel(self.wake), _Resizer(resize) as resizer:
            self._terminal.enter_raw()
            if self.has_begun:
                to_terminal += self._connected_again()
                # A program draws its whole picture again when the size changes. `docker attach` does the same.
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

    def _connected_again(self) -> bytes:
        """Return the message to the user after a connection was lost and made again.

        Keys that the old connection took just before it was lost may have arrived or not. To send them again could run
        a command twice, so the message asks the user to check.
        """
        # The message begins with an escape sequence, because the last sequence of the output may be incomplete.
        text = b"\x1b[0m\r\n%s\r\n" % errors.SHELL_CONNECTED_AGAIN.encode()
        self._terminal.screen.note(text)
        return text

    def _pass_on(self, stream: Stream, resizer: _Resizer, to_terminal: bytearray) -> None:
        while True:
            self._check_size(resizer)
            self._cancellation.check()
            self._wait(stream, to_terminal)
            # The stream is read before keys are written to it, because a connection that has ended must not take keys.
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
        """Wait until one side can be read or written, then read from and write to the user's terminal.

        If too many bytes are waiting for one side, the other side is not read.
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
        must_check = self._outer.is_watched or not self._terminal.is_controlling
        timeout = 0 if stream.has_early else TICK if must_check else None
        # `poll` is not used, because on macOS it does not work with terminals.
        readable, writable, _ = select.select(reads, writes, [], timeout)
        if self._wakeup.fd in readable:
            self._wakeup.clear()
            # If this process was stopped (`kill -STOP`), a shell has set other modes in the meantime.
            self._terminal.enter_raw()
        if self._terminal.fd in readable:
            self._keys += self._read_keys()
        if self._terminal.fd in writable:
            del to_terminal[: self._terminal.write(to_terminal)]

    def _read_keys(self) -> bytes:
        try:
            data = os.read(self._terminal.fd, _READ_SIZE)
        except BlockingIOError:
            return b""
        # In raw mode Ctrl-D is a key like any other, so an end of file means that the terminal was closed.
        if not data:
            raise errors.cancelled("the terminal was closed")
        return data

    def _check_size(self, resizer: _Resizer) -> None:
        if self._outer.mix_is_gone():
            raise errors.cancelled("Mix has ended")
        self._outer.resize(self._terminal.fd)
        size = self._terminal.size()
        if size != self._size:
            self._size = size
            resizer.tell(size)


class _Resizer:
    """Sends the latest size to the engine, in a thread of its own, because a slow engine must not delay the keys."""

    def __init__(self, resize: Callable[[int, int], None]) -> None:
        self._resize = resize
        self._changed = threading.Condition()
        self._wanted: tuple[tuple[int, int], ...] = ()
        self._is_closed = False

    def __enter__(self) -> Self:
        threading.Thread(target=self._run, name="resize", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def tell(self, *sizes: tuple[int, int]) -> None:
        """Send ``sizes`` to the engine one after the other. The last of them is the size from now on."""
        with self._changed:
            self._wanted = sizes
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._wanted or self._is_closed):
                    self._changed.wait()
                if self._is_closed:
                    return
                (rows, columns), *rest = self._wanted
                self._wanted = tuple(rest)
            self._resize(rows, columns)


def window_size(fd: int) -> tuple[int, int]:
    """Return the rows and columns of the terminal at ``fd``. Raises ``OSError`` if it is gone."""
    rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
    return (rows, columns) if rows and columns else DEFAULT_SIZE


def _set_window_size(fd: int, size: tuple[int, int]) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))


def _is_controlling(fd: int) -> bool:
    """Return whether the terminal at ``fd`` is the controlling terminal of this process."""
    try:
        os.tcgetpgrp(fd)
    except OSError:
        return False
    return True


def _parent_of_session() -> int | None:
    """Return the pid of the process that started this session, if it can be found. Below Mix, this is `script`."""
    leader = os.getsid(0)
    if leader == os.getpid():
        return os.getppid()
    try:
        # The fourth field of the file (proc(5)). The second, in parentheses, may contain spaces and parentheses.
        return int(Path(f"/proc/{leader}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def _raw(attributes: Attributes) -> Attributes:
    """Return the modes that cfmakeraw(3) sets: every byte passes at once and unchanged in both directions."""
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
