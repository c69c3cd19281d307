"""Reports the results as a table for people, and as JSON to compare runs."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bench.measure import Outcome, Verdict, judge, values

RESULTS = Path(__file__).parent / "results"


def table(outcome: Outcome, verdicts: Sequence[Verdict]) -> str:
    """Return a table of the medians of one case, and its limits.

    The wall time of each contender is also given as a multiple of the first contender's.
    """
    first = outcome.median(next(iter(outcome.samples)))
    lines = [outcome.case.name]
    for name, samples in outcome.samples.items():
        times = values(samples, "seconds")
        more = "  ".join(f"{what} {outcome.median(name, what):.4g}" for what in outcome.measures(name)[1:])
        spread = f"({min(times):.3f} to {max(times):.3f}, {len(times)} runs)"
        median = outcome.median(name)
        lines.append(f"    {name:36}{median:9.3f} s  {median / first:6.2f}  {spread:32}{more}".rstrip())
    lines += [f"  {line(verdict)}" for verdict in verdicts]
    return "\n".join(lines)


def line(verdict: Verdict) -> str:
    """Return one line with a limit, the measured value, and whether it is within the limit."""
    limit = verdict.limit
    what = limit.of if limit.measure == "seconds" else f"{limit.measure} of {limit.of}"
    against = f" / {limit.against}" if limit.against else f" - {limit.above}" if limit.above else ""
    return f"{'ok    ' if verdict.ok else 'not ok'}  {what}{against}: {verdict.value:.3f}, at most {limit.at_most:.3f}"


def keep(outcomes: Sequence[Outcome]) -> Path:
    """Write every sample to a new file in `RESULTS`, and return its path."""
    RESULTS.mkdir(exist_ok=True)
    now = datetime.now(timezone.utc)
    path = RESULTS / f"{now:%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps(_record(outcomes, now), indent=1) + "\n")
    return path


def _record(outcomes: Sequence[Outcome], now: datetime) -> dict[str, Any]:
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return {
        "when": now.isoformat(),
        "commit": commit.stdout.strip(),
        "machine": {"system": platform.platform(), "cpus": os.cpu_count(), "python": sys.version.split()[0]},
        "cases": [
            {
                "name": outcome.case.name,
                "contenders": {
                    name: {
                        measure: {"median": outcome.median(name, measure), "all": values(samples, measure)}
                        for measure in outcome.measures(name)
                    }
                    for name, samples in outcome.samples.items()
                },
                "limits": [
                    {
                        "of": verdict.limit.of,
                        "against": verdict.limit.against,
                        "above": verdict.limit.above,
                        "measure": verdict.limit.measure,
                        "value": verdict.value,
                        "at_most": verdict.limit.at_most,
                        "ok": verdict.ok,
                    }
                    for verdict in judge(outcome)
                ],
            }
            for outcome in outcomes
        ],
    }
