"""Lets the workers of pytest-xdist run tests side by side, but a test that is marked ``alone`` by itself.

Each test holds a shared lock while it runs. A test that is marked ``alone`` holds the same lock exclusively, so it
waits for the tests that run, and the next tests wait for it. flock(2) is not fair, so new shared locks could delay an
exclusive lock for ever. So each test must first get a second lock, the gate. A test that waits for the exclusive lock
keeps the gate, so that no other test can start.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# A lock needs a file that all workers have. Any two files would do.
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
