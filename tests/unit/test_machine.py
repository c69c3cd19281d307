"""Which machine this is, and when a package's directory is certainly gone from it: in every doubt it is not."""

from __future__ import annotations

import os
import platform
import pwd
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nerves_docker_port.volume import machine
from nerves_docker_port.volume.machine import Presence
from support.port import PYTHON

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    path = tmp_path / "work" / "my_system"
    path.mkdir(parents=True)
    return path


def labels(path: Path) -> dict[str, str]:
    """The labels of a volume that is made now for the package at ``path``."""
    return {
        "host": platform.node(),
        "machine": machine.machine_id(),
        "directory": machine.directory_id(path),
    }


def kept(home: Path) -> Path:
    (file,) = (path for path in home.rglob("*") if path.is_file())
    return file


# --- The machine's id ------------------------------------------------------------------------------------------


def test_the_id_is_made_once_and_stays() -> None:
    made = machine.machine_id()
    assert len(made) == 32
    assert machine.machine_id() == made


def test_looking_makes_no_id(home: Path) -> None:
    assert machine.machine_id(make=False) == ""
    assert list(home.iterdir()) == []


def test_machines_with_the_same_names_have_different_ids(home: Path, tmp_path: Path) -> None:
    here = machine.machine_id()
    shutil.rmtree(home)
    home.mkdir()
    assert machine.machine_id() != here


@pytest.mark.parametrize("what", ["_read", "node"])
def test_a_shared_home_directory_does_not_make_two_machines_one(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    here = machine.machine_id()
    if what == "_read":
        monkeypatch.setattr(machine, "_read", lambda _path: "another id of the system")
    else:
        monkeypatch.setattr(platform, "node", lambda: "another-host")
    assert machine.machine_id() != here


def test_a_copied_home_directory_gets_an_id_of_its_own(home: Path, tmp_path: Path) -> None:
    here = machine.machine_id()
    copied = shutil.copy2(kept(home), tmp_path / "copy")
    Path(copied).replace(kept(home))
    there = machine.machine_id()
    assert there != here
    assert machine.machine_id() == there


@pytest.mark.parametrize("content", [b"", b"0123", b"\xff\xfe", b"x" * 32 + b" 1\n"])
def test_a_file_that_holds_no_id_is_written_anew(home: Path, content: bytes) -> None:
    machine.machine_id()
    kept(home).write_bytes(content)
    made = machine.machine_id()
    assert made
    assert machine.machine_id() == made


def test_processes_that_start_at_once_agree_on_the_id(home: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from nerves_docker_port.volume import machine;"
        "machine._home = lambda: Path(sys.argv[1]); sys.stdin.read(); print(machine.machine_id())"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(home)],
            env={"PYTHONPATH": str(PYTHON)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(4)
    ]
    with ThreadPoolExecutor(len(processes)) as pool:
        said = set(pool.map(lambda process: process.communicate(timeout=30)[0], processes))
    assert len(said) == 1, said
    assert said.pop().strip().decode() == machine.machine_id()


def test_the_home_directory_is_that_of_the_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert machine._home() == Path(pwd.getpwuid(os.getuid()).pw_dir)


def test_without_a_home_directory_the_id_is_kept_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(machine, "_home", lambda: None)
    monkeypatch.setattr(machine, "_WITHOUT_HOME", tmp_path / "tmp")
    made = machine.machine_id()
    assert made
    assert machine.machine_id() == made


@pytest.mark.parametrize("planted", ["somebody else's", "a link"])
def test_what_somebody_else_has_put_there_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, planted: str
) -> None:
    monkeypatch.setattr(machine, "_home", lambda: None)
    monkeypatch.setattr(machine, "_WITHOUT_HOME", tmp_path)
    file = tmp_path / f"nerves_docker_port-machine-{os.getuid()}"
    if planted == "a link":
        file.symlink_to(tmp_path / "target")
    else:
        somebody = os.getuid() + 1
        file.with_name(f"nerves_docker_port-machine-{somebody}").touch()
        monkeypatch.setattr(os, "getuid", lambda: somebody)
    assert machine.machine_id() == ""


def test_where_no_id_can_be_kept_there_is_none(home: Path) -> None:
    home.rmdir()
    home.write_text("no directory")
    (home.parent / "not there").write_text("no directory")
    assert machine.machine_id() == ""


# --- Gone ------------------------------------------------------------------------------------------------------


def test_a_package_is_there_until_it_is_removed(package: Path) -> None:
    made = labels(package)
    assert machine.presence(package, **made) == Presence("there")
    shutil.rmtree(package)
    assert machine.presence(package, **made) == Presence("gone")


