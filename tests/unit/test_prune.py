"""Which build volumes are listed, what is said of them, and which are removed. Against the fake engine."""

from __future__ import annotations

import platform
import shutil
import time
from pathlib import Path

import msgpack
import pytest

from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine.client import Engine
from nerves_docker_port.errors import Code, RunnerError
from nerves_docker_port.port.wire import Atom, Term
from nerves_docker_port.record import journal
from nerves_docker_port.request import request, volumes
from nerves_docker_port.request.request import Package
from nerves_docker_port.stages import StageName, Status, Unit
from nerves_docker_port.volume import build_volume, prune
from support.fake_engine import FakeEngine
from support.requests import arguments

pytestmark = pytest.mark.usefixtures("home")

ID = "0123456789abcdef"


class Person:
    """A reporter that answers every question with ``says``."""

    def __init__(self, *, says: bool) -> None:
        self.says = says
        self.questions: list[str] = []

    def headline(self, text: str) -> None: ...

    def log(self, lines: bytes) -> None: ...

    def stage_started(self, name: StageName) -> None: ...

    def stage_finished(self, name: StageName, milliseconds: int) -> None: ...

    def progress(self, what: str, current: int, total: int | None, unit: Unit) -> None: ...

    def status(self, status: Status) -> None: ...

    def warning(self, text: str) -> None: ...

    def ask(self, text: str, *, default: bool) -> bool:
        self.questions.append(text)
        return self.says


def write_journal(state: Path, volume: str) -> None:
    """The journal of a build on the volume."""
    kept = journal.Journal(state / "journal", "build")
    kept.write(journal.Began("build", "my_system", "0.1.0", "", "", ""))
    kept.write(journal.Workspace("mounted", volume, ""), journal.Ended("ok"))
    kept.close()


class World:
    """Packages in a directory, and their volumes at the fake engine."""

    def __init__(self, root: Path, fake: FakeEngine, engine: Engine) -> None:
        self.root = root
        self.fake = fake
        self.engine = engine

    def package(self, directory: str = "my_system", app: str = "my_system", version: str = "0.1.0") -> Package:
        path = self.root / directory
        path.mkdir(parents=True, exist_ok=True)
        return Package(app, path, version, "nerves_defconfig")

    def build(self, package: Package, identifier: str = ID) -> str:
        """What a build leaves of itself: the volume, its id in the package, a record in the journal."""
        state = package.path / ".nerves" / "artifacts" / f"{package.app}-portable-{package.version}"
        state.mkdir(parents=True)
        (state / ".docker_id").write_text(identifier)
        name = f"{package.app}-{identifier}"
        build_volume.ensure(self.engine, name, package)
        write_journal(state, name)
        return name

    def ask(
        self, package: Package | None, *names: str, says: bool | None = None, **flags: bool
    ) -> tuple[list[str], list[str]]:
        """The volumes that were removed, and what was said. Without ``says`` there is no terminal."""
        wanted = None
        if package is not None:
            args = arguments(self.root, app=package.app, package=package.path)
            struct, named = args[Atom("package")], args[Atom("names")]
            assert isinstance(struct, dict)
            assert isinstance(named, dict)
            struct[Atom("version")] = package.version
            named[Atom("build_path")] = str(
                package.path / ".nerves" / "artifacts" / f"{package.app}-portable-{package.version}"
            )
            wanted = request.from_args(args)
        more: dict[Term, Term] = {Atom(key): value for key, value in flags.items()}
        more[Atom("volumes")] = list(names)
        self.person = Person(says=says is True)
        removed, text = prune.serve(
            wanted,
            {"DOCKER_HOST": self.fake.host},
            self.person,
            Cancellation(),
            volumes.from_args(more),
            interactive=says is not None,
        )
        assert all(name not in self.fake.volumes for name in removed)
        return removed, [" ".join(line.split()) for line in text.splitlines()]


@pytest.fixture
def world(tmp_path: Path, fake: FakeEngine, engine: Engine) -> World:
    return World(tmp_path / "work", fake, engine)


