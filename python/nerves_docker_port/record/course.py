"""The course of a build, from its stages and Buildroot's headlines: what is under way, what is done, how long it took.

The same is made of a build that runs and of one that a journal tells of, so the two can be compared (estimate.py).
Times are seconds of any clock that only goes forward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from nerves_docker_port.record.headline import Parts

Key: TypeAlias = tuple[str, str]
"""A package and a step of it as its headline has it; the package is empty for a step of the system or a stage."""

_FETCHING: Final = frozenset({"Downloading", "Extracting", "Patching"})
"""The steps that Buildroot may take ahead, before the packages that a package needs are built."""
_INSTALLING: Final = "Installing to"
_ALL_BUILT: Final = "Finalizing"
"""How the system's headlines begin that come when all packages are built (Makefile, target-finalize, host-finalize)."""

_SETTLED: Final = 10.0
"""Seconds after which an installation is taken to be done where several packages are built at once. Nothing tells its
end, and other installations of the same package may follow."""
_PATCHED: Final = 30.0
"""Seconds after which a package that was being fetched is taken to wait for the packages that it needs."""


_MOST: Final = 20_000
"""How many different steps are remembered. The largest configurations have some 15,000."""

_MOST_OPEN: Final = 100
"""How many packages may be under way at once. A log can name more that never come to their installation."""


@dataclass
class _Open:
    """A package that has begun and is not done."""

    step: str
    since: float
    configured: bool = False
    installing: bool = False


class Course:
    """What has happened in one build so far."""

    def __init__(self, began: float) -> None:
        self.began = began
        self.first: dict[Key, float] = {}
        """When each step and each stage began, in that order."""
        self.until_next: dict[Key, float] = {}
        """For each but the last: the seconds until the next one began, of whichever package."""
        self.until_own_next: dict[Key, float] = {}
        """For each but a package's last: the seconds until the next step of the same package began."""
        self.last: Key | None = None
        self.last_at = began
        self.done: set[str] = set()
        """The packages that are built."""
        self.is_parallel = False
        """Whether several packages were under way at once."""
        self._open: dict[str, _Open] = {}
        self._own_last: dict[str, tuple[Key, float]] = {}

    def stage(self, name: str, at: float) -> None:
        """A stage of the flow has begun."""
        for name in [name for name, package in self._open.items() if package.installing]:
            self.done.add(name)
            del self._open[name]
        self._begin(("", f"stage {name}"), at)

    def headline(self, parts: Parts, at: float) -> None:
        """Buildroot has begun something."""
        if parts.package:
            self._package(parts, at)
        elif parts.step.startswith(_ALL_BUILT):
            self._all_done()
        self._begin((parts.package, parts.step), at)

    def finish(self, at: float) -> None:
        """The build has ended, well or badly."""
        self._close_last(at)

    def finished(self, at: float) -> set[str]:
        """The packages that are built by now, as far as can be told."""
        settled = {name for name, package in self._open.items() if self._has_settled(package, at)}
        return self.done | settled

    def under_way(self, at: float) -> list[tuple[str, str, float]]:
        """The packages under way by now, each with its step and since when; the one that began first comes first."""
        if self.last is not None and not self.last[0]:
            return []
        return [
            (name, package.step, package.since)
            for name, package in self._open.items()
            if not self._has_settled(package, at) and not self._waits(name, package, at)
        ]

    def _has_settled(self, package: _Open, at: float) -> bool:
        return self.is_parallel and package.installing and at - package.since > _SETTLED

    def _waits(self, name: str, package: _Open, at: float) -> bool:
        if package.step not in _FETCHING or self.last is None or self.last[0] == name:
            return False
        return not self.is_parallel or at - package.since > _PATCHED

    def _package(self, parts: Parts, at: float) -> None:
        for name, other in list(self._open.items()):
            if name == parts.package:
                continue
            if other.configured and not other.installing:
                # What a package does from its configuration to its installation is done in one go, unless several
                # packages are built at once.
                self.is_parallel = True
            elif other.installing and (not self.is_parallel or self._has_settled(other, at)):
                self.done.add(name)
                del self._open[name]
        if len(self._open) >= _MOST_OPEN:
            oldest = next(iter(self._open))
            self.done.add(oldest)
            del self._open[oldest]
        self.done.discard(parts.package)
        package = self._open.setdefault(parts.package, _Open(parts.step, at))
        package.step, package.since = parts.step, at
        package.configured = package.configured or parts.step == "Configuring"
        package.installing = package.installing or parts.step.startswith(_INSTALLING)

    def _all_done(self) -> None:
        self.done.update(self._open)
        self._open.clear()

    def _begin(self, key: Key, at: float) -> None:
        if key == self.last:
            return
        self._close_last(at)
        self.last, self.last_at = key, at
        if key not in self.first and len(self.first) >= _MOST:
            return
        if key[0] in self._own_last:
            own, began = self._own_last[key[0]]
            self.until_own_next[own] = self.until_own_next.get(own, 0.0) + at - began
        self._own_last[key[0]] = key, at
        self.first.setdefault(key, at)

    def _close_last(self, at: float) -> None:
        if self.last in self.first:
            self.until_next[self.last] = self.until_next.get(self.last, 0.0) + at - self.last_at
