"""The real engine, worlds to build in, and who runs beside whom.

Nothing here skips: a test that needs the engine fails without one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from support.images import NEW
from support.recorder import Recorder
from support.system import System
from support.turns import turn


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the tests of one file run on one worker, in their order: they share fixtures, and names at the engine.

    Unit tests share nothing. What takes longest begins first.
    """
    items.sort(key=lambda item: item.path.parent.name != "faults")
    for item in items:
        if item.path.parent.name != "unit":
            item.add_marker(pytest.mark.xdist_group(str(item.path)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Run a test with its fixtures when it is its turn."""
    with turn(alone=item.get_closest_marker("alone") is not None):
        return (yield)


@pytest.fixture(scope="session")
def host() -> str:
    """The engine's ``DOCKER_HOST``."""
    host = os.environ.get("DOCKER_HOST")
    if host is None:
        pytest.fail("these tests need an engine: run `make test`, which brings one")
    return host


@pytest.fixture(scope="session")
def client(host: str) -> Iterator[docker.DockerClient]:
    """The SDK's client, to look from outside at what the helper did."""
    client = docker.DockerClient(base_url=host)
    yield client
    client.close()


@pytest.fixture
def root() -> Iterator[Path]:
    """A directory that every uid can reach (pytest's own is closed to others), under the path that the engine sees."""
    path = Path(tempfile.mkdtemp(prefix="ndp-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def open_host(host: str) -> Iterator[str]:
    """The engine for users who are not in its group: the tests build as many a uid."""
    directory = Path(tempfile.mkdtemp(prefix="ndp-"))
    directory.chmod(0o755)
    with Recorder(directory, host) as recorder:
        yield recorder.host
    shutil.rmtree(directory)


@pytest.fixture
def make_system(root: Path, open_host: str, client: docker.DockerClient) -> Iterator[Callable[..., System]]:
    """Makes systems; their volumes and containers are gone after the test."""
    made: list[System] = []

    def make(uid: int = 1000, image: str = NEW, **changes: Any) -> System:
        directory = root / f"s{len(made)}"
        directory.mkdir()
        system = System(root=directory, uid=uid, image=image, host=changes.pop("host", open_host), **changes)
        made.append(system)
        return system

    yield make
    for system in made:
        ids = system.package.glob(".nerves/artifacts/*/.docker_id")
        for volume in {f"{system.app}-{path.read_text()}" for path in ids}:
            for container in client.containers.list(all=True, filters={"volume": volume}, ignore_removed=True):
                container.remove(force=True)
            for container in client.containers.list(
                all=True, filters={"label": f"nerves-docker-port.volume={volume}"}, ignore_removed=True
            ):
                container.remove(force=True)
            for found in client.volumes.list(filters={"name": volume}):
                found.remove(force=True)


@pytest.fixture
def system(make_system: Callable[..., System]) -> System:
    """A system of a plain user, with the new image."""
    return make_system()
