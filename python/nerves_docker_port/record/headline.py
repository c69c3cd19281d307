"""Buildroot's headlines as what they say: ``>>> busybox 1.36.1 Building``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_FORM: Final = re.compile(r">>> (?P<package>\S*) (?P<version>\S*) (?P<step>\S.*)")
"""`MESSAGE` in package/pkg-utils.mk: the package's name and version, both empty for a step of the system as a whole."""

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
"""Headlines with which a step begins, and what the step is called in ``build-time.log`` (package/pkg-generic.mk)."""


@dataclass(frozen=True)
class Parts:
    """A headline's parts; ``package`` and ``version`` are empty for a step of the system as a whole."""

    package: str
    version: str
    step: str
    """As the headline has it: ``Installing to target``. Some are no step of their own: ``Patching libtool``."""


def parse(line: str) -> Parts | None:
    """The parts of a line; ``None`` for one that is no headline of Buildroot."""
    match = _FORM.fullmatch(line)
    return None if match is None else Parts(match["package"], match["version"], match["step"])
