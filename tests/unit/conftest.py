"""The fake engine and a connection to it in this process, for what is easier to see from inside than by a port."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from nerves_docker_port.engine.client import Engine
from support.fake_engine import FakeEngine


@pytest.fixture
def fake() -> Iterator[FakeEngine]:
    """A fake engine that behaves until it is told otherwise."""
    with tempfile.TemporaryDirectory(prefix="ndp-") as directory, FakeEngine(Path(directory)) as fake:
        yield fake


@pytest.fixture
def engine(fake: FakeEngine) -> Iterator[Engine]:
    """Connected to the fake."""
    engine = Engine.connect({"DOCKER_HOST": fake.host})
    yield engine
    engine.close()
