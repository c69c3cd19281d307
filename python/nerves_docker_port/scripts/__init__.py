"""The scripts that run in a container. Each is a file of its own, so that `make lint` can check it.

A script gets all variable values as arguments, so no shell command is ever made from data.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

_HERE = Path(__file__).parent


@cache
def text(*names: str) -> str:
    """Return the files ``names`` (``"session.sh"``), one after the other, as one program for ``bash -c``.

    The comments are left out, because a list of the processes in a container shows the whole program.
    """
    lines = [line for name in names for line in (_HERE / name).read_text(encoding="utf-8").splitlines()]
    return "\n".join(line for line in lines if not line.lstrip().startswith("#"))
