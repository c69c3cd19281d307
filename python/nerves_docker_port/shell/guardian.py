"""A second process that outlives the first, and sets the terminal back after `kill -9` of a shell's helper.

It waits for the end of a pipe, and needs nothing from its parent but what it was told. It must know neither the engine
nor the container of the shell, which the engine ends by itself.
"""

from __future__ import annotations

import os
import resource
import signal
import termios
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING

from nerves_docker_port.shell.terminal import Terminal

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on

_FINE = b"\n"


class Guardian:
    """Watches this process while the ``with`` block runs.

    The block must be entered before the process has had a second thread or has used the network: a forked process has
    only the thread that forked, so a lock that another thread held would stay locked, and macOS ends a forked process
    that uses what its network libraries have set up in the parent.
    """

    def __init__(self, terminal: Terminal, tidy: Callable[[], None]) -> None:
        """``tidy`` is called in the other process, when this one has been killed."""
        self._terminal = terminal
        self._tidy = tidy

    def __enter__(self) -> Self:
        reads, self._writes = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            status = 1
            try:
                os.close(self._writes)
                self._guard(reads)
                status = 0
            finally:
                # Never back into the parent's code.
                os._exit(status)
        os.close(reads)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(OSError):
            os.write(self._writes, _FINE)
        os.close(self._writes)
        with suppress(ChildProcessError):
            os.waitpid(self._pid, 0)

    def _guard(self, reads: int) -> None:
        # Not of the terminal's session: neither its end nor Ctrl-C is meant for us, and we may set its modes at once.
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGWINCH, signal.SIGCONT):
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        # Who waits for the end of a pipe that our parent had (Erlang does) must not wait for us.
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        for low, high in _between(sorted({reads, self._terminal.fd})):
            os.closerange(low, high)
        if os.read(reads, 1) == _FINE:
            return
        self._restore()
        self._tidy()

    def _restore(self) -> None:
        """The terminal as it was, unless somebody has taken it over already: a shell sets modes of its own."""
        terminal = self._terminal
        is_ours = False
        with suppress(termios.error):
            is_ours = termios.tcgetattr(terminal.fd) == terminal.raw_attributes
        if is_ours:
            terminal.restore()
        terminal.reset_screen(has_line_editor=not is_ours)


def _between(kept: list[int]) -> list[tuple[int, int]]:
    """The ranges of descriptors from 3 on, without those that are ``kept``."""
    limit = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 65_536)
    starts = [3, *(fd + 1 for fd in kept)]
    return list(zip(starts, [*kept, limit], strict=True))
