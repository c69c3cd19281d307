"""What the stock runner did, scenario by scenario, against what ours does: real Mix, real engine, one table.

The recordings in `tests/conformance/stock-1.14.1` hold every `docker` invocation of the stock runner (Nerves 1.14.1).
Here the same command runs with our runner behind a socket that keeps what the engine is asked for; each step must be
the same in image, command, working directory, environment and mounts, in the same order. Where it is not,
`DIFFERENCES` says how and why; a difference that is not in the table fails, so does an entry without its difference.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import pytest
from integration.project import Project, lay_out

from support.images import NEW, OLD
from support.recorder import Recorder
from support.recordings import RECORDINGS, Container, commands, recorded_containers, seen_containers


@dataclass(frozen=True)
class Scenario:
    """How to bring about what was recorded."""

    name: str
    image: str = NEW
    kind: str = "new"
    task: tuple[str, ...] = ("nerves.artifact",)
    settings: dict[str, str] = field(default_factory=dict)
    ssh: bool = True
    reaches_engine: bool = True


SCENARIOS = [
    Scenario("artifact_new_image", settings={"MINI_MAKE_ARGS": "LINES=1"}),
    Scenario("artifact_old_image", image=OLD, kind="old", settings={"MINI_MAKE_ARGS": "LINES=1"}),
    Scenario("clean", task=("nerves.clean", "my_system"), settings={"MINI_MAKE_ARGS": "LINES=1"}),
    Scenario("image_missing", image="127.0.0.1:1/acme/none:1"),
    Scenario("make_fails", settings={"MINI_MAKE_ARGS": "LINES=abc"}),
    Scenario("no_docker_cli", settings={"PATH": "no docker"}),
    Scenario("no_engine", reaches_engine=False),
    Scenario("no_ssh_dir", image=OLD, kind="old", ssh=False),
]

# (scenario, what differs) -> the fault of the stock runner that is mended by it (docs/stock-runner.md).
DIFFERENCES = {
    (
        "artifact_new_image",
        "user and entrypoint",
    ): "fault 1: any uid builds; ours becomes the caller before the command",
    ("clean", "user and entrypoint"): "fault 1",
    ("make_fails", "user and entrypoint"): "fault 1",
    ("artifact_old_image", "user and entrypoint"): "speed: the volume's owner is changed in the container of the steps",
    ("artifact_old_image", "no container for chown"): "speed",
    ("artifact_new_image", "steps in one container"): "speed: a container for each costs more than all that is in it",
    ("artifact_old_image", "steps in one container"): "speed",
    ("clean", "steps in one container"): "speed",
    ("make_fails", "steps in one container"): "speed; what failed is told as before, and nothing after it has run",
    ("artifact_new_image", "no container for cp"): "fault 3: the engine hands the artifact over; never half a one",
    ("artifact_old_image", "no container for cp"): "fault 3",
    ("clean", "no container for cp"): "fault 3",
    ("artifact_new_image", "reuse"): "speed: `archive` right after `build` packs nothing again, and says so",
    ("artifact_old_image", "reuse"): "speed",
    ("artifact_new_image", "place of ~/.ssh"): "fault 18: copied from there for the build user, known_hosts kept",
    ("artifact_old_image", "place of ~/.ssh"): "fault 18",
    ("clean", "place of ~/.ssh"): "fault 18",
    ("make_fails", "place of ~/.ssh"): "fault 18",
    ("image_missing", "no question"): "fault 15: without a terminal nothing is asked",
    ("no_docker_cli", "outcome"): "fault 12: no CLI is needed where an engine answers",
    ("no_docker_cli", "containers"): "fault 12",
    ("no_ssh_dir", "outcome"): "fault 2: builds without ~/.ssh",
    ("no_ssh_dir", "containers"): "fault 2",
}

STOCK_SSH = "type=bind,src=<home>/.ssh,target=/home/nerves/.ssh,readonly"
OUR_SSH = "type=bind,src=<home>/.ssh,target=/nerves/ssh,readonly"


def _headlines(printed: str) -> list[str]:
    return headlines(printed, "Docker", "no volume")


def headlines(printed: str, name: str, volume: str) -> list[str]:
    """The texts of the runner's own headlines, in order."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", printed).replace(volume, "<volume>") if volume else printed
    return re.findall(rf"^\|{re.escape(name)}\| (.*?)\s*$", plain, re.MULTILINE)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_the_same_work_as_the_stock_runner(
    scenario: Scenario, directory: Path, host: str, client: docker.DockerClient
) -> None:
    recording = json.loads((RECORDINGS / f"{scenario.name}.json").read_text())
    differences: set[str] = set()
    with Recorder(directory, host) as recorder:
        project = lay_out(
            directory / "p",
            host=recorder.host if scenario.reaches_engine else f"unix://{directory}/none.sock",
            image=scenario.image,
            kind=scenario.kind,
            elixir=None,
            **scenario.settings | {"PATH": _path(directory, scenario), "TERM": "xterm-256color"},
        )
        if scenario.ssh:
            (project.home / ".ssh").mkdir()
        ended = project.mix(*scenario.task)
        created = recorder.created()
    try:
        expected = recorded_containers(recording)
        seen = _placeholders_in(project, created, scenario, client)
        volume = _volume(project)

        # The outcome.
        if ended.returncode != recording["exit_status"]:
            assert ended.returncode == 0, ended.stdout
            differences.add("outcome")
            if expected != seen:
                differences.add("containers")
            _check_everything_was_made(project)
        else:
            # A container knows of the steps after the one that failed. Their headlines, below, must not be there.
            _compare(expected, seen if ended.returncode == 0 else seen[: len(expected)], differences)
            if ended.returncode == 0 and scenario.task == ("nerves.artifact",):
                _check_everything_was_made(project)
            if "Create image" in recording["printed"] and "Create image" not in ended.stdout:
                differences.add("no question")
            elif "reuse" in differences:
                assert _headlines(ended.stdout)[-1].startswith("Reusing artifact archive from ")
                assert _headlines(ended.stdout)[:-1] == headlines(recording["printed"], "Elixir.Docker", "")[:-2]
            else:
                assert headlines(ended.stdout, "Docker", volume) == headlines(recording["printed"], "Elixir.Docker", "")
        for body in created:
            stock = (body.get("Entrypoint"), body.get("User"))
            if stock != (None, None):
                differences.add("user and entrypoint")
            if len(commands([*body["Entrypoint"], *body["Cmd"]])) > 1:
                differences.add("steps in one container")
    finally:
        _remove_volume(client, project)
    if "outcome" in differences:
        # The stock runner did not get that far, so there is nothing to hold the rest against.
        differences &= {"outcome", "containers"}
    assert differences == {what for name, what in DIFFERENCES if name == scenario.name}


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("image_missing", ["Unable to use Nerves Docker build_runner without image"]),
        (
            "make_fails",
            [
                "The Nerves Docker build_runner encountered an error while building:",
                "`make LINES=abc` ended with exit status 2",
                "build.log",
            ],
        ),
        ("no_engine", ["Nerves Docker build_runner is unable to connect to docker daemon", "systemctl start docker"]),
    ],
)
def test_what_the_stock_runner_says_of_a_failure_ours_says_too(
    name: str, texts: list[str], directory: Path, host: str, client: docker.DockerClient
) -> None:
    scenario = next(scenario for scenario in SCENARIOS if scenario.name == name)
    project = lay_out(
        directory / "p",
        host=host if scenario.reaches_engine else f"unix://{directory}/none.sock",
        image=scenario.image,
        elixir=None,
        **scenario.settings,
    )
    try:
        ended = project.mix(*scenario.task)
    finally:
        _remove_volume(client, project)
    assert ended.returncode == 1
    assert "** (Mix)" in ended.stdout
    for text in texts:
        assert text in ended.stdout


