"""The names of a flow's stages and the units of progress.

The flows, the reporter and the port's messages all use these names, and none of them may import the others.
docs/protocol.md has the meaning of each.
"""

from __future__ import annotations

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
