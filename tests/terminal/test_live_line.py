"""The live line at a real terminal: below everything, never wrapped, and nothing of it stays behind."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest
from integration.project import Project, lay_out

from support.beam import ebin
from support.images import NEW
from support.tmux import Tmux

DRIVER = Path(__file__).parents[1] / "support/live_line.exs"
COUNT = 4000
PATIENCE = 300.0
LIVE = re.compile(r"\d+:\d\d(?: \| .*)?")
"""How a live line looks."""
HEADLINE = re.compile(r">>> package-(\d+) 1\.0 Building")


def rows(tmux: Tmux, *, history: bool = False) -> list[str]:
    """The rows of the terminal as they are: a line that is wrapped is two."""
    return tmux.screen(history=history, wrapped=True).split("\n")


def watch(tmux: Tmux, columns: int) -> Iterator[list[str]]:
    """The rows, looked at again and again until the build has been shown."""
    deadline = time.monotonic() + PATIENCE
    while "shown" not in (seen := rows(tmux)):
        assert time.monotonic() < deadline
        assert all(len(row) <= columns for row in seen)
        yield seen


def assert_whole(seen: list[str]) -> int:
    """Below the command, there are whole headlines in their order, and at most one live line, the last. How many."""
    numbers = []
    begin = next((index for index, row in enumerate(seen) if row.startswith(">>>")), len(seen))
    for index, row in enumerate(seen[begin:], begin):
        match = HEADLINE.fullmatch(row)
        if match is not None:
            numbers.append(int(match[1]))
        else:
            # The terminal is sometimes looked at while it draws.
            assert index == len(seen) - 1, seen
            assert LIVE.fullmatch(row) or "0:00 |".startswith(row), seen
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True
    return len(seen) - begin - len(numbers)


def start(tmux: Tmux, count: int, silent: int = 0) -> None:
    command = ["elixir", "-pa", str(ebin()), str(DRIVER), str(count), str(silent)]
    tmux.enter(f"clear; {shlex.join(command)}")
    tmux.wait_for(r"^>>> package-\d+ ", PATIENCE)


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_the_live_line_fits_and_leaves_nothing_at_a_thousand_headlines_a_second(
    make_tmux: Callable[..., Tmux], columns: int
) -> None:
    tmux = make_tmux(columns=columns, rows=20)
    start(tmux, COUNT)
    live = 0
    for seen in watch(tmux, columns):
        live += assert_whole(seen)
    assert live > 3
    whole = rows(tmux, history=True)
    begin = next(index for index, row in enumerate(whole) if row.startswith(">>>"))
    end = whole.index("shown")
    assert whole[begin:end] == [f">>> package-{number} 1.0 Building" for number in range(1, COUNT + 1)]


def test_a_terminal_that_becomes_narrower_and_wider_again_keeps_nothing_of_the_line(
    make_tmux: Callable[..., Tmux],
) -> None:
    tmux = make_tmux(columns=200, rows=20)
    start(tmux, COUNT)
    sizes = [(40, 20), (80, 15), (39, 25), (200, 20), (60, 20)]
    for columns, height in sizes:
        before = rows(tmux)[-3:]
        tmux.resize(columns, height)
        tmux.wait_for(r"^>>> package-\d+ ", PATIENCE)
        deadline = time.monotonic() + PATIENCE
        while rows(tmux)[-3:] == before:
            assert time.monotonic() < deadline
    tmux.wait_for(r"^shown$", PATIENCE)
    whole = rows(tmux, history=True)
    begin = next(index for index, row in enumerate(whole) if row.startswith(">>>"))
    assert whole[begin : whole.index("shown")] == [
        f">>> package-{number} 1.0 Building" for number in range(1, COUNT + 1)
    ]


def test_a_silent_build_at_a_terminal_that_becomes_narrower(make_tmux: Callable[..., Tmux]) -> None:
    """Between two drawings the terminal wraps the line by itself; the next drawing takes all of it away."""
    tmux = make_tmux(columns=200, rows=20)
    start(tmux, 10, silent=15)
    tmux.wait_for(r"^0:0\d \| 3 at once: .*left$", PATIENCE)
    headlines = [f">>> package-{number} 1.0 Building" for number in range(1, 11)]
    for columns in (40, 30, 120):
        tmux.resize(columns, 20)
        # It is drawn again every second.
        before = rows(tmux)[-1]
        deadline = time.monotonic() + PATIENCE
        while (seen := rows(tmux, history=True))[-1] == before or len(seen[-1]) >= columns:
            assert time.monotonic() < deadline, seen
        # tmux moves the uppermost lines out of a window that becomes narrower.
        assert [row for row in seen if row.startswith(">>>")] == headlines == seen[-11:-1]
        assert LIVE.fullmatch(seen[-1])
    tmux.wait_for(r"^shown$", PATIENCE)
    whole = rows(tmux, history=True)
    end = whole.index("shown")
    assert whole[end - 10 : end] == headlines


def test_a_build_shows_where_it_is_and_the_line_is_gone_at_its_end(
    root: Path, host: str, client: docker.DockerClient, make_tmux: Callable[..., Tmux]
) -> None:
    project: Project = lay_out(root / "p", host=host, image=NEW, elixir=None)
    settings = {**project.settings, "HOME": project.home, "NERVES_DL_DIR": project.downloads}
    settings |= {"NERVES_ARTIFACTS_DIR": project.artifacts, "MINI_MAKE_ARGS": "SLEEP=12"}
    words = " ".join(f"{name}={shlex.quote(str(value))}" for name, value in settings.items())
    tmux = make_tmux(columns=80)
    tmux.enter(f"cd {shlex.quote(str(project.system))}; env {words} mix nerves.artifact; echo left=$?")
    tmux.wait_for(r"^\d+:\d\d \| hello Installing to staging directory \d:\d\d \| 0 of 1 packages", PATIENCE)
    screen = tmux.wait_for(r"left=\d+\n", PATIENCE, history=True)
    assert "left=0" in screen
    assert not re.search(r"^\d+:\d\d( \||$)", screen, re.MULTILINE)
    assert not re.search(r"^\.+$", screen, re.MULTILINE)
