"""The names of a flow's stages, the units of progress, and what is told of a build under way.

The flows, the reporter and the port's messages all use these names, and none of them may import the others.
docs/protocol.md has the meaning of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

StageName: TypeAlias = Literal[
    "preflight",
    "pull",
    "build_image",
    "create_build",
    "make",
    "make_system",
    "copy",
    "clean",
    "shell",
    "run",
    "check_tree",
]
Unit: TypeAlias = Literal["bytes", "layers", "files"]


@dataclass(frozen=True, slots=True)
class Status:
    """Where a build is. Times are in seconds."""

    elapsed: float
    """Since the flow began."""
    tasks: tuple[tuple[str, float], ...]
    """What is under way, and for how long; several packages where Buildroot builds several at once."""
    done: int | None = None
    """How many packages are built, of ``total``; ``None`` where it is not known how many there are."""
    total: int | None = None
    left: float | None = None
    """How long it still takes; ``None`` where that is not known."""
