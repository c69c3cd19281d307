"""What a person does with an engine, on engines of every kind: the cells of the table in docs/engines.md."""

from __future__ import annotations

import hashlib
import io
import os
import re
import secrets
import signal
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest
from integration.kinds import Kind, RunningEngine
from integration.project import Project, lay_out

from engines.conftest import Cell
from nerves_docker_port.port.wire import Atom
from support.images import NEW
from support.port import Conversation, wait_until
from support.registry import Registry
from support.requests import keyword
from support.system import System, at_work, ours, owner
from support.tmux import ensure_tmux
from terminal.conftest import Shell

PATIENCE = 60
"""Seconds; only ends a hang."""

UNBUILT = {"NERVES_PRECOMPILE": "1", "NERVES_ENV_DISABLED": "1"}
"""With these, Nerves does not build a stale system before Mix runs a task."""

STAGES = ["preflight", "create_build", "make", "make_system", "copy"]

# The limit as the kernel has it, with cgroup 1 and 2.
MEMORY = "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes"


def build(system: System, run: str, **changes: Any) -> Conversation:
    """A build in which make runs a line of shell."""
    return system.run("build", make_args=[f"RUN={run}"], **changes)


@pytest.mark.row("build")
def test_a_build_brings_an_artifact_and_what_it_wrote_is_the_caller_s(system: System, cell: Cell) -> None:
    conversation = system.run("build")
    value = conversation.value()
    assert conversation.finished == STAGES
    assert conversation.log_lines == [
        b">>> create-build nerves_defconfig",
        b">>> hello 1.0 Building",
        b">>> system Packing",
    ]
    assert value["sha256"] == hashlib.sha256(system.artifact.read_bytes()).hexdigest()
    assert (system.package / "Config.in").read_text() == "# Add project-specific packages here\n"
    for path in (system.package / "Config.in", system.build_log, system.artifact):
        assert owner(path) == (system.uid, system.uid), path


@pytest.mark.parametrize("name", ["a,b", 'a"b', "a,ro", "a\nb", "a b:c'$x"])
def test_a_path_with_any_letter_builds(
    make_system: Callable[..., System], running_engine: RunningEngine, name: str
) -> None:
    """Podman cannot mount some of them, so it works on copies."""
    engine = running_engine
    system = make_system(uid=engine.kind.user, variables=engine.variables, package_name=name)
    system.run("build").value()
    assert (system.package / "Config.in").exists()


@pytest.mark.row("archive")
def test_another_helper_packs_what_was_built(system: System, cell: Cell) -> None:
    system.run("build").value()
    conversation = system.run("archive")
    assert conversation.finished == ["preflight", "make_system", "copy"]
    assert conversation.value()["sha256"] == hashlib.sha256(system.artifact.read_bytes()).hexdigest()


@pytest.mark.row("reuse")
def test_archive_right_after_build_reuses_its_artifact(system: System, client: docker.DockerClient, cell: Cell) -> None:
    with system.helper() as helper:
        built = helper.request("build", system.args()).value()
        conversation = helper.request("archive", system.args(), request_id=2)
    assert conversation.value()["sha256"] == built["sha256"]
    assert conversation.finished == ["preflight", "check_tree"]
    assert ours(client, system.volume) == []


@pytest.mark.row("clean")
def test_clean_removes_all_volumes_of_the_system(system: System, client: docker.DockerClient, cell: Cell) -> None:
    system.run("build").value()
    assert system.run("clean").value()["removed"] == [system.volume]
    assert [volume.name for volume in client.volumes.list() if volume.name.startswith(system.volume)] == []


@pytest.mark.row("shell")
def test_a_shell_is_the_caller_s_and_what_was_changed_in_it_comes_back(
    make_shell: Callable[..., Shell], running_engine: RunningEngine, cell: Cell
) -> None:
    ensure_tmux()
    shell = make_shell(uid=running_engine.kind.user, variables=running_engine.variables)
    screen = shell.open()
    assert "no job control" not in screen
    assert shell.tmux.run("stty size") == "30 100"
    shell.tmux.run("cd /nerves/env/my_system && echo BR2_arm=y > nerves_defconfig")
    shell.tmux.enter("exit 3")
    assert shell.left() == 0
    defconfig = shell.system.package / "nerves_defconfig"
    assert defconfig.read_text() == "BR2_arm=y\n"
    assert owner(defconfig) == (shell.system.uid, shell.system.uid)
    assert shell.containers() == []
    shell.assert_sane_terminal()


