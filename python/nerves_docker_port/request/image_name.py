"""Parses the name of an image, such as ``ghcr.io/me/system:1.0``, by the grammar of Docker's references.

The docker CLI uses this grammar for every name (https://pkg.go.dev/github.com/distribution/reference).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

DOCKER_HUB = "docker.io"
"""The registry of a name without a registry."""

_LONGEST = 255
"""The largest number of characters of a path (``RepositoryNameTotalLengthMax``)."""

_PATH = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9A-Fa-f]{32,}")


@dataclass(frozen=True)
class ImageName:
    """The parts of an image's name."""

    registry: str
    """The host of the registry, with its port if the name has one."""
    path: str
    tag: str | None
    digest: str | None


def parse(text: str) -> ImageName:
    """Return the parts of a name. Raises ``ValueError`` with the reason, which completes "... cannot be used: "."""
    name, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise ValueError(f"{digest!r} is no digest (sha256:...)")
    registry, path = _split(name)
    path, colon, tag = path.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise ValueError(
            f"{tag!r} is no tag: letters, digits, `_`, `.` and `-`, 128 at most, are allowed after the colon"
        )
    if registry != DOCKER_HUB and not _REGISTRY.fullmatch(registry):
        raise ValueError(f"{registry!r} is no registry's host")
    if path.lower() != path:
        raise ValueError("the name of an image must be in lower case")
    if not _PATH.fullmatch(path):
        raise ValueError(
            f"{path!r} is no image's name: lower-case letters and digits are allowed, with single `.`, `_`, `/` and "
            "`-` between them"
        )
    if len(path) > _LONGEST:
        raise ValueError(f"{path!r} is longer than {_LONGEST} characters")
    return ImageName(registry, path, tag if colon else None, digest if at else None)


def names_registry(text: str) -> bool:
    """Return whether a name begins with the host of a registry: ``localhost``, or a part with a dot or a port."""
    first, slash, _rest = text.partition("/")
    return bool(slash) and ("." in first or ":" in first or first == "localhost")


def _split(name: str) -> tuple[str, str]:
    if not names_registry(name):
        return DOCKER_HUB, name
    registry, _slash, path = name.partition("/")
    return registry, path
