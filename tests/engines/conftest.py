"""The engine as a parameter: each test here runs on every kind of engine, and fills one cell of a table.

NDP_ENGINES names the kinds (keys of ``integration.kinds.KINDS``), or is ``all``; without it, they are ``CORE``. With
NDP_ENGINES_TABLE, the table is written into that file, between its two marks.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest
from integration.kinds import KINDS, Kind, RunningEngine, running

from mix.conftest import directory
from support.registry import Registry
from support.system import System
from terminal.conftest import make_shell, make_tmux

__all__ = ["directory", "make_shell", "make_tmux"]

CORE = ("tls", "ssh", "podman")
"""What starts within seconds on any machine where a container may start containers. `make engines` has all kinds."""

WORKS = "yes"
NOT_TRIED = ""
CELLS = pytest.StashKey[dict[tuple[str, str], str]]()
MARKS = ("<!-- made by `make engines`: begin -->", "<!-- made by `make engines`: end -->")


def chosen() -> list[str]:
    """The kinds that are tested."""
    wanted = os.environ.get("NDP_ENGINES", " ".join(CORE))
    return list(KINDS) if wanted == "all" else wanted.split()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The tests of one engine follow each other, so each engine is started once."""
    if "running_engine" in metafunc.fixturenames:
        metafunc.parametrize("running_engine", chosen(), indirect=True, scope="session")


@pytest.fixture(scope="session")
def running_engine(request: pytest.FixtureRequest) -> Iterator[RunningEngine]:
    """The engine, with the new builder image."""
    with running(request.param, ["new"]) as engine:
        yield engine


@pytest.fixture(scope="session")
def kind(running_engine: RunningEngine) -> Kind:
    """What the engine is."""
    return running_engine.kind


@pytest.fixture(scope="session")
def host(running_engine: RunningEngine) -> str:
    """The engine's socket, for root."""
    return running_engine.host


@pytest.fixture(scope="session")
def open_host(running_engine: RunningEngine) -> str:
    """What the person has in DOCKER_HOST."""
    return running_engine.variables["DOCKER_HOST"]


@pytest.fixture(scope="session")
def client(host: str) -> Iterator[docker.DockerClient]:
    """Looks at this engine. That of the other tests may be there already, and looks at theirs."""
    client = docker.DockerClient(base_url=host)
    yield client
    client.close()


@pytest.fixture
def system(make_system: Callable[..., System], running_engine: RunningEngine, client: docker.DockerClient) -> System:
    """A system of the person who may use the engine."""
    return make_system(uid=running_engine.kind.user, variables=running_engine.variables)


@pytest.fixture(scope="session")
def registry() -> Iterator[Registry]:
    """A registry on loopback."""
    with Registry() as registry:
        yield registry


@dataclass
class Cell:
    """What the table says: that it works, unless the test gives the reason why this engine cannot have it."""

    text: str = WORKS


@pytest.fixture
def cell(request: pytest.FixtureRequest, running_engine: RunningEngine) -> Iterator[Cell]:
    """The cell that this test fills. Its row is in the test's mark, ``row``."""
    cell = Cell()
    yield cell
    (row,) = request.node.get_closest_marker("row").args
    name = next(name for name, kind in KINDS.items() if kind is running_engine.kind)
    report: pytest.TestReport | None = request.node.stash.get(REPORT, None)
    cells = request.config.stash.setdefault(CELLS, {})
    # Several tests can fill one cell.
    works = report is not None and report.passed and cells.get((row, name)) != "fails"
    cells[row, name] = cell.text if works else "fails"


REPORT = pytest.StashKey[pytest.TestReport]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let the cell know how the test has ended."""
    report = yield
    if report.when == "call":
        item.stash[REPORT] = report
    return report


def pytest_configure(config: pytest.Config) -> None:
    """Declare the mark."""
    config.addinivalue_line("markers", "row(name): the row of the table that the test fills")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the table."""
    path = os.environ.get("NDP_ENGINES_TABLE")
    cells = session.config.stash.get(CELLS, {})
    if path and cells:
        file = Path(path)
        begin, end = (re.escape(mark) for mark in MARKS)
        text, found = re.subn(
            f"(?<={begin}\n).*(?={end})", lambda _: table(cells), file.read_text(), count=1, flags=re.DOTALL
        )
        assert found == 1, f"{path} does not have the two marks"
        file.write_text(text)


def table(cells: dict[tuple[str, str], str]) -> str:
    """The table in Markdown. A reason is long, so the cell has its number, and it stands below."""
    rows = list(dict.fromkeys(row for row, _ in cells))
    names = [name for name in KINDS if any(column == name for _, column in cells)]
    reasons: list[str] = []

    def short(text: str) -> str:
        if text in (WORKS, "fails", NOT_TRIED):
            return text
        if text not in reasons:
            reasons.append(text)
        return f"({reasons.index(text) + 1})"

    lines = [f"| | {' | '.join(KINDS[name].title for name in names)} |", "|---" * (len(names) + 1) + "|"]
    lines += [f"| {row} | {' | '.join(short(cells.get((row, name), NOT_TRIED)) for name in names)} |" for row in rows]
    return "\n".join(["", *lines, "", *(f"{n}. {reason}" for n, reason in enumerate(reasons, 1)), ""]) + "\n"
