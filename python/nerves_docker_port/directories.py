"""Makes directories on the host, and says why one cannot be made."""

from __future__ import annotations

import os
from pathlib import Path

from nerves_docker_port import errors


def make(path: Path, what: str) -> None:
    """Make a directory and those above it. ``what`` describes it for the user. Raises ``RunnerError``."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise errors.not_writable(str(path), what, _reason(path, error)) from error


def _reason(path: Path, error: OSError) -> str:
    """Return why a directory cannot be made. The system's words are misleading if something else has its name."""
    for each in (path, *path.parents):
        if os.path.lexists(each):
            if each.is_symlink() and not each.exists():
                return f"{each} is a symbolic link to {each.readlink()}, which does not exist"
            if not each.is_dir():
                return f"{each} is not a directory"
            break
    return str(error.strerror)
