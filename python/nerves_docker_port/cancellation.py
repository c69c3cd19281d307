"""Cancels a flow from another thread, with a reason.

A flow calls ``check`` between its steps. While it waits for the engine, ``on_cancel`` gives the function that ends the
wait.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nerves_docker_port import errors


class Cancellation:
    """The cancellation of one flow. Any thread may call any method, but a signal handler must not.

    A signal handler could wait for ever for the lock, because the thread that it interrupts may hold it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reason: str | None = None
        self._callbacks: list[Callable[[], None]] = []

    @property
    def requested(self) -> bool:
        """Whether the flow was cancelled."""
        return self._reason is not None

    def cancel(self, reason: str) -> None:
        """Cancel the flow, and do not wait for its end. Only the first call has an effect."""
        with self._lock:
            if self._reason is not None:
                return
            self._reason = reason
            callbacks = list(reversed(self._callbacks))
        for callback in callbacks:
            # A callback sends requests to the engine. The caller serves the port and must not wait for them.
            threading.Thread(target=callback, name="cancel", daemon=True).start()

    def check(self) -> None:
        """Raise ``RunnerError`` with the code ``:cancelled`` if the flow was cancelled."""
        if self._reason is not None:
            raise errors.cancelled(self._reason)

    @contextmanager
    def on_cancel(self, callback: Callable[[], None]) -> Iterator[None]:
        """Call ``callback`` in a separate thread if the flow is cancelled while the body runs.

        Raises ``RunnerError`` with the code ``:cancelled`` if the flow was cancelled before.
        """
        with self._lock:
            if self._reason is None:
                self._callbacks.append(callback)
        self.check()
        try:
            yield
        finally:
            with self._lock:
                if callback in self._callbacks:
                    self._callbacks.remove(callback)
