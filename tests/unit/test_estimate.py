"""The time left of a build, replayed from recorded builds.

The recordings are of real Buildroot, which built packages from Debian's sources (host-mym4: m4, host-mynasm: nasm ...).
Each line has the seconds since `make` began, and a headline; of a parallel build also when each step began and ended,
from its build-time.log; the last line tells how the build ended. The builds were made on a machine that many shared, so
these seconds are processor time of the build, not the time on the wall. `resumed-1` goes on with what `failed-1` left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from nerves_docker_port.record import estimate, headline
from nerves_docker_port.record.course import Course
from nerves_docker_port.record.estimate import EarlierBuild
from nerves_docker_port.record.journal import Began, Build, Configuration, Ended, Opened, PackageStep, Stage

RECORDED = Path(__file__).with_name("recorded_builds")

POINTS = 200
"""In how many points of a build the estimate is looked at."""
SLACK = 2.5
"""Seconds by which an estimate may always err. A second cannot be told of the last one, and the live line tells whole
minutes; these builds take from 20 s to two minutes."""


@dataclass(frozen=True)
class Recording:
    """A recorded build."""

    headlines: tuple[tuple[float, str], ...]
    steps: tuple[PackageStep, ...]
    ended: float
    status: int
    make_args: tuple[str, ...]

    def earlier_build(self) -> EarlierBuild:
        """What a later build knows of it."""
        stages: tuple[Stage, ...] = (Stage("make", 0.0, self.ended), Stage("copy", self.ended + 0.1, None))
        if self.status:
            stages = (Stage("make", 0.0, None),)
        build = Build(
            Path("journal"),
            Opened(1, "0", "0"),
            0.0,
            self.ended,
            began=Began("build", "my_system", "1", "a", "/", "", self.make_args),
            configuration=Configuration("0" * 64, (), ()),
            ended=Ended("ok" if self.status == 0 else "step_failed"),
            stages=stages,
            headlines=self.headlines,
            package_steps=self.steps,
        )
        found = estimate.earlier_build(build)
        assert found is not None
        return found


def recording(name: str) -> Recording:
    headlines, steps = [], []
    lines = (RECORDED / f"{name}.txt").read_text().splitlines()
    for line in lines[:-1]:
        at, rest = line.split(" ", 1)
        if rest.startswith(">>>"):
            headlines.append((float(at), rest))
        else:
            ended, step, package = rest.split(" ")
            steps.append(PackageStep(package, step, float(at), float(ended)))
    ended, status = lines[-1].split(" exit ")
    make_args = ("-j2",) if name.startswith("parallel") else ()
    return Recording(tuple(headlines), tuple(steps), float(ended), int(status), make_args)


def replay(build: Recording, earlier: Sequence[EarlierBuild]) -> list[tuple[float, float | None]]:
    """The time that was left in each point of the build from the first tenth on, and the estimate at that time."""
    plan = build.earlier_build().plan
    course = Course(0.0)
    course.stage("make", 0.0)
    coming = list(build.headlines)
    found = []
    for point in range(1, POINTS):
        now = build.ended * point / POINTS
        while coming and coming[0][0] <= now:
            at, text = coming.pop(0)
            parts = headline.parse(text)
            assert parts is not None
            course.headline(parts, at)
        if point >= POINTS / 10:
            found.append((build.ended - now, estimate.left(course, now, plan, earlier)))
    return found


@pytest.mark.parametrize(
    ("build", "earlier"),
    [
        pytest.param("small-2", ["small-1"], id="small"),
        pytest.param("small-1", ["small-2"], id="small-slower-before"),
        pytest.param("large-2", ["large-1"], id="large"),
        pytest.param("large-1", ["large-2"], id="large-slower-before"),
        pytest.param("parallel-2", ["parallel-1"], id="parallel"),
        pytest.param("parallel-1", ["parallel-2"], id="parallel-faster-before"),
        pytest.param("changed-2", ["changed-1", "large-1"], id="a-changed-package"),
        pytest.param("changed-1", ["large-1"], id="a-changed-package-for-the-first-time"),
        pytest.param("resumed-1", ["failed-1", "large-1"], id="after-a-failure"),
    ],
)
def test_the_time_left_is_within_a_quarter_from_the_first_tenth_on(build: str, earlier: Sequence[str]) -> None:
    found = replay(recording(build), [recording(name).earlier_build() for name in earlier])
    wrong = [(true, told) for true, told in found if told is None or abs(told - true) > max(SLACK, 0.25 * true)]
    assert wrong == []


@pytest.mark.parametrize(
    ("build", "earlier"),
    [
        ("small-1", ["large-1"]),
        ("large-1", ["small-1"]),
        ("large-1", ["parallel-1"]),
        ("parallel-1", ["large-1"]),
        ("parallel-1", ["small-1"]),
        ("resumed-1", ["failed-1"]),
        ("large-1", []),
    ],
)
def test_after_builds_of_another_shape_nobody_knows_the_time_left(build: str, earlier: Sequence[str]) -> None:
    found = replay(recording(build), [recording(name).earlier_build() for name in earlier])
    assert {told for _, told in found} == {None}
