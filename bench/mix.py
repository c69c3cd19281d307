"""Measures this runner as its user runs it: whole runs of `mix nerves.artifact` on the miniature platform."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from bench.measure import Sample, watched
from bench.place import Log, Place, check_log
from integration.host import WorldError, descendants
from integration.project import Project, lay_out

from support.images import NEW


def project(place: Place) -> Project:
    """Lay out a project, and build it once, so that everything in it is compiled."""
    made = lay_out(place.directory / "mix", host=place.host, image=NEW)
    done = made.mix("nerves.artifact")
    if done.returncode != 0:
        raise WorldError(f"`mix nerves.artifact` ended with status {done.returncode}:\n{done.stdout}")
    return made


def artifact(place: Place, made: Project, log: Log | None) -> Sample:
    """Run `mix nerves.artifact` on a build tree that is up to date, with `log` as the output of `make`."""
    knobs = {} if log is None else {"MINI_MAKE_ARGS": " ".join(log.knobs)}
    # Nerves only builds a system whose artifact is not in its cache.
    shutil.rmtree(made.artifacts)
    for artifact in [*made.downloads.glob("*.tar.gz"), *made.system.glob("*.tar.gz")]:
        artifact.unlink()
    output = place.directory / "mix.out"
    started = time.perf_counter()
    with output.open("wb") as printed:
        mix = subprocess.Popen(
            made.command("nerves.artifact"),
            cwd=made.system,
            env=made.env(**knobs),
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
        )
        with watched(lambda: _processes(mix.pid)) as used:
            status = mix.wait()
    seconds = time.perf_counter() - started
    if status != 0:
        raise WorldError(f"`mix nerves.artifact` ended with status {status}:\n{output.read_text()}")
    if log is not None:
        check_log(made.system / "build.log", log, "mix nerves.artifact")
    return Sample(
        seconds,
        {
            "beam_cpu": sum(one.cpu for name, one in used.items() if name == "beam"),
            "beam_peak_mib": max((one.peak / 1024**2 for name, one in used.items() if name == "beam"), default=0),
            "helper_cpu": sum(one.cpu for name, one in used.items() if name.startswith("helper")),
            "helper_peak_mib": max(
                (one.peak / 1024**2 for name, one in used.items() if name.startswith("helper")), default=0
            ),
        },
    )


def remove_volume(place: Place, made: Project) -> None:
    """Remove the project's build volume from the engine."""
    for identity in made.system.glob(".nerves/artifacts/*/.docker_id"):
        place.docker("volume", "rm", "--force", f"my_system-{identity.read_text()}")


def _processes(mix: int) -> Mapping[str, int]:
    """Return the pids of the BEAM and of the helpers among its descendants, by name."""
    found = {"beam": mix}
    for pid in descendants(mix):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"port" in words[-2:]:
            found[f"helper {pid}"] = pid
        elif os.path.basename(words[0]) == b"beam.smp":  # noqa: PTH119 - bytes
            found["beam"] = pid
    return found
