"""The build shell at a real terminal, by real Mix: `mix nerves.system.shell`.

Erlang/OTP 27 hands its terminal over; 25, on Debian bookworm, cannot, and Mix says what to type.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest
from integration.elixir import command_in, ensure_elixir
from integration.project import Project, lay_out

from support.images import NEW
from support.port import wait_until
from support.recorder import Recorder
from support.recordings import RECORDINGS, recorded_containers, seen_containers
from support.system import ours
from support.tmux import OUTER, PATIENCE, Tmux, processes_with

PROMPT = r"^ Nerves  project >"
COMPILING = 120.0
"""Seconds for Mix, which may have everything to compile."""


@dataclass(frozen=True)
class WithoutProc(Project):
    """A project whose Mix, and all that Mix starts, finds nothing in /proc. macOS has no /proc at all."""

    def helper(self) -> int:
        """The helper's process."""
        (packaged,) = self.system.glob("_build/*/lib/nerves_docker_port/priv/python")
        (pid,) = processes_with(str(packaged))
        return pid

    def command(self, *task: str) -> list[str]:
        """The command line of a Mix task."""
        mask = ["sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh", "mix", *task]
        if self.elixir is None:
            mask = ["unshare", "--mount", "--propagation=private", *mask]
        return command_in(self.elixir, mask, shared=[self.directory])


@dataclass
class World:
    """A project, the way to the engine that it takes, and what Mix said of the shell without a terminal."""

    project: Project
    recorder: Recorder
    client: docker.DockerClient
    without_terminal: str

    @property
    def volume(self) -> str:
        (path,) = self.project.system.glob(".nerves/artifacts/my_system-portable-0.1.0/.docker_id")
        return f"my_system-{path.read_text()}"

    def containers(self) -> list[str]:
        return ours(self.client, self.volume)


def _world(elixir: str, host: str, client: docker.DockerClient, kind: type[Project] = Project) -> Iterator[World]:
    directory = Path(tempfile.mkdtemp(prefix="ndp-"))
    directory.chmod(0o755)
    with Recorder(directory, host) as recorder:
        project = lay_out(
            directory / "p", host=recorder.host, image=NEW, elixir=ensure_elixir(elixir), TMPDIR=str(directory)
        )
        project = kind(project.directory, project.elixir, project.settings)
        (project.home / ".ssh").mkdir()
        ended = project.mix("nerves.system.shell")
        assert ended.returncode == 1, ended.stdout
        world = World(project, recorder, client, ended.stdout)
        yield world
        for name in world.containers():
            client.containers.get(name).remove(force=True)
        client.volumes.get(world.volume).remove(force=True)

    def is_removed() -> bool:
        shutil.rmtree(directory, ignore_errors=True)
        return not directory.exists()

    # The last Mix, whose window was closed, may still be writing there.
    assert wait_until(is_removed)


@pytest.fixture(scope="module")
def world(host: str, client: docker.DockerClient) -> Iterator[World]:
    """A project and an Elixir that can hand over its terminal."""
    yield from _world("trixie", host, client)


@pytest.fixture(scope="module")
def world_without_proc(host: str, client: docker.DockerClient) -> Iterator[World]:
    """The same without /proc."""
    yield from _world("trixie", host, client, WithoutProc)


@pytest.fixture(scope="module")
def old_world(host: str, client: docker.DockerClient) -> Iterator[World]:
    """A project and an Elixir that cannot."""
    yield from _world("bookworm", host, client)


class MixShell:
    """A terminal in which `mix nerves.system.shell` is typed."""

    def __init__(self, world: World, tmux: Tmux, directory: Path) -> None:
        self.world = world
        self.tmux = tmux
        self._script = directory / "mix"
        self.before = tmux.modes()

    def start(self, pattern: str, *, task: Sequence[str] = ("nerves.system.shell",), **settings: str) -> str:
        """Type it, or another task, and wait for something; the screen then."""
        env = [f"export {name}={shlex.quote(value)}" for name, value in settings.items()]
        command = shlex.join(self.world.project.command(*task))
        self._script.write_text("\n".join([f"cd {self.world.project.system}", *env, f"exec {command}"]))
        self.tmux.enter(f"clear; sh {self._script}; echo left=$?")
        return self.tmux.wait_for(pattern, COMPILING)

    def left(self) -> int:
        """Wait until the terminal is the outer shell's again; Mix's exit status."""
        screen = self.tmux.wait_for(rf"left=\d+\n(?:.*\n)*?{OUTER.strip()}", history=True)
        return int(screen.rpartition("left=")[2].split()[0])

    def helper(self) -> int:
        """The helper's process."""
        (pid,) = processes_with(str(self.tmux.device))
        return pid

    def mix(self) -> int:
        """Mix's process."""
        words = self._words()
        return int(words[words.index("--mix") + 1])

    def spec(self) -> Path:
        """The file that says which shell it is."""
        words = self._words()
        return Path(words[words.index("shell") + 1])

    def _words(self) -> list[str]:
        return Path(f"/proc/{self.helper()}/cmdline").read_text().split("\0")

    def assert_nothing_is_left(self) -> None:
        assert wait_until(lambda: self.world.containers() == [], PATIENCE), self.world.containers()

    def assert_sane_terminal(self, seconds: float = PATIENCE) -> None:
        assert wait_until(lambda: self.tmux.modes() == self.before, seconds), self.tmux.modes()
        assert not self.tmux.alternate()


