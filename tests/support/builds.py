"""Makes journals of builds for tests of the report, from Buildroot's build-time.log or with any number of packages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import msgpack

from nerves_docker_port.record import journal
from nerves_docker_port.record.journal import PackageStep, Record

_LINE = re.compile(r"(?P<at>[0-9.]+):(?P<what>start|end  ):(?P<step>\S+) *: (?P<package>\S+)")

HOSTTOOLS = Path(__file__).parents[1] / "conformance" / "buildroot" / "hosttools.build-time.log"
"""The build-time.log of a real build."""

STEPS = ("download", "extract", "patch", "configure", "build", "install-staging", "install-target")


def steps_of(log: Path) -> list[PackageStep]:
    """Return the steps in a build-time.log."""
    began: dict[tuple[str, str], float] = {}
    steps: list[PackageStep] = []
    for line in log.read_text().splitlines():
        match = _LINE.fullmatch(line)
        assert match is not None, line
        key = (match["package"], match["step"])
        if match["what"] == "start":
            began[key] = float(match["at"])
        else:
            steps.append(PackageStep(*key, began.pop(key), float(match["at"])))
    return [*steps, *(PackageStep(*key, at, None) for key, at in began.items())]


def large(packages: int, jobs: int, *, step_seconds: float = 2.0) -> list[PackageStep]:
    """Return the steps of a build with ``packages`` packages, ``jobs`` of them at once. It began 1000 s after 1970."""
    free = [1000.0 + job for job in range(jobs)]
    steps: list[PackageStep] = []
    for number in range(packages):
        job = free.index(min(free))
        at = free[job]
        for index, step in enumerate(STEPS):
            # The lengths differ by a factor of up to 100, and are the same in each run.
            length = step_seconds * (1 + (number * 7 + index * 13) % 100) / 50
            steps.append(PackageStep(f"package-{number:04}", step, at, at + length))
            at += length + 0.05
        free[job] = at
    return steps


def write(
    directory: Path,
    steps: Sequence[PackageStep] = (),
    *more: Record,
    outcome: str | None = "ok",
    package: str = "my_system",
    flow: str = "build",
    build_id: str = "0123456789ab",
    began: float | None = None,
) -> Path:
    """Write the journal of a flow with these steps and records to ``directory``, and return its path.

    If ``outcome`` is ``None``, the flow was killed. The flow began at ``began``, which is ten seconds before the first
    step by default, and it ended five seconds after the last step.
    """
    at = (min((step.began for step in steps), default=1000.0) - 10) if began is None else began
    last = max((step.ended or step.began for step in steps), default=at + 55) + 5
    records: list[tuple[float, Record]] = [
        (at, journal.Opened(journal.VERSION, "0.1.0", build_id)),
        (at, journal.Began(flow, package, "0.1.0", f"{package}-portable-0.1.0", "/p/my_system", "/p/build.log")),
        *((at, record) for record in more),
        *((last, step) for step in steps),
    ]
    if outcome is not None:
        records.append((last, journal.Ended(outcome, "" if outcome == "ok" else "It failed.", None)))
    directory.mkdir(parents=True, exist_ok=True)
    moment = datetime.fromtimestamp(at, timezone.utc).strftime("%Y%m%dT%H%M%S.000Z")
    path = directory / f"{moment}-{flow}-{build_id}{journal.SUFFIX}"
    names = {kind: name for name, kind in journal.KINDS.items()}
    path.write_bytes(b"".join(msgpack.packb([names[type(each)], time, each._asdict()]) for time, each in records))
    return path
