"""Reads the parts of Buildroot's headlines, such as ``>>> busybox 1.36.1 Building``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_FORM: Final = re.compile(r">>> (?P<package>\S*) (?P<version>\S*) (?P<step>\S.*)")
"""The form of a headline (`MESSAGE` in package/pkg-utils.mk). Name and version are empty for a step of the system."""

STEPS: Final = {
    "Downloading": "download",
    "Extracting": "extract",
    "Patching": "patch",
    "Configuring": "configure",
    "Building": "build",
    "Installing to host directory": "install-host",
    "Installing to staging directory": "install-staging",
    "Installing to images directory": "install-image",
    "Installing to target": "install-target",
}
"""The headlines with which a step begins, and the step's name in ``build-time.log`` (package/pkg-generic.mk)."""


@dataclass(frozen=True)
class Parts:
    """The parts of a headline. ``package`` and ``version`` are empty for a step of the whole system."""

    package: str
    version: str
    step: str
    """The text of the headline, ``Installing to target``. Not each begins a step: ``Patching libtool`` does not."""


def parse(line: str) -> Parts | None:
    """Return the parts of a line, or ``None`` if the line is not a headline of Buildroot."""
    match = _FORM.fullmatch(line)
    return None if match is None else Parts(match["package"], match["version"], match["step"])
