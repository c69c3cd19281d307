"""Telling a flow, from another thread, that it is to end: once, with a reason, and at once for what blocks.

A flow asks ``check`` between its steps; while it blocks in the engine, ``on_cancel`` names what ends the blocking.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nerves_docker_port import errors


class Cancellation:
    """One flow's cancellation. Every method may be called from any thread, but not from a signal's handler: it would
    wait for a lock that the interrupted thread may hold."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reason: str | None = None
        self._callbacks: list[Callable[[], None]] = []

    @property
    def requested(self) -> bool:
        """Whether the flow is to end."""
        return self._reason is not None

    def cancel(self, reason: str) -> None:
        """Ask the flow to end. Only the first reason counts; the call does not wait."""
        with self._lock:
            if self._reason is not None:
                return
            self._reason = reason
            callbacks = list(reversed(self._callbacks))
        for callback in callbacks:
            # A callback talks to the engine; the caller serves the port and must not wait for that.
            threading.Thread(target=callback, name="cancel", daemon=True).start()

    def check(self) -> None:
        """Raise the ``:cancelled`` error if the flow is to end."""
        if self._reason is not None:
            raise errors.cancelled(self._reason)

    @contextmanager
    def on_cancel(self, callback: Callable[[], None]) -> Iterator[None]:
        """While the body runs, ``callback`` is called (in a thread of its own) when the flow is to end."""
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
