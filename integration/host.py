"""What every part of the world needs from the machine: the cache, locks, packages, mounts and processes.

Standard library only: these files run before any virtual environment exists.
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
    """The world cannot be made here; the text says why and what to do about it."""


class Interrupted(BaseException):
    """A signal asked this process to end; it unwinds through every clean-up. Carries the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def main_program(body: Callable[[], int]) -> int:
    """Run a program's body and give its exit status; signals end it through its clean-ups, and errors are shown."""

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
    """Tell the person what is going on, on standard error: standard output belongs to the command that is run."""
    print(f"world: {text}", file=sys.stderr, flush=True)


def cache_dir() -> Path:
    """Where everything that is costly to make is kept. Deleting it is always safe while no engine of ours runs."""
    if given := os.environ.get("NERVES_DOCKER_PORT_CACHE"):
        path = Path(given).absolute()
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        path = Path(base).absolute() / "nerves_docker_port"
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the cache's lock of that name: two runs must not make the same thing at once."""
    directory = cache_dir() / "locks"
    directory.mkdir(exist_ok=True)
    with (directory / name).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def os_release() -> dict[str, str]:
    """The fields of `/etc/os-release`; empty where there is no such file."""
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {key: value.strip("\"'") for key, _, value in pairs}


def has_apt() -> bool:
    """Whether packages can be installed with apt-get."""
    return shutil.which("apt-get") is not None


def is_root() -> bool:
    """Whether this process may install packages, mount and start an engine."""
    return os.geteuid() == 0


def machine_architecture() -> str:
    """The machine's name as the kernel says it, such as `x86_64`."""
    return os.uname().machine


def logged(argv: Sequence[str], log: Path, env: dict[str, str] | None = None) -> None:
    """Run a long, chatty command with its output in a file; raise `WorldError` with the file's end if it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=env, check=False
        )
    if done.returncode != 0:
        end = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise WorldError(f"`{' '.join(argv)}` ended with status {done.returncode}:\n{end}\n(all of it is in {log})")


def apt_install(packages: Sequence[str], why: str) -> None:
    """Install the Debian packages that are not there yet; say what to install where that cannot be done here."""
    with locked("apt"):
        missing = [name for name in packages if not _installed(name)]
        if not missing:
            return
        if not (has_apt() and is_root()):
            raise WorldError(f"{why}. Please install: {' '.join(missing)} (Debian's names), then run this again.")
        say(f"installing {' '.join(missing)} ({why})")
        # RUNLEVEL=1 keeps a System V init script from being run: a dockerd of the package's would stay behind.
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
    """When the process began, in clock ticks since boot; `None` when it is gone or a zombie.

    Together with the number it names one process for as long as the machine runs.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def processes_of(directory: Path, programs: Sequence[str]) -> list[int]:
    """The running processes of these programs that were started with a path inside `directory`."""
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
    """The processes that this one started, and theirs."""
    try:
        children = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return children + [one for child in children for one in descendants(child)]


def mounts_at(directory: Path) -> list[str]:
    """Mount points at and inside `directory`, innermost first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4].encode().decode("unicode_escape")
        if point == str(directory) or point.startswith(f"{directory}/"):
            found.append(point)
    return sorted(found, key=len, reverse=True)


def unmount(directory: Path) -> None:
    """Unmount whatever is mounted at and inside `directory`; what is busy is detached."""
    for point in mounts_at(directory):
        subprocess.run(["umount", "--lazy", point], capture_output=True, check=False)
