"""The copied workspace: builds on an engine that sees none of our files, and what comes back from there (fault C3)."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.models.containers import Container
from integration.blind import NAME, BlindEngine, blind_engine

from nerves_docker_port.port.wire import Atom
from support import hostile
from support.images import NEW, OLD
from support.port import wait_until
from support.recorder import Recorder
from support.requests import keyword
from support.system import System, ours, owner

MakeSystem = Callable[..., System]

STAGES = ["preflight", "create_build", "make", "make_system", "copy"]


@dataclass(frozen=True)
class Far:
    """The engine elsewhere."""

    engine: BlindEngine
    host: str
    """For every uid."""
    client: docker.DockerClient

    def volumes(self, of: str) -> set[str]:
        """The names of the volumes that begin with ``of``."""
        return {volume.name for volume in self.client.volumes.list() if volume.name.startswith(of)}


@pytest.fixture(scope="module")
def far(host: str) -> Iterator[Far]:
    directory = Path(tempfile.mkdtemp(prefix="ndp-"))
    directory.chmod(0o755)
    with blind_engine(host, [NEW, OLD]) as engine, Recorder(directory, engine.host) as recorder:
        client = docker.DockerClient(base_url=engine.host)
        try:
            yield Far(engine, recorder.host, client)
        finally:
            client.close()
    shutil.rmtree(directory)


@pytest.fixture
def system(far: Far, make_system: MakeSystem) -> System:
    """A system whose engine is elsewhere."""
    return make_system(host=far.host)


def shell_words(*lines: str) -> list[str]:
    """What makes a build run these lines in the container."""
    return [f"RUN={'; '.join(lines)}"]


PACKAGE = "/nerves/env/my_system"


def test_build_and_archive_work_and_reuse_as_on_an_engine_that_sees_our_files(far: Far, system: System) -> None:
    with system.helper() as helper:
        built = helper.request("build", system.args())
        again = helper.request("archive", system.args(), request_id=2)
    assert built.finished == STAGES
    assert again.value()["sha256"] == built.value()["sha256"]
    assert again.finished == ["preflight", "check_tree"]
    assert ours(far.client, system.volume) == []
    assert far.volumes(system.volume) == {
        system.volume,
        f"{system.volume}-package",
        f"{system.volume}-platform",
    }


@pytest.mark.parametrize(("image", "version"), [(NEW, "1.34.0"), (OLD, "1.27.0")], ids=["new", "old"])
def test_copies_come_and_go_whatever_the_environment_says(
    far: Far, make_system: MakeSystem, image: str, version: str
) -> None:
    system = make_system(host=far.host, image=image, platform_version=version)
    variables = hostile.VARIABLES if image == NEW else hostile.HARMLESS_FOR_STOCK
    # The tar of the build itself would fail.
    config = keyword(env=keyword(**{name: value for name, value in variables.items() if name != "TAR_OPTIONS"}))
    system.run("build", runner_config=config).value()
    assert system.artifact.exists()
    # create-build.sh has made this file.
    assert (system.package / "Config.in").exists()


CHOSEN = {"NERVES_DOCKER_WORKSPACE": "copied"}


def files_sent_and_fetched(recorder: Recorder, system: System, **changes: Any) -> list[tuple[str, str]]:
    """What a build puts into its container, and takes out of it."""
    before = len(recorder.asked)
    system.run("build", env=CHOSEN, **changes).value()
    asked = [asked for asked in recorder.asked[before:] if asked.path.endswith("/archive")]
    return sorted((each.method, each.query.rpartition("%2F")[2]) for each in asked)


def test_the_package_is_sent_again_only_if_something_in_it_has_changed(
    far: Far, make_system: MakeSystem, root: Path
) -> None:
    with Recorder(root, far.engine.host) as recorder:
        system = make_system(host=recorder.host)
        fetched = [("GET", "build-time.log")]
        sent = [("PUT", "nerves-docker-port")]
        # The first build has made a Config.in, which is the host's now, too.
        assert ("GET", "changes.tar.000000") in files_sent_and_fetched(recorder, system)
        assert files_sent_and_fetched(recorder, system) == [*fetched, *sent]
        assert files_sent_and_fetched(recorder, system) == fetched
        # A change that neither the size nor the time of the content tells.
        defconfig = system.package / "nerves_defconfig"
        status = defconfig.stat()
        defconfig.write_text("BR2_x86_32=y\n")
        os.utime(defconfig, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert files_sent_and_fetched(recorder, system) == [*fetched, *sent]
        assert files_sent_and_fetched(recorder, system) == fetched
        (system.package / "empty").mkdir(mode=0o755)
        look = shell_words(f"ls -d {PACKAGE}/empty", f"grep x86_32 {PACKAGE}/nerves_defconfig")
        assert files_sent_and_fetched(recorder, system, make_args=look) == [*fetched, *sent]
        # What a build does to the platform is undone.
        damage = shell_words("touch /nerves/env/platform/made-by-the-build")
        assert files_sent_and_fetched(recorder, system, make_args=damage) == fetched
        look = shell_words("test ! -e /nerves/env/platform/made-by-the-build")
        assert files_sent_and_fetched(recorder, system, make_args=look) == [*fetched, *sent]
        # The keys are in no volume, so each session gets them, and nothing else with them.
        (system.root / "home" / ".ssh").mkdir()
        system.write("home/.ssh/config", "Host x\n")
        look = shell_words("grep 'Host x' ~/.ssh/config", f"grep x86_32 {PACKAGE}/nerves_defconfig")
        assert files_sent_and_fetched(recorder, system, make_args=look) == [*fetched, *sent]


def test_config_in_comes_back_and_is_the_caller_s(system: System) -> None:
    system.run("build").value()
    assert (system.package / "Config.in").read_text() == "# Add project-specific packages here\n"
    assert owner(system.package / "Config.in") == (1000, 1000)
    everything = [Path(directory) / name for directory, _, names in os.walk(system.root) for name in names]
    assert [path for path in everything if owner(path) != (1000, 1000)] == []


def test_the_artifact_has_the_same_content_as_from_an_engine_that_sees_our_files(
    system: System, make_system: MakeSystem
) -> None:
    here = make_system()
    for each in (system, here):
        each.write("my_system/rootfs_overlay/etc/motd", "hello\n", mode=0o640)
        (each.package / "rootfs_overlay" / "link").symlink_to("etc/motd")
        each.write("my_system/in_make_system.sh", 'cp -a /nerves/env/*/rootfs_overlay "$NERVES_ARTIFACT_NAME"\n')
        run = 'export NERVES_ARTIFACT_NAME; mkdir -p "$(NERVES_ARTIFACT_NAME)"; cp -a /nerves/env/*/rootfs_overlay .'
        each.run("build", make_args=shell_words(run)).value()

    def listing(path: Path) -> list[tuple[str, int, bytes]]:
        with tarfile.open(path) as archive:
            return [(m.name, m.mode, m.type) for m in sorted(archive.getmembers(), key=lambda m: m.name)]

    assert listing(system.artifact) == listing(here.artifact)


def test_clean_removes_what_belongs_to_the_package_and_keeps_what_all_share(far: Far, system: System) -> None:
    system.run("build").value()
    volume = system.volume
    assert system.run("clean").value()["removed"] == [volume]
    assert far.volumes(volume) == set()
    assert "nerves-docker-port-downloads" in far.volumes("nerves-docker-port")


def test_a_changed_file_arrives_and_a_deleted_one_goes(system: System) -> None:
    system.write("platform/board/old", "old")
    system.write("my_system/overlay/gone", "gone")
    system.run("build").value()
    (system.root / "platform/board/old").unlink()
    (system.root / "platform/board").rmdir()
    (system.package / "overlay/gone").unlink()
    (system.package / "overlay").rmdir()
    (system.package / "overlay").symlink_to("nerves_defconfig")
    system.write("platform/extra.mk", "extra\n")
    system.run(
        "build",
        make_args=shell_words(f"find {PACKAGE} /nerves/env/platform -path {PACKAGE}/.nerves -prune -o -print"),
    ).value()
    lines = set(system.build_log.read_text().splitlines())
    assert {"/nerves/env/platform/extra.mk", f"{PACKAGE}/overlay", f"{PACKAGE}/nerves_defconfig"} <= lines
    assert not {f"{PACKAGE}/overlay/gone", "/nerves/env/platform/board/old", "/nerves/env/platform/board"} & lines


def test_what_is_the_same_keeps_its_time_and_buildroot_stays(system: System) -> None:
    system.run(
        "build", make_args=shell_words("mkdir /nerves/env/platform/buildroot-1 && touch -d 2001-01-01 built")
    ).value()
    os.utime(system.package / "nerves_defconfig")
    show = f"stat -c before=%Y {PACKAGE}/nerves_defconfig; ls /nerves/env/platform"
    system.run("build", make_args=shell_words(show)).value()
    first = system.build_log.read_text()
    system.write("my_system/nerves_defconfig", "BR2_x86_64=y\n")
    system.run("build", make_args=shell_words(show)).value()
    assert "buildroot-1" in first.splitlines()
    assert first == system.build_log.read_text()


def test_what_the_build_changes_comes_back_whatever_it_is_called(system: System) -> None:
    system.write("my_system/script.sh", "echo\n")
    words = shell_words(
        f"cd {PACKAGE}",
        "mkdir -p 'a b/ü'",
        "echo 1 > 'a b/ü/it'\\''s \"new\"'",
        "printf x > $$(printf 'two\\nlines')",
        "printf y > $$(printf 'byte\\377')",
        "ln -s ../elsewhere link",
        "chmod +x script.sh",
        "cd - >/dev/null",
    )
    system.run("build", make_args=words).value()
    assert (system.package / 'a b/ü/it\'s "new"').read_text() == "1\n"
    assert (system.package / "two\nlines").read_text() == "x"
    assert (system.package / os.fsdecode(b"byte\xff")).read_text() == "y"
    assert (system.package / "link").readlink() == Path("../elsewhere")
    assert os.access(system.package / "script.sh", os.X_OK)
    # And they go in again.
    system.run(
        "build", make_args=shell_words(f"cat {PACKAGE}/*/*/*; cat {PACKAGE}/byte*; readlink {PACKAGE}/link")
    ).value()
    assert "1\ny../elsewhere\n" in system.build_log.read_text()


def test_what_a_failed_build_has_changed_comes_back(system: System) -> None:
    conversation = system.run("build", make_args=shell_words(f"echo new > {PACKAGE}/new", "false"))
    assert conversation.error is not None
    assert conversation.error["code"] == "step_failed"
    assert (system.package / "new").read_text() == "new\n"


def test_a_file_that_was_changed_on_both_sides_is_kept_twice(system: System) -> None:
    system.write("my_system/notes", "as it came\n")
    with system.helper() as helper:
        run = f"echo from the build > {PACKAGE}/notes; printf '\\n>>> waiting\\n'; until [ -e go ]; do sleep 0.1; done"
        helper.start("build", system.args(make_args=[f"RUN={run}"]))
        conversation = helper.follow(until_stage="make")
        assert wait_until(lambda: ">>> waiting" in system.build_log.read_text(), 30)
        system.write("my_system/notes", "from here\n")
        (container,) = docker_containers(system)
        container.exec_run(["touch", "go"])
        conversation = helper.follow(conversation)
    conversation.value()
    assert (system.package / "notes").read_text() == "from here\n"
    beside = system.package / "notes.from-build"
    assert beside.read_text() == "from the build\n"
    assert owner(beside) == (1000, 1000)
    (warning,) = conversation.warnings
    assert str(system.package / "notes") in warning
    assert str(beside) in warning
    # It is told once.
    assert system.run("build").warnings == []
    assert sorted(path.name for path in system.package.glob("notes*")) == ["notes", "notes.from-build"]


def docker_containers(system: System) -> list[Container]:
    client = docker.DockerClient(base_url=system.host)
    found: list[Container] = client.containers.list(filters={"label": f"nerves-docker-port.volume={system.volume}"})
    return found


def test_a_file_that_the_build_removes_stays_here_and_is_named(system: System) -> None:
    system.write("my_system/notes", "as it came\n")
    conversation = system.run("build", make_args=shell_words(f"rm {PACKAGE}/notes"))
    conversation.value()
    assert (system.package / "notes").read_text() == "as it came\n"
    (warning,) = conversation.warnings
    assert "notes" in warning
    # The next build has it again.
    system.run("build", make_args=shell_words(f"cat {PACKAGE}/notes")).value()
    assert "as it came" in system.build_log.read_text().splitlines()


def test_directories_come_back_and_replace_no_file(system: System) -> None:
    system.write("my_system/file", "mine\n")
    system.write("my_system/tree/inner", "mine\n")
    words = shell_words(
        f"cd {PACKAGE}",
        "mkdir -p empty/inner",
        "chmod 750 empty",
        "chmod 700 empty/inner",
        "rm file && mkdir file && echo new > file/new",
        "rm -r tree && echo new > tree",
        "cd - >/dev/null",
    )
    conversation = system.run("build", make_args=words)
    conversation.value()
    package = system.package
    assert (package / "empty").stat().st_mode & 0o777 == 0o750
    assert (package / "empty/inner").stat().st_mode & 0o777 == 0o700
    assert owner(package / "empty/inner") == (1000, 1000)
    assert (package / "file").read_text() == "mine\n"
    assert (package / "file.from-build/new").read_text() == "new\n"
    assert (package / "tree/inner").read_text() == "mine\n"
    assert (package / "tree.from-build").read_text() == "new\n"
    for path in ("file.from-build", "tree.from-build"):
        (warning,) = [warning for warning in conversation.warnings if path in warning]
        assert str(package / path) in warning
    # All of it goes in again, and nothing is lost.
    look = shell_words(f"cd {PACKAGE} && ls -d empty/inner file.from-build/new file tree.from-build tree/inner")
    conversation = system.run("build", make_args=look)
    conversation.value()
    assert conversation.warnings == []
    lines = system.build_log.read_text().splitlines()
    assert {"empty/inner", "file.from-build/new", "tree.from-build", "tree/inner"} <= set(lines)


def test_what_the_build_user_cannot_read_comes_with_the_next_command(system: System) -> None:
    words = shell_words(f"echo open > {PACKAGE}/open", f"sudo sh -c 'umask 077; echo closed > {PACKAGE}/closed'")
    conversation = system.run("build", make_args=words)
    conversation.value()
    (warning,) = conversation.warnings
    assert "It is kept at the engine, and the next command brings it." in warning
    conversation = system.run("archive")
    conversation.value()
    assert conversation.warnings == []
    assert (system.package / "open").read_text() == "open\n"
    assert (system.package / "closed").read_text() == "closed\n"
    assert owner(system.package / "closed") == (1000, 1000)


def test_a_changed_file_is_newer_than_what_was_built_before_whatever_the_host_s_clock_says(system: System) -> None:
    """make(1) would not build again. The host's clock can be behind, or the change came while the last build ran."""
    system.run("build", make_args=shell_words("touch stamp")).value()
    for path in (system.write("my_system/nerves_defconfig", "BR2_arm=y\n"), system.write("platform/new.mk", "new\n")):
        os.utime(path, (time.time() - 3600,) * 2)
    look = shell_words(f"find {PACKAGE} /nerves/env/platform -maxdepth 1 -type f -newer stamp")
    system.run("build", make_args=look).value()
    lines = [line for line in system.build_log.read_text().splitlines() if line.startswith("/")]
    assert sorted(lines) == ["/nerves/env/my_system/nerves_defconfig", "/nerves/env/platform/new.mk"]


