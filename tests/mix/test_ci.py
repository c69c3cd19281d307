"""What a CI's log and job summary get of a whole Mix run."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import docker
import pytest
from integration.project import Project, lay_out

from support.images import NEW

GITHUB: dict[str, Any] = {"CI": "true", "GITHUB_ACTIONS": "true"}
GITLAB: dict[str, Any] = {"CI": "true", "GITLAB_CI": "true"}


@pytest.fixture
def project(directory: Path, host: str, client: docker.DockerClient) -> Project:
    return lay_out(directory / "p", host=host, image=NEW, elixir=None)


def groups_of(output: str) -> list[str]:
    """The titles of GitHub's groups. Fails if one is within another one, or not closed."""
    titles: list[str] = []
    is_open = False
    for line in output.splitlines():
        if line.startswith("::group::"):
            assert not is_open, line
            titles.append(line.removeprefix("::group::"))
            is_open = True
        elif line.startswith("::endgroup::"):
            assert is_open
            is_open = False
    assert not is_open
    return titles


def commands_of(output: str) -> list[str]:
    """The lines that GitHub's runner obeys, without those of groups."""
    obeyed = [line for line in output.splitlines() if line.lstrip().startswith("::") or "##[" in line]
    return [line for line in obeyed if not line.startswith(("::group::", "::endgroup::"))]


def test_github_gets_groups_and_a_summary_of_a_passing_build(project: Project, directory: Path) -> None:
    summary, record = directory / "summary.md", directory / "record"
    ended = project.mix(
        "nerves.artifact", GITHUB_STEP_SUMMARY=str(summary), NERVES_DOCKER_RECORD_DIR=str(record), **GITHUB
    )
    assert ended.returncode == 0, ended.stdout
    stages = ["preflight", "create_build", "make", "make_system", "copy", "preflight", "check_tree"]
    assert groups_of(ended.stdout) == stages
    assert commands_of(ended.stdout) == []
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", ended.stdout)
    (artifact,) = project.downloads.glob("my_system-*.tar.gz")
    told = summary.read_text()
    assert told.count("###") == 1
    assert artifact.name in told.replace("\\", "")
    assert hashlib.sha256(artifact.read_bytes()).hexdigest() in told
    assert "| hello | " in told.partition("| Slowest packages |")[2]
    names = sorted(path.name for path in record.iterdir())
    assert [name for name in names if not name.endswith(".msgpack")] == ["archive.log", "build.log", "report.html"]
    assert len(names) == 5
    assert "my_system 0.1.0: built in" in (record / "report.html").read_text()
    reported = project.mix("nerves_docker_port.report", str(record))
    assert "Time by package" in reported.stdout, reported.stdout


def test_github_gets_one_annotation_of_a_failing_build(project: Project, directory: Path) -> None:
    summary = directory / "summary.md"
    evil = "SAY=::add-path::/evil FAIL=1"
    ended = project.mix("nerves.artifact", GITHUB_STEP_SUMMARY=str(summary), MINI_MAKE_ARGS=evil, **GITHUB)
    assert ended.returncode == 1
    assert groups_of(ended.stdout) == ["preflight", "create_build", "make"]
    (annotation,) = commands_of(ended.stdout)
    assert annotation.startswith("::error title=my_system%3A ")
    assert "hello.c:1: error: as asked by FAIL" in annotation
    assert "\n: :add-path::/evil\n" in ended.stdout
    assert ended.stdout.count("** (Mix)") == 1
    assert "hello.c:1: error: as asked by FAIL" in summary.read_text()


def test_gitlab_gets_sections_and_no_other_control_character(project: Project) -> None:
    ended = project.mix("nerves.artifact", MINI_MAKE_ARGS="FAIL=1", **GITLAB)
    assert ended.returncode == 1
    # Text mode has made a newline of the carriage return.
    form = r"\x1b\[0Ksection_(start|end):\d+:(\w+)(?:\[collapsed=true\])?\n\x1b\[0K"
    marks = re.findall(form, ended.stdout)
    assert [kind for kind, _ in marks] == ["start", "end"] * 3
    assert all(first[1] == second[1] for first, second in zip(marks[::2], marks[1::2], strict=True))
    assert len({name for _, name in marks}) == 3
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", re.sub(form, "", ended.stdout))


def test_another_ci_gets_plain_text(project: Project, directory: Path) -> None:
    summary = directory / "summary.md"
    ended = project.mix("nerves.artifact", CI="true", GITHUB_STEP_SUMMARY=str(summary))
    assert ended.returncode == 0, ended.stdout
    assert re.search(r"^== make ==\n(?:.*\n)*== make: [0-9.]+ s ==$", ended.stdout, re.MULTILINE)
    assert commands_of(ended.stdout) == []
    assert not summary.exists()
