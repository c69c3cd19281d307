"""What doctor finds, with a fake engine, and containers that are played here. tests/engine has real ones."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from nerves_docker_port import errors
from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.doctor import examine as doctor
from nerves_docker_port.doctor.examine import Finding
from nerves_docker_port.engine import container
from nerves_docker_port.engine.client import Engine
from nerves_docker_port.engine.container import Spec
from support.fake_engine import FakeEngine
from support.requests import arguments

IMAGE = "builder:new"

Run = Callable[[Sequence[str], Path], tuple[int, bytes]]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in ("my_system", "platform", "home"):
        (tmp_path / name).mkdir()
    return tmp_path


def play(
    monkeypatch: pytest.MonkeyPatch, *, df: bytes = b"h\n/dev/x 9 9 99000000 1% /probe\n", run: Run | None = None
) -> None:
    """Play the containers: `df` says this, and any other program runs on this machine, in the mounted directory."""

    def here(words: Sequence[str], directory: Path) -> tuple[int, bytes]:
        ended = subprocess.run(
            [word.replace("/probe", str(directory)) for word in words],
            cwd=directory,
            stdout=subprocess.PIPE,
            check=False,
        )
        return ended.returncode, ended.stdout

    def played(_engine: Engine, spec: Spec, _cancellation: Cancellation) -> tuple[int, bytes]:
        words = [*(spec.entrypoint or []), *(spec.command or [])]
        # The words before it give it an environment.
        if "df" in words:
            return 0, df
        (mount,) = spec.mounts
        return (run or here)(words, Path(mount.source))

    monkeypatch.setattr(container, "run", played)


def examine(fake: FakeEngine, home: Path, **changes: Any) -> list[Finding]:
    environ = {"DOCKER_HOST": fake.host, "HOME": str(home / "home")}
    changes.setdefault("image", IMAGE)
    found = doctor.subject(arguments(home, **changes), environ)
    return list(doctor.examine(found, environ, Cancellation()))


def of(findings: list[Finding], topic: str) -> list[tuple[str, str]]:
    return [(found.state, found.text) for found in findings if found.topic == topic]


def test_all_is_well(fake: FakeEngine, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch)
    findings = examine(fake, home, env={"NERVES_DOCKER_WORKSPACE": "mounted"})
    assert not doctor.stops_a_build(findings)
    assert of(findings, "project") == [("ok", f"my_system 0.1.0 ({home / 'my_system'})")]
    assert [state for state, _ in of(findings, "mounts")] == ["ok"] * len(of(findings, "mounts"))
    assert f"belongs to you ({os.getuid()}:{os.getgid()})" in of(findings, "user ids")[0][1]
    assert of(findings, "volume") == [("ok", "none yet; the first build makes it")]
    assert of(findings, "leftovers") == [("ok", "none")]
    assert {path.name for path in home.rglob("*") if path.is_file()} <= {"e.sock"}


def test_a_missing_image_is_a_warning_unless_it_may_not_be_pulled(fake: FakeEngine, home: Path) -> None:
    (state, text) = of(examine(fake, home, image="reg.example/none:1"), "image")[0]
    assert (state, "the next build pulls or builds it" in text) == ("warning", True)
    findings = examine(fake, home, image="reg.example/none:1", env={"NERVES_DOCKER_PULL": "never"})
    assert "`pull: :never` forbids to pull it" in of(findings, "image")[0][1]
    assert doctor.stops_a_build(findings)
    assert of(findings, "mounts") == [("ok", "not examined: there is no image to try it with")]


def test_an_image_for_another_machine_is_a_warning(
    fake: FakeEngine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(monkeypatch)
    fake.version["Arch"] = fake.info["Architecture"] = "arm64"
    fake.images[IMAGE]["Architecture"] = "amd64"
    assert of(examine(fake, home), "image")[0][0] == "warning"


@pytest.mark.parametrize(
    ("df", "state", "text"),
    [
        (b"h\n/dev/x 9 9 1024 1% /probe\n", "problem", "1"),
        (b"busybox has no such thing\n", "ok", "not measured: the image has no df"),
    ],
)
def test_the_engine_s_disk(
    fake: FakeEngine, home: Path, monkeypatch: pytest.MonkeyPatch, df: bytes, state: str, text: str
) -> None:
    play(monkeypatch, df=df)
    (found,) = of(examine(fake, home), "engine disk")
    assert found[0] == state
    assert text in found[1]


def elsewhere(_words: Sequence[str], _directory: Path) -> tuple[int, bytes]:
    return 0, b"of another machine"


def read_only(words: Sequence[str], directory: Path) -> tuple[int, bytes]:
    return 1, (directory / words[-1]).read_bytes() + b"\nsh: Read-only file system"


def refused(_words: Sequence[str], directory: Path) -> tuple[int, bytes]:
    raise errors.internal(f"no {directory}")


@pytest.mark.parametrize(
    ("run", "text"),
    [
        (elsewhere, "the engine sees another directory at "),
        (read_only, "a container reads, but cannot write the package "),
        (refused, "the engine cannot mount the package "),
    ],
)
def test_directories_that_a_container_cannot_use(
    fake: FakeEngine, home: Path, monkeypatch: pytest.MonkeyPatch, run: Run, text: str
) -> None:
    play(monkeypatch, run=run)
    findings = examine(fake, home, env={"NERVES_DOCKER_WORKSPACE": "mounted"})
    assert doctor.stops_a_build(findings)
    state, first = of(findings, "mounts")[0]
    assert state == "problem"
    assert first.startswith(text)


def test_what_earlier_builds_left_is_named(fake: FakeEngine, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch)
    monkeypatch.setattr("nerves_docker_port.volume.lock.LEFTOVER_AGE", -1)
    prefix = "nerves-docker-port."
    labels = {"volume": "old-1", "package": "my_system", "version": "0.0.9", "path": str(home / "my_system")}
    fake.volumes["old-1"] = {prefix + key: value for key, value in labels.items()}
    fake.add_container("x-session", status="exited", project="nerves_docker_port", volume="x")
    findings = examine(fake, home)
    texts = [text for state, text in of(findings, "leftovers") if state == "warning"]
    assert any("1 build volume of other versions" in text and "old-1" in text for text in texts)
    assert any("1 container of builds that died: x-session" in text for text in texts)


def test_the_command_prints_json_and_its_status_is_that_of_the_findings(
    fake: FakeEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    play(monkeypatch)
    monkeypatch.chdir(tmp_path)
    assert doctor.main(["--json", "--image", IMAGE], {"DOCKER_HOST": fake.host, "HOME": str(tmp_path)}) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True
    fake.images.clear()
    assert doctor.main(["--image", IMAGE], {"DOCKER_HOST": fake.host, "HOME": str(tmp_path)}) == 0
    assert f"warning  image       {IMAGE} is not at the engine" in capsys.readouterr().out
    assert doctor.main([], {"DOCKER_HOST": "unix:///none.sock", "HOME": str(tmp_path)}) == 1
    assert "problem  engine " in capsys.readouterr().out


def test_a_current_directory_that_is_gone_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert doctor.main([], {"HOME": str(tmp_path)}) == 1
    assert "The current directory is not there any more." in capsys.readouterr().out


def test_an_image_s_name_that_the_engine_does_not_understand_is_named(fake: FakeEngine, home: Path) -> None:
    """Engines before version 23 do not know registries at IPv6 addresses."""
    said = "no such image: [::1]:5000/x:1: invalid reference format"
    fake.on("GET", r"/images/.*/json", lambda exchange: exchange.error(400, said))
    found = of(examine(fake, home, image="[::1]:5000/x:1"), "engine")
    assert any("'[::1]:5000/x:1' cannot be an image's name: the engine, version" in text for _, text in found)