def test_no_file_of_a_host_whose_clock_is_ahead_is_of_the_future(system: System) -> None:
    for name in ("one", "two"):
        system.write(f"my_system/{name}", f"{name}\n")
        system.write(f"platform/{name}", f"{name}\n")
        for path in (system.package / name, system.root / "platform" / name):
            os.utime(path, (time.time() + 3600,) * 2)
        look = shell_words(f"touch now; find {PACKAGE} /nerves/env/platform -newer now -print")
        system.run("build", make_args=look).value()
        lines = system.build_log.read_text().splitlines()
        assert [line for line in lines if line.startswith("/") or "future" in line] == []


def test_what_a_killed_helper_could_not_bring_the_next_command_brings(far: Far, system: System) -> None:
    with system.helper() as helper:
        run = f"echo precious > {PACKAGE}/precious; printf '\\n>>> waiting\\n'; sleep 1000"
        helper.start("build", system.args(make_args=[f"RUN={run}"]))
        helper.follow(until_stage="make")
        assert wait_until(lambda: ">>> waiting" in system.build_log.read_text(), 30)
        helper.signal(signal.SIGKILL)
    for container in docker_containers(system):
        container.remove(force=True)
    assert not (system.package / "precious").exists()
    system.write("my_system/later", "later\n")
    conversation = system.run("build", make_args=shell_words(f"cat {PACKAGE}/precious {PACKAGE}/later"))
    conversation.value()
    assert conversation.warnings == []
    assert (system.package / "precious").read_text() == "precious\n"
    assert "precious\nlater\n" in system.build_log.read_text()


