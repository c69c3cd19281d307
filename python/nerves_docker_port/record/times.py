"""Computes how long the packages and steps of a build took, and compares them with the build before.

The input is the result of ``journal.read``. This module does not know how the times are shown.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from nerves_docker_port.record import headline
from nerves_docker_port.record.journal import Build

NOTICEABLE = (1.0, 0.1)
"""A package counts as slower or faster if its time differs by at least this many seconds and by this share."""


@dataclass(frozen=True, slots=True)
class Span:
    """One step of one package."""

    package: str
    """Buildroot's name of the package; empty for a step of the whole system."""
    step: str
    """The step's name in ``build-time.log``: ``configure``, ``install-target``."""
    began: float
    """The beginning, in seconds since the flow began."""
    seconds: float
    whole: bool
    """Whether the step ended. If it did not, the build ended while the step ran."""


@dataclass(frozen=True)
class Package:
    """A package that was built."""

    name: str
    version: str
    """The version; empty if no headline names it."""
    began: float
    """The beginning, in seconds since the flow began."""
    seconds: float
    """The sum of its steps."""
    steps: dict[str, float]
    """The seconds of each step, in the order of the steps."""
    whole: bool
    """Whether all its steps ended."""


@dataclass(frozen=True)
class Change:
    """The times of a package that was built by both builds."""

    package: str
    before: float
    """How long it took in the build before, in seconds."""
    now: float
    """How long it took in this build, in seconds."""


@dataclass(frozen=True)
class Comparison:
    """The differences from the build before."""

    before: Build
    new: tuple[str, ...]
    gone: tuple[str, ...]
    slower: tuple[Change, ...]
    """The slower packages, those with the largest difference first."""
    faster: tuple[Change, ...]
    """The faster packages, in the same order."""


@dataclass(frozen=True)
class Times:
    """The times of a build, of its packages and of its steps."""

    build: Build
    seconds: float
    """The time from the beginning of the flow to its last record."""
    spans: tuple[Span, ...]
    """The steps of the packages, sorted by their beginning."""
    packages: tuple[Package, ...]
    """The packages, sorted by their beginning."""
    measured: bool
    """Whether the times are from Buildroot's ``build-time.log``. Otherwise they are the times of the headlines in the
    output. Then the end of a package's last step is known only if no other package was built at the same time."""
    comparison: Comparison | None = None
    steps: dict[str, float] = field(default_factory=dict)
    """The seconds of each step in all packages together, the longest first."""
    at_once: float = 0.0
    """How many packages were built at the same time, on average over the time in which at least one was built."""

    def slowest(self, count: int) -> list[Package]:
        """Return the ``count`` packages that took longest, the longest first."""
        return sorted(self.packages, key=lambda package: -package.seconds)[:count]


def of(build: Build, earlier: Iterable[Build] = ()) -> Times:
    """Return the times of ``build``, compared with the first build of ``earlier`` that has built a package.

    ``earlier`` must be sorted with the latest build first.
    """
    spans = tuple(_spans(build))
    packages = tuple(_packages(build, spans))
    totals: Counter[str] = Counter()
    for span in spans:
        totals[span.step] += span.seconds  # type: ignore[assignment]
    return Times(
        build,
        max(0.0, build.last_at - build.opened_at),
        spans,
        packages,
        measured=bool(build.package_steps),
        comparison=_compare(build, packages, earlier),
        steps=dict(totals.most_common()),
        at_once=_at_once(spans),
    )


def _spans(build: Build) -> Iterator[Span]:
    end = build.last_at - build.opened_at
    if not build.package_steps:
        yield from _spans_of_headlines(build, end)
        return
    ahead = build.clock.ahead if build.clock else 0.0
    for step in build.package_steps:
        began = step.began - ahead - build.opened_at
        ended = end if step.ended is None else step.ended - ahead - build.opened_at
        yield Span(step.package, step.step, began, max(0.0, ended - began), step.ended is not None)


def _spans_of_headlines(build: Build, end: float) -> Iterator[Span]:
    """Yield the steps by the times of the headlines.

    A step lasts until the next headline of its package. The last step of a package lasts until the next headline of any
    package.
    """
    found = [(at - build.opened_at, parts) for at, line in build.headlines if (parts := headline.parse(line))]
    next_of: dict[str, float] = {}
    after = end
    spans: list[Span] = []
    for began, parts in reversed(found):
        ended = next_of.get(parts.package, after) if parts.package else after
        step = headline.STEPS.get(parts.step)
        if step is None:
            # A headline such as `Patching libtool` belongs to a step and does not end it. A headline without a package
            # is about the whole system, and ends the step before it.
            if not parts.package:
                after = began
            continue
        spans.append(Span(parts.package, step, began, max(0.0, ended - began), whole=ended < end or is_well(build)))
        next_of[parts.package] = after = began
    yield from reversed(spans)


def is_well(build: Build) -> bool:
    """Return whether the flow has succeeded."""
    return build.ended is not None and build.ended.outcome == "ok"


def _packages(build: Build, spans: Sequence[Span]) -> Iterator[Package]:
    versions = {parts.package: parts.version for _, line in build.headlines if (parts := headline.parse(line))}
    of_package: dict[str, list[Span]] = defaultdict(list)
    for span in spans:
        if span.package:
            of_package[span.package].append(span)
    for name, own in of_package.items():
        steps: dict[str, float] = {}
        for span in own:
            steps[span.step] = steps.get(span.step, 0.0) + span.seconds
        seconds = sum(steps.values())
        yield Package(name, versions.get(name, ""), own[0].began, seconds, steps, all(span.whole for span in own))


def _at_once(spans: Sequence[Span]) -> float:
    busy = covered = 0.0
    reached = float("-inf")
    for span in spans:
        busy += span.seconds
        ended = span.began + span.seconds
        covered += max(0.0, ended - max(reached, span.began))
        reached = max(reached, ended)
    return busy / covered if covered > 0 else 0.0


def _compare(build: Build, packages: Sequence[Package], earlier: Iterable[Build]) -> Comparison | None:
    for before in earlier:
        old = {package.name: package for package in _packages(before, tuple(_spans(before)))}
        if old:
            break
    else:
        return None
    now = {package.name: package for package in packages}
    new, gone = _names(build, now), _names(before, old)
    if build.configuration is None or before.configuration is None:
        new, gone = set(now), set(old)
    changes = [
        Change(name, old[name].seconds, package.seconds)
        for name, package in now.items()
        # The times are compared only if both builds have run the same steps of the package to their ends.
        if name in old and package.whole and old[name].whole and package.steps.keys() == old[name].steps.keys()
    ]
    changes = [change for change in changes if _is_noticeable(change)]
    changes.sort(key=lambda change: -abs(change.now - change.before))
    return Comparison(
        before,
        tuple(sorted(new - gone)),
        tuple(sorted(gone - new)),
        tuple(change for change in changes if change.now > change.before),
        tuple(change for change in changes if change.now < change.before),
    )


def _names(build: Build, built: Iterable[str]) -> set[str]:
    return set(built if build.configuration is None else build.configuration.packages)


def _is_noticeable(change: Change) -> bool:
    least, share = NOTICEABLE
    difference = abs(change.now - change.before)
    return difference >= least and difference >= share * change.before
