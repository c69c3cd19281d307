"""Measuring side by side: contenders take turns, so that what else the machine does hits them all alike."""

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
    """One run: its wall time in seconds, and whatever else was measured, by name."""

    seconds: float
    more: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Limit:
    """What a case must show: `of` is at most `at_most` times `against` or, without that, at most so much itself."""

    of: str
    at_most: float
    against: str | None = None
    measure: str = "seconds"


@dataclass(frozen=True)
class Case:
    """Contenders for one task, in the order in which they take their turns. Names are unique within a case."""

    name: str
    contenders: Mapping[str, Callable[[], Sample]]
    limits: tuple[Limit, ...] = ()
    repeat: int | None = None
    """How often, where that is not the caller's to say."""
    warm_up: bool = True


@dataclass(frozen=True)
class Outcome:
    """The samples of a case, by contender."""

    case: Case
    samples: Mapping[str, list[Sample]]

    def median(self, contender: str, measure: str = "seconds") -> float:
        """Of one measure of one contender; raises `KeyError` where it has none."""
        return statistics.median(values(self.samples[contender], measure))

    def measures(self, contender: str) -> list[str]:
        """What was measured, wall time first."""
        return ["seconds", *self.samples[contender][0].more]


@dataclass(frozen=True)
class Verdict:
    """A limit held against an outcome."""

    case: str
    limit: Limit
    value: float
    """A ratio, or the measure itself."""

    @property
    def ok(self) -> bool:
        """Whether the limit is kept."""
        return self.value <= self.limit.at_most


def values(samples: list[Sample], measure: str) -> list[float]:
    """One measure of each sample."""
    return [sample.seconds if measure == "seconds" else sample.more[measure] for sample in samples]


def side_by_side(case: Case, repeat: int, progress: Callable[[str], None]) -> Outcome:
    """Let every contender run once for warming up and then, in turns, as often as wanted."""
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
    """Every limit of the case, held against it."""
    verdicts = []
    for limit in outcome.case.limits:
        value = outcome.median(limit.of, limit.measure)
        if limit.against is not None:
            value /= outcome.median(limit.against, limit.measure)
        verdicts.append(Verdict(outcome.case.name, limit, value))
    return verdicts


@dataclass(frozen=True)
class Usage:
    """What a process has used up to now."""

    cpu: float
    """Seconds, the kernel's for it included, its children's not."""
    peak: int
    """The most memory it ever had resident, in bytes."""


def usage(pid: int) -> Usage:
    """Of a process that runs. Raises `OSError` where it does not."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    status = Path(f"/proc/{pid}/status").read_text()
    peak = next((line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")), "0")
    return Usage((int(fields[11]) + int(fields[12])) / _TICK, int(peak) * 1024)


@contextmanager
def watched(pids: Callable[[], Mapping[str, int]], every: float = 0.02) -> Iterator[dict[str, Usage]]:
    """While the body runs, look again and again at what the processes that `pids` names have used.

    The last look counts. For processes that somebody else waits for: once they have ended, there is nothing to ask.
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
                # A process that is ending has no memory any more.
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
    """Seconds that `run` takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