def test_a_connection_that_breaks_while_the_package_is_sent_costs_nothing(
    far: Far, make_system: MakeSystem, root: Path
) -> None:
    with Recorder(root, far.engine.host, slow_up=0.05) as recorder:
        system = make_system(host=recorder.host)
        for name, size in (("a", 1), ("z", 8 << 20)):
            (system.package / name).write_bytes(bytes(size))
        system.own()
        with system.helper() as helper:
            helper.start("build", system.args(make_args=shell_words(f"stat -c size=%s {PACKAGE}/z")))
            helper.follow(until_stage="preflight")
            # An exec would wait for the end of the archive call (Docker 20.10).
            arrived = "overlay2/*/diff/nerves-docker-port/in/package/a"
            assert wait_until(lambda: any(far.engine.data.glob(arrived)), 60)
            recorder.cut()
            # The helper notices it.
            time.sleep(1)
            recorder.mend()
            helper.follow().value()
        assert f"size={8 << 20}" in system.build_log.read_text().splitlines()


def test_a_package_that_takes_longer_than_the_patience_to_arrive_builds(
    far: Far, make_system: MakeSystem, root: Path
) -> None:
    """Docker 20.10 holds back the heartbeats while an archive call writes into the container."""
    with Recorder(root, far.engine.host, slow_up=0.5) as recorder:
        system = make_system(host=recorder.host)
        (system.package / "large").write_bytes(bytes(4 << 20))
        system.own()
        conversation = system.run("build", env={"NERVES_DOCKER_PATIENCE": "10"})
        conversation.value()
        assert conversation.warnings == []


