"""The fake engine and a connection to it in this process, for what is easier to see from inside than by a port."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from nerves_docker_port.engine.client import Engine
from nerves_docker_port.volume import machine
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


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home directory of the user's account, for this test. What identifies this machine is kept there."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setattr(machine, "_home", lambda: home)
    monkeypatch.setattr(machine, "_WITHOUT_HOME", tmp_path / "not there")
    return home