def test_a_volume_of_an_older_version_tells_nothing(package: Path) -> None:
    package.rmdir()
    found = machine.presence(package, host=platform.node(), machine="", directory="")
    assert found.state == "unknown"
    assert "older version" in found.reason


def test_another_machine_is_named(package: Path) -> None:
    made = labels(package)
    package.rmdir()
    found = machine.presence(package, **{**made, "machine": "0" * 32, "host": "far-away"})
    assert found == Presence("unknown", "the volume was made on another machine, far-away")


def test_a_machine_of_the_same_name_is_another_one(package: Path) -> None:
    made = labels(package)
    package.rmdir()
    found = machine.presence(package, **{**made, "machine": "0" * 32})
    assert found.state == "unknown"
    assert platform.node() in found.reason


def test_a_package_whose_parent_is_gone_as_well_may_be_on_a_disk_that_is_not_mounted(package: Path) -> None:
    made = labels(package)
    shutil.rmtree(package.parent)
    found = machine.presence(package, **made)
    assert found.state == "unknown"
    assert f"{package.parent} is not there, either" in found.reason


def test_a_parent_that_is_no_directory_any_more_tells_nothing(package: Path) -> None:
    made = labels(package)
    shutil.rmtree(package.parent)
    package.parent.write_text("")
    assert machine.presence(package, **made).state == "unknown"


def test_the_same_path_elsewhere_is_another_directory(package: Path, tmp_path: Path) -> None:
    """A mount point without its disk, or a container that has other directories under the same paths."""
    made = labels(package)
    package.parent.rename(tmp_path / "away")
    package.parent.mkdir()
    found = machine.presence(package, **made)
    assert found.state == "unknown"
    assert "not the same directory" in found.reason


def test_a_link_to_a_package_that_goes_leaves_the_package_where_it_is(package: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(package)
    made = labels(link)
    assert machine.presence(link, **made).state != "gone"
    link.unlink()
    assert machine.presence(link, **made).state == "unknown"


def test_a_link_on_the_way_that_leads_elsewhere_tells_nothing(package: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    link = tmp_path / "link"
    link.symlink_to(package.parent)
    made = labels(link / "my_system")
    assert machine.presence(link / "my_system", **made) == Presence("there")
    link.unlink()
    assert machine.presence(link / "my_system", **made).state == "unknown"
    link.symlink_to(tmp_path / "other")
    assert machine.presence(link / "my_system", **made).state == "unknown"
    link.unlink()
    link.symlink_to(package.parent)
    package.rmdir()
    assert machine.presence(link / "my_system", **made) == Presence("gone")


def test_a_file_system_that_has_no_id_tells_nothing(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_filesystem", lambda _path, _status: "")
    made = labels(package)
    package.rmdir()
    found = machine.presence(package, **made)
    assert found.state == "unknown"
    assert "network share" in found.reason


@pytest.mark.parametrize("hidden", ["the parent", "the directory above it"])
def test_what_a_permission_hides_is_not_gone(hidden: str) -> None:
    # Not in tmp_path, which lies below directories that only root may enter.
    root = Path(tempfile.mkdtemp(prefix="ndp-"))
    home, package = root / "home", root / "outer" / "work" / "my_system"
    home.mkdir()
    package.mkdir(parents=True)
    program = (
        "import os, sys; from pathlib import Path; from nerves_docker_port.volume import machine;"
        "os.setuid(65534) if os.getuid() == 0 else None; machine._home = lambda: Path(sys.argv[2]);"
        "package, closed = Path(sys.argv[1]), Path(sys.argv[3]);"
        "made = dict(host='h', machine=machine.machine_id(), directory=machine.directory_id(package));"
        "before = machine.presence(package, **made); package.rmdir(); closed.chmod(0);"
        "after = machine.presence(package, **made); closed.chmod(0o700);"
        "print(before.state, after.state, after.reason)"
    )
    closed = package.parents[0] if hidden == "the parent" else package.parents[1]
    if os.getuid() == 0:
        for path in (root, *root.rglob("*")):
            os.chown(path, 65534, 65534)
    done = subprocess.run(
        [sys.executable, "-c", program, str(package), str(home), str(closed)],
        env={"PYTHONPATH": str(PYTHON)},
        capture_output=True,
        text=True,
    )
    shutil.rmtree(root)
    assert done.stdout.startswith("there unknown"), done
    assert "cannot be looked at: Permission denied" in done.stdout
