"""`make bench` writes its figures into docs/performance.md, each case at its own place."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from bench import page
from integration.host import WorldError

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"


def record(name: str) -> dict[str, Any]:
    """What bench/report.py keeps of one case."""
    return {
        "when": "2031-02-03T04:05:06+00:00",
        "commit": "abcdef0",
        "machine": {"system": "Linux-6.1.0-x-y", "cpus": 2, "python": "3.11.7"},
        "cases": [
            {
                "name": name,
                "contenders": {
                    "no cache": {"seconds": {"median": 30.0, "all": [29.0, 30.0, 31.0]}},
                    "second machine": {
                        "seconds": {"median": 1.5, "all": [1.25, 1.5, 1.75]},
                        "compiler_cpu": {"median": 2.34567, "all": [2.3, 2.34567, 2.4]},
                    },
                },
                "limits": [
                    {
                        "of": "second machine",
                        "against": "no cache",
                        "measure": "seconds",
                        "value": 0.05,
                        "at_most": 0.04,
                        "ok": False,
                    }
                ],
            }
        ],
    }


def test_the_figures_of_a_case_are_replaced_and_nothing_else(tmp_path: Path) -> None:
    path = Path(shutil.copy(PAGE, tmp_path))
    page.write(path, record("compile cache, 300 files"))
    once = path.read_text()
    page.write(path, record("compile cache, 300 files"))
    assert path.read_text() == once
    assert "| no cache | 30.000 | 1.00 | 29.000 to 31.000 | |\n" in once
    assert "| second machine | 1.500 | 0.05 | 1.250 to 1.750 | 2.35 |\n" in once
    assert "- second machine / no cache: 0.050, **above** the limit of 0.04\n" in once
    assert "- 2031-02-03, commit abcdef0, 3 runs of each, 2 CPUs, Linux-6.1.0, Python 3.11.7\n" in once
    place = re.compile("(?<=<!-- bench: compile cache, 300 files -->\n).*?(?=<!-- bench: end -->)", re.DOTALL)
    assert place.sub("", once) == place.sub("", PAGE.read_text())


def test_a_limit_for_a_difference_is_told_as_one(tmp_path: Path) -> None:
    path = Path(shutil.copy(PAGE, tmp_path))
    found = record("compile cache, 300 files")
    found["cases"][0]["limits"] = [
        {
            "of": "second machine",
            "against": None,
            "above": "no cache",
            "measure": "seconds",
            "value": 2.5,
            "at_most": 3.0,
            "ok": True,
        }
    ]
    page.write(path, found)
    assert "- second machine - no cache: 2.500, within the limit of 3\n" in path.read_text()


def test_a_case_without_a_place_changes_nothing(tmp_path: Path) -> None:
    path = Path(shutil.copy(PAGE, tmp_path))
    both = record("compile cache, 300 files")
    both["cases"] += record("something new")["cases"]
    with pytest.raises(WorldError, match="<!-- bench: something new -->"):
        page.write(path, both)
    assert path.read_text() == PAGE.read_text()
