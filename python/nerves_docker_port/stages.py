"""The names of a flow's stages, the units of progress, and the status of a running build.

They are in a module of their own because the flows, the reporter and the port's messages all use them, and none of
these may import the others. docs/protocol.md says what each name means.
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
    """The status of a running build. All times are in seconds."""

    elapsed: float
    """The time since the flow began."""
    tasks: tuple[tuple[str, float], ...]
    """Each running task with its time so far. There are several if Buildroot builds several packages at once."""
    done: int | None = None
    """How many of the ``total`` packages are built. Both are ``None`` if the number of packages is not known."""
    total: int | None = None
    left: float | None = None
    """The estimated time until the end, or ``None`` if it is not known."""