def _shells(root: Path, make_tmux: Callable[..., Tmux], world: World) -> Iterator[Callable[[], MixShell]]:
    made: list[MixShell] = []

    def make() -> MixShell:
        shell = MixShell(world, make_tmux(env=world.project.env()), root)
        made.append(shell)
        return shell

    yield make
    for shell in made:
        shell.tmux.__exit__(None, None, None)
        shell.assert_nothing_is_left()


@pytest.fixture
def shell(root: Path, make_tmux: Callable[..., Tmux], world: World) -> Iterator[MixShell]:
    """Not yet typed."""
    for make in _shells(root, make_tmux, world):
        yield make()


@pytest.fixture
def old_shell(root: Path, make_tmux: Callable[..., Tmux], old_world: World) -> Iterator[MixShell]:
    """The same with an Elixir that cannot hand over its terminal."""
    for make in _shells(root, make_tmux, old_world):
        yield make()


@pytest.fixture
def shell_without_proc(root: Path, make_tmux: Callable[..., Tmux], world_without_proc: World) -> Iterator[MixShell]:
    """A shell in a world without /proc."""
    for make in _shells(root, make_tmux, world_without_proc):
        yield make()


def test_from_the_first_word_to_the_last(shell: MixShell) -> None:
    screen = shell.start(PROMPT)
    for text in (
        "  Preparing Nerves Shell",
        "Updating build directory.",
        "This will take a while if it is the first time...",
        "Use ctrl+d or exit to leave the container shell",
    ):
        assert text in screen.splitlines()
    assert shell.tmux.title() == "Nerves Shell"
    assert shell.tmux.run("stty size; pwd") == "30 100\n/home/nerves/project"

    assert shell.tmux.interrupt_program() == "130"

    spec = shell.spec()
    assert spec.exists()
    # The platform's menuconfig draws itself anew for a size that the terminal around Mix has got.
    shell.tmux.enter("make menuconfig")
    shell.tmux.wait_for(r"\A Mini Buildroot configuration\n(?:.*\n)+100x30  arrows: move")
    shell.tmux.resize(90, 25)
    shell.tmux.wait_for(r"\A Mini Buildroot configuration\n(?:.*\n)+90x25  arrows: move")
    shell.tmux.press("Space", "s", "q")
    shell.tmux.wait_for(PROMPT)
    assert shell.tmux.run("grep LOUD .config") == "BR2_MINI_LOUD=y"
    shell.tmux.resize(100, 30)

    # The status of the last command is no error of Mix'.
    shell.tmux.enter("exit 3")
    assert shell.left() == 0
    shell.assert_sane_terminal(0)
    assert "** (Mix)" not in shell.tmux.screen(history=True)
    assert shell.world.containers() == []
    assert not spec.parent.exists()


def _run(*words: str) -> tuple[str, ...]:
    return ("nerves_docker_port.run", "--", *words)


