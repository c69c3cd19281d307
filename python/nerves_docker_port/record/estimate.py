"""How long a build still takes, judged by earlier builds.

There are two ways. Of builds that build one package after the other, the time of each step is known by itself, so the
times of the steps to come are added up, whichever earlier build they are from. Of a build that builds several packages
at once that would be wrong. There only an earlier build of the very same packages tells anything: how long it still
took when as much work was done. In each other case the answer is that nobody knows.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nerves_docker_port.record import headline
from nerves_docker_port.record.course import Course, Key
from nerves_docker_port.record.journal import Build

_MAKE: Final[Key] = ("", "stage make")

_TRUST: Final = 0.1
"""How much of a build has to be done before its own speed counts as much as that of the earlier builds."""

_NOT_AGAIN: Final = "Downloading"
"""A step that an earlier build has done once and for all: what was downloaded is kept on this machine."""


_FIRST: Final = frozenset({"Extracting", "Configuring"})
"""The steps by which it is known that a package was built from its beginning. One may be missing: where several
packages are built at once, a headline can be printed into a line of another package, and is not found there."""

_FEW: Final = 5
"""Up to so many packages a build that builds several at once may look like one that does not."""


@dataclass(frozen=True)
class Plan:
    """What a build is to do."""

    packages: frozenset[str]
    """Those that it builds: what was built before is not among them."""
    make_args: tuple[str, ...]
    configuration: str | None
    """The SHA-256 of ``.config``."""


@dataclass(frozen=True)
class EarlierBuild:
    """An earlier build, as far as a later one can be judged by it."""

    is_whole: bool
    """Whether it came to a good end, so that it tells of what comes after the packages, too."""
    is_parallel: bool
    """Whether it built several packages at once."""
    plan: Plan
    """What it did: its packages are those that it built from beginning to end."""
    costs: Mapping[str, Mapping[str, float]]
    """The seconds that each step of each package took, in their order; of the package ``""`` the steps of the system
    and the stages from `make` on. Of a build of one package after the other: until the next step of all."""
    work: Sequence[tuple[float, float]]
    """The seconds since `make` began, and how many seconds of work were done by then."""


def earlier_build(build: Build) -> EarlierBuild | None:
    """What a journal tells for later builds; ``None`` where that is nothing."""
    if build.began is None or build.began.flow != "build" or not build.headlines:
        return None
    course = _course(build)
    steps: dict[Key, float] = course.until_next
    if course.is_parallel:
        own = {(step.package, step.step): step.ended - step.began for step in build.package_steps if step.ended}
        steps = {
            # Without Buildroot's own times, the next step of the same package tells when a step ended.
            key: own.get((key[0], headline.STEPS.get(key[1], "")), course.until_own_next.get(key, 0.0))
            if key[0]
            else seconds
            for key, seconds in course.until_next.items()
        }
    costs: dict[str, dict[str, float]] = {"": {}}
    names = list(steps)
    begun = names.index(_MAKE) if _MAKE in names else 0
    for package, step in names[begun:]:
        costs.setdefault(package, {})[step] = steps[package, step]
    return EarlierBuild(
        is_whole=build.ended is not None and build.ended.outcome == "ok",
        is_parallel=course.is_parallel,
        plan=Plan(
            packages=frozenset(name for name in course.done if _FIRST & costs.get(name, {}).keys()),
            make_args=build.began.make_args,
            configuration=None if build.configuration is None else build.configuration.sha256,
        ),
        costs=costs,
        work=_work(course, costs),
    )


def _course(build: Build) -> Course:
    course = Course(build.opened_at)
    stages = [(stage.began, stage.name, None) for stage in build.stages]
    found = [(at, "", headline.parse(text)) for at, text in build.headlines]
    for at, name, parts in sorted([*stages, *found], key=lambda each: each[0]):
        if name:
            course.stage(name, at)
        elif parts is not None:
            course.headline(parts, at)
    course.finish(build.last_at)
    return course


def _work(course: Course, costs: Mapping[str, Mapping[str, float]]) -> list[tuple[float, float]]:
    """How much work was done by when. Each step does a second of work in a second, for as long as it takes."""
    began = course.first.get(_MAKE, course.began)
    changes = sorted(
        change
        for (package, step), at in course.first.items()
        if (cost := costs.get(package, {}).get(step))
        for change in ((at - began, 1), (at - began + cost, -1))
    )
    work, running, last = [(0.0, 0.0)], 0, 0.0
    for at, change in changes:
        work.append((at, work[-1][1] + running * (at - last)))
        running, last = running + change, at
    return work


def left(course: Course, at: float, plan: Plan, earlier: Sequence[EarlierBuild]) -> float | None:
    """The seconds that a build still takes; ``None`` where nobody knows.

    ``course`` is that of the build until ``at``, and ``earlier`` are earlier builds, those that tell most first.
    """
    # The beginning of a build does not always show how it goes on.
    expected = len(course.done) <= _FEW and any(each.is_parallel and each.plan == plan for each in earlier)
    if course.is_parallel or expected:
        return _by_work(course, at, plan, earlier)
    return _by_sum(course, at, plan.packages, [each for each in earlier if not each.is_parallel])


def _by_sum(course: Course, at: float, wanted: frozenset[str], earlier: Sequence[EarlierBuild]) -> float | None:
    whole = next((each for each in earlier if each.is_whole), None)
    if whole is None:
        return None
    costs: dict[str, Mapping[str, float]] = {"": whole.costs[""]}
    for package in wanted | course.done:
        known = next((each.costs[package] for each in earlier if package in each.plan.packages), None)
        if known is not None:
            costs[package] = {step: seconds for step, seconds in known.items() if step != _NOT_AGAIN}
        elif package not in course.done:
            return None
    taken, told = _compared(course, at, costs)
    to_come = 0.0
    for package, steps in costs.items():
        if package in course.done:
            continue
        seen = [number for number, step in enumerate(steps) if (package, step) in course.first]
        to_come += sum(list(steps.values())[seen[-1] + 1 if seen else 0 :])
    package, step = course.last or ("", "")
    current, elapsed = costs.get(package, {}).get(step, 0.0), at - course.last_at
    speed = _speed(taken, told, told + current + to_come)
    return max(0.0, current * speed - elapsed) + to_come * speed


def _compared(course: Course, at: float, costs: Mapping[str, Mapping[str, float]]) -> tuple[float, float]:
    """How long what has been done took, and how long it took in earlier builds."""
    taken = told = 0.0
    for (package, step), seconds in course.until_next.items():
        cost = costs.get(package, {}).get(step)
        if cost is not None:
            taken, told = taken + seconds, told + cost
    if course.last is not None:
        cost = costs.get(course.last[0], {}).get(course.last[1])
        if cost is not None and at - course.last_at > cost:
            taken, told = taken + at - course.last_at, told + cost
    return taken, told


def _by_work(course: Course, at: float, plan: Plan, earlier: Sequence[EarlierBuild]) -> float | None:
    same = next((each for each in earlier if each.is_whole and each.is_parallel and _is_same(each.plan, plan)), None)
    if same is None:
        return None
    done, finished = 0.0, course.finished(at)
    for package, steps in same.costs.items():
        seen = [step for step in steps if (package, step) in course.first]
        if package in finished:
            done += sum(steps.values())
        elif seen:
            latest = list(steps).index(seen[-1])
            is_over = not package and course.last != ("", seen[-1])
            elapsed = at - course.first[package, seen[-1]]
            done += sum(list(steps.values())[:latest]) + (steps[seen[-1]] if is_over else min(steps[seen[-1]], elapsed))
    position = min(bisect_left(same.work, done, key=lambda each: each[1]), len(same.work) - 1)
    then = _between(same.work[max(0, position - 1)], same.work[position], done)
    total = same.work[-1][0]
    return (total - then) * _speed(at - course.first.get(_MAKE, course.began), then, total)


def _is_same(one: Plan, other: Plan) -> bool:
    # An option that changes in the configuration seldom changes the time.
    return one.packages == other.packages and one.make_args == other.make_args


def _between(before: tuple[float, float], after: tuple[float, float], done: float) -> float:
    """The time between two at which so much work was done."""
    if after[1] <= before[1]:
        return after[0]
    return before[0] + (after[0] - before[0]) * min(1.0, (done - before[1]) / (after[1] - before[1]))


def _speed(taken: float, told: float, total: float) -> float:
    """How many times as long as the earlier builds this one takes; trusted the more, the more of it is done."""
    doubt = _TRUST * total
    return (taken + doubt) / (told + doubt) if doubt > 0 else 1.0
