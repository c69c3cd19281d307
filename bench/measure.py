"""Measures contenders in turns, so that other load on the machine affects all of them in the same way."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Sample:
    """One run: its wall time in seconds, and other measures by their names."""

    seconds: float
    more: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Limit:
    """A limit for the median of the contender `of`.

    It is at most `at_most` times the median of the contender `against`, or at most `at_most` more than that of `above`,
    or, without both, at most `at_most`.
    """

    of: str
    at_most: float
    against: str | None = None
    above: str | None = None
    measure: str = "seconds"


@dataclass(frozen=True)
class Case:
    """The contenders for one task, by name, in the order of their turns."""

    name: str
    contenders: Mapping[str, Callable[[], Sample]]
    limits: tuple[Limit, ...] = ()
    repeat: int | None = None
    """The number of runs that count, if the caller must not choose it."""
    warm_up: bool = True


@dataclass(frozen=True)
class Outcome:
    """The samples of a case, by the name of the contender."""

    case: Case
    samples: Mapping[str, list[Sample]]

    def median(self, contender: str, measure: str = "seconds") -> float:
        """Return the median of one measure of one contender. Raises `KeyError` if it was not measured."""
        return statistics.median(values(self.samples[contender], measure))

    def measures(self, contender: str) -> list[str]:
        """Return the names of the measures of a contender, `seconds` first."""
        return ["seconds", *self.samples[contender][0].more]


@dataclass(frozen=True)
class Verdict:
    """A limit, and the value that was measured for it."""

    case: str
    limit: Limit
    value: float
    """The ratio or the difference of two medians, or one median, depending on the kind of the limit."""

    @property
    def ok(self) -> bool:
        """Whether the value is within the limit."""
        return self.value <= self.limit.at_most


def values(samples: list[Sample], measure: str) -> list[float]:
    """Return one measure of each sample."""
    return [sample.seconds if measure == "seconds" else sample.more[measure] for sample in samples]


def side_by_side(case: Case, repeat: int, progress: Callable[[str], None]) -> Outcome:
    """Run every contender once as a warm-up, and then `repeat` times, in turns."""
    samples: dict[str, list[Sample]] = {name: [] for name in case.contenders}
    rounds = case.repeat or repeat
    for number in range(0 if case.warm_up else 1, rounds + 1):
        for name, run in case.contenders.items():
            progress(f"{case.name}: {name} ({number}/{rounds})" if number else f"{case.name}: {name} (warming up)")
            sample = run()
            if number:
                samples[name].append(sample)
    return Outcome(case, samples)


def judge(outcome: Outcome) -> list[Verdict]:
    """Return a verdict for each limit of the case."""
    verdicts = []
    for limit in outcome.case.limits:
        value = outcome.median(limit.of, limit.measure)
        if limit.against is not None:
            value /= outcome.median(limit.against, limit.measure)
        if limit.above is not None:
            value -= outcome.median(limit.above, limit.measure)
        verdicts.append(Verdict(outcome.case.name, limit, value))
    return verdicts


@dataclass(frozen=True)
class Usage:
    """The resources that a process has used until now."""

    cpu: float
    """Seconds of CPU time in user and kernel mode, without child processes."""
    peak: int
    """The largest resident memory until now, in bytes."""


def usage(pid: int) -> Usage:
    """Return the usage of a running process. Raises `OSError` if it does not run."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    status = Path(f"/proc/{pid}/status").read_text()
    peak = next((line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")), "0")
    return Usage((int(fields[11]) + int(fields[12])) / _TICK, int(peak) * 1024)


@contextmanager
def watched(pids: Callable[[], Mapping[str, int]], every: float = 0.02) -> Iterator[dict[str, Usage]]:
    """Measure the processes that `pids` returns, every `every` seconds while the body runs.

    The result has the last value of each process. This is for processes that are not our children: after such a process
    has ended, its usage cannot be read.
    """
    found: dict[str, Usage] = {}
    over = threading.Event()

    def look() -> None:
        while not over.wait(every):
            for name, pid in pids().items():
                try:
                    now = usage(pid)
                except (OSError, IndexError):
                    continue
                # A process that is about to end has already released its memory.
                before = found.get(name, now)
                found[name] = Usage(now.cpu, max(now.peak, before.peak))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def timed(run: Callable[[], object]) -> float:
    """Return the seconds that `run` takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
