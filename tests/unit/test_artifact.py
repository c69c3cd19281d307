"""The artifact while it arrives on the host. The tests of the real engine have the rest."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nerves_docker_port import errors
from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.flows.artifact import Incoming

LIMIT = 100_000
"""Bytes."""


@contextmanager
def files_have_at_most(limit: int) -> Iterator[None]:
    """No file can be written beyond this size, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write_more_than_the_disk_takes(target: Path) -> None:
    with (
        files_have_at_most(LIMIT),
        Incoming(target, log="", session="0", cancellation=Cancellation()) as incoming,
    ):
        take = incoming.begin()
        take(b"x" * LIMIT)
        # So few bytes stay in the file's buffer.
        take(b"y" * 1000)
        raise errors.cancelled("Mix asked for it")


def test_bytes_that_cannot_be_written_at_the_end_do_not_hide_the_error(tmp_path: Path) -> None:
    with pytest.raises(errors.RunnerError, match="Mix asked for it"):
        write_more_than_the_disk_takes(tmp_path / "artifact")
    assert list(tmp_path.iterdir()) == []
