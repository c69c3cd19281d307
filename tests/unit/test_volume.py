"""The build volume: whose it is, who may use it, and what is never touched. Against the fake engine."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from nerves_docker_port.volume.owner import this_process

from nerves_docker_port.engine.client import Engine
from nerves_docker_port.errors import Code, RunnerError
from nerves_docker_port.request.request import Names, Package
from nerves_docker_port.volume import build_volume as volume
from nerves_docker_port.volume import machine
from support.fake_engine import FakeEngine
from support.port import PYTHON

VOLUME = "my_system-0123456789abcdef"
IMAGE = "builder:new"


def dead_owner() -> str:
    return replace(this_process(), started="long ago").to_label()


def foreign_owner() -> str:
    return replace(this_process(), place="another-host/boot/namespace").to_label()


def package(app: str = "my_system") -> Package:
    return Package(app, Path("/p/my_system"), "0.1.0", "nerves_defconfig")


def names(build_path: Path) -> Names:
    return Names("N", ".tar.gz", build_path / "dl/N.tar.gz", build_path / "dl", build_path, build_path / "cache")


def ours(fake: FakeEngine, name: str, *, owner: str, status: str = "running", session: str = "s") -> None:
    """A container of ours on the volume that was there before."""
    found = fake.find(fake.add_container(name, status=status, volume=VOLUME, step="make", session=session, owner=owner))
    assert found is not None
    found.config["Labels"]["nerves-docker-port.volume"] = VOLUME


# --- The name --------------------------------------------------------------------------------------------------


def test_the_name_is_the_apps_and_the_id_of_the_stock_runner(tmp_path: Path) -> None:
    assert volume.name(package(), names(tmp_path)) is None
    (tmp_path / ".docker_id").write_text("AbC_123456789xyz")
    assert volume.name(package(), names(tmp_path)) == "my_system-AbC_123456789xyz"
    assert volume.ensure_name(package(), names(tmp_path)) == "my_system-AbC_123456789xyz"


def test_an_id_is_made_once_and_kept(tmp_path: Path) -> None:
    build_path = tmp_path / "deep" / "down"
    made = volume.ensure_name(package(), names(build_path))
    assert re.fullmatch(r"my_system-[A-Za-z0-9_]{16}", made)
    assert volume.ensure_name(package(), names(build_path)) == made
    assert [path.name for path in build_path.iterdir()] == [".docker_id"]


def test_an_id_file_left_empty_gets_an_id(tmp_path: Path) -> None:
    (tmp_path / ".docker_id").write_text("\n")
    assert volume.name(package(), names(tmp_path)) is None
    (tmp_path / ".docker_id").write_text("")
    assert volume.ensure_name(package(), names(tmp_path)) == volume.name(package(), names(tmp_path))


@pytest.mark.parametrize("content", ["two words", "../x", "x/y", "é", "\x00"])
def test_an_id_file_that_holds_something_else_is_named_and_left_alone(tmp_path: Path, content: str) -> None:
    (tmp_path / ".docker_id").write_text(content)
    with pytest.raises(RunnerError) as caught:
        volume.ensure_name(package(), names(tmp_path))
    assert caught.value.code is Code.BAD_REQUEST
    assert str(tmp_path / ".docker_id") in caught.value.message
    assert (tmp_path / ".docker_id").read_text() == content


def test_an_app_with_letters_that_the_engine_does_not_take_gets_a_name_that_it_does(tmp_path: Path) -> None:
    (tmp_path / ".docker_id").write_text("0123456789abcdef")
    for app in ("mon_système", "_private", "système?", "日本"):
        found = volume.name(package(app), names(tmp_path))
        assert re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", found or "")
        assert (found or "").endswith("0123456789abcdef")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunnerError) as caught:
        volume.ensure_name(package(), names(tmp_path / "file" / "x"))
    assert caught.value.code is Code.BAD_REQUEST
    assert str(tmp_path / "file") in caught.value.message


def test_processes_that_start_at_once_agree_on_the_id(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from nerves_docker_port.request.request import *;"
        "from nerves_docker_port.volume import build_volume as volume; p = Path(sys.argv[1]);"
        "package = Package('my_system', p, '', ''); names = Names('N', '', p, p, p, p);"
        "sys.stdin.read(); print(volume.ensure_name(package, names))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)],
            env={"PYTHONPATH": str(PYTHON)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(4)
    ]
    with ThreadPoolExecutor(len(processes)) as pool:
        said = list(pool.map(lambda process: process.communicate(timeout=30)[0], processes))
    assert len(set(said)) == 1, said
    assert said[0].startswith(b"my_system-")


# --- Making and removing ---------------------------------------------------------------------------------------


def test_a_volume_is_made_once_with_labels_that_tell_whose_it_is(
    engine: Engine, fake: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_home", lambda: tmp_path)
    made_for = replace(package(), path=tmp_path)
    volume.ensure(engine, VOLUME, made_for)
    volume.ensure(engine, VOLUME, made_for)
    assert len(fake.requests("POST", "/volumes/create")) == 1
    assert fake.volumes[VOLUME] == {
        "nerves-docker-port.host": platform.node(),
        "nerves-docker-port.project": "nerves_docker_port",
        "nerves-docker-port.package": "my_system",
        "nerves-docker-port.version": "0.1.0",
        "nerves-docker-port.path": str(tmp_path),
        "nerves-docker-port.machine": machine.machine_id(),
        "nerves-docker-port.directory": machine.directory_id(tmp_path),
        "nerves-docker-port.volume": VOLUME,
    }


def test_a_volume_that_is_not_there_is_removed_without_complaint(engine: Engine) -> None:
    volume.remove(engine, VOLUME)


def test_removing_takes_what_ended_of_ours_along(engine: Engine, fake: FakeEngine) -> None:
    fake.volumes[VOLUME] = {}
    ours(fake, "left", status="exited", owner=dead_owner())
    volume.remove(engine, VOLUME)
    assert fake.volumes == {}
    assert fake.names == []


def test_removing_never_takes_somebody_elses_container_along(engine: Engine, fake: FakeEngine) -> None:
    fake.volumes[VOLUME] = {}
    fake.add_container("somebody", status="exited", volume=VOLUME)
    with pytest.raises(RunnerError, match="volume is in use"):
        volume.remove(engine, VOLUME)
    assert fake.names == ["somebody"]
    assert VOLUME in fake.volumes


def test_a_volume_whose_name_contains_ours_is_another(engine: Engine, fake: FakeEngine) -> None:
    fake.volumes |= {VOLUME: {}, VOLUME + "-copy": {}}
    fake.add_container("somebody", volume=VOLUME + "-copy")
    volume.check_free(engine, VOLUME)
    volume.remove(engine, VOLUME)
    assert list(fake.volumes) == [VOLUME + "-copy"]
    assert fake.names == ["somebody"]


@pytest.mark.parametrize("status", ["running", "paused", "restarting"])
def test_a_volume_in_use_is_not_removed(engine: Engine, fake: FakeEngine, status: str) -> None:
    fake.volumes[VOLUME] = {}
    fake.add_container("somebody", status=status, volume=VOLUME)
    with pytest.raises(RunnerError, match="in use by the container somebody") as caught:
        volume.remove(engine, VOLUME)
    assert caught.value.code is Code.VOLUME_BUSY
    assert VOLUME in fake.volumes


def test_a_volume_that_a_build_holds_between_two_steps_is_not_removed(engine: Engine, fake: FakeEngine) -> None:
    fake.volumes[VOLUME] = {}
    with volume.hold(engine, VOLUME, IMAGE, "s", "build"), pytest.raises(RunnerError, match="build") as caught:
        volume.remove(engine, VOLUME)
    assert caught.value.code is Code.VOLUME_BUSY
    assert VOLUME in fake.volumes
    volume.remove(engine, VOLUME)
    assert fake.volumes == {}


# --- Who may use it --------------------------------------------------------------------------------------------


def test_a_hold_is_a_container_that_is_never_started_and_gone_afterwards(engine: Engine, fake: FakeEngine) -> None:
    with volume.hold(engine, VOLUME, IMAGE, "0123", "build"):
        assert fake.names == [f"{VOLUME}-hold"]
        held = fake.find(f"{VOLUME}-hold")
        assert held is not None
        assert held.status == "created"
        assert held.labels == volume.container_labels(VOLUME, "build", "0123")
    assert fake.names == []
    assert fake.started == []


def test_a_hold_is_gone_after_a_failure_too(engine: Engine, fake: FakeEngine) -> None:
    with pytest.raises(ZeroDivisionError), volume.hold(engine, VOLUME, IMAGE, "0123", "build"):
        raise ZeroDivisionError
    assert fake.names == []


def test_a_failure_is_told_even_if_the_hold_cannot_be_removed(engine: Engine, fake: FakeEngine) -> None:
    fake.on("DELETE", "/containers/.*", lambda exchange: exchange.error(500, "device or resource busy"))
    with pytest.raises(ZeroDivisionError), volume.hold(engine, VOLUME, IMAGE, "0123", "build"):
        raise ZeroDivisionError


def test_the_second_hold_is_refused_and_names_the_step_that_runs(engine: Engine, fake: FakeEngine) -> None:
    with volume.hold(engine, VOLUME, IMAGE, "s", "build"):
        with (
            pytest.raises(RunnerError, match=rf"container {VOLUME}-hold \(build, started \d+ seconds ago\)"),
            volume.hold(engine, VOLUME, IMAGE, "t", "build"),
        ):
            pytest.fail("both hold it")
        # Made, but not yet started.
        ours(fake, f"{VOLUME}-make-s", status="created", owner=this_process().to_label())
        with (
            pytest.raises(RunnerError, match=rf"container {VOLUME}-make-s \(make, ") as caught,
            volume.hold(engine, VOLUME, IMAGE, "t", "build"),
        ):
            pytest.fail("both hold it")
        assert caught.value.code is Code.VOLUME_BUSY
        assert f"docker stop {VOLUME}-make-s" in (caught.value.hint or "")


def test_of_many_that_start_at_once_exactly_one_holds(engine: Engine, fake: FakeEngine) -> None:
    for _ in range(5):
        start, tried = threading.Barrier(4, timeout=20), threading.Barrier(4, timeout=20)

        def compete(session: str, start: threading.Barrier = start, tried: threading.Barrier = tried) -> str:
            start.wait()
            try:
                with volume.hold(engine, VOLUME, IMAGE, session, "build"):
                    tried.wait()
                    return "held"
            except RunnerError as error:
                tried.wait()
                return error.code.value

        with ThreadPoolExecutor(4) as pool:
            outcomes = sorted(pool.map(compete, "abcd"))
        assert outcomes == ["held", "volume_busy", "volume_busy", "volume_busy"]
        assert fake.names == []


def test_what_a_dead_owner_left_is_removed_even_if_it_runs(engine: Engine, fake: FakeEngine) -> None:
    ours(fake, f"{VOLUME}-make-s", owner=dead_owner())
    ours(fake, f"{VOLUME}-hold", status="created", owner=dead_owner())
    with volume.hold(engine, VOLUME, IMAGE, "t", "build"):
        held = fake.find(f"{VOLUME}-hold")
        assert held is not None
        assert held.labels["nerves-docker-port.session"] == "t"
        assert fake.names == [f"{VOLUME}-hold"]


def test_what_an_owner_left_that_may_live_is_not_touched(engine: Engine, fake: FakeEngine) -> None:
    ours(fake, f"{VOLUME}-make-s", owner=foreign_owner())
    with pytest.raises(RunnerError, match="make"), volume.hold(engine, VOLUME, IMAGE, "t", "build"):
        pytest.fail("both hold it")
    assert fake.names == [f"{VOLUME}-make-s"]


def test_a_sweep_touches_nothing_without_our_label_nor_of_another_volume(engine: Engine, fake: FakeEngine) -> None:
    fake.add_container("somebody", status="exited", volume=VOLUME)
    fake.add_container("other", volume="other", step="make", owner=dead_owner())
    ours(fake, "mine", owner=dead_owner())
    ours(fake, "unreadable", owner="nobody knows")
    volume.sweep(engine, VOLUME)
    assert fake.names == ["other", "somebody", "unreadable"]


def test_a_container_that_goes_while_it_is_looked_at_is_no_error(engine: Engine, fake: FakeEngine) -> None:
    fake.add_container("somebody", volume=VOLUME)
    fake.on("GET", "/containers/[^/]+/json", lambda exchange: exchange.error(404, "No such container"))
    volume.check_free(engine, VOLUME)
    ours(fake, "mine", owner=dead_owner())
    fake.on("DELETE", "/containers/.*", lambda exchange: exchange.error(404, "No such container"))
    volume.sweep(engine, VOLUME)


@pytest.mark.parametrize(
    ("ago", "told"),
    [
        (timedelta(seconds=30.5), "started 3[01] seconds ago"),
        (timedelta(minutes=2, seconds=30), "started 2 minutes ago"),
        (timedelta(hours=3, minutes=30), "started 3 hours ago"),
        (timedelta(days=3, hours=12), "started 3 days ago"),
        (timedelta(days=-1), "started 0 seconds ago"),
    ],
)
def test_an_age_is_told_in_words_and_is_never_negative_whatever_the_clocks_say(ago: timedelta, told: str) -> None:
    then = (datetime.now(timezone.utc) - ago).strftime("%Y-%m-%dT%H:%M:%S")
    for text in (f"{then}.123456789Z", f"{then}Z"):
        assert re.fullmatch(told, volume._age(text))


@pytest.mark.parametrize("created", ["", "0", "yesterday"])
def test_an_age_that_is_not_told_is_unknown(created: str) -> None:
    assert volume._age(created) == "of unknown age"
