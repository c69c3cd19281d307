"""Measures this runner through the port, with a plain Python driver in place of Mix."""

from __future__ import annotations

import os
import shlex
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.measure import Sample, usage
from bench.place import TOOLS, Log, Place, check_log
from integration.host import WorldError

from nerves_docker_port.port.wire import Atom
from support.port import PYTHON, Helper, packaged_command
from support.requests import LIVE_TERMINAL

MIB = 1024 * 1024


@dataclass
class Followed:
    """The events of a request and the times at which they arrived, by `time.perf_counter`."""

    stages: dict[str, float] = field(default_factory=dict)
    headlines: dict[str, float] = field(default_factory=dict)
    shown: list[tuple[int, bytes]] = field(default_factory=list)
    """Log lines with the times at which they arrived, in nanoseconds since 1970."""
    ended: float = 0.0
    cpu: float = 0.0
    """The helper's CPU time in seconds."""
    peak: int = 0
    """The helper's peak memory in bytes."""


def flow(place: Place, op: str, image: str, *, keep_lines: bool = False, **changes: Any) -> Followed:
    """Make one request with a helper of its own, and return what it has sent."""
    with place.system(image).helper() as helper:
        return _follow(place, helper, op, image, keep_lines=keep_lines, **changes)


def _follow(
    place: Place,
    helper: Helper,
    op: str,
    image: str,
    *,
    request_id: int = 1,
    keep_lines: bool = False,
    live_line: bool = False,
    **changes: Any,
) -> Followed:
    followed = Followed()
    args = place.system(image).args(**changes)
    if live_line:
        args[Atom("terminal")] = LIVE_TERMINAL
    helper.start(op, args, request_id=request_id)
    while True:
        match helper.receive():
            case (Atom("event"), _, (Atom("stage"), Atom() as stage, Atom("started"))):
                followed.stages[stage.name] = time.perf_counter()
            case (Atom("event"), _, (Atom("headline"), str() as text)):
                followed.headlines[text] = time.perf_counter()
            case (Atom("event"), _, (Atom("log"), (str() | bytes()) as lines)) if keep_lines:
                followed.shown.append((time.time_ns(), lines.encode() if isinstance(lines, str) else lines))
            case (Atom("done"), _, (Atom("ok"), _)):
                break
            case (Atom("event"), *_):
                continue
            case other:
                raise WorldError(f"the helper said {other!r}")
    used = usage(helper.process.pid)
    followed.ended, followed.cpu, followed.peak = time.perf_counter(), used.cpu, used.peak
    return followed


def cold_build_with_archive(place: Place, image: str) -> Sample:
    """Build and then archive on a new volume, with one helper, as Mix does.

    The time includes the start and the end of the helper. The measure `outcome` is the time until the outcome of the
    archive, after which Mix goes on.
    """
    place.reset(image)
    started = time.perf_counter()
    with place.system(image).helper() as helper:
        said_hello = time.perf_counter() - started
        for request_id, op in enumerate(("build", "archive"), start=1):
            followed = _follow(place, helper, op, image, request_id=request_id)
    outcome = followed.ended - started
    return Sample(time.perf_counter() - started, {"hello": said_hello, "helper_cpu": followed.cpu, "outcome": outcome})


def build_with_log(place: Place, log: Log | None, *, live_line: bool = False) -> tuple[Sample, Sample]:
    """Measure a whole build whose `make` writes that log, and the part of its time in which the container exists.

    The container runs `create-build.sh` and `make system`, too. With ``live_line`` the request also asks for the status
    from which Mix draws the live line.
    """
    system = place.system()
    place.reset(system.image)
    command = "true" if log is None else shlex.join(log.command)
    started = time.perf_counter()
    followed = flow(place, "build", system.image, live_line=live_line, make_args=[f"RUN={command}"])
    if log is not None:
        check_log(system.build_log, log, "ours")
    more = {"helper_cpu": followed.cpu, "helper_peak_mib": followed.peak / MIB}
    container = followed.headlines["Copying artifact archive to host"] - followed.stages["create_build"]
    return Sample(followed.ended - started, more), Sample(container, more)


def headline_latency(place: Place, count: int, milliseconds: int) -> Sample:
    """Measure the time of headlines from the `write` in the container to the driver; `seconds` is the median."""
    system = place.system()
    place.reset(system.image)
    run = f"RUN={TOOLS}/stamp {count} {milliseconds}"
    followed = flow(place, "build", system.image, keep_lines=True, make_args=[run])
    marker = b">>> stamp 1.0 "
    delays = sorted(
        (when - int(line.removeprefix(marker))) / 1e9
        for when, lines in followed.shown
        for line in lines.split(b"\n")
        if line.startswith(marker)
    )
    if len(delays) != count:
        raise WorldError(f"{len(delays)} of {count} headlines arrived")
    return Sample(
        statistics.median(delays),
        {"p95": delays[int(0.95 * count)], "p99": delays[int(0.99 * count)], "max": delays[-1]},
    )


def copy(place: Place) -> Sample:
    """Measure our copy of an artifact, which also checks, hashes and syncs it, together with the end of the session."""
    followed = flow(place, "archive", place.system().image)
    return Sample(followed.ended - followed.stages["copy"])


# --- Start ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Installed:
    """One way to install the helper, and the interpreter with which it is compared."""

    command: tuple[str, ...]
    python: str
    env: Mapping[str, str]


def packaged() -> Installed:
    """Return the helper in the shim's package."""
    command = packaged_command()
    return Installed(command, command[0], dict(os.environ))


def installed() -> Installed:
    """Return the helper as a Python package of the interpreter that runs this program."""
    return Installed(
        (sys.executable, "-m", "nerves_docker_port"), sys.executable, {**os.environ, "PYTHONPATH": str(PYTHON)}
    )


def bare_python(how: Installed) -> Sample:
    """Measure an interpreter that does nothing, from its start to its end."""
    words = [how.python, "-I", "-c", "pass"]
    started = time.perf_counter()
    os.waitpid(os.posix_spawn(words[0], words, how.env), 0)
    return Sample(time.perf_counter() - started)


def hello(how: Installed) -> Sample:
    """Measure the time from the start of the process to the first frame."""
    to_helper, ours_out = os.pipe()
    ours_in, from_helper = os.pipe()
    words = [*how.command, "port"]
    # The descriptors are moved by way of 103 and 104, because a pipe may already have the numbers 3 and 4.
    moves = [
        (os.POSIX_SPAWN_DUP2, to_helper, 103),
        (os.POSIX_SPAWN_DUP2, from_helper, 104),
        (os.POSIX_SPAWN_DUP2, 103, 3),
        (os.POSIX_SPAWN_DUP2, 104, 4),
        (os.POSIX_SPAWN_CLOSE, 103),
        (os.POSIX_SPAWN_CLOSE, 104),
    ]
    started = time.perf_counter()
    pid = os.posix_spawn(words[0], words, how.env, file_actions=moves)
    os.close(from_helper)
    first = os.read(ours_in, 4)
    seconds = time.perf_counter() - started
    for end in (to_helper, ours_out):
        os.close(end)
    while os.read(ours_in, 65536):
        pass
    os.close(ours_in)
    os.waitpid(pid, 0)
    if len(first) != 4:
        raise WorldError("the helper said no hello")
    return Sample(seconds)
