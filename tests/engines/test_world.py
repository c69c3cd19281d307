"""An engine that `integration/world.py` starts ends with its last user, however that one ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from integration.engine import answers, places, supervisor
from integration.host import descendants, process_start

from support.port import ROOT, wait_until

PATIENCE = 120
"""Seconds; only ends a hang."""


@contextmanager
def user_of(kind: str, cache: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program that uses an engine in a cache of its own, so it is nobody else's engine."""
    command = [sys.executable, str(ROOT / "integration" / "world.py"), "run", "--engine", kind, "--", "cat"]
    environ = {**os.environ, "NERVES_DOCKER_PORT_CACHE": cache}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("kind", ["docker", "ssh"])
@pytest.mark.parametrize("killed", ["the user", "the supervisor"])
def test_nothing_of_an_engine_is_left_when_its_last_user_or_its_supervisor_is_killed(
    kind: str, killed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory(prefix="ndp-", dir="/var/tmp") as cache:
        monkeypatch.setenv("NERVES_DOCKER_PORT_CACHE", cache)
        where = places(kind)
        with user_of(kind, cache) as user:
            assert wait_until(lambda: supervisor(where) is not None, PATIENCE)
            started = supervisor(where)
            assert started is not None
            assert answers(where.host)
            family = [(pid, process_start(pid)) for pid in (started, *descendants(started))]
            assert len(family) > 3
            if killed == "the user":
                # `cat` is the command that the user runs; it has the lock, too.
                for pid in (*descendants(user.pid), user.pid):
                    # One ends by itself when the one below it has ended.
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            else:
                os.kill(started, signal.SIGKILL)
            assert wait_until(lambda: all(process_start(pid) != begun for pid, begun in family), PATIENCE), family
            assert not answers(where.host)
