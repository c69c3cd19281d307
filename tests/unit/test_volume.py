"""The build volume: whose it is, who may use it, and what is never touched. Against the fake engine."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from nerves_docker_port.engine import container
from nerves_docker_port.engine.client import Engine
from nerves_docker_port.engine.container import Spec
from nerves_docker_port.errors import Code, RunnerError
from nerves_docker_port.request.request import Names, Package
from nerves_docker_port.volume import build_volume as volume
from nerves_docker_port.volume import lock, machine
from support.fake_engine import Container, FakeEngine
from support.port import PYTHON

VOLUME = "my_system-0123456789abcdef"
IMAGE = "builder:new"


def package(app: str = "my_system") -> Package:
    return Package(app, Path("/p/my_system"), "0.1.0", "nerves_defconfig")


def names(build_path: Path) -> Names:
    return Names("N", ".tar.gz", build_path / "dl/N.tar.gz", build_path / "dl", build_path, build_path / "cache")


def ours(fake: FakeEngine, name: str, *, status: str = "running", age: float = 0) -> Container:
    """A container of ours on the volume, made ``age`` seconds ago by the engine's clock."""
    labels = {"project": "nerves_docker_port", "volume": VOLUME, "step": "build"}
    found = fake.add_container(name, status=status, mounted=VOLUME, **labels)
    found.created -= age
    return found


def spec(flow: str = "build", name: str = f"{VOLUME}-session") -> Spec:
    return Spec(name=name, image=IMAGE, entrypoint=["true"], labels=lock.container_labels(VOLUME, flow))


# --- The name --------------------------------------------------------------------------------------------------


def test_the_name_is_the_apps_and_the_id_of_the_stock_runner(engine: Engine, tmp_path: Path) -> None:
    assert volume.name(package(), names(tmp_path)) is None
    (tmp_path / ".docker_id").write_text("AbC_123456789xyz")
    assert volume.name(package(), names(tmp_path)) == "my_system-AbC_123456789xyz"
    assert volume.ensure_name(engine, package(), names(tmp_path)) == "my_system-AbC_123456789xyz"


def test_an_id_is_made_once_and_kept(engine: Engine, tmp_path: Path) -> None:
    build_path = tmp_path / "deep" / "down"
    made = volume.ensure_name(engine, package(), names(build_path))
    assert re.fullmatch(r"my_system-[A-Za-z0-9_]{16}", made)
    assert volume.ensure_name(engine, package(), names(build_path)) == made
    assert [path.name for path in build_path.iterdir()] == [".docker_id"]


def test_an_id_file_left_empty_gets_an_id(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / ".docker_id").write_text("\n")
    assert volume.name(package(), names(tmp_path)) is None
    (tmp_path / ".docker_id").write_text("")
    assert volume.ensure_name(engine, package(), names(tmp_path)) == volume.name(package(), names(tmp_path))


@pytest.mark.parametrize("content", ["two words", "../x", "x/y", "é", "\x00"])
def test_an_id_file_that_holds_something_else_is_named_and_left_alone(
    engine: Engine, tmp_path: Path, content: str
) -> None:
    (tmp_path / ".docker_id").write_text(content)
    with pytest.raises(RunnerError) as caught:
        volume.ensure_name(engine, package(), names(tmp_path))
    assert caught.value.code is Code.BAD_REQUEST
    assert str(tmp_path / ".docker_id") in caught.value.message
    assert (tmp_path / ".docker_id").read_text() == content


def test_an_app_with_letters_that_the_engine_does_not_take_gets_a_name_that_it_does(tmp_path: Path) -> None:
    (tmp_path / ".docker_id").write_text("0123456789abcdef")
    for app in ("mon_système", "_private", "système?", "日本"):
        found = volume.name(package(app), names(tmp_path))
        assert re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", found or "")
        assert (found or "").endswith("0123456789abcdef")


def test_a_place_that_cannot_be_written_is_named(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunnerError) as caught:
        volume.ensure_name(engine, package(), names(tmp_path / "file" / "x"))
    assert caught.value.code is Code.BAD_REQUEST
    assert str(tmp_path / "file") in caught.value.message


