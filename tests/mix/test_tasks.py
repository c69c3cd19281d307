"""The tasks `mix nerves_docker_port.*` as a person runs them; there is no terminal."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from integration.project import Project, lay_out

from support.images import NEW

ROOT = Path(__file__).resolve().parents[2]

# Nerves builds a stale system before Mix runs a task of a dependency, but for these (the task's documentation).
UNBUILT = {"NERVES_PRECOMPILE": "1", "NERVES_ENV_DISABLED": "1"}


@pytest.fixture
def project(directory: Path, host: str) -> Project:
    return lay_out(directory / "p", host=host, image=NEW, elixir=None)


@pytest.fixture
def unbuilt(project: Project) -> Project:
    """The same project, but nothing is built on the way to a task."""
    return replace(project, settings={**project.settings, **UNBUILT})


def test_doctor_of_a_project_before_anything_was_built(unbuilt: Project) -> None:
    ended = unbuilt.mix("nerves_docker_port.doctor")
    assert ended.returncode == 0, ended.stdout
    assert f"ok       project     my_system 0.1.0 ({unbuilt.system})" in ended.stdout
    assert f"ok       mounts      a container reads and writes the package {unbuilt.system}" in ended.stdout
    assert "|Docker|" not in ended.stdout
    assert not (unbuilt.system / ".nerves").exists()


def test_doctor_says_with_its_status_that_a_build_would_fail(unbuilt: Project) -> None:
    ended = unbuilt.mix("nerves_docker_port.doctor", DOCKER_HOST=f"unix://{unbuilt.directory}/none.sock")
    assert ended.returncode == 1
    assert "problem  engine      No engine answers at" in ended.stdout
    assert "** (" not in ended.stdout
    helper = ["python3", str(unbuilt.directory / "elixir_shim/priv/python"), "doctor"]
    directly = subprocess.run(
        helper, env=unbuilt.env(DOCKER_HOST="unix:///none.sock"), stdout=subprocess.PIPE, text=True
    )
    assert directly.returncode == 1
    assert "problem  engine      No engine answers at" in directly.stdout


def test_doctor_in_json(unbuilt: Project) -> None:
    ended = unbuilt.mix("nerves_docker_port.doctor", "--json", NERVES_DOCKER_MEMORY="1G")
    assert ended.returncode == 0, ended.stdout
    # Mix may have compiled something first.
    found = json.loads(ended.stdout[ended.stdout.index("{") :])
    assert found["ok"] is True
    assert "1 GB of memory (by the configuration)" in next(
        finding["text"] for finding in found["findings"] if finding["topic"] == "memory"
    )


def test_volumes_are_listed_and_nothing_is_removed_unasked(project: Project, unbuilt: Project) -> None:
    assert project.mix("nerves.artifact").returncode == 0
    ended = project.mix("nerves_docker_port.volumes")
    assert ended.returncode == 0, ended.stdout
    (line,) = [line for line in ended.stdout.splitlines() if line.startswith("my_system-")]
    assert "my_system 0.1.0" in line
    assert "last built by this runner just now" in line
    mix_exs = project.system / "VERSION"
    mix_exs.write_text("0.2.0\n")
    name = line.split()[0]
    ended = unbuilt.mix("nerves_docker_port.volumes", "--prune", "--yes")
    assert ended.returncode == 0, ended.stdout
    assert "There is nothing to remove." in ended.stdout
    assert f"Kept, because a branch may still need them: {name} (0.1.0)" in ended.stdout
    ended = unbuilt.mix("nerves_docker_port.volumes", "--prune", name)
    assert ended.returncode == 0, ended.stdout
    assert "another version: the package's is 0.2.0" in ended.stdout
    assert "Nothing was removed: there is no terminal to ask at." in ended.stdout
    ended = unbuilt.mix("nerves_docker_port.volumes", "--prune", "--yes", name)
    assert f"Removed {name}" in ended.stdout


def test_a_command_its_exit_status_and_what_it_has_made(unbuilt: Project) -> None:
    command = ["--", "sh", "-c", "mkdir -p made; echo text > made/file; echo said; exit $0"]
    gets = ["--get", "made/file", "--get", "made"]
    ended = unbuilt.mix("nerves_docker_port.run", *gets, *command, "0")
    assert ended.returncode == 0, ended.stdout
    assert "said\n" in ended.stdout
    assert (unbuilt.system / "file").read_text() == (unbuilt.system / "made/file").read_text() == "text\n"
    before = sorted(unbuilt.system.iterdir())
    for wanted, status, told in (
        (["--get", "nothing"], 0, "There is no nothing in the build directory."),
        (["--get", "made"], 0, f"{unbuilt.system}/made is a directory with files in it already."),
        (["--get", "made/file"], 3, "said\n"),
        ([], 143, "said\n"),
    ):
        ended = unbuilt.mix("nerves_docker_port.run", *wanted, *command, str(status))
        assert ended.returncode == (status or 1), ended.stdout
        assert told in ended.stdout
        assert sorted(unbuilt.system.iterdir()) == before


def test_help_has_the_tasks(unbuilt: Project) -> None:
    assert unbuilt.mix("deps.compile").returncode == 0
    for task, text in (("doctor", "--json"), ("volumes", "--prune")):
        ended = unbuilt.mix("help", f"nerves_docker_port.{task}")
        assert ended.returncode == 0, ended.stdout
        assert text in ended.stdout


def test_the_lines_of_the_troubleshooting_page_build_nothing(project: Project, unbuilt: Project) -> None:
    """On a system that was cleaned, Nerves would build it before any of these."""
    assert project.mix("nerves.artifact").returncode == 0
    for words in (
        ("nerves.clean", "my_system"),
        ("nerves.clean", "my_system"),
        ("nerves_docker_port.doctor",),
        ("nerves_docker_port.volumes",),
        ("help", "nerves.artifact"),
        ("help", "nerves_docker_port.volumes"),
    ):
        ended = unbuilt.mix(*words)
        assert ended.returncode == 0, ended.stdout
        assert "Starting Build" not in ended.stdout
    document = (ROOT / "docs" / "troubleshooting.md").read_text()
    for line in ("nerves.clean my_system", "nerves_docker_port.doctor", "help nerves.artifact"):
        assert f"{' '.join(f'{name}={value}' for name, value in UNBUILT.items())} mix {line}\n" in document
