"""The signals that this process gets, heard in a thread of their own.

Python runs a signal's handler between any two instructions of the main thread, also while that thread holds a lock. A
handler that wants the same lock would wait for ever. So the handlers here do nothing: Python itself writes the number
of each signal to a pipe (``signal.set_wakeup_fd``), and the thread that reads the pipe may do what it likes.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable


class Signals:
    """Hears the signals ``numbers`` from now on. To be made in the main thread, once in a process."""

    def __init__(self, numbers: Iterable[signal.Signals]) -> None:
        # Both stay open as long as the process lives: a signal may come at any time.
        self._reads, writes = os.pipe()
        os.set_blocking(writes, False)
        signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
        for number in numbers:
            # Without a handler, Python would not write it to the pipe.
            signal.signal(number, lambda _number, _frame: None)

    def start(self, on_signal: Callable[[signal.Signals], None]) -> None:
        """Call ``on_signal`` for each signal, in a thread; first for those that have come already."""
        threading.Thread(target=self._run, args=(on_signal,), name="signals", daemon=True).start()

    def _run(self, on_signal: Callable[[signal.Signals], None]) -> None:
        while numbers := os.read(self._reads, 64):
            for number in numbers:
                on_signal(signal.Signals(number))
