"""`mix nerves.artifact` at a real terminal: Ctrl-C, a closed window, a terminal that stands still."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import docker
import pytest
from integration.project import Project, lay_out

from support.images import NEW
from support.port import wait_until
from support.system import at_work, ours
from support.tmux import Tmux, ensure_tmux, processes_with

PATIENCE = 300.0
"""Seconds after which a build is taken to hang."""


@pytest.fixture
def project(root: Path, host: str, client: docker.DockerClient) -> Project:
    ensure_tmux()
    project = lay_out(root / "p", host=host, image=NEW, elixir=None)
    assert project.mix("nerves.artifact").returncode == 0
    # Stale, so that the next command builds.
    (project.artifacts / "my_system-portable-0.1.0" / "CHECKSUM").unlink()
    return project


def _volume(project: Project) -> str:
    (file,) = project.system.glob(".nerves/artifacts/*/.docker_id")
    return f"my_system-{file.read_text()}"


def _start(tmux: Tmux, project: Project, make_args: str) -> None:
    settings = {**project.settings, "HOME": project.home, "NERVES_DL_DIR": project.downloads}
    settings |= {"NERVES_ARTIFACTS_DIR": project.artifacts, "MINI_MAKE_ARGS": make_args}
    words = " ".join(f"{name}={shlex.quote(str(value))}" for name, value in settings.items())
    tmux.enter(f"cd {shlex.quote(str(project.system))}; env {words} mix nerves.artifact; echo left=$?")


def _builds(client: docker.DockerClient, volume: str) -> bool:
    found = client.containers.list(filters={"label": f"nerves-docker-port.volume={volume}"})
    return any(row[-1].startswith("make") for container in found for row in container.top()["Processes"])


def _end_of(log: Path) -> bytes:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 100_000))
        return file.read()


def _ctrl_c_twice(tmux: Tmux) -> None:
    tmux.press("C-c")
    tmux.wait_for("BREAK: ")
    tmux.press("C-c")


def _close_the_window(tmux: Tmux) -> None:
    tmux.close()


@pytest.mark.parametrize("end", [_ctrl_c_twice, _close_the_window], ids=["Ctrl-C twice", "closed window"])
def test_a_build_at_a_terminal_ends_with_it_and_nothing_runs_on(
    end: Callable[[Tmux], None], project: Project, client: docker.DockerClient, root: Path
) -> None:
    (artifact,) = project.downloads.glob("my_system-*.tar.gz")
    before = artifact.read_bytes()
    volume = _volume(project)
    with Tmux(root) as tmux:
        _start(tmux, project, "SLEEP=600")
        assert wait_until(lambda: _builds(client, volume), PATIENCE)
        end(tmux)
        assert wait_until(lambda: ours(client, volume) == [], PATIENCE)
        helper = f"{project.system}/_build/target_dev/lib/nerves_docker_port/priv/python"
        assert wait_until(lambda: not processes_with(helper), PATIENCE)
    assert artifact.read_bytes() == before
    assert project.mix("nerves.artifact").returncode == 0


def test_a_terminal_that_stands_still_does_not_hold_the_build_up_and_is_told_what_it_missed(
    project: Project, client: docker.DockerClient, root: Path
) -> None:
    volume = _volume(project)
    with Tmux(root) as tmux:
        _start(tmux, project, "LINES=2000000 LINES_PER_HEADLINE=40")
        # Not before Mix prints: a stopped terminal would hold up its own compiling. Nor when the container builds: on a
        # busy machine, all could be printed by the time that this test has seen it.
        tmux.wait_for(r"\|Docker\| Starting Build", PATIENCE)
        tmux.press("C-s")
        log = project.system / "build.log"
        assert wait_until(lambda: b"Building line 2000000" in _end_of(log), PATIENCE)
        # The next steps run, too: only Mix itself waits for its terminal.
        assert wait_until(lambda: at_work(client, volume) == [], PATIENCE)
        tmux.press("C-q")
        screen = tmux.wait_for(r"left=\d+\n", PATIENCE, history=True)
    assert "left=0" in screen
    assert re.search(r"\d+ lines were not shown", screen)
    headlines = [line for line in log.read_bytes().split(b"\n") if line.startswith((b">>>", b"\x1b[7m>>>"))]
    assert len(headlines) >= 50_000
