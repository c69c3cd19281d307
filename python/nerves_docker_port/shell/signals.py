"""Handles the signals of this process in a thread of its own.

Python runs a signal's handler between any two instructions of the main thread, even while that thread holds a lock. A
handler that needs the same lock would wait for ever. So the handlers here do nothing. Python writes the number of each
signal to a pipe (``signal.set_wakeup_fd``), and a thread reads the pipe and handles the signal.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable


class Signals:
    """Catches the signals ``numbers`` from now on. It must be made in the main thread, and only once in a process."""

    def __init__(self, numbers: Iterable[signal.Signals]) -> None:
        # Both ends stay open as long as the process lives, because a signal may come at any time.
        self._reads, writes = os.pipe()
        os.set_blocking(writes, False)
        signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
        for number in numbers:
            # Python writes only those signals to the pipe that have a handler.
            signal.signal(number, lambda _number, _frame: None)

    def start(self, on_signal: Callable[[signal.Signals], None]) -> None:
        """Start a thread that calls ``on_signal`` for each signal, first for those that came before this call."""
        threading.Thread(target=self._run, args=(on_signal,), name="signals", daemon=True).start()

    def _run(self, on_signal: Callable[[signal.Signals], None]) -> None:
        while numbers := os.read(self._reads, 64):
            for number in numbers:
                on_signal(signal.Signals(number))