# --- The listing -----------------------------------------------------------------------------------------------


def test_a_project_sees_its_own_volumes_and_with_all_everybody_s(world: World) -> None:
    mine, other = world.package(), world.package("other", "other_system")
    assert world.ask(mine) == ([], ["There is no build volume of my_system."])
    world.fake.on("GET", "/system/df", lambda exchange: exchange.json(200, {"Volumes": []}), times=100)
    volume = world.build(mine)
    world.build(other)
    assert world.ask(mine)[1] == [f"{volume} my_system 0.1.0 size unknown last built by this runner just now"]
    assert world.ask(mine, all=True)[1] == [
        f"{volume} my_system 0.1.0 size unknown last built by this runner just now",
        f"other_system-{ID} other_system 0.1.0 size unknown last built by this runner just now of {other.path}",
    ]


def test_the_age_is_that_of_our_last_build_and_says_so(world: World) -> None:
    """Another runner may have used the volume since; nothing tells when."""
    mine = world.package()
    volume = world.build(mine)
    state = mine.path / ".nerves" / "artifacts" / "my_system-portable-0.1.0"
    shutil.rmtree(state / "journal")
    (state / "builds.msgpack").write_bytes(msgpack.packb({"volume": volume, "at": time.time() - 39 * 60}))
    (line,) = world.ask(mine)[1]
    assert line.endswith("last built by this runner 39 minutes ago")
    assert "used" not in line


def test_a_build_before_the_volume_was_made_anew_says_nothing_of_it(world: World) -> None:
    mine = world.package()
    volume = world.build(mine)
    world.fake.volumes[volume] = {}
    state = mine.path / ".nerves" / "artifacts" / "my_system-portable-0.1.0"
    shutil.rmtree(state / "journal")
    # The fake engine's volumes are all made on 2026-11-20.
    (state / "builds.msgpack").write_bytes(msgpack.packb({"volume": volume, "at": 1_700_000_000.0}))
    (line,) = world.ask(mine)[1]
    assert "built" not in line
    assert " made " in line


def test_volumes_of_the_stock_runner_are_listed_as_another_runner_s(world: World) -> None:
    mine = world.package()
    state = mine.path / ".nerves" / "artifacts" / "my_system-portable-0.1.0"
    state.mkdir(parents=True)
    (state / ".docker_id").write_text(ID)
    world.fake.volumes |= {
        f"my_system-{ID}": {},
        "their_system-AbCdEfGh_2345678": {},
        "postgres-data": {},
        "compose-0123456789abcdef": {"com.docker.compose.project": "compose"},
        "e" * 64: {},
        "their_system-AbCdEfGh_2345678-copy": {},
    }
    (mine_line,) = world.ask(mine)[1]
    assert mine_line.startswith(f"my_system-{ID} my_system 0.1.0 ")
    assert mine_line.endswith("another runner's")
    first, second = world.ask(mine, all=True)[1]
    assert first == mine_line
    assert second.startswith("their_system-AbCdEfGh_2345678 their_system ")
    assert second.endswith("another runner's")
    before = dict(world.fake.volumes)
    assert world.ask(mine, all=True, prune=True, yes=True) == ([], ["There is nothing to remove."])
    for name in (f"my_system-{ID}", "their_system-AbCdEfGh_2345678"):
        with pytest.raises(RunnerError) as caught:
            world.ask(mine, name, all=True, prune=True, yes=True)
        assert "was not made by this runner" in caught.value.message
        assert f"docker volume rm {name}" in str(caught.value.hint)
    assert world.fake.volumes == before


def test_an_engine_whose_sizes_have_no_labels_gets_them_from_its_list(world: World) -> None:
    """Podman: `/system/df` has the sizes only."""
    mine = world.package()
    volume = world.build(mine)
    sizes = [{"Name": volume, "Labels": None, "UsageData": {"Size": 2 << 20, "RefCount": 0}}]
    world.fake.on("GET", "/system/df", lambda exchange: exchange.json(200, {"Volumes": sizes}))
    (line,) = world.ask(mine)[1]
    assert line == f"{volume} my_system 0.1.0 2 MB last built by this runner just now"


