"""The memory and the disk space that Buildroot needs, and whether the engine and the host have it.

This module sends no request to the engine.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from nerves_docker_port.engine.client import Capabilities
from nerves_docker_port.request.settings import Settings
from nerves_docker_port.text import size

State: TypeAlias = Literal["ok", "warning", "problem"]

GIB: Final = 1024**3

MEMORY_WANTED: Final = 5.5 * GIB
"""Bytes. Nerves' installation guide asks for "at least 6 GB" for Docker. An engine with 6 GB reports a little less."""

MEMORY_PER_JOB: Final = 1 * GIB
"""Bytes that a C++ compiler takes. Buildroot starts one more job than there are CPUs (BR2_JLEVEL)."""

ENGINE_DISK: Final = (2 * GIB, 20 * GIB)
"""The free bytes at the engine below which a build fails, and those below which a whole system may not fit. (Nerves'
guide "Building systems" asks for 128 GB, which is enough for several systems.)"""

HOST_DISK: Final = (GIB // 2, 5 * GIB)
"""The same two limits for the host, for downloaded sources and the artifact."""

_JOBS_REMEDY: Final = (
    'Run fewer jobs at once (`build_runner_opts: [make_args: ["PARALLEL_JOBS=2"]]`), or give the engine more memory '
    "(Docker Desktop: Settings, Resources)."
)


@dataclass(frozen=True)
class Judgement:
    """The judgement of one resource: whether there is enough, how much there is, and what to do if it is not enough."""

    state: State
    text: str
    remedy: str | None = None


def memory(capabilities: Capabilities, settings: Settings | None) -> Judgement:
    """Judge the memory that the engine and the settings allow, for the number of CPUs that share it."""
    available, cpus = capabilities.memory, capabilities.cpus
    limited = ""
    limited_to = None if settings is None or not capabilities.limits_memory else settings.memory
    if limited_to is not None and (not available or limited_to < available):
        available, limited = limited_to, " (by the configuration)"
    if settings is not None and settings.cpus is not None and capabilities.limits_cpus:
        cpus = min(cpus, max(1, int(settings.cpus))) if cpus else int(settings.cpus)
    if not available:
        return Judgement("ok", "the engine does not say how much memory it has")
    text = f"{size(available)} of memory{limited} for {cpus} {'CPU' if cpus == 1 else 'CPUs'}"
    if available < MEMORY_WANTED:
        return Judgement("warning", f"{text}; Buildroot wants {size(6 * GIB)}", _JOBS_REMEDY)
    if cpus and available / cpus < MEMORY_PER_JOB:
        return Judgement("warning", f"{text}; a job wants {size(MEMORY_PER_JOB)}", _JOBS_REMEDY)
    return Judgement("ok", text)


def advice(capabilities: Capabilities, settings: Settings, download_dir: Path) -> list[str]:
    """Return the warnings before a build. They need no request to the engine."""
    judged = [memory(capabilities, settings), host_disk(download_dir)]
    little = [f"There is little: {each.text}. {each.remedy or ''}".strip() for each in judged if each.state != "ok"]
    ignored = limits(capabilities, settings)
    return little if ignored is None else [f"{ignored.text[0].upper()}{ignored.text[1:]}. {ignored.remedy}", *little]


def limits(capabilities: Capabilities, settings: Settings) -> Judgement | None:
    """Judge the configured limits that the engine does not apply. Return ``None`` if there are none."""
    ignored = [
        name
        for name, wanted, applied in (
            ("cpus", settings.cpus, capabilities.limits_cpus),
            ("memory", settings.memory, capabilities.limits_memory),
            ("swap", settings.swap, capabilities.limits_swap),
        )
        if wanted is not None and not applied
    ]
    if not ignored:
        return None
    names = " and ".join(f"`{name}`" for name in ignored)
    return Judgement(
        "warning",
        f"the engine does not apply the configured {names}: the build takes what it wants",
        "A rootless engine needs cgroup v2 and the controllers that systemd delegates "
        "(https://rootlesscontaine.rs/getting-started/common/cgroup2/); for swap, the kernel needs `swapaccount=1`. "
        "Or leave the setting out.",
    )


def engine_disk(free: int) -> Judgement:
    """Judge the ``free`` bytes of the engine's disk, on which the build volumes are."""
    return _disk(
        free,
        ENGINE_DISK,
        "at the engine, where the build volumes are",
        "Free some: `mix nerves_docker_port.volumes --prune` removes old build volumes, `docker system df` shows what "
        "else the engine holds (Docker Desktop: Settings, Resources, has the size of its disk).",
    )


def host_disk(directory: Path) -> Judgement:
    """Judge the free space of the host's disk for ``directory``, which may not exist yet."""
    existing = nearest_existing(directory)
    try:
        found = os.statvfs(existing)
    except OSError as error:
        return Judgement("problem", f"{existing} cannot be examined: {error.strerror}", "Make it readable.")
    return _disk(
        found.f_bavail * found.f_frsize,
        HOST_DISK,
        f"at the host, for downloads and artifacts ({directory})",
        "Free some, or set NERVES_DL_DIR to a directory on another disk.",
    )


def nearest_existing(path: Path) -> Path:
    """Return ``path`` if it exists, else the nearest directory above it that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _disk(free: int, wanted: tuple[int, int], where: str, remedy: str) -> Judgement:
    text = f"{size(free)} free {where}"
    for state, least in zip(("problem", "warning"), wanted, strict=True):
        if free < least:
            return Judgement("problem" if state == "problem" else "warning", f"{text}; {size(least)} wanted", remedy)
    return Judgement("ok", text)