def test_processes_that_start_at_once_agree_on_the_id(fake: FakeEngine, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from nerves_docker_port.request.request import *;"
        "from nerves_docker_port.engine.client import Engine;"
        "from nerves_docker_port.volume import build_volume as volume; p = Path(sys.argv[1]);"
        "package = Package('my_system', p, '', ''); names = Names('N', '', p, p, p, p);"
        "engine = Engine.connect({'DOCKER_HOST': sys.argv[2]});"
        "sys.stdin.read(); print(volume.ensure_name(engine, package, names))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path), fake.host],
            env={"PYTHONPATH": str(PYTHON)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(4)
    ]
    with ThreadPoolExecutor(len(processes)) as pool:
        said = list(pool.map(lambda process: process.communicate(timeout=60)[0], processes))
    assert len(set(said)) == 1, said
    assert said[0].startswith(b"my_system-")


def test_where_the_file_is_gone_the_newest_volume_with_the_packages_labels_is_taken(
    engine: Engine, fake: FakeEngine, tmp_path: Path
) -> None:
    for name in ("my_system-old", VOLUME, "my_system-other"):
        volume.ensure(engine, name, package())
    fake.volumes["my_system-other"]["nerves-docker-port.version"] = "0.2.0"
    # A copy of a volume has the labels of the one that it was made from.
    fake.volumes["my_system-copy"] = dict(fake.volumes[VOLUME])
    assert volume.name(package(), names(tmp_path)) is None
    assert volume.find_name(engine, package(), names(tmp_path)) == VOLUME
    assert list(tmp_path.iterdir()) == []
    assert volume.ensure_name(engine, package(), names(tmp_path)) == VOLUME
    assert (tmp_path / ".docker_id").read_text() == "0123456789abcdef"


def test_a_filter_that_matches_more_than_it_says_finds_nothing_more(
    engine: Engine, fake: FakeEngine, tmp_path: Path
) -> None:
    labels = {"nerves-docker-port.volume": "my_system-1"}
    everything = [{"Name": "my_system-1", "Labels": labels}, {"Name": "x", "Labels": None}]
    fake.on("GET", "/volumes", lambda exchange: exchange.json(200, {"Volumes": everything}))
    assert volume.find_name(engine, package(), names(tmp_path)) is None


# --- Making and removing ---------------------------------------------------------------------------------------


def test_a_volume_is_made_once_with_labels_that_tell_whose_it_is(
    engine: Engine, fake: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_home", lambda: tmp_path)
    made_for = replace(package(), path=tmp_path)
    volume.ensure(engine, VOLUME, made_for)
    fake.volumes[VOLUME]["made"] = "once"
    volume.ensure(engine, VOLUME, made_for)
    assert fake.volumes[VOLUME] == {
        "nerves-docker-port.host": platform.node(),
        "nerves-docker-port.project": "nerves_docker_port",
        "nerves-docker-port.package": "my_system",
        "nerves-docker-port.version": "0.1.0",
        "nerves-docker-port.path": str(tmp_path),
        "nerves-docker-port.machine": machine.machine_id(),
        "nerves-docker-port.directory": machine.directory_id(tmp_path),
        "nerves-docker-port.volume": VOLUME,
        "made": "once",
    }


def test_a_volume_that_is_not_there_is_removed_without_complaint(engine: Engine, fake: FakeEngine) -> None:
    volume.remove(engine, VOLUME)
    assert fake.names == []


def test_removing_works_without_any_image_and_takes_one_that_has_no_tag(engine: Engine, fake: FakeEngine) -> None:
    fake.volumes[VOLUME] = {}
    fake.images = {"": {"Id": "sha256:" + "0" * 64, "RepoTags": None}}
    volume.remove(engine, VOLUME)
    assert fake.volumes == {}
    fake.volumes[VOLUME] = {}
    fake.images = {}
    volume.remove(engine, VOLUME)
    assert fake.volumes == {}


def test_removing_takes_what_is_parked_or_has_ended_of_ours_along(engine: Engine, fake: FakeEngine) -> None:
    fake.volumes[VOLUME] = {}
    ours(fake, f"{VOLUME}-parked-0123456789ab")
    ours(fake, f"{VOLUME}-make-0123", status="exited")
    ours(fake, f"{VOLUME}-session", status="created", age=90)
    volume.remove(engine, VOLUME)
    assert fake.volumes == {}
    assert fake.names == []


def test_removing_never_takes_somebody_elses_container_along(engine: Engine, fake: FakeEngine) -> None:
    fake.volumes[VOLUME] = {}
    fake.add_container("somebody", status="exited", mounted=VOLUME)
    with pytest.raises(RunnerError, match=r"in use by the container somebody \(not started by this runner") as caught:
        volume.remove(engine, VOLUME)
    assert caught.value.code is Code.VOLUME_BUSY
    assert "docker rm --force somebody" in (caught.value.hint or "")
    assert fake.names == ["somebody"]
    assert VOLUME in fake.volumes


def test_a_volume_whose_name_contains_ours_is_another(engine: Engine, fake: FakeEngine) -> None:
    fake.volumes |= {VOLUME: {}, VOLUME + "-copy": {}}
    fake.add_container("somebody", mounted=VOLUME + "-copy")
    lock.check_free(engine, VOLUME)
    volume.remove(engine, VOLUME)
    assert list(fake.volumes) == [VOLUME + "-copy"]
    assert fake.names == ["somebody"]


@pytest.mark.parametrize("status", ["running", "paused", "restarting"])
def test_a_volume_in_use_is_not_removed(engine: Engine, fake: FakeEngine, status: str) -> None:
    fake.volumes[VOLUME] = {}
    fake.add_container("somebody", status=status, mounted=VOLUME)
    with pytest.raises(RunnerError, match="in use by the container somebody") as caught:
        volume.remove(engine, VOLUME)
    assert caught.value.code is Code.VOLUME_BUSY
    assert "docker stop somebody" in (caught.value.hint or "")
    assert VOLUME in fake.volumes
    assert fake.names == ["somebody"]


def test_a_volume_that_somebody_holds_is_not_removed(engine: Engine, fake: FakeEngine) -> None:
    fake.volumes[VOLUME] = {}
    lock.take(engine, VOLUME, spec())
    with pytest.raises(RunnerError, match=rf"{VOLUME}-session \(build, ") as caught:
        volume.remove(engine, VOLUME)
    assert caught.value.code is Code.VOLUME_BUSY
    assert VOLUME in fake.volumes


# --- Who may use it --------------------------------------------------------------------------------------------


def test_a_volume_is_held_by_a_container_that_never_runs_and_does_not_use_it(engine: Engine, fake: FakeEngine) -> None:
    with lock.reserve(engine, VOLUME, "clean", IMAGE) as holder:
        (found,) = fake.containers.values()
        assert (found.id, found.name, found.status) == (holder, f"{VOLUME}-session", "created")
        assert found.labels == lock.container_labels(VOLUME, "clean")
        assert found.mounts == []
    assert fake.names == []
    assert fake.started == []


def test_the_holder_is_gone_after_a_failure_too(engine: Engine, fake: FakeEngine) -> None:
    with pytest.raises(ZeroDivisionError), lock.reserve(engine, VOLUME, "clean", IMAGE):
        raise ZeroDivisionError
    assert fake.names == []


def test_a_failure_is_told_even_if_the_holder_cannot_be_removed(engine: Engine, fake: FakeEngine) -> None:
    fake.on("DELETE", "/containers/.*", lambda exchange: exchange.error(500, "device or resource busy"))
    with pytest.raises(ZeroDivisionError), lock.reserve(engine, VOLUME, "clean", IMAGE):
        raise ZeroDivisionError


def test_where_somebody_else_uses_the_volume_nothing_of_ours_stays(engine: Engine, fake: FakeEngine) -> None:
    fake.add_container("somebody", mounted=VOLUME)
    with pytest.raises(RunnerError, match="in use by the container somebody"):
        lock.take(engine, VOLUME, spec())
    assert fake.names == ["somebody"]


def test_the_second_is_refused_and_told_by_whom_since_when_and_how_to_end_it(engine: Engine, fake: FakeEngine) -> None:
    holder = fake.find(lock.take(engine, VOLUME, spec("shell")))
    assert holder is not None
    for status, remedy in (("created", "docker rm --force"), ("running", "docker stop")):
        holder.status = status
        with pytest.raises(RunnerError, match=rf"{VOLUME}-session \(shell, started just now\)") as caught:
            lock.take(engine, VOLUME, spec())
        assert caught.value.code is Code.VOLUME_BUSY
        assert f"`{remedy} {VOLUME}-session`" in (caught.value.hint or "")
    with pytest.raises(RunnerError, match="shell"):
        lock.check_free(engine, VOLUME)
    lock.check_free(engine, VOLUME, own=holder.id)


def test_of_many_that_start_at_once_exactly_one_holds(engine: Engine, fake: FakeEngine) -> None:
    for _ in range(5):
        start, tried = threading.Barrier(4, timeout=30), threading.Barrier(4, timeout=30)

        def compete(flow: str, start: threading.Barrier = start, tried: threading.Barrier = tried) -> str:
            start.wait()
            try:
                with lock.reserve(engine, VOLUME, flow, IMAGE):
                    tried.wait()
                    return "held"
            except RunnerError as error:
                tried.wait()
                return error.code.value

        with ThreadPoolExecutor(4) as pool:
            outcomes = sorted(pool.map(compete, "abcd"))
        assert outcomes == ["held", "volume_busy", "volume_busy", "volume_busy"]
        assert fake.names == []


@pytest.mark.parametrize("ahead", [-7200, 0, 7200])
@pytest.mark.parametrize(
    ("status", "age", "busy"),
    [("created", 50, True), ("created", 70, False), ("exited", 0, False), ("dead", 0, False), ("running", 9999, True)],
)
def test_what_holds_a_volume_is_judged_by_its_state_and_the_engines_clock(
    engine: Engine, fake: FakeEngine, ahead: float, status: str, age: float, busy: bool
) -> None:
    fake.ahead = ahead
    ours(fake, f"{VOLUME}-session", status=status, age=age)
    if busy:
        with pytest.raises(RunnerError, match="in use by the container"):
            lock.check_free(engine, VOLUME)
        with pytest.raises(RunnerError, match="in use by the container"):
            lock.take(engine, VOLUME, spec())
    else:
        lock.check_free(engine, VOLUME)
        made = lock.take(engine, VOLUME, spec())
        assert list(fake.containers) == [made]


def test_what_is_parked_is_in_nobodys_way(engine: Engine, fake: FakeEngine) -> None:
    made = lock.take(engine, VOLUME, spec())
    container.rename(engine, made, lock.parked_name(VOLUME, made))
    found = fake.find(made)
    assert found is not None
    found.status = "running"
    found.config["HostConfig"]["Mounts"] = [{"Type": "volume", "Source": VOLUME, "Target": "/x"}]
    lock.check_free(engine, VOLUME)
    lock.take(engine, VOLUME, spec())
    assert fake.names == [f"{VOLUME}-parked-{made[:12]}", f"{VOLUME}-session"]


def test_what_is_not_ours_or_of_another_volume_is_never_removed(engine: Engine, fake: FakeEngine) -> None:
    fake.add_container("somebody", status="exited", mounted=VOLUME)
    fake.add_container("other-make", status="exited", mounted="other", volume="other", step="make")
    ours(fake, "mine", status="exited")
    lock.check_free(engine, VOLUME)
    assert fake.names == ["other-make", "somebody"]


def test_a_container_that_goes_while_it_is_looked_at_is_no_error(engine: Engine, fake: FakeEngine) -> None:
    fake.add_container("somebody", mounted=VOLUME)
    ours(fake, "mine", status="exited")
    fake.on("GET", "/containers/[^/]+/json", lambda exchange: exchange.error(404, "No such container"))
    fake.on("DELETE", "/containers/.*", lambda exchange: exchange.error(404, "No such container"))
    lock.check_free(engine, VOLUME)


def test_what_was_left_behind_is_what_does_not_run_and_is_not_about_to(engine: Engine, fake: FakeEngine) -> None:
    ours(fake, "left", status="created", age=90)
    ours(fake, "ended", status="exited", age=90)
    ours(fake, "new", status="created")
    ours(fake, "runs", age=90)
    fake.add_container("somebody", status="exited", mounted=VOLUME).created -= 90
    # A container has the labels of its image, too, and this one's image was built by us.
    fake.add_container("mine", status="exited", project="nerves_docker_port", context="0123").created -= 90
    in_our_image = {"project": "nerves_docker_port", "context": "0123", "volume": VOLUME, "step": "build"}
    fake.add_container("in our image", status="exited", **in_our_image).created -= 90
    assert sorted(lock.left_behind(engine)) == ["ended", "in our image", "left"]


def test_what_belongs_to_no_volume_and_was_left_behind_is_removed_by_the_next_who_looks(
    engine: Engine, fake: FakeEngine
) -> None:
    for name, status, age, labels in (
        ("question", "created", 90, {"project": "nerves_docker_port", "step": "question"}),
        ("doctor", "exited", 90, {"project": "nerves_docker_port", "step": "doctor"}),
        ("new", "created", 0, {"project": "nerves_docker_port", "step": "question"}),
        ("runs", "running", 90, {"project": "nerves_docker_port", "step": "doctor"}),
        ("of an image of ours", "exited", 90, {"project": "nerves_docker_port", "context": "0123"}),
    ):
        fake.add_container(name, status=status, **labels).created -= age
    lock.check_free(engine, VOLUME)
    assert {each.name for each in fake.containers.values()} == {"new", "runs", "of an image of ours"}
