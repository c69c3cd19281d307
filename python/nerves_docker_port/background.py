"""Run a function beside the caller. An engine that is far away takes long for each answer, so questions go together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Background(Generic[_T]):
    """A function that runs in its own thread, which starts at once.

    The caller does not have to ask for the result. When the process exits, it does not wait for the thread.
    """

    def __init__(self, function: Callable[[], _T]) -> None:
        self._function = function
        self._result: list[_T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="background", daemon=True)
        self._thread.start()

    def result(self) -> _T:
        """Wait until the function returns, and return its result. Raises the error that the function raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._result[0]

    def _run(self) -> None:
        try:
            self._result.append(self._function())
        except BaseException as error:  # noqa: BLE001  # `result` raises it again
            self._error = error
