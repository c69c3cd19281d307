"""Who a container belongs to: this process, told apart from every other one, and whether such an owner still lives.

A process id alone is reused, so its start time goes with it; both mean nothing on another host or in another pid
namespace, so the place goes with them. Knows nothing of the engine.
"""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path


@dataclass(frozen=True)
class Owner:
    """A process: the place it lives in, its id there, and when it started (opaque, compared for equality)."""

    place: str
    """Host, boot and pid namespace, separated by slashes."""
    pid: int
    started: str

    def to_label(self) -> str:
        """As the value of a container label."""
        return f"{self.place} {self.pid} {self.started}"

    @classmethod
    def from_label(cls, label: str) -> Owner | None:
        """The owner that ``to_label`` wrote, or ``None`` where the text is something else."""
        parts = label.split(" ", 2)
        if len(parts) != 3 or not parts[1].isdecimal():
            return None
        return cls(parts[0], int(parts[1]), parts[2])

    def is_dead(self) -> bool:
        """Whether this owner has certainly ended: it lived here and is gone, or the host was started anew since.

        Of another host, or another pid namespace of this one, nothing is certain.
        """
        if self.place == _place():
            return _started(self.pid) != self.started
        host, boot, *_ = [*self.place.split("/"), ""]
        here, this_boot, *_ = [*_place().split("/"), ""]
        return host == here and boot != this_boot

    def is_here(self) -> bool:
        """Whether ``is_dead`` is certain either way."""
        return self.place == _place() or self.is_dead()


@lru_cache(maxsize=1)
def this_process() -> Owner:
    """The owner that containers started by this process get."""
    return Owner(_place(), os.getpid(), _started(os.getpid()) or "unknown")


@lru_cache(maxsize=1)
def _place() -> str:
    """Host, boot and pid namespace: where a pid names the same process."""
    # Both, for either alone is shared: images are copied with their machine id, and many a host is called localhost.
    host = f"{platform.node()}:{_read('/etc/machine-id')}"
    boot = _read("/proc/sys/kernel/random/boot_id")
    try:
        # /proc/PID/ns/pid is "pid:[4026531836]": namespaces(7).
        namespace = Path("/proc/self/ns/pid").readlink().name
    except OSError:
        namespace = ""
    return "/".join(part.replace(" ", "_").replace("/", "_") for part in (host, boot, namespace))


def _started(pid: int) -> str | None:
    """When ``pid`` started, or ``None`` if there is no such process (a zombie has ended, too)."""
    if Path("/proc/self/stat").exists():
        # proc_pid_stat(5): field 2, the name in parentheses, may hold anything; field 3 is the state, field 22 the
        # start time in clock ticks after boot.
        fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        return fields[19] if len(fields) > 19 and fields[0] not in "ZX" else None
    ps = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return ps.stdout.strip() or None


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""
