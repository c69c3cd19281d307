"""Buildroot's ``build/build-time.log``: when each step of each package began and ended.

Buildroot appends a line at each start and each end (`step_time` in package/pkg-generic.mk):
``<seconds.nanoseconds>:start|end  :<step>:<package>``, the step cut or filled to 20 characters. The file grows with
every build in the tree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from nerves_docker_port.record.journal import PackageStep

FILE: Final = "build/build-time.log"
"""In the build directory."""

_LINE: Final = re.compile(rb"(\d+(?:\.\d+)?):(start|end) *:([^:\n]*?) *: (\S+)")


def steps(content: bytes, since: float) -> list[PackageStep]:
    """The steps that began at ``since`` or later (seconds since 1970 by the engine's clock), in that order.

    A step without an end failed, was stopped, or still runs. Lines that are not Buildroot's are passed over.
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