def test_a_connection_that_breaks_while_changes_come_back_costs_nothing(
    far: Far, make_system: MakeSystem, root: Path
) -> None:
    with Recorder(root, far.engine.host) as recorder:
        system = make_system(host=recorder.host)
        make = f"head -c 50000000 /dev/zero > {PACKAGE}/made; echo y > {PACKAGE}/z"
        with system.helper() as helper:
            helper.start("build", system.args(make_args=shell_words(make)))
            assert wait_until(lambda: any(system.package.glob(".nerves-docker-port-*")), 60)
            recorder.cut()
            time.sleep(1)
            recorder.mend()
            conversation = helper.follow()
        conversation.value()
        assert [text for text in conversation.warnings if "brought back" in text] == []
        assert (system.package / "made").stat().st_size == 50_000_000
        assert (system.package / "z").read_text() == "y\n"
        assert list(system.package.glob(".nerves-docker-port-*")) == []


def test_changes_that_take_longer_than_the_patience_to_come_back_come(
    far: Far, make_system: MakeSystem, root: Path
) -> None:
    """Docker holds back the heartbeats while it answers an archive call."""
    with Recorder(root, far.engine.host, slow=("/archive", 0.1)) as recorder:
        system = make_system(host=recorder.host)
        make = f"head -c 12000000 /dev/urandom > {PACKAGE}/made; sha256sum < {PACKAGE}/made"
        conversation = system.run("build", make_args=shell_words(make), env={"NERVES_DOCKER_PATIENCE": "10"})
        conversation.value()
        assert conversation.warnings == []
        assert hashlib.sha256((system.package / "made").read_bytes()).hexdigest() in system.build_log.read_text()
        # They are not offered again.
        (system.package / "made").unlink()
        system.run("build").value()
        assert not (system.package / "made").exists()