@pytest.mark.row("run")
def test_a_command_runs_in_the_build_directory_and_its_status_is_that_of_mix(
    directory: Path, running_engine: RunningEngine, cell: Cell
) -> None:
    """Run Mix itself, as the user who may use the engine."""
    project = project_for(running_engine, directory)
    user = running_engine.kind.user
    ended = mix_run(project, user, "--", "sh", "-c", "echo here > kept; echo by $(id -un) in $PWD")
    assert ended.returncode == 0, ended.stdout
    assert "by nerves in /home/nerves/project\n" in ended.stdout
    ended = mix_run(project, user, "--", "cat", "kept")
    assert (ended.returncode, ended.stdout.splitlines()[-1]) == (0, "here")
    ended = mix_run(project, user, "--", "false")
    assert ended.returncode == 1, ended.stdout
    assert "** (" not in ended.stdout


MAKE_FILES = r"""
mkdir -p tree/empty tree/closed
head -c 3000000 /dev/urandom > tree/random
printf x > "$(printf 'tree/two\nlines \377')"
echo "#!/bin/sh" > tree/-program
chmod 750 tree/-program
ln -s ../../outside tree/link
chmod 555 tree/closed
printf file > file
cat tree/random | sha256sum
"""


@pytest.mark.row("run")
def test_after_a_command_a_file_and_a_directory_are_brought_and_what_is_not_there_is_named(
    directory: Path, running_engine: RunningEngine, client: docker.DockerClient, cell: Cell
) -> None:
    """Run Mix itself with `--get`. What it brings belongs to the user."""
    project = project_for(running_engine, directory)
    user = running_engine.kind.user
    ended = mix_run(project, user, "--get", "tree", "--get", "file", "--", "bash", "-c", MAKE_FILES)
    assert ended.returncode == 0, ended.stdout
    tree = project.system / "tree"
    assert hashlib.sha256((tree / "random").read_bytes()).hexdigest() in ended.stdout
    found = {os.fsencode(path.name) for path in tree.iterdir()}
    assert found == {b"empty", b"closed", b"random", b"two\nlines \xff", b"-program", b"link"}
    assert (tree / os.fsdecode(b"two\nlines \xff")).read_text() == "x"
    assert (tree / "link").readlink() == Path("../../outside")
    modes = {name: (tree / name).stat().st_mode & 0o777 for name in ("-program", "closed")}
    assert modes == {"-program": 0o750, "closed": 0o555}
    assert (project.system / "file").read_text() == "file"
    assert {owner(path) for path in (tree, *tree.rglob("*"), project.system / "file")} == {(user, user)}
    before = sorted(project.system.iterdir())
    ended = mix_run(project, user, "--get", "none", "--get", "file", "--", "true")
    assert ended.returncode == 1, ended.stdout
    assert "There is no none in the build directory." in ended.stdout
    assert sorted(project.system.iterdir()) == before
    (id_file,) = project.system.glob(".nerves/artifacts/*/.docker_id")
    volume = f"my_system-{id_file.read_text()}"
    assert client.volumes.get(volume)
    assert at_work(client, volume) == []


def project_for(engine: RunningEngine, directory: Path) -> Project:
    """A Mix project of the user who may use the engine."""
    leads = engine.variables
    # Root's own programs are nobody else's to run.
    path = f"{leads['PATH'].partition(':')[0]}:/usr/bin:/bin" if "PATH" in leads else "/usr/local/bin:/usr/bin:/bin"
    project = lay_out(directory / "p", host=leads["DOCKER_HOST"], image=NEW)
    project = replace(project, settings={**project.settings, **leads, **UNBUILT, "PATH": path})
    user = engine.kind.user
    subprocess.run(["chown", "-R", f"{user}:{user}", project.directory], check=True)
    return project


