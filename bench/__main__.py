"""Compares this runner with the stock runner and with the bare engine (`make bench`).

It needs an engine (DOCKER_HOST), the `docker` CLI, the images new and old, Elixir, and the packaged helper:

    python3 integration/world.py run --image new --image old --elixir host -- .venv/bin/python -m bench

It prints a table of medians, and writes every sample to bench/results/. The exit status is 1 if a limit is exceeded.
`--page docs/performance.md` also writes the figures into that page, and with `--from RESULT` those of an earlier run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "python"))

from bench import page, report
from bench.cases import ALL
from bench.measure import judge, side_by_side
from bench.place import place
from integration.host import main_program


def main(arguments: list[str]) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="runs of each contender that count (5)")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the figures into this page, too")
    parser.add_argument("--from", type=Path, metavar="RESULT", dest="earlier", help="measure nothing: take this file")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"which, of {', '.join(ALL)} (all)")
    given = parser.parse_args(arguments)
    if unknown := set(given.cases) - set(ALL):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    if given.earlier is not None:
        if given.page is None:
            parser.error("--from needs --page")
        page.write(given.page, json.loads(given.earlier.read_text()))
        return 0
    if "DOCKER_HOST" not in os.environ:
        parser.error("DOCKER_HOST is not set; integration/world.py brings an engine")
    outcomes, missed = [], []
    with place(os.environ["DOCKER_HOST"]) as here:
        for name in given.cases or ALL:
            for case in ALL[name](here):
                outcome = side_by_side(case, given.repeat, _progress)
                verdicts = judge(outcome)
                outcomes.append(outcome)
                missed += [verdict for verdict in verdicts if not verdict.ok]
                _progress("")
                print(report.table(outcome, verdicts), flush=True)
    kept = report.keep(outcomes)
    print(f"\nEvery sample is in {kept}")
    if given.page is not None:
        page.write(given.page, json.loads(kept.read_text()))
    for verdict in missed:
        print(f"{verdict.case}: {report.line(verdict)}")
    return 1 if missed else 0


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main_program(lambda: main(sys.argv[1:])))