def test_one_command_gets_the_terminal(shell: MixShell) -> None:
    system = shell.world.project.system
    shell.start("^tty: yes 30 100$", task=_run("sh", "-c", "test -t 0 && echo tty: yes $(stty size); exit 143"))
    assert shell.left() == 143
    assert "tty: yes 30 100" in (system / "run.log").read_text()
    shell.start("^ready$", task=_run("sh", "-c", "echo ready; exec sleep 1000"))
    shell.tmux.press("C-c")
    assert shell.left() == 130
    shell.assert_sane_terminal()
    shell.start("^trapped$", task=_run("sh", "-c", "trap 'echo trapped; exit 7' INT; kill -INT $$"))
    assert shell.left() == 7
    shell.start(r"^left=127$", task=_run("no-such-program"))
    assert "'no-such-program': No such file or directory" in shell.tmux.screen(history=True)
    shell.start(
        r"\A Mini Buildroot configuration\n(?:.*\n)+100x30  arrows: move",
        task=("nerves_docker_port.make", "menuconfig", "--get", ".config"),
    )
    shell.tmux.resize(90, 25)
    shell.tmux.wait_for(r"\A Mini Buildroot configuration\n(?:.*\n)+90x25  arrows: move")
    shell.tmux.press("Space", "s", "q")
    assert shell.left() == 0
    assert "BR2_MINI_LOUD" in (system / ".config").read_text()
    shell.tmux.resize(100, 30)
    shell.assert_sane_terminal()
    assert "** (Mix)" not in shell.tmux.screen(history=True)
    shell.assert_nothing_is_left()


def test_a_command_at_the_terminal_that_cannot_begin_or_is_ended(shell: MixShell) -> None:
    defconfig = shell.world.project.system / "nerves_defconfig"
    kept = defconfig.read_text()
    defconfig.unlink()
    shell.start(r"^left=\d", task=_run("true"))
    assert shell.left() == 1
    screen = shell.tmux.screen(history=True)
    assert "create-build.sh /nerves/env/my_system/nerves_defconfig" in screen
    assert "ended with exit status 1" in screen
    defconfig.write_text(kept)
    shell.start("^ready$", task=_run("sh", "-c", "echo ready; exec sleep 1000"))
    os.kill(shell.helper(), signal.SIGTERM)
    assert shell.left() == 143
    assert "The command was ended: the helper got SIGTERM." in shell.tmux.screen(history=True)
    shell.assert_sane_terminal()
    shell.assert_nothing_is_left()


def test_an_elixir_that_cannot_give_its_terminal_away_runs_the_command_without(old_shell: MixShell) -> None:
    old_shell.start("^no terminal$", task=_run("sh", "-c", "test -t 1 || echo no terminal; exit 5"))
    assert old_shell.left() == 5
    assert "The command gets no terminal: Mix cannot give its terminal away" in old_shell.tmux.screen(history=True)


def test_the_container_is_as_the_stock_runners(shell: MixShell) -> None:
    (recorded,) = recorded_containers(json.loads((RECORDINGS / "system_shell.json").read_text()))
    before = len(shell.world.recorder.created())
    shell.start(PROMPT, TERM="xterm-256color")
    (created,) = shell.world.recorder.created()[before:]
    project = shell.world.project
    placeholders = {
        shell.world.volume: "<volume>",
        str(project.downloads): "<download_dir>",
        str(project.system): "<package>",
        str(project.platform): "<platform>",
        str(project.home): "<home>",
    }
    (seen,) = seen_containers([created], placeholders, shell.world.client.images.get(NEW).id or "")
    assert created["Tty"] is True
    assert seen.image == recorded.image
    assert seen.workdir == recorded.workdir
    assert sorted(seen.env) == sorted(
        [f"{word.partition('=')[0]}={os.getuid()}" if word in ("UID=0", "GID=0") else word for word in recorded.env]
    )
    # Fault 18: the keys are copied from another place for the build user, and known_hosts is kept.
    moved = [mount.replace("target=/home/nerves/.ssh", "target=/nerves/ssh") for mount in recorded.mounts]
    assert seen.mounts == moved
    # The same script with the same defconfig and build directory, as words of their own.
    bash, option, program, _name, *words = seen.command[seen.command.index("nerves-docker-port-shell") - 3 :]
    assert (bash, option) == ("/bin/bash", "-c")
    assert " ".join(words) in recorded.command[2]
    assert "/nerves/" not in program


def test_a_failing_create_build_is_shown(shell: MixShell) -> None:
    defconfig = shell.world.project.system / "nerves_defconfig"
    hidden = defconfig.with_name("hidden")
    defconfig.rename(hidden)
    try:
        screen = shell.start(PROMPT)
    finally:
        hidden.rename(defconfig)
    assert "ERROR: Can't find /nerves/env/my_system/nerves_defconfig" in screen
    assert "create-build.sh ended with exit status 1" in screen
    shell.tmux.press("C-d")
    assert shell.left() == 0