def _path(directory: Path, scenario: Scenario) -> str:
    """The PATH of Mix; without `docker` where the scenario has none."""
    if scenario.settings.get("PATH") != "no docker":
        return os.environ["PATH"]
    tools = directory / "bin"
    tools.mkdir()
    for place in os.environ["PATH"].split(os.pathsep):
        for program in Path(place).glob("*"):
            if program.name != "docker" and not (tools / program.name).is_symlink():
                (tools / program.name).symlink_to(program)
    return str(tools)


def _placeholders_in(
    project: Project, created: list[dict[str, Any]], scenario: Scenario, client: docker.DockerClient
) -> list[Container]:
    if not created:
        return []
    names = [p.name.removesuffix(".tar.gz") for p in project.downloads.glob("my_system-*.tar.gz")]
    artifact = names[0] if names else "?"
    image = client.images.get(scenario.image).id or ""
    placeholders = {
        artifact: "<artifact>",
        _volume(project): "<volume>",
        str(project.downloads): "<download_dir>",
        str(project.system): "<package>",
        str(project.platform): "<platform>",
        str(project.home): "<home>",
    }
    return seen_containers(created, placeholders, image)


def _compare(expected: list[Container], seen: list[Container], differences: set[str]) -> None:
    """Each container of the recording must be there, but for those that the table explains."""
    ours = iter(seen)
    mine = next(ours, None)
    packed = False
    for stock in expected:
        if stock.command[0] == "chown":
            differences.add("no container for chown")
        elif stock.command[0] == "cp":
            differences.add("no container for cp")
            if mine is not None and "nerves-docker-port-copy" in mine.command:
                # A step of our own copies the artifact.
                mine = next(ours, None)
        elif packed and stock.command[:2] == ["make", "system"]:
            # Nothing but a look at what has changed, in the container of the build: no command of another one.
            differences.add("reuse")
        else:
            packed = packed or stock.command[:2] == ["make", "system"]
            if mine is not None and "nerves-docker-port-inputs" in mine.command:
                # A step of our own: what `make system` packs is noted, so that `archive` can tell whether it changed.
                mine = next(ours, None)
            assert mine is not None
            if OUR_SSH in mine.mounts:
                mine.mounts = [STOCK_SSH if mount == OUR_SSH else mount for mount in mine.mounts]
                differences.add("place of ~/.ssh")
            assert mine == stock
            mine = next(ours, None)
    assert mine is None


def _check_everything_was_made(project: Project) -> None:
    """The files that the stock runner and Nerves leave on the host after `mix nerves.artifact`."""
    assert (project.system / "build.log").stat().st_size > 0
    assert (project.system / "archive.log").stat().st_size > 0
    (downloaded,) = project.downloads.glob("my_system-portable-*.tar.gz")
    assert re.fullmatch(r"my_system-portable-0\.1\.0-[0-9A-F]{7}\.tar\.gz", downloaded.name)
    assert (project.system / downloaded.name).read_bytes() == downloaded.read_bytes()
    cached = project.artifacts / "my_system-portable-0.1.0"
    assert re.fullmatch(r"[0-9A-F]{64}", (cached / "CHECKSUM").read_text())
    assert (cached / "nerves-system.tag").exists()


def _volume(project: Project) -> str:
    ids = list(project.system.glob(".nerves/artifacts/my_system-portable-0.1.0/.docker_id"))
    return f"my_system-{ids[0].read_text()}" if ids else ""


def _remove_volume(client: docker.DockerClient, project: Project) -> None:
    volume = _volume(project)
    if volume:
        for found in client.volumes.list(filters={"name": volume}):
            found.remove(force=True)
