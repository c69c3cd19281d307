"""The place of the artifact on the host. A build can take hours, so the place is checked before."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nerves_docker_port import directories, errors

_PROBE = 64 * 1024
"""Bytes that are written to notice a disk that is full. The size of the artifact is not known yet."""


def partial_path(artifact: Path, session: str) -> Path:
    """Return the path that the artifact has until it is complete. ``session`` makes it unique."""
    return artifact.with_name(f".{artifact.name}.{session}.part")


@contextmanager
def host_failures(artifact: Path) -> Iterator[None]:
    """Turn an error of the host's file system, in a body that writes the artifact, into a ``RunnerError``."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise errors.disk_full(f"No space is left on the host for the artifact {artifact}.") from error
        raise errors.not_writable(str(artifact.parent), "The download directory", str(error.strerror)) from error


def check_artifact(path: Path) -> None:
    """Check that the artifact can be put at ``path``, whose directory is made if it is missing.

    Raises ``RunnerError`` if ``path`` is a directory, if its directory cannot be written, or if the disk is full.
    """
    directories.make(path.parent, "The download directory")
    # The artifact is renamed to its path at the end. This replaces a file or a link, and not a directory.
    try:
        found = path.lstat()
        if stat.S_ISDIR(found.st_mode):
            raise errors.artifact_is_directory(str(path))
        _check_sticky(path, found)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise errors.not_writable(str(path), "The artifact", str(error.strerror)) from error
    # Not every file system takes a name of this length.
    probe = partial_path(path, secrets.token_hex(8))
    try:
        with host_failures(path), probe.open("xb", buffering=0) as file:
            file.write(os.urandom(_PROBE))
    finally:
        with suppress(OSError):
            probe.unlink()


def _check_sticky(path: Path, found: os.stat_result) -> None:
    """In a directory such as /tmp, only the owner may replace a file (unlink(2), EPERM)."""
    directory = path.parent.stat()
    if directory.st_mode & stat.S_ISVTX and os.geteuid() not in (0, found.st_uid, directory.st_uid):
        raise PermissionError(errno.EPERM, "it belongs to another user, and its directory is sticky")
