"""Reads Buildroot's ``build/build-time.log``, which says when each step of each package began and ended.

Buildroot appends a line when a step begins and when it ends (`step_time` in package/pkg-generic.mk). The line is
``<seconds.nanoseconds>:start|end  :<step>:<package>``, with the step's name cut or padded to 20 characters. The file
has the lines of all builds in the build directory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from nerves_docker_port.record.journal import PackageStep

FILE: Final = "build/build-time.log"
"""The file's path in the build directory."""

_LINE: Final = re.compile(rb"(\d+(?:\.\d+)?):(start|end) *:([^:\n]*?) *: (\S+)")


def steps(content: bytes, since: float) -> list[PackageStep]:
    """Return the steps that began at ``since`` or later, sorted by their beginning.

    ``since`` is in seconds since 1970 by the engine's clock. A step without an end has failed, was stopped, or still
    runs. Lines in another form are ignored.
    """
    return sorted(_pairs(content, since), key=lambda step: step.began)


def _pairs(content: bytes, since: float) -> Iterator[PackageStep]:
    open_steps: dict[tuple[str, str], float] = {}
    for line in content.splitlines():
        match = _LINE.fullmatch(line)
        if match is None or (at := float(match[1])) < since:
            continue
        key = match[4].decode(errors="replace"), match[3].decode(errors="replace")
        began = open_steps.pop(key, None)
        if began is not None:
            yield PackageStep(*key, began, at if match[2] == b"end" else None)
        if match[2] == b"start":
            open_steps[key] = at
    for (package, step), began in open_steps.items():
        yield PackageStep(package, step, began, None)