def test_an_engine_that_adds_up_for_somebody_else_is_asked_again(world: World) -> None:
    mine = world.package()
    volume = world.build(mine)
    sizes = [{"Name": volume, "UsageData": {"Size": 2 << 20}}]
    busy = "a disk usage operation is already running"
    world.fake.on("GET", "/system/df", lambda exchange: exchange.error(500, busy), times=2)
    world.fake.on("GET", "/system/df", lambda exchange: exchange.json(200, {"Volumes": sizes}))
    (line,) = world.ask(mine)[1]
    assert line == f"{volume} my_system 0.1.0 2 MB last built by this runner just now"


@pytest.mark.parametrize("answer", [None, {}, {"Volumes": None}, {"Volumes": [{"Name": "x", "UsageData": None}]}])
def test_an_engine_that_knows_no_sizes_still_lists(world: World, answer: object) -> None:
    mine = world.package()
    volume = world.build(mine)
    if answer is None:
        world.fake.on("GET", "/system/df", lambda exchange: exchange.error(404, "page not found"))
    else:
        world.fake.on("GET", "/system/df", lambda exchange: exchange.json(200, answer))
    (line,) = world.ask(mine)[1]
    assert line.startswith(f"{volume} my_system 0.1.0 size unknown")


@pytest.mark.parametrize(
    ("why", "said"),
    [
        ("older", "older version of this runner"),
        ("elsewhere", "made on another machine, far-away"),
        ("namesake", f"another machine that is called {platform.node()}, too"),
        ("parent", "is not there, either; its disk may not be mounted"),
        ("replaced", "not the same directory as when the volume was made"),
    ],
)
def test_the_listing_says_why_nothing_is_known_and_nothing_is_removed(world: World, why: str, said: str) -> None:
    mine, other = world.package(), world.package("disk/other", "other_system")
    name = world.build(other)
    labels = world.fake.volumes[name]
    shutil.rmtree(other.path)
    if why == "older":
        labels.pop("nerves-docker-port.machine")
        labels.pop("nerves-docker-port.directory")
    elif why in ("elsewhere", "namesake"):
        labels["nerves-docker-port.machine"] = "0" * 32
        if why == "elsewhere":
            labels["nerves-docker-port.host"] = "far-away"
    else:
        other.path.parent.rename(world.root / "away")
        if why == "replaced":
            other.path.parent.mkdir()
    (line,) = world.ask(mine, all=True)[1]
    assert f"of {other.path}; whether that is still there is not known: " in line
    assert said in line
    removed, (nothing, kept) = world.ask(mine, all=True, prune=True, yes=True)
    assert (removed, nothing) == ([], "There is nothing to remove.")
    assert kept.startswith("Kept, because it is not known")
    assert name in kept
    assert name in world.fake.volumes
    assert world.ask(mine, name, all=True, prune=True, yes=True)[0] == [name]


# --- Removing --------------------------------------------------------------------------------------------------


def test_what_is_gone_is_removed_for_this_package_only_unless_all_is_given(world: World) -> None:
    mine, copy, other = world.package(), world.package("copy"), world.package("other", "other_system")
    volumes_of = {
        "mine": world.build(mine),
        "copy": world.build(copy, "copy456789abcdef"),
        "other": world.build(other),
    }
    shutil.rmtree(copy.path)
    shutil.rmtree(other.path)
    assert [line.split()[0] for line in world.ask(mine)[1]] == [volumes_of["mine"], volumes_of["copy"]]
    assert world.ask(mine, prune=True, yes=True) == ([volumes_of["copy"]], [f"Removed {volumes_of['copy']}"])
    assert world.ask(mine, prune=True, yes=True) == ([], ["There is nothing to remove."])
    assert world.ask(mine, prune=True, yes=True, all=True)[0] == [volumes_of["other"]]
    assert list(world.fake.volumes) == [volumes_of["mine"]]


