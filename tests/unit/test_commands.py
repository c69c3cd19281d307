"""The commands where nobody reads what they print, or where it cannot be written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PYTHON = Path(__file__).parents[2] / "python"

COMMANDS = [
    (["version"], 0),
    (["doctor"], 1),
    (["doctor", "--json"], 1),
    (["doctor", "--help"], 0),
    (["shell", "/nowhere"], 1),
    (["shell", "--help"], 0),
    ([], 64),
    (["nonsense"], 64),
]
"""With the exit status that each has without an engine."""


def run(words: list[str], redirection: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DOCKER_HOST": "unix:///nowhere/docker.sock", "PYTHONPATH": str(PYTHON)}
    script = f'set -o pipefail; "$@" {redirection}'
    return subprocess.run(
        ["bash", "-c", script, "bash", sys.executable, "-m", "nerves_docker_port", *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def without_room(ended: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """The same without the room on the disk."""
    text = re.sub(r"[\d.]+ GB free", "... GB free", ended.stdout)
    return subprocess.CompletedProcess(ended.args, ended.returncode, text, ended.stderr)


@pytest.mark.parametrize(("words", "status"), COMMANDS, ids=str)
@pytest.mark.parametrize(
    "redirection", ["| :", "2>&1 | :", "2>&1 | head -n 1", ">&-", ">&- 2>&-", "<&- >&- 2>&-", "2>&-"]
)
def test_output_that_nobody_reads_is_no_error(words: list[str], status: int, redirection: str) -> None:
    plain = run(words, "")
    assert plain.returncode == status
    done = run(words, redirection)
    assert done.returncode == status
    # Other programs write to the disk between the two runs.
    plain, done = (without_room(each) for each in (plain, done))
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
    assert done.stderr in ("", plain.stderr)
    assert done.stdout in (
        "",
        plain.stdout,
        *(f"{each.splitlines()[0]}\n" for each in (plain.stdout, plain.stderr) if each),
    )


@pytest.mark.parametrize("words", [["version"], ["doctor"]], ids=str)
def test_output_that_cannot_be_written_is_an_error_that_is_said_once(words: list[str]) -> None:
    done = run(words, "> /dev/full")
    assert done.returncode == 1
    assert done.stderr == "nerves_docker_port: the standard output cannot be written: No space left on device\n"
