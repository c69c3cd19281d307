"""The standard output that the helper was started with, for what a command in the build directory writes."""

from __future__ import annotations

import os
import select
from contextlib import suppress

from nerves_docker_port import errors
from nerves_docker_port.cancellation import Cancellation

_LOOK_EVERY = 0.5
"""Seconds between two looks whether the flow was cancelled, while nobody reads."""

_PIPE_SIZE = 4096
"""Bytes that a pipe takes without waiting once it is ready (POSIX: PIPE_BUF; Linux)."""

_TERMINAL_SIZE = 256
"""Bytes that are written at once to a terminal, where no size is promised: few, so that a write seldom waits."""


class Output:
    """Writes bytes as they are. A slow reader makes the command wait, so nothing is lost and nothing piles up."""

    def __init__(self, fd: int, cancellation: Cancellation) -> None:
        self._fd = fd
        self._cancellation = cancellation
        self._size = _TERMINAL_SIZE if os.isatty(fd) else _PIPE_SIZE

    def __call__(self, data: bytes) -> None:
        """Write all of ``data``. Raises ``RunnerError``: nobody reads any more, the disk is full, ``:cancelled``."""
        view = memoryview(data)
        try:
            while view:
                self._wait()
                # Whoever shares the descriptor may have set that flag.
                with suppress(BlockingIOError):
                    view = view[os.write(self._fd, view[: self._size]) :]
        except BrokenPipeError as error:
            raise errors.nobody_reads_output() from error
        except OSError as error:
            raise errors.output_not_written(str(error.strerror)) from error

    def _wait(self) -> None:
        # The flag that makes a write never wait is not set: the descriptor is also Mix's and that of others.
        while not select.select([], [self._fd], [], _LOOK_EVERY)[1]:
            self._cancellation.check()