def test_archive_after_a_change_on_the_host_packs_that(system: System) -> None:
    system.write("my_system/in_make_system.sh", "cp /nerves/env/my_system/version built\n")
    system.write("my_system/version", "1\n")
    with system.helper() as helper:
        helper.request("build", system.args()).value()
        system.write("my_system/version", "2\n")
        again = helper.request("archive", system.args(), request_id=2)
    assert "make_system" in again.finished
    assert system.built_by() == 2


@pytest.mark.parametrize("there", ["nothing", "empty directories", "another system"])
def test_an_engine_with_this_machine_s_name_that_does_not_see_our_files_builds(
    far: Far, system: System, there: str
) -> None:
    """It is not asked beforehand: it refuses the mounts, or has other directories there."""
    far.engine.run_there("hostname", os.uname().nodename)
    try:
        if there != "nothing":
            for directory in (system.package, system.root / "platform", system.root / "dl"):
                far.engine.run_there("mkdir", "-p", str(directory))
        if there == "another system":
            id_file = f"{system.package}/.nerves/artifacts/my_system-portable-0.1.0/.docker_id"
            script = f'mkdir -p "$(dirname "{id_file}")"; echo another > "{id_file}"; touch {system.package}/theirs'
            far.engine.run_there("sh", "-c", script)
        conversation = system.run("build")
        conversation.value()
    finally:
        far.engine.run_there("hostname", NAME)
    assert conversation.finished == STAGES
    assert conversation.stages.count(("create_build", "started")) == 1
    assert conversation.headlines.count("Starting Build... (this may take a while)") == 1
    assert (system.package / "Config.in").exists()
    assert not (system.package / "theirs").exists()
    assert system.artifact.exists()


