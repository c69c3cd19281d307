"""Functions for the cache, locks, packages, mounts and processes of this machine, for all other modules here.

The modules here use only the standard library, because they run before a virtual environment exists.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

REPOSITORY = Path(__file__).resolve().parent.parent


class WorldError(Exception):
    """The engine, an image or a program cannot be provided on this machine. The text says why, and what to do."""


class Interrupted(BaseException):
    """A signal asked this process to end. The exception runs all clean-up code on its way up."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def main_program(body: Callable[[], int]) -> int:
    """Run a program's body, and return the exit status. A `WorldError` is printed; a signal becomes `Interrupted`."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, interrupt)
    try:
        return body()
    except WorldError as error:
        say(str(error))
        return 1
    except Interrupted as interrupted:
        return 128 + interrupted.number


def say(text: str) -> None:
    """Print a message to standard error. Standard output is for the command that `world.py run` runs."""
    print(f"world: {text}", file=sys.stderr, flush=True)


def cache_dir() -> Path:
    """Return the directory for results that take long to make. It may be deleted while no private engine runs."""
    if given := os.environ.get("NERVES_DOCKER_PORT_CACHE"):
        path = Path(given).absolute()
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        path = Path(base).absolute() / "nerves_docker_port"
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the lock with this name in the cache, so that two runs do not make the same thing at the same time."""
    directory = cache_dir() / "locks"
    directory.mkdir(exist_ok=True)
    with (directory / name).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def os_release() -> dict[str, str]:
    """Return the fields of `/etc/os-release`, or an empty dictionary if there is no such file."""
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {key: value.strip("\"'") for key, _, value in pairs}


def has_apt() -> bool:
    """Return whether packages can be installed with apt-get."""
    return shutil.which("apt-get") is not None


def is_root() -> bool:
    """Return whether this process may install packages, mount and start an engine."""
    return os.geteuid() == 0


def machine_architecture() -> str:
    """Return the kernel's name of the machine's architecture, such as `x86_64`."""
    return os.uname().machine


def logged(argv: Sequence[str], log: Path, env: dict[str, str] | None = None) -> None:
    """Run a command with its output in the file `log`. Raises `WorldError` with the last lines if it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=env, check=False
        )
    if done.returncode != 0:
        end = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise WorldError(f"`{' '.join(argv)}` ended with status {done.returncode}:\n{end}\n(all of it is in {log})")


def apt_install(packages: Sequence[str], why: str) -> None:
    """Install the Debian packages that are missing. Raises `WorldError`, which names them, if that is not possible."""
    with locked("apt"):
        missing = [name for name in packages if not _installed(name)]
        if not missing:
            return
        if not (has_apt() and is_root()):
            raise WorldError(f"{why}. Please install: {' '.join(missing)} (Debian's names), then run this again.")
        say(f"installing {' '.join(missing)} ({why})")
        # RUNLEVEL=1 keeps the package from running its System V init script, which would start a dockerd.
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        log = cache_dir() / "logs" / "apt.log"
        patient = ["-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"]
        logged(["apt-get", *patient, "update"], log, env)
        logged(["apt-get", *patient, "install", "-y", "--no-install-recommends", *missing], log, env)


def _installed(package: str) -> bool:
    query = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", package]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return False
    return done.returncode == 0 and done.stdout.strip() == "installed"


def process_start(pid: int) -> int | None:
    """Return when the process started, in clock ticks since boot, or `None` if it has ended or is a zombie.

    The pid and this time together identify one process until the machine is rebooted.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def processes_of(directory: Path, programs: Sequence[str]) -> list[int]:
    """Return the pids of these programs that have a path inside `directory` among their arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            argv = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if Path(argv[0]).name in programs and any(f"{directory}/" in argument for argument in argv[1:]):
            found.append(int(entry.name))
    return found


def descendants(pid: int) -> list[int]:
    """Return the pids of all children of this process, of their children, and so on."""
    try:
        children = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return children + [one for child in children for one in descendants(child)]


def mounts_at(directory: Path) -> list[str]:
    """Return the mount points at and inside `directory`, the innermost first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4].encode().decode("unicode_escape")
        if point == str(directory) or point.startswith(f"{directory}/"):
            found.append(point)
    return sorted(found, key=len, reverse=True)


def unmount(directory: Path) -> None:
    """Unmount everything at and inside `directory`. A busy mount is detached, and ends when it is no longer used."""
    for point in mounts_at(directory):
        subprocess.run(["umount", "--lazy", point], capture_output=True, check=False)