@pytest.mark.parametrize("inside", ["sleep 1000", "vi nerves.config"])
def test_kill_9_of_the_helper_is_one_error_and_leaves_nothing(shell: MixShell, inside: str) -> None:
    # Its container ends by itself when it has not heard from it for so many seconds.
    shell.start(PROMPT, NERVES_DOCKER_PATIENCE="10")
    shell.tmux.enter(inside)
    if inside.startswith("vi"):
        assert wait_until(shell.tmux.alternate, PATIENCE)
    else:
        shell.tmux.wait_for("sleep 1000$")
    spec = shell.spec()
    os.kill(shell.helper(), signal.SIGKILL)
    shell.assert_nothing_is_left()
    assert wait_until(lambda: not spec.parent.exists())
    assert wait_until(lambda: processes_with(str(shell.tmux.device)) == [])
    shell.assert_sane_terminal()
    shell.tmux.press("Enter")
    assert shell.tmux.run("echo typed").endswith("typed")
    assert shell.tmux.screen(history=True).count("** (Mix)") <= 1


@pytest.mark.parametrize("inside", ["sleep 1000", "vi nerves.config"])
def test_a_closed_window_leaves_nothing(shell: MixShell, inside: str) -> None:
    shell.start(PROMPT)
    shell.tmux.enter(inside)
    helper, mix, spec = shell.helper(), shell.mix(), shell.spec()
    shell.tmux.close()
    shell.assert_nothing_is_left()
    for pid in (helper, mix):
        assert wait_until(lambda pid=pid: not Path(f"/proc/{pid}").exists()), pid
    assert not spec.parent.exists()


@pytest.mark.parametrize("event", ["SIGKILL BEAM", "SIGTERM BEAM", "kill the Elixir caller"])
def test_a_mix_that_dies_leaves_no_container_and_a_volume_to_build_on(shell: MixShell, event: str, root: Path) -> None:
    """The shell's cells of the kill matrix (tests/faults/test_kill_matrix.py) that are Mix's."""
    kill_caller = root / "kill-caller"
    shell.start(PROMPT, STAND_IN_KILL_CALLER=str(kill_caller))
    helper, spec = shell.helper(), shell.spec()
    if event == "kill the Elixir caller":
        kill_caller.touch()
    else:
        os.kill(shell.mix(), signal.SIGKILL if event == "SIGKILL BEAM" else signal.SIGTERM)
    shell.assert_nothing_is_left()
    assert wait_until(lambda: not Path(f"/proc/{helper}").exists())
    assert not spec.parent.exists()
    shell.assert_sane_terminal()
    built = shell.world.project.mix("nerves.artifact")
    assert built.returncode == 0, built.stdout


def test_an_error_of_the_shell_is_shown_once(shell: MixShell) -> None:
    shell.start(PROMPT)
    (name,) = [name for name in shell.world.containers() if name.endswith("-session")]
    shell.world.client.containers.get(name).kill()
    assert shell.left() == 1
    screen = shell.tmux.screen(history=True)
    assert screen.count("** (Mix) Nerves shell exited with status 137") == 1, screen
    assert screen.count("status 137") == 1
    shell.assert_sane_terminal(0)


def test_a_second_shell_and_a_build_are_refused_while_one_is_open(
    shell: MixShell, root: Path, make_tmux: Callable[..., Tmux]
) -> None:
    shell.start(PROMPT)
    for task in ("nerves.system.shell", "nerves.artifact"):
        ended = shell.world.project.mix(task)
        assert ended.returncode == 1
        assert ended.stdout.count("** (Mix)") == 1
        assert re.search(r"\*\* \(Mix\) The build volume my_system-\S+ is in use by the container", ended.stdout)
    assert shell.tmux.run("echo undisturbed") == "undisturbed"


def test_nerves_before_1_14_opens_it_too(shell: MixShell) -> None:
    shell.start(PROMPT, STAND_IN_BEFORE_1_14="1")
    shell.tmux.enter("exit")
    assert shell.left() == 0
    shell.assert_sane_terminal(0)


def _type_what_mix_says(shell: MixShell, screen: str) -> None:
    # The command may be longer than a line, which Mix does not break and the terminal does.
    (command,) = re.findall(r"^    (\S.* shell \S+/spec)$", screen, re.MULTILINE)
    spec = Path(command.split()[-1])
    assert spec.exists()
    shell.tmux.enter(f"clear; {command}; echo left=$?")
    shell.tmux.wait_for(PROMPT)
    assert shell.tmux.run("pwd") == "/home/nerves/project"
    shell.tmux.enter("exit 3")
    assert shell.left() == 0
    assert not spec.parent.exists()


