"""Measures builds with an engine that is far away, and with one that does not see the host's files."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Literal

from bench.measure import Case, Limit, Sample
from bench.place import Place
from integration.host import REPOSITORY

from support.images import NEW
from support.link import Link
from support.system import System

ROUND_TRIP = 0.15
"""The seconds of a round trip on the slow link."""
DOWNLOADED = 2 * 10**9
"""The size in bytes of a file in the host's download directory."""

Workspace = Literal["mounted", "copied"]


def link(place: Place) -> Iterator[Case]:
    """Measure a cold build and archive through a proxy that delays all data."""
    with (
        _system(place, "mounted") as mounted,
        _system(place, "copied") as copied,
        Link(place.directory, place.host, ROUND_TRIP) as far,
    ):
        yield Case(
            f"a link of {1000 * ROUND_TRIP:.0f} ms, cold build and archive",
            {
                "mounted": partial(_cold, place, mounted, "mounted"),
                "mounted, far away": partial(_cold, place, mounted, "mounted", host=far.host),
                "copied": partial(_cold, place, copied, "copied"),
                "copied, far away": partial(_cold, place, copied, "copied", host=far.host),
            },
            (
                Limit("mounted, far away", 3.0, above="mounted"),
                Limit("copied, far away", 3.0, above="copied"),
            ),
        )


def copies(place: Place) -> Iterator[Case]:
    """Compare builds on copies of the package and the platform with builds on the host's directories."""
    with (
        _system(place, "mounted") as mounted,
        _system(place, "copied") as copied,
        _system(place, "full") as full,
    ):
        (full.root / "dl").mkdir()
        with (full.root / "dl" / "large.tar.gz").open("wb") as file:
            file.truncate(DOWNLOADED)
        yield Case(
            "a copied workspace, cold build and archive",
            {
                "mounted": partial(_cold, place, mounted, "mounted"),
                "copied": partial(_cold, place, copied, "copied"),
                "copied, 2 GB downloaded": partial(_cold, place, full, "copied"),
            },
            (
                Limit("copied", 1.25, against="mounted"),
                Limit("copied, 2 GB downloaded", 1.05, against="copied"),
            ),
        )
        yield Case(
            "a copied workspace, second build and archive",
            {
                "mounted": partial(_sample, mounted, "mounted"),
                "copied": partial(_sample, copied, "copied"),
            },
            (Limit("copied", 1.15, against="mounted"),),
        )


@contextmanager
def _system(place: Place, name: str) -> Iterator[System]:
    """Provide the miniature system in a new directory, which is removed after the block."""
    root = place.directory / name
    root.mkdir()
    system = System(root=root, uid=os.getuid(), image=NEW, host=place.host)
    for source, target in (("platform", "platform"), ("system", system.package_name)):
        shutil.copytree(REPOSITORY / "integration" / source, root / target, symlinks=True, dirs_exist_ok=True)
    system.own()
    try:
        yield system
    finally:
        _reset(place, system)
        shutil.rmtree(root)


def _cold(place: Place, system: System, workspace: Workspace, *, host: str | None = None) -> Sample:
    """Measure a build and archive as after a fresh checkout. Only the downloads exist already."""
    _reset(place, system)
    return _sample(system, workspace, host=host)


def _sample(system: System, workspace: Workspace, *, host: str | None = None) -> Sample:
    """Measure a build and archive with one helper, as Mix uses it, from the helper's start to its end."""
    arguments = system.args(env={"NERVES_DOCKER_WORKSPACE": workspace})
    started = time.perf_counter()
    with system.helper(DOCKER_HOST=host or system.host) as helper:
        for request_id, flow in enumerate(("build", "archive"), start=1):
            helper.request(flow, arguments, request_id=request_id).value()
    return Sample(time.perf_counter() - started)


def _reset(place: Place, system: System) -> None:
    with suppress(FileNotFoundError):
        for part in ("", "-package", "-platform"):
            place.docker("volume", "rm", "--force", f"{system.volume}{part}")
    for made in (system.package / ".nerves", *system.root.glob("platform/buildroot*")):
        if made.is_symlink():
            made.unlink()
        else:
            shutil.rmtree(made, ignore_errors=True)
    system.artifact.unlink(missing_ok=True)
