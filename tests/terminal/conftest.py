"""Terminals, and build shells at them by the Python command alone."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from support.port import packaged_command, wait_until
from support.system import System, ours
from support.tmux import OUTER, PATIENCE, Tmux, ensure_tmux, processes_with

PROMPT = r"^ Nerves  project >"


class Shell:
    """A build shell at a terminal, as the person gets it who types the command that Mix names."""

    def __init__(self, tmux: Tmux, system: System, client: docker.DockerClient) -> None:
        self.tmux = tmux
        self.system = system
        self._client = client
        self.spec = ""
        self.before = ""
        self.state_before: dict[str, str] = {}

    def prepare(self, **changes: Any) -> str:
        """What Mix does first; the command that is left to be typed."""
        with self.system.helper(TMPDIR=str(self.system.root)) as helper:
            value = helper.request("shell", self.system.args(**changes)).value()
        assert set(value) == {"spec"}
        self.spec = value["spec"]
        return shlex.join([*self.person(), *packaged_command(), "shell", self.spec])

    def person(self) -> list[str]:
        """What makes the system's user of us."""
        uid = str(self.system.uid)
        become = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
        variables = [f"{name}={value}" for name, value in self.system.variables.items()]
        return [*become, "env", f"HOME={self.system.root / 'home'}", *variables]

    def open(self, prompt: str = PROMPT, **changes: Any) -> str:
        """Open it, and wait for its prompt; the screen then."""
        command = self.prepare(**changes)
        self.look()
        self.tmux.enter(f"clear; {command}; echo left=$?")
        return self.tmux.wait_for(prompt)

    def look(self) -> None:
        """The terminal as it is now is what it is to be afterwards."""
        self.before = self.tmux.modes()
        self.state_before = self.tmux.state()

    def left(self) -> int:
        """Wait until the terminal is the outer shell's again; the command's exit status."""
        screen = self.tmux.wait_for(rf"left=\d+\n(?:.*\n)*?{OUTER.strip()}", history=True)
        return int(screen.rpartition("left=")[2].split()[0])

    def pid(self) -> int:
        """The helper's process."""
        (pid,) = processes_with(self.spec)
        return pid

    def containers(self) -> list[str]:
        """Ours on the volume, running or not."""
        return ours(self._client, self.system.volume)

    def remove(self, name: str) -> None:
        """Remove a container by force."""
        self._client.containers.get(name).remove(force=True)

    def assert_nothing_is_left(self, seconds: float = 2 * PATIENCE) -> None:
        """No container, by itself."""
        assert wait_until(lambda: self.containers() == [], seconds), self.containers()

    def assert_sane_terminal(self, seconds: float = PATIENCE) -> None:
        """The modes are those from before, and so is what programs can change at the screen."""
        assert wait_until(lambda: self.tmux.modes() == self.before, seconds), self.tmux.modes()
        assert wait_until(lambda: self.tmux.state() == self.state_before, seconds), self.tmux.state()

    def assert_spec_is_gone(self) -> None:
        """What said which shell to open is of no more use."""
        assert wait_until(lambda: not Path(self.spec).parent.exists())


@pytest.fixture(scope="session", autouse=True)
def _tmux_is_there() -> None:
    ensure_tmux()


@pytest.fixture
def make_tmux(root: Path) -> Iterator[Callable[..., Tmux]]:
    """Opens windows."""
    made: list[Tmux] = []

    def make(**changes: Any) -> Tmux:
        tmux = Tmux(root, **changes)
        made.append(tmux)
        return tmux

    yield make
    for tmux in made:
        tmux.__exit__(None, None, None)


@pytest.fixture
def make_shell(
    make_system: Callable[..., System], make_tmux: Callable[..., Tmux], client: docker.DockerClient
) -> Iterator[Callable[..., Shell]]:
    """Makes shells, not yet open."""
    made: list[Shell] = []

    def make(**changes: Any) -> Shell:
        shell = Shell(make_tmux(), make_system(**changes), client)
        made.append(shell)
        return shell

    yield make
    for shell in made:
        shell.tmux.__exit__(None, None, None)
        if shell.spec:
            shell.assert_nothing_is_left()


@pytest.fixture
def shell(make_shell: Callable[..., Shell]) -> Shell:
    """A plain user's shell on the new image, not yet open."""
    return make_shell()
