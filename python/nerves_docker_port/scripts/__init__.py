"""The programs that run in a container, each a file of its own, which `make lint` gives to shellcheck and shfmt.

A program gets everything that varies as an argument, so no command line is ever put together from data.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

_HERE = Path(__file__).parent


@cache
def text(*names: str) -> str:
    """The files ``names`` (``"session.sh"``) one after the other, as one program for ``bash -c``.

    Without the lines that are comments: whoever looks at the processes of a container sees these programs.
    """
    lines = [line for name in names for line in (_HERE / name).read_text(encoding="utf-8").splitlines()]
    return "\n".join(line for line in lines if not line.lstrip().startswith("#"))