def test_the_doctor_says_which_workspace_it_is_and_why(far: Far, system: System, make_system: MakeSystem) -> None:
    def workspace(of: System) -> tuple[bool, str]:
        with of.helper() as helper:
            value = helper.request("doctor", of.args()).value()
        (line,) = [line for line in value["text"].splitlines() if " workspace " in line]
        return value["ok"], line

    fine, line = workspace(system)
    assert fine
    assert line.endswith(f"copied: the engine does not see {system.package}")
    here = make_system()
    fine, line = workspace(here)
    assert fine
    assert line.endswith(f"mounted: the engine sees {here.package} as you do")
    assert list(system.package.iterdir()) == [system.package / "nerves_defconfig"]


def test_a_forced_mounted_workspace_says_what_is_wrong(far: Far, system: System) -> None:
    error = system.run("build", env={"NERVES_DOCKER_WORKSPACE": "mounted"}).error
    assert error is not None
    assert "directories of this machine" in error["hint"]


def test_a_forced_copied_workspace_works_on_any_engine(make_system: MakeSystem, client: docker.DockerClient) -> None:
    system = make_system()
    system.run("build", env={"NERVES_DOCKER_WORKSPACE": "copied"}).value()
    assert (system.package / "Config.in").exists()
    assert client.volumes.get(f"{system.volume}-package")
    # And back again: the build tree changes hands.
    system.run("build", env={"NERVES_DOCKER_WORKSPACE": "mounted"}).value()
    system.run("build", env={"NERVES_DOCKER_WORKSPACE": "copied"}).value()


def test_ssh_keys_are_there_for_the_build_and_not_on_the_engine_s_disk_afterwards(far: Far, system: System) -> None:
    key = secrets.token_hex(32)
    system.write("home/.ssh/id_test", f"{key}\n", mode=0o600)
    run = "sha256sum ~/.ssh/id_test | cut -c 1-8; stat -c %a ~/.ssh/id_test"
    system.run("build", make_args=shell_words(run)).value()
    assert "600" in system.build_log.read_text().splitlines()
    found = subprocess.run(["grep", "-rlF", key, str(far.engine.data)], capture_output=True, text=True, timeout=120)
    assert found.stdout == ""


def test_large_downloads_on_the_host_cost_nothing(system: System) -> None:
    downloads = system.package / "dl"
    downloads.mkdir()
    with (downloads / "large").open("wb") as file:
        file.truncate(2 << 30)
    system.own()
    conversation = system.run("build", make_args=shell_words(f"ls {PACKAGE} /nerves/dl"), download_dir=downloads)
    conversation.value()
    assert "large" not in system.build_log.read_text()


@pytest.mark.parametrize("uid", [0, 1000])
def test_old_generation_images_build_for_any_uid(far: Far, make_system: MakeSystem, uid: int) -> None:
    system = make_system(uid=uid, image=OLD, platform_version="1.27.0", host=far.host)
    system.run("build").value()
    for path in (system.package / "Config.in", system.build_log, system.artifact):
        assert owner(path) == (uid, uid), path
    assert system.built_by() == uid


