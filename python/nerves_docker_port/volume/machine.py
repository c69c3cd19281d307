"""The id of this machine, and whether a package's directory is certainly gone from this machine.

An engine can serve several machines and containers, and the same path means a different directory in each. So a new
volume gets labels with the machine's id and with the identity of the directory that contains the package. Later, a
package counts as gone only if both are still the same and the package is missing in that directory. In every other case
the answer is "unknown", with the reason.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import pwd
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_WITHOUT_HOME = Path("/var/tmp")
"""The directory for the user's number if the user has no writable home directory, as in many containers."""


@dataclass(frozen=True)
class Presence:
    """Whether a package's directory exists. ``reason`` says why the state is unknown."""

    state: Literal["there", "gone", "unknown"]
    reason: str = ""


def machine_id(*, make: bool = True) -> str:
    """Return the id of this machine for this user. It is empty if there is none, and none can or should be made.

    It is made from a random number that is kept in a file, the system's own id (machine-id(5)) and the host's name.
    One of them alone is not enough, because a home directory can be shared between machines, and machines are cloned
    together with their ids and names. Two users of one machine get different ids, so that neither removes the volumes
    of the other.
    """
    number = _own_number(make=make)
    if not number:
        return ""
    # On macOS the host name changes with the network.
    name = "" if platform.system() == "Darwin" else platform.node()
    return hashlib.sha256("\n".join((number, _read("/etc/machine-id"), name)).encode()).hexdigest()[:32]


def directory_id(path: Path) -> str:
    """Return the identity of the directory that contains ``path``, which is its file system and its inode.

    Return an empty string if it would not prove that the package is gone when ``path`` is missing in that directory:
    if ``path`` is a link or a mount point, or if the file system has no id, as most network shares.
    """
    try:
        parent, own = path.parent.stat(), path.lstat()
        if path.is_symlink() or own.st_dev != parent.st_dev:
            return ""
        filesystem = _filesystem(path.parent, parent)
    except OSError:
        return ""
    return f"{filesystem}:{parent.st_ino}" if filesystem else ""


def presence(path: Path, *, host: str, machine: str, directory: str) -> Presence:
    """Return whether the package's directory ``path`` exists. The other arguments are the volume's labels, or empty."""
    doubt = _doubt(path.parent, host, machine, directory)
    if doubt is not None:
        return Presence("unknown", doubt)
    try:
        path.lstat()
    except FileNotFoundError:
        return Presence("gone")
    except OSError as error:
        return Presence("unknown", f"it cannot be looked at: {error.strerror}")
    return Presence("there")


def _doubt(parent: Path, host: str, machine: str, directory: str) -> str | None:
    """Return why it cannot be known whether the package in ``parent`` exists, or ``None`` if it can be known."""
    if not machine:
        return "an older version of this runner made the volume and did not note on which machine"
    if machine != machine_id(make=False):
        if host != platform.node():
            return f"the volume was made on another machine, {host}"
        return f"the volume was made by another user, in a container or on another machine that is called {host}, too"
    if not directory:
        return "the directory was a link, a mount point or on a network share when the volume was made"
    try:
        found = parent.stat()
        filesystem = _filesystem(parent, found)
    except FileNotFoundError:
        return f"{parent} is not there, either; its disk may not be mounted"
    except OSError as error:
        return f"{parent} cannot be looked at: {error.strerror}"
    if f"{filesystem}:{found.st_ino}" != directory:
        return f"{parent} is not the same directory as when the volume was made; its disk may not be mounted"
    return None


def _filesystem(path: Path, status: os.stat_result) -> str:
    """Return an id of the file system of ``path``, by which it is recognised later. It is empty if there is none."""
    if platform.system() == "Darwin":
        # On macOS a device number can change when a disk is plugged in. So only the file system of the home directory
        # can be recognised, because it is always the same one.
        home = _home()
        return "home" if home is not None and status.st_dev == home.stat().st_dev else ""
    uuids = Path("/dev/disk/by-uuid")
    for uuid in uuids.iterdir() if uuids.is_dir() else ():
        with suppress(OSError):
            if uuid.stat().st_rdev == status.st_dev:
                return uuid.name
    # This is for containers, and for file systems without a device. The number is 0 if a file system has no id.
    number = os.statvfs(path).f_fsid
    return f"{number:x}" if number else ""


def _own_number(*, make: bool) -> str:
    """Return the random number of this user on this machine, which is made once and kept in a file."""
    home = _home()
    number = _number_in(home / ".local/state/nerves_docker_port/machine", make=make) if home is not None else ""
    return number or _number_in(_WITHOUT_HOME / f"nerves_docker_port-machine-{os.getuid()}", make=make)


def _number_in(file: Path, *, make: bool) -> str:
    """Return the number in ``file``. It is empty if the file has none, and none can or should be made."""
    try:
        if make:
            file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_CREAT if make else 0), 0o600)
        with os.fdopen(descriptor, "r+") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX)
            status = os.fstat(descriptor)
            if status.st_uid != os.getuid():
                return ""
            # If the file was copied to another machine (with the whole home directory, for example), its inode differs.
            match = re.fullmatch(r"([0-9a-f]{32}) ([0-9]+)\n", opened.read())
            if match is not None and int(match[2]) == status.st_ino:
                return match[1]
            if not make:
                return ""
            number = secrets.token_hex(16)
            opened.seek(0)
            opened.truncate()
            opened.write(f"{number} {status.st_ino}\n")
            return number
    except (OSError, UnicodeDecodeError):
        return ""


def _home() -> Path | None:
    """Return the home directory of the user's account, because ``HOME`` can be different for a single command."""
    try:
        home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return None
    return home if home.is_dir() else None


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""
