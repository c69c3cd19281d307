"""The cases that are measured, and their limits, which the project has set for itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from bench import cache, elsewhere, mix, ours, stock
from bench.measure import Case, Limit, Sample
from bench.place import WORKDIRS, Log, Place
from integration.project import Project

from support.images import NEW, OLD

LATENCY = (600, 40)
"""The number of headlines, and the longest interval between two of them in milliseconds."""


# A gzip file may have several members. The programs of a root file system are as hard to unpack as an artifact.
LARGE_ARTIFACT = """\
all:
\t@while [ "$$(stat -c %s large 2>/dev/null || echo 0)" -lt 300000000 ]; do tar -cC / usr | gzip -1 >> large; done

system:
\t@ln -f large $(NERVES_ARTIFACT_NAME).tar.gz
"""
"""The Makefile of a system with an artifact of 300 MB, which `make system` does not have to make each time."""


def cold_build(place: Place) -> Iterator[Case]:
    """Build and archive on a new volume, without Mix: the requests to the engine, and the start of the helper."""
    for image, recorded, at_most in ((NEW, "artifact_new_image.json", 0.45), (OLD, "artifact_old_image.json", 0.24)):
        yield Case(
            f"cold build and archive, {image.rpartition(':')[2]} image",
            {
                "stock replay": partial(stock.cold_build_with_archive, place, image, recorded),
                "ours": partial(ours.cold_build_with_archive, place, image),
            },
            (Limit("ours", at_most, against="stock replay"),),
        )


def logs(place: Place) -> Iterator[Case]:
    """Compare a step with much output, run by `docker run` with output to a file, by the stock runner, and by ours."""
    none = ("LINES_PER_HEADLINE=0",)
    wanted = (
        ("200 MB in large writes", ("lines", "2000000", "0", "0"), ("LINES=2000000", *none), 1.25),
        ("500,000 lines, each flushed", ("lines", "500000", "0", "1"), ("LINES=500000", "FLUSH=1", *none), 1.35),
        (
            "one line in ten a headline",
            ("lines", "2000000", "10", "0"),
            ("LINES=2000000", "LINES_PER_HEADLINE=10"),
            1.5,
        ),
        ("one line of 50 MB", ("oneline", "50000000"), ("ONELINE=50000000",), 1.5),
    )
    with _project(place) as project:
        for name, arguments, knobs, at_most in wanted:
            log = place.log(name, arguments, knobs)
            limits = [Limit("ours, the container", at_most, against="docker run, none")]
            if log.size == 200_000_000:
                limits.append(Limit("ours, the container", 1 / 3.5, against="stock replay"))
            yield Case(f"log: {name}", _log_contenders(place, project, log), tuple(limits))


def _log_contenders(place: Place, project: Project, log: Log) -> dict[str, Callable[[], Sample]]:
    containers: list[Sample] = []

    def whole() -> Sample:
        sample, container = ours.build_with_log(place, log)
        containers.append(container)
        return sample

    return {
        "docker run, none": lambda: stock.plain_run(place, log, "none"),
        "docker run, json-file": lambda: stock.plain_run(place, log, "json-file"),
        "stock replay": lambda: stock.step(place, log),
        "ours, whole build": whole,
        "ours, the container": lambda: containers[-1],
        "ours, whole build without a log": lambda: ours.build_with_log(place, None)[0],
        "docker run true": lambda: stock.run_nothing(place),
        "mix nerves.artifact": lambda: mix.artifact(place, project, log),
        "mix nerves.artifact without a log": lambda: mix.artifact(place, project, None),
    }


def live_line(place: Place) -> Iterator[Case]:
    """Compare how fast the helper handles the log with and without the status from which Mix draws the live line.

    The limit is for the helper's processor time, because the wall-clock time differs more than that from run to run.
    """
    log = place.log("one line in ten a headline", ("lines", "2000000", "10", "0"), ())
    yield Case(
        f"live line, {log.size // 10**6} MB, one line in ten a headline",
        {
            "without": lambda: ours.build_with_log(place, log)[1],
            "with": lambda: ours.build_with_log(place, log, live_line=True)[1],
        },
        (Limit("with", 1.02, against="without", measure="helper_cpu"),),
        repeat=9,
    )


@contextmanager
def _project(place: Place) -> Iterator[Project]:
    project = mix.project(place)
    try:
        yield project
    finally:
        mix.remove_volume(place, project)


def start(_place: Place) -> Iterator[Case]:
    """Measure the time from the start of the process to the hello: at most three times that of a bare `python3`."""
    for name, how in (("packaged", ours.packaged()), ("installed", ours.installed())):
        yield Case(
            f"hello, {name}",
            {
                "python3 that does nothing": partial(ours.bare_python, how),
                "hello": partial(ours.hello, how),
            },
            (Limit("hello", 3.0, against="python3 that does nothing"),),
            repeat=25,
        )


def memory(place: Place) -> Iterator[Case]:
    """Measure the helper's peak memory, which must not depend on the length of the log."""
    small, large = (
        place.log(name, ("lines", str(count), "20000", "0"), ())
        for name, count in (("200 MB", 2_000_000), ("2 GB", 20_000_000))
    )
    yield Case(
        "memory of the helper",
        {
            "200 MB of log": lambda: ours.build_with_log(place, small)[0],
            "2 GB of log": lambda: ours.build_with_log(place, large)[0],
        },
        (
            Limit("2 GB of log", 64, measure="helper_peak_mib"),
            Limit("2 GB of log", 1.05, against="200 MB of log", measure="helper_peak_mib"),
        ),
        warm_up=False,
    )


def latency(place: Place) -> Iterator[Case]:
    """Measure the time from the `write` of a headline in the container to its arrival at the driver."""
    yield Case(
        f"headline latency, {LATENCY[0]} headlines",
        {"ours": lambda: ours.headline_latency(place, *LATENCY)},
        (Limit("ours", 0.050, measure="p95"),),
        repeat=1,
        warm_up=False,
    )


def copy(place: Place) -> Iterator[Case]:
    """Copy 300 MB from the build volume to the host. Our copy is also checked, hashed and synced to the disk."""
    system = place.system()
    place.reset(system.image)
    makefile = system.root / "platform/Makefile"
    usual = makefile.read_text()
    makefile.write_text(LARGE_ARTIFACT)
    try:
        ours.flow(place, "build", system.image)
    finally:
        makefile.write_text(usual)
    yield Case(
        "copy of a 300 MB artifact",
        {
            "cp in a container of its own": partial(
                stock.copy, place, system.volume, f"{WORKDIRS[NEW]}/{system.artifact.name}"
            ),
            "ours": partial(ours.copy, place),
        },
    )


ALL: dict[str, Callable[[Place], Iterator[Case]]] = {
    "cold": cold_build,
    "logs": logs,
    "live_line": live_line,
    "start": start,
    "memory": memory,
    "latency": latency,
    "copy": copy,
    "cache": cache.shared_cache,
    "link": elsewhere.link,
    "copied": elsewhere.copies,
}