@pytest.mark.parametrize("settings", [{}, {"STAND_IN_BEFORE_1_14": "1"}])
def test_where_the_terminal_cannot_be_handed_over_the_command_is_there_to_type(
    old_shell: MixShell, settings: dict[str, str]
) -> None:
    old_shell.start(r"left=\d", **settings)
    assert old_shell.left() == 1
    screen = old_shell.tmux.screen(history=True)
    assert "** (Mix) The build shell is prepared, but Mix cannot give its terminal away" in screen
    _type_what_mix_says(old_shell, screen)


def test_without_interactive_cmd_the_command_is_there_to_type(shell: MixShell) -> None:
    source = shell.world.project.directory / "nerves_stand_in" / "lib" / "interactive_cmd.ex"
    hidden = source.with_suffix(".hidden")
    source.rename(hidden)
    try:
        shell.start(r"left=\d")
        assert shell.left() == 1
        screen = shell.tmux.screen(history=True)
        assert "that takes Nerves 1.13 or later" in screen
        _type_what_mix_says(shell, screen)
    finally:
        hidden.rename(source)


def test_without_a_terminal_mix_says_so_and_waits_for_nothing(world: World, old_world: World) -> None:
    for said in (world.without_terminal, old_world.without_terminal):
        assert said.count("** (Mix)") == 1
        assert "The build shell is prepared, but Mix has no terminal to open it on." in said
        assert re.search(r"^    \S.* shell \S+/spec$", said, re.MULTILINE)


# --- Without /proc ---------------------------------------------------------------------------------------------


def test_without_proc_a_system_builds_to_an_artifact(world_without_proc: World) -> None:
    project = world_without_proc.project
    ended = project.mix("nerves.artifact")
    assert ended.returncode == 0, ended.stdout
    assert "/proc" not in ended.stdout
    assert "|Docker| Reusing artifact archive from " in ended.stdout
    (artifact,) = project.downloads.glob("my_system-*.tar.gz")
    with tarfile.open(artifact) as archive:
        assert any(name.endswith("nerves-system.tag") for name in archive.getnames())
    assert world_without_proc.containers() == []


def test_without_proc_the_shell_is_as_with_it(shell_without_proc: MixShell) -> None:
    shell = shell_without_proc
    shell.start(PROMPT)
    assert shell.tmux.run("stty size; pwd") == "30 100\n/home/nerves/project"
    # tmux changes the size of the terminal some time after it has been told to.
    for columns, rows in ((90, 25), (100, 30)):
        shell.tmux.resize(columns, rows)
        shell.tmux.run(f"until [ \"$(stty size)\" = '{rows} {columns}' ]; do sleep 0.1; done")
    assert shell.tmux.interrupt_program() == "130"
    shell.tmux.enter("exit 3")
    assert shell.left() == 0
    shell.assert_sane_terminal(0)
    assert shell.world.containers() == []


def test_without_proc_kill_9_of_the_shell_s_helper_leaves_nothing(shell_without_proc: MixShell) -> None:
    shell = shell_without_proc
    shell.start(PROMPT, NERVES_DOCKER_PATIENCE="10")
    shell.tmux.enter("vi nerves.config")
    assert wait_until(shell.tmux.alternate, PATIENCE)
    assert isinstance(shell.world.project, WithoutProc)
    os.kill(shell.world.project.helper(), signal.SIGKILL)
    shell.assert_nothing_is_left()
    shell.assert_sane_terminal()
    shell.tmux.press("Enter")
    assert shell.tmux.run("echo typed").endswith("typed")


def test_without_proc_kill_9_of_a_build_s_helper_is_one_error_and_leaves_nothing(world_without_proc: World) -> None:
    world, project = world_without_proc, world_without_proc.project
    assert isinstance(project, WithoutProc)
    for artifact in [*project.downloads.glob("my_system-*"), *project.artifacts.glob("my_system-*/CHECKSUM")]:
        artifact.unlink()
    log = project.system / "build.log"
    log.unlink(missing_ok=True)
    with subprocess.Popen(
        project.command("nerves.artifact"),
        cwd=project.system,
        env=project.env(NERVES_DOCKER_PATIENCE="10", MINI_MAKE_ARGS="SLEEP=1000"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as mix:
        ready = "Build directory successfully created."
        assert wait_until(lambda: log.exists() and ready in log.read_text(), COMPILING)
        os.kill(project.helper(), signal.SIGKILL)
        said, _ = mix.communicate(timeout=COMPILING)
    assert mix.returncode == 1
    assert said.count("** (Mix)") == 1, said
    assert wait_until(lambda: world.containers() == [], PATIENCE)
    ended = project.mix("nerves.artifact")
    assert ended.returncode == 0, ended.stdout
