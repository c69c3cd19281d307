"""A package on a disk: while the disk is not mounted, nothing counts as gone. Mounts, so it must be root's."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nerves_docker_port.volume import machine
from nerves_docker_port.volume.machine import Presence


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_home", lambda: tmp_path)


def labels(path: Path) -> dict[str, str]:
    """The labels of a volume that is made now for the package at ``path``."""
    return {
        "host": platform.node(),
        "machine": machine.machine_id(),
        "directory": machine.directory_id(path),
    }


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A mount point with a file system of its own."""
    point = tmp_path / "disk"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(point)], check=True)
    yield point
    subprocess.run(["umount", "--lazy", str(point)], check=False, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("below", ["my_system", "work/my_system", ""])
@pytest.mark.parametrize("point", ["stays", "goes", "gets another disk"])
def test_what_is_on_a_disk_that_is_not_mounted_is_not_gone(disk: Path, below: str, point: str) -> None:
    package = disk / below
    package.mkdir(parents=True, exist_ok=True)
    made = labels(package)
    subprocess.run(["umount", str(disk)], check=True)
    if point == "goes":
        disk.rmdir()
    elif point == "gets another disk":
        subprocess.run(["mount", "-t", "tmpfs", "none", str(disk)], check=True)
    assert machine.presence(package, **made).state != "gone"


@pytest.mark.parametrize("below", ["my_system", "work/my_system"])
def test_what_was_removed_from_a_disk_that_is_mounted_is_gone(disk: Path, below: str) -> None:
    package = disk / below
    package.mkdir(parents=True)
    made = labels(package)
    package.rmdir()
    assert machine.presence(package, **made) == Presence("gone")
