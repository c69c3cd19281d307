"""Which machine this is, and whether a package's directory is certainly gone from it.

An engine can serve several machines and containers, and a path means something different in each. So a volume is
labelled when it is made with the machine's id and with the identity of the directory that the package lies in. Later, a
package counts as gone only where both are the same and the package is not there. In every other case the answer is "not
known", with the reason.
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
"""For a user without a home directory that can be written, as in many containers."""


@dataclass(frozen=True)
class Presence:
    """Whether a package's directory is there; ``reason`` says why that is not known."""

    state: Literal["there", "gone", "unknown"]
    reason: str = ""


def machine_id(*, make: bool = True) -> str:
    """The id of this machine for this user; empty where there is none and none is to be made, or it cannot be kept.

    It is made of a random number that we keep in a file, of the system's own id (machine-id(5)) and of the host's name.
    None of them is enough alone: a home directory can be shared between machines, and machines are cloned together with
    their ids and names. Two users of one machine get different ids, so neither removes what the other has made.
    """
    number = _own_number(make=make)
    if not number:
        return ""
    # macOS takes its host name from the network it is in.
    name = "" if platform.system() == "Darwin" else platform.node()
    return hashlib.sha256("\n".join((number, _read("/etc/machine-id"), name)).encode()).hexdigest()[:32]


def directory_id(path: Path) -> str:
    """The identity of the directory that ``path`` lies in: its file system and its inode.

    Empty where it would prove nothing that ``path`` is no longer found there: where ``path`` is a link or a mount
    point, and where the file system has nothing to recognise it by, as most network shares.
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
    """Whether the package's directory ``path`` is there; the other values are the volume's labels, or empty."""
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
    """Why nothing can be said of the package in ``parent``; ``None`` where something can."""
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
    """What tells the file system of ``path`` from others that are mounted there at another time; empty if nothing."""
    if platform.system() == "Darwin":
        # Device numbers change with what is plugged in. The home directory's file system is always the same one.
        home = _home()
        return "home" if home is not None and status.st_dev == home.stat().st_dev else ""
    uuids = Path("/dev/disk/by-uuid")
    for uuid in uuids.iterdir() if uuids.is_dir() else ():
        with suppress(OSError):
            if uuid.stat().st_rdev == status.st_dev:
                return uuid.name
    # In a container, and for file systems without a device of their own. It is 0 where a file system has no id.
    number = os.statvfs(path).f_fsid
    return f"{number:x}" if number else ""


def _own_number(*, make: bool) -> str:
    """A random number of this user's on this machine, made once and kept."""
    home = _home()
    number = _number_in(home / ".local/state/nerves_docker_port/machine", make=make) if home is not None else ""
    return number or _number_in(_WITHOUT_HOME / f"nerves_docker_port-machine-{os.getuid()}", make=make)


def _number_in(file: Path, *, make: bool) -> str:
    """The number that ``file`` keeps; empty where it keeps none and none is made, or cannot be made."""
    try:
        if make:
            file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_CREAT if make else 0), 0o600)
        with os.fdopen(descriptor, "r+") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX)
            status = os.fstat(descriptor)
            if status.st_uid != os.getuid():
                return ""
            # A file that was copied to another machine, with the whole home directory perhaps, has another inode there.
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
    """The home directory that the user's account has: ``HOME`` may be set to something else for a single command."""
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