@pytest.mark.parametrize("other", ["0.0.9", "0.2.0", "0.2.0-rc.1+branch"])
def test_another_version_is_named_and_removed_only_on_request(world: World, other: str) -> None:
    old = world.package(version=other)
    name = world.build(old)
    now = world.package(version="0.1.0")
    (line,) = world.ask(now)[1]
    assert line.startswith(f"{name} my_system {other} ")
    assert line.endswith("another version: the package's is 0.1.0")
    for everybody in (False, True):
        removed, (nothing, kept) = world.ask(now, prune=True, yes=True, all=everybody)
        assert (removed, nothing) == ([], "There is nothing to remove.")
        assert f"{name} ({other})" in kept
        assert "--prune NAME" in kept
    assert world.ask(now, name, prune=True, says=False) == ([], ["Nothing was removed."])
    assert name in world.person.questions[0]
    assert world.ask(now, name, prune=True)[1][-1].startswith("Nothing was removed: there is no terminal to ask at.")
    assert world.ask(now, name, prune=True, says=True) == ([name], [f"Removed {name}"])


def test_a_package_that_was_moved_keeps_its_volume(world: World) -> None:
    mine = world.package()
    volume = world.build(mine)
    renamed = world.package("renamed")
    renamed.path.rmdir()
    mine.path.rename(renamed.path)
    # By the package itself, and by another one beside it.
    assert world.ask(renamed, prune=True, yes=True, all=True)[0] == []
    (line,) = world.ask(renamed)[1]
    assert line == f"{volume} my_system 0.1.0 size unknown last built by this runner just now"
    beside = world.package("beside", "beside")
    assert world.ask(beside, prune=True, yes=True, all=True)[0] == []
    (line,) = world.ask(beside, all=True)[1]
    assert line.startswith(volume)
    assert line.endswith(f"of {renamed.path}")


def test_volumes_that_are_named_must_be_build_volumes_of_the_project(world: World) -> None:
    mine, other = world.package(), world.package("other", "other_system")
    here, there = world.build(mine), world.build(other)
    world.fake.volumes["postgres-data"] = {}
    for name, words, hint in (
        ("my_system-none", "There is no build volume my_system-none at the engine.", "volumes --all` lists"),
        ("postgres-data", "There is no build volume postgres-data at the engine.", "volumes --all` lists"),
        (there, f"belongs to another package, other_system in {other.path}", f"--all --prune {there}`"),
    ):
        with pytest.raises(RunnerError) as caught:
            world.ask(mine, here, name, prune=True, yes=True)
        assert caught.value.code is Code.BAD_REQUEST
        assert words in caught.value.message
        assert "Nothing was removed." in caught.value.message
        assert hint in str(caught.value.hint)
    assert set(world.fake.volumes) == {here, there, "postgres-data"}
    assert world.ask(mine, there, here, there, prune=True, yes=True, all=True)[0] == [there, here]


def test_outside_of_a_project_all_is_needed(world: World) -> None:
    other = world.package("other", "other_system")
    name = world.build(other)
    shutil.rmtree(other.path)
    for flags in ({}, {"prune": True, "yes": True}):
        with pytest.raises(RunnerError) as caught:
            world.ask(None, **flags)
        assert caught.value.code is Code.BAD_REQUEST
        assert "--all" in str(caught.value.hint)
    assert world.ask(None, all=True)[1][0].endswith(f"its package's directory is gone: {other.path}")
    assert world.ask(None, all=True, prune=True, yes=True) == ([name], [f"Removed {name}"])
    assert world.ask(None, all=True) == ([], ["There are no build volumes."])


@pytest.mark.parametrize("given", ["my_system-a", [1], [["x"]]])
def test_names_that_are_no_list_of_text_are_refused(given: Term) -> None:
    with pytest.raises(RunnerError) as caught:
        volumes.from_args({Atom("volumes"): given})
    assert caught.value.code is Code.BAD_REQUEST
    assert "`volumes`" in caught.value.message