def test_read_only_mounts_are_copied(system: System) -> None:
    system.write("patches/0001.patch", "a patch\n", mode=0o600)
    run = "cat /patches/0001.patch /etc/one-file"
    patches = system.root / "patches"
    env = {"NERVES_DOCKER_MOUNTS": f"{patches}:/patches:ro,{patches}/0001.patch:/etc/one-file:ro"}
    system.run("build", make_args=shell_words(run), env=env).value()
    assert "a patch\na patch\n" in system.build_log.read_text()


@pytest.mark.parametrize(("setting", "value"), [("MOUNTS", "..:/patches"), ("SSH", "agent"), ("CCACHE", "/somewhere")])
def test_what_cannot_be_had_elsewhere_is_refused_with_what_to_do_instead(
    system: System, setting: str, value: str
) -> None:
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(system.root / "agent"))
        (system.root / "agent").chmod(0o666)
        with system.helper(SSH_AUTH_SOCK=str(system.root / "agent")) as helper:
            error = helper.request("build", system.args(env={f"NERVES_DOCKER_{setting}": value})).error
    assert error is not None
    assert error["code"] == "bad_request"
    assert "cannot be had on an engine that does not see" in error["message"]
    assert error["hint"]


def test_ccache_is_a_volume_that_all_systems_share(far: Far, system: System) -> None:
    run = "touch ~/.buildroot-ccache/$$(ls ~/.buildroot-ccache | wc -l)"
    for _ in range(2):
        system.run("build", make_args=shell_words(run), env={"NERVES_DOCKER_CCACHE": "true"}).value()
        system.run("clean").value()
    system.run("build", make_args=shell_words("ls ~/.buildroot-ccache"), env={"NERVES_DOCKER_CCACHE": "true"}).value()
    assert "\n0\n1\n" in system.build_log.read_text()
    assert "nerves-docker-port-ccache" in far.volumes("nerves-docker-port")


@pytest.mark.parametrize("workspace", ["copied", "auto"])
def test_a_copy_needs_none_of_the_host_s_files(system: System, workspace: str) -> None:
    system.run("build").value()
    closed = system.package / "closed"
    closed.mkdir(mode=0o700)
    shutil.rmtree(system.root / "platform")
    (system.root / "dl").chmod(0o500)
    env = {
        "NERVES_DOCKER_WORKSPACE": workspace,
        "NERVES_DOCKER_MOUNTS": "../none:/none",
        "NERVES_DOCKER_NETWORK": "none-1",
    }
    with system.helper() as helper:
        args = {**system.args(env=env), Atom("source"): "built", Atom("target"): f"{system.package}/"}
        assert helper.request("copy", args).value()["path"] == f"{system.package}/built"


@pytest.fixture
def small_volume(far: Far, system: System) -> Iterator[Callable[[str], None]]:
    """A function that gives the package's volume this size (tmpfs(5)). The package was built once before."""
    system.run("build").value()
    volume = far.engine.data / "volumes" / f"{system.volume}-package" / "_data"
    far.engine.run_there("cp", "-a", str(volume), "/run/kept")
    far.engine.run_there("mount", "-t", "tmpfs", "-o", "size=1m", "none", str(volume))
    far.engine.run_there("sh", "-c", f"cp -a /run/kept/. {volume}; rm -rf /run/kept")
    yield lambda size: far.engine.run_there("mount", "-o", f"remount,size={size}", str(volume))
    far.engine.run_there("umount", str(volume))


def test_files_that_came_only_in_part_do_not_replace_those_of_the_host(
    far: Far, system: System, small_volume: Callable[[str], None]
) -> None:
    system.write("my_system/notes", "old\n")
    system.run("build").value()
    notes = "".join(f"{number}\n" for number in range(400_000))
    system.write("my_system/notes", notes)
    conversation = system.run("build")
    error = conversation.error
    assert error is not None
    assert error["code"] == "disk_full"
    # No step has run, so nothing was changed that could come back.
    assert conversation.warnings == []
    small_volume("100m")
    conversation = system.run("build", make_args=shell_words(f"tail -n 1 {PACKAGE}/notes"))
    conversation.value()
    assert conversation.warnings == []
    assert (system.package / "notes").read_text() == notes
    assert "399999" in system.build_log.read_text().splitlines()