def mix_run(project: Project, user: int, *words: str) -> subprocess.CompletedProcess[str]:
    """`mix nerves_docker_port.run` with these words, without a terminal."""
    return subprocess.run(
        project.command("nerves_docker_port.run", *words),
        cwd=project.system,
        env=project.env(),
        user=user,
        group=user,
        extra_groups=[],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@pytest.mark.row("doctor")
def test_the_doctor_names_the_engine_and_the_workspace(system: System, kind: Kind, cell: Cell) -> None:
    with system.helper() as helper:
        value = helper.request("doctor", system.args()).value()
    text = str(value["text"])
    assert value["ok"], text
    assert system.host in text
    copied = kind.blind or kind.maps_users
    assert re.search(rf" workspace +{'copied' if copied else 'mounted'}", text), text


@pytest.mark.row("volumes")
def test_volumes_lists_the_system_s_volume_and_prune_spares_it(
    system: System, client: docker.DockerClient, cell: Cell
) -> None:
    system.run("build").value()
    args = {**system.args(), Atom("volumes"): []}
    with system.helper() as helper:
        listed = helper.request("volumes", args).value()
        helper.request("volumes", {**args, Atom("prune"): True, Atom("yes"): True}, request_id=2).value()
    (line,) = [line for line in str(listed["text"]).splitlines() if system.volume in line]
    assert "0.1.0" in line
    assert client.volumes.get(system.volume)


@pytest.mark.row("image build")
def test_an_image_is_built_with_its_steps_as_headlines_and_the_failing_one_is_blamed(
    system: System, client: docker.DockerClient, kind: Kind, cell: Cell
) -> None:
    tag = f"ndp_test/{secrets.token_hex(6)}:1"
    # Not the same as in an earlier run: an engine that was kept would have the step in its cache, without its output.
    content = f"from the context {tag}\n"
    try:
        system.write("my_system/Dockerfile", f"FROM {NEW}\nCOPY tool /tool\nRUN cat /tool; false\n")
        system.write("my_system/tool", content)
        error = _with_image(system, tag).error
        assert error is not None
        assert error["code"] == "image_build_failed"
        assert re.search(r"Step 3(/3)? : RUN cat /tool; false", error["message"]), error
        system.write("my_system/Dockerfile", f"FROM {NEW}\nCOPY tool /tool\nRUN cat /tool; true\n")
        conversation = _with_image(system, tag, make_args=["RUN=cat /tool"])
        conversation.value()
        steps = [line.decode() for line in conversation.log_lines if line.startswith(b">>> Step")]
        # Podman does not say how many of its steps are the person's.
        of = "" if kind.program == "podman" else "/3"
        assert steps == [
            f">>> Step 1{of} : FROM {NEW}",
            f">>> Step 2{of} : COPY tool /tool",
            f">>> Step 3{of} : RUN cat /tool; true",
        ]
        assert system.build_log.read_text().count(content) == 2
    finally:
        if client.images.list(tag):
            client.images.remove(tag, force=True)


def _with_image(system: System, tag: str, **changes: Any) -> Conversation:
    # Without the docker CLI on the PATH, the API is what the image is built through.
    path = f"{system.variables.get('PATH', '').partition(':')[0]}:/usr/sbin:/sbin"
    with system.helper(PATH=path) as helper:
        config = keyword(create_image=Atom("always"))
        return helper.request("build", system.args(image=tag, runner_config=config, **changes))


@pytest.mark.row("pull")
def test_a_missing_image_is_pulled(
    system: System, client: docker.DockerClient, registry: Registry, kind: Kind, cell: Cell
) -> None:
    """It has nothing in it, so the build fails after that."""
    name = f"ndp/{secrets.token_hex(6)}"
    registry.put_image(name, "1", _layer(), str(client.version()["Arch"]))
    tag = f"{kind.loopback}:{registry.port}/{name}:1"
    try:
        conversation = system.run("build", image=tag)
        assert conversation.headlines[0] == "Trying to pull image"
        assert conversation.error is not None
        assert "not in the image" in conversation.error["hint"], conversation.error
        assert client.images.get(tag)
    finally:
        client.images.remove(tag, force=True)


def _layer() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("empty"))
    return packed.getvalue()


WAIT = "printf '\\n>>> waiting\\n'; sleep 1000"


@pytest.mark.row("cancel")
def test_a_cancelled_build_leaves_nothing_running(system: System, client: docker.DockerClient, cell: Cell) -> None:
    with system.helper() as helper:
        helper.start("build", system.args(make_args=[f"RUN={WAIT}"]))
        conversation = helper.follow(until_stage="make")
        assert wait_until(lambda: ">>> waiting" in system.build_log.read_text(), PATIENCE)
        helper.send((Atom("cancel"), 1))
        conversation = helper.follow(conversation)
        assert conversation.error is not None
        assert conversation.error["code"] == "cancelled"
        assert ours(client, system.volume) == []
    system.run("build").value()


@pytest.mark.row("kill")
def test_after_a_killed_helper_the_container_ends_by_itself_and_the_next_build_works(
    system: System, client: docker.DockerClient, cell: Cell
) -> None:
    with system.helper() as helper:
        short = {"NERVES_DOCKER_PATIENCE": "10"}
        helper.start("build", system.args(make_args=[f"RUN={WAIT}"], env=short))
        helper.follow(until_stage="make")
        assert wait_until(lambda: ">>> waiting" in system.build_log.read_text(), PATIENCE)
        helper.signal(signal.SIGKILL)
    assert wait_until(lambda: at_work(client, system.volume) == [], PATIENCE)
    system.run("build").value()


@pytest.mark.row("limits")
def test_limits_hold_or_a_warning_says_that_they_do_not(system: System, cell: Cell) -> None:
    conversation = build(system, MEMORY, env={"NERVES_DOCKER_MEMORY": "512M", "NERVES_DOCKER_CPUS": "1"})
    conversation.value()
    limited = str(512 * 1024**2) in system.build_log.read_text().splitlines()
    told = [warning for warning in conversation.warnings if "does not apply the configured" in warning]
    if limited:
        assert told == []
    else:
        (warning,) = told
        assert "memory" in warning
        assert "cpus" in warning
        cell.text = "It applies no limits here; a warning names the settings."
