"""Where the time of a build went: its packages and their steps, and what changed since the build before.

Works on what ``journal.read`` gives, and knows nothing of how it is shown.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from nerves_docker_port.record import headline
from nerves_docker_port.record.journal import Build

NOTICEABLE = (1.0, 0.1)
"""A package is slower or faster where its time differs by at least so many seconds, and by such a share."""


@dataclass(frozen=True, slots=True)
class Span:
    """One step of one package."""

    package: str
    """Buildroot's name; empty for a step of the whole system."""
    step: str
    """As ``build-time.log`` has it: ``configure``, ``install-target``."""
    began: float
    """Seconds since the flow began."""
    seconds: float
    whole: bool
    """Whether the step ended. If not, the build ended in it."""


@dataclass(frozen=True)
class Package:
    """A package that was built."""

    name: str
    version: str
    """Empty where no headline tells it."""
    began: float
    """Seconds since the flow began."""
    seconds: float
    """The sum of its steps."""
    steps: dict[str, float]
    """The seconds of each step, in the order of the steps."""
    whole: bool
    """Whether all its steps ended."""


@dataclass(frozen=True)
class Change:
    """A package that was built by both builds."""

    package: str
    before: float
    """Seconds."""
    now: float


@dataclass(frozen=True)
class Comparison:
    """What is different from the build before."""

    before: Build
    new: tuple[str, ...]
    gone: tuple[str, ...]
    slower: tuple[Change, ...]
    """The largest difference first."""
    faster: tuple[Change, ...]


@dataclass(frozen=True)
class Times:
    """Where the time of a build went."""

    build: Build
    seconds: float
    """From the beginning of the flow to its last record."""
    spans: tuple[Span, ...]
    """In the order in which they began."""
    packages: tuple[Package, ...]
    """Likewise."""
    measured: bool
    """Whether the times are from Buildroot's ``build-time.log``. If not, they are from the headlines in the output:
    then the end of a package's last step is only known where no other package was built beside it."""
    comparison: Comparison | None = None
    steps: dict[str, float] = field(default_factory=dict)
    """The seconds of each step in all packages, the longest first."""
    beside: float = 0.0
    """How many packages were built at once on average, while any was."""

    def slowest(self, count: int) -> list[Package]:
        """The packages that took longest."""
        return sorted(self.packages, key=lambda package: -package.seconds)[:count]


def of(build: Build, earlier: Iterable[Build] = ()) -> Times:
    """Where the time of ``build`` went, compared with the first of ``earlier`` (latest first) that built a package."""
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
        beside=_beside(spans),
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
    """A step lasts until the next headline of its package, and the last one until the next headline of any."""
    found = [(at - build.opened_at, parts) for at, line in build.headlines if (parts := headline.parse(line))]
    next_of: dict[str, float] = {}
    after = end
    spans: list[Span] = []
    for began, parts in reversed(found):
        ended = next_of.get(parts.package, after) if parts.package else after
        step = headline.STEPS.get(parts.step)
        if step is None:
            # A remark within a step, such as `Patching libtool`, does not end it. What concerns the whole system has
            # no package, and is a step of its own.
            if not parts.package:
                after = began
            continue
        spans.append(Span(parts.package, step, began, max(0.0, ended - began), whole=ended < end or is_well(build)))
        next_of[parts.package] = after = began
    yield from reversed(spans)


def is_well(build: Build) -> bool:
    """Whether the flow has come to a good end."""
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


def _beside(spans: Sequence[Span]) -> float:
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
        # A package that was only built in part, or another part of it, cannot be compared.
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
