"""A second process that restores the user's terminal after the helper of a shell was killed (`kill -9`).

It waits for the end of a pipe whose other end only the helper has. It must know neither the engine nor the container of
the shell: that container ends without its help.
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

_HELPER_ENDED = b"\n"
"""The byte that tells the guardian that the helper has restored the terminal itself."""


class Guardian:
    """Watches this process, the helper, while the ``with`` block runs.

    The block must be entered before the process has had a second thread or has used the network. A forked process has
    only the thread that forked, so a lock that another thread held would stay locked. And macOS ends a forked process
    that uses its network libraries after the parent has used them.
    """

    def __init__(self, terminal: Terminal, clean_up: Callable[[], None]) -> None:
        """``clean_up`` is called in the second process after the helper was killed."""
        self._terminal = terminal
        self._clean_up = clean_up

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
                # The child must never return to the code of the parent.
                os._exit(status)
        os.close(reads)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(OSError):
            os.write(self._writes, _HELPER_ENDED)
        os.close(self._writes)
        with suppress(ChildProcessError):
            os.waitpid(self._pid, 0)

    def _guard(self, reads: int) -> None:
        # In a new session, this process gets no signal when the terminal is closed or Ctrl-C is pressed, and the kernel
        # does not stop it when it sets the terminal's modes from the background.
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGWINCH, signal.SIGCONT):
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        # Erlang, for example, waits until nobody has a pipe of the helper open. It must not wait for this process.
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        for low, high in _between(sorted({reads, self._terminal.fd})):
            os.closerange(low, high)
        if os.read(reads, 1) == _HELPER_ENDED:
            return
        self._restore()
        self._clean_up()

    def _restore(self) -> None:
        """Restore the terminal.

        Its modes are left alone if they are no longer those of the helper, because then the user's own shell has
        already set the modes that it needs.
        """
        terminal = self._terminal
        is_raw = False
        with suppress(termios.error):
            is_raw = termios.tcgetattr(terminal.fd) == terminal.raw_attributes
        if is_raw:
            terminal.restore()
        terminal.reset_screen(has_line_editor=not is_raw)


def _between(kept: list[int]) -> list[tuple[int, int]]:
    """Return the ranges of the descriptors from 3 on, without those that are ``kept``, which must be sorted."""
    limit = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 65_536)
    starts = [3, *(fd + 1 for fd in kept)]
    return list(zip(starts, [*kept, limit], strict=True))
