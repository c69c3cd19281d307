"""The programs that run in a container, each a file of its own, which `make lint` gives to shellcheck and shfmt.

A program gets everything that varies as an argument, so no command line is ever put together from data.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def text(*names: str) -> str:
    """The files ``names`` (``"session.sh"``) one after the other, as one program for ``bash -c``."""
    return "\n".join((Path(__file__).parent / name).read_text(encoding="utf-8") for name in names)
