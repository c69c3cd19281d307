"""The build shell where the engine works on copies: it feels the same, and what was changed in it comes back."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from support.images import NEW, OLD

if TYPE_CHECKING:
    from terminal.conftest import Shell

COPIED = {"NERVES_DOCKER_WORKSPACE": "copied"}


@pytest.mark.parametrize(("image", "version", "workdir"), [(NEW, "1.34.0", "project"), (OLD, "1.27.1", "build")])
def test_what_the_person_changes_comes_back(
    make_shell: Callable[..., Shell], image: str, version: str, workdir: str
) -> None:
    shell = make_shell(image=image, platform_version=version)
    screen = shell.open(rf"^ Nerves  {workdir} >", env=COPIED)
    assert "no job control" not in screen
    assert shell.tmux.run("stty size") == "30 100"
    shell.tmux.run("cd /nerves/env/my_system && echo BR2_arm=y > nerves_defconfig")
    assert shell.tmux.interrupt_program() == "130"
    shell.tmux.enter("exit 3")
    assert shell.left() == 0
    assert (shell.system.package / "nerves_defconfig").read_text() == "BR2_arm=y\n"
    assert shell.containers() == []
    shell.assert_sane_terminal()


def test_a_file_that_was_changed_on_both_sides_is_named_when_the_terminal_is_the_person_s_again(shell: Shell) -> None:
    shell.open(env=COPIED)
    shell.tmux.run("echo there > /nerves/env/my_system/nerves_defconfig")
    shell.system.write("my_system/nerves_defconfig", "here\n")
    shell.tmux.enter("exit")
    assert shell.left() == 0
    assert (shell.system.package / "nerves_defconfig").read_text() == "here\n"
    assert (shell.system.package / "nerves_defconfig.from-build").read_text() == "there\n"
    screen = shell.tmux.screen(history=True).replace("\n", "")
    assert re.search(r"The one here was kept; the other one is \S+nerves_defconfig\.from-build", screen)


def test_what_a_removed_shell_could_not_bring_the_next_command_brings(shell: Shell) -> None:
    shell.open(env=COPIED)
    shell.tmux.run("echo precious > /nerves/env/my_system/precious")
    for name in shell.containers():
        shell.remove(name)
    shell.left()
    assert not (shell.system.package / "precious").exists()
    shell.system.run("build", env=COPIED).value()
    assert (shell.system.package / "precious").read_text() == "precious\n"
