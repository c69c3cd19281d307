"""Writes the figures of a run between marks in a page of the documentation, so that nobody copies a figure by hand."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from integration.host import WorldError

_TITLES = {
    "hello": "hello after (s)",
    "outcome": "outcome after (s)",
    "helper_cpu": "CPU of the helper (s)",
    "helper_peak_mib": "peak of the helper (MiB)",
    "beam_cpu": "CPU of Mix (s)",
    "beam_peak_mib": "peak of Mix (MiB)",
    "compiler_cpu": "CPU of the compilers (s)",
    "p95": "95th percentile (s)",
    "p99": "99th percentile (s)",
    "max": "longest (s)",
}
"""The headings of the measures other than the time."""


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Replace the figures of each case of ``record`` (report.py) in the page. The figures of other cases are kept.

    Raises ``WorldError`` and changes nothing if the page does not have exactly one place for each case.
    """
    text = path.read_text()
    for case in record["cases"]:
        begin, end = f"<!-- bench: {case['name']} -->\n", "<!-- bench: end -->\n"
        place = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if len(place.findall(text)) != 1:
            raise WorldError(f"{path} has to have one place for the case {case['name']!r}: {begin}{end}")
        block = f"{begin}\n{_figures(case, record)}\n{end}"
        text = place.sub(lambda _, block=block: block, text)  # type: ignore[misc]
    path.write_text(text)


def _figures(case: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    contenders: Mapping[str, Mapping[str, Any]] = case["contenders"]
    first = next(iter(contenders.values()))["seconds"]["median"]
    more = list(dict.fromkeys(name for found in contenders.values() for name in found if name != "seconds"))
    lines = [
        _row(["", "median (s)", "ratio", "shortest and longest (s)", *(_TITLES.get(name, name) for name in more)]),
        "|---" * (4 + len(more)) + "|",
    ]
    for name, found in contenders.items():
        times = found["seconds"]["all"]
        cells = [name, f"{found['seconds']['median']:.3f}", f"{found['seconds']['median'] / first:.2f}"]
        cells.append(f"{min(times):.3f} to {max(times):.3f}")
        cells += [f"{found[measure]['median']:.3g}" if measure in found else "" for measure in more]
        lines.append(_row(cells))
    lines.append("")
    lines += [f"- {_limit(limit)}" for limit in case["limits"]]
    runs = len(next(iter(contenders.values()))["seconds"]["all"])
    machine = record["machine"]
    system = "-".join(machine["system"].split("-")[:2])
    lines.append(
        f"- {record['when'][:10]}, commit {record['commit']}, {runs} runs of each, {machine['cpus']} CPUs, {system}, "
        f"Python {machine['python']}"
    )
    return "\n".join(lines) + "\n"


def _limit(limit: Mapping[str, Any]) -> str:
    what = limit["of"] if limit["measure"] == "seconds" else f"{_TITLES[limit['measure']]} of {limit['of']}"
    against = f" / {limit['against']}" if limit["against"] else f" - {limit['above']}" if limit.get("above") else ""
    kept = "within" if limit["ok"] else "**above**"
    return f"{what}{against}: {limit['value']:.3f}, {kept} the limit of {limit['at_most']:.3g}"


def _row(cells: Sequence[str]) -> str:
    return re.sub(r"\|\s+(?=\|)", "| ", f"| {' | '.join(cells)} |")
