"""Lets the workers of pytest-xdist run tests side by side, and a test that is marked ``alone`` by itself.

Each test holds a shared lock while it runs. A test that is marked ``alone`` holds the same lock exclusively, so it
waits for the tests that run, and the next tests wait for it. flock(2) is not fair: new holders of the shared lock could
keep an exclusive one away for ever. So everybody passes a gate first, and who waits for the exclusive lock keeps it
closed.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# A lock needs a file that all workers have. These two are as good as any.
GATE = Path(__file__).parent / "script.py"
ROOM = Path(__file__)


@contextmanager
def turn(*, alone: bool) -> Iterator[None]:
    """Wait until a test may run, and hold its lock while the block runs."""
    with ROOM.open() as room:
        with GATE.open() as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)
            fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
