"""The build shell at a real terminal, by the Python command alone: `shell SPEC`."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import docker
import pytest

from support.images import NEW, NEW_1_28_0, OLD
from support.port import packaged_command, wait_until
from support.recorder import Recorder
from support.system import System
from support.tmux import OUTER, PATIENCE

if TYPE_CHECKING:
    from terminal.conftest import Shell


def test_the_person_sees_the_texts_the_prompt_and_the_title(shell: Shell) -> None:
    shell.open()
    screen = shell.tmux.screen(history=True)
    texts = [
        "  Preparing Nerves Shell",
        "Updating build directory.",
        "This will take a while if it is the first time...",
        "Use ctrl+d or exit to leave the container shell",
        " Nerves  project >",
    ]
    lines = screen.splitlines()
    places = [lines.index(text) for text in texts]
    assert places == sorted(places)
    # create-build.sh went well: what it said is of no interest.
    assert "create-build" not in screen
    assert shell.tmux.title() == "Nerves Shell"
    coloured = shell.tmux.screen(colours=True)
    assert re.search(r"\x1b\[(?:0;)?1;7m Nerves ", coloured), coloured
    assert re.search(r"\x1b\[33mctrl\+d\x1b\[", coloured), coloured
    shell.tmux.enter("echo 'one")
    shell.tmux.wait_for(r"^ Nerves  project \.\.")


def test_it_is_in_the_build_directory_as_the_caller(shell: Shell) -> None:
    shell.open()
    assert shell.tmux.run("pwd; id -u; ls") == "/home/nerves/project\n1000\nMakefile"
    assert shell.tmux.run("cat /nerves/env/my_system/nerves_defconfig") == "BR2_x86_64=y"
    shell.tmux.run("cd /nerves/env/my_system && echo BR2_arm=y > nerves_defconfig")
    assert (shell.system.package / "nerves_defconfig").read_text() == "BR2_arm=y\n"
    shell.tmux.wait_for(r"^ Nerves  my_system > $|^ Nerves  my_system >$")


@pytest.mark.parametrize("uid", [0, 1005, 4242])
@pytest.mark.parametrize("image", [NEW, NEW_1_28_0, OLD])
def test_any_uid_has_prompts_and_job_control_on_any_image(
    make_shell: Callable[..., Shell], uid: int, image: str
) -> None:
    versions = {NEW: "1.34.0", NEW_1_28_0: "1.28.0", OLD: "1.27.1"}
    shell = make_shell(uid=uid, image=image, platform_version=versions[image])
    workdir = "build" if image == OLD else "project"
    screen = shell.open(rf"^ Nerves  {workdir} >")
    assert "no job control" not in screen
    assert shell.tmux.run("id -u; stat -c %u Makefile") == f"{uid}\n{uid}"
    # A terminal that is ours, and a shell that has one.
    assert shell.tmux.run("tty; test -w $(tty) && echo ours") == "/dev/pts/0\nours"
    shell.tmux.enter("exit")
    assert shell.left() == 0
    assert shell.containers() == []


def test_the_size_is_right_from_the_start_and_after_each_resize(shell: Shell) -> None:
    shell.system.write("my_system/in_create_build.sh", "stty size > /nerves/env/my_system/first < /dev/tty\n")
    shell.open()
    assert (shell.system.package / "first").read_text() == "30 100\n"
    assert shell.tmux.run("stty size") == "30 100"
    for columns, rows in ((90, 40), (120, 24)):
        shell.tmux.resize(columns, rows)
        shell.tmux.enter(f"until [ \"$(stty size)\" = '{rows} {columns}' ]; do sleep 0.1; done; echo seen $((6 * 7))")
        shell.tmux.wait_for(r"^seen 42$")
        shell.tmux.press("C-l")


def test_a_full_screen_program_is_drawn_right(shell: Shell) -> None:
    shell.open()
    shell.tmux.run("seq 1 200 > numbers; export TERM=xterm")
    shell.tmux.enter("vi numbers")
    lines = shell.tmux.wait_for(r"^1\n2\n3$").splitlines()
    assert lines[:29] == [str(number) for number in range(1, 30)]
    # As many rows as the window has: the last one is vi's own.
    assert "numbers" in lines[29]
    shell.tmux.resize(80, 20)
    shell.tmux.press("G")
    shell.tmux.wait_for(r"\A182\n183\n(?:\d+\n){15}199\n200$")
    shell.tmux.type("ggOnew")
    shell.tmux.press("Escape")
    shell.tmux.wait_for(r"\Anew\n1\n2\n")
    shell.tmux.enter(":wq")
    shell.tmux.wait_for(r"^ Nerves  project >")
    assert shell.tmux.run("head -2 numbers") == "new\n1"
    assert not shell.tmux.alternate()


def test_ctrl_c_and_ctrl_z_are_for_the_program_inside(shell: Shell) -> None:
    shell.open()
    shell.tmux.enter("sleep 1000")
    assert wait_until(lambda: _runs(shell, "sleep"), PATIENCE)
    shell.tmux.press("C-c")
    assert wait_until(lambda: not _runs(shell, "sleep"), PATIENCE)
    assert shell.tmux.run("echo $?").endswith("130")
    shell.tmux.enter("sleep 1001")
    assert wait_until(lambda: _runs(shell, "sleep"), PATIENCE)
    shell.tmux.press("C-z")
    shell.tmux.wait_for(r"^\[1\]\+  Stopped +sleep 1001")
    shell.tmux.enter("fg")
    shell.tmux.wait_for(r"^sleep 1001$")
    shell.tmux.press("C-c")
    assert wait_until(lambda: not _runs(shell, "sleep"), PATIENCE)
    shell.tmux.enter("cat")
    shell.tmux.type("C-d next")
    shell.tmux.press("Enter", "C-d")
    assert shell.tmux.run("echo $?").splitlines()[-1] == "0"


def _runs(shell: Shell, program: str) -> bool:
    (name,) = [name for name in shell.containers() if name.endswith("-session")]
    processes = shell._client.containers.get(name).top()["Processes"]
    return any(words[-1].startswith(program) for words in processes)


@pytest.mark.parametrize("leave", [["exit 3", "Enter"], ["C-d"], ["false", "Enter", "C-d"], ["kill -9 $$", "Enter"]])
def test_leaving_is_no_error_however_the_last_command_ended(shell: Shell, leave: list[str]) -> None:
    shell.open()
    for keys in leave:
        (shell.tmux.press if keys in ("Enter", "C-d") else shell.tmux.type)(keys)
    assert shell.left() == 0
    shell.assert_sane_terminal(0)
    assert shell.containers() == []
    shell.assert_spec_is_gone()
    assert "Nerves shell" not in shell.tmux.screen()


def test_a_create_build_that_fails_is_shown_and_the_shell_opens(shell: Shell) -> None:
    shell.system.write("my_system/in_create_build.sh", 'echo "patch 0001 does not apply"\necho "and why" >&2\nexit 7\n')
    screen = shell.open()
    assert "patch 0001 does not apply" in screen
    assert "and why" in screen
    assert "create-build.sh ended with exit status 7" in screen
    assert "Use ctrl+d or exit to leave the container shell" in screen
    assert shell.tmux.run("pwd") == "/home/nerves/project"
    shell.tmux.enter("exit")
    assert shell.left() == 0


def test_ctrl_c_during_create_build_leads_to_the_shell(shell: Shell) -> None:
    shell.system.write("my_system/in_create_build.sh", "echo begun >&2; sleep 1000\n")
    shell.open(r"^begun$")
    shell.tmux.press("C-c")
    shell.tmux.wait_for(r"^create-build.sh ended with exit status 130$")
    shell.tmux.wait_for(r"^ Nerves  project >")


def test_a_paste_of_100_kb_arrives_whole(shell: Shell) -> None:
    text = "".join(f"{number:06} äöü € \t {'x' * (number % 50)}\n" for number in range(2300))
    assert len(text.encode()) > 100_000
    shell.open()
    shell.tmux.enter("cat > pasted; echo got $((6 * 7))")
    assert wait_until(lambda: _runs(shell, "cat"), PATIENCE)
    shell.tmux.paste(text)
    shell.tmux.wait_for(r"^002299 ")
    shell.tmux.press("C-d")
    shell.tmux.wait_for(r"^got 42$")
    assert shell.tmux.run("md5sum < pasted") == f"{hashlib.md5(text.encode()).hexdigest()}  -"


def test_long_output_arrives_whole(shell: Shell) -> None:
    shell.open()
    recorded = shell.tmux.record()
    shell.tmux.enter("echo ==; seq 1 100000; echo ==$((6 * 7))")
    assert wait_until(lambda: b"==42" in recorded.read_bytes(), PATIENCE)
    output = recorded.read_bytes().partition(b"==\r\n")[2].partition(b"==42")[0]
    assert output == b"".join(b"%d\r\n" % number for number in range(1, 100_001))


def test_utf8_passes_both_ways(shell: Shell) -> None:
    shell.open()
    assert shell.tmux.run("echo 'naïve 日本 🎉' | tee word; wc -c < word").splitlines()[:2] == ["naïve 日本 🎉", "19"]


@pytest.mark.parametrize("inside", ["sleep 1000", "vi Makefile"])
def test_kill_9_leaves_no_container_and_a_sane_terminal(shell: Shell, inside: str) -> None:
    shell.open()
    shell.tmux.enter(inside)
    assert wait_until(lambda: _runs(shell, inside.split(maxsplit=1)[0]), PATIENCE)
    if inside.startswith("vi"):
        assert wait_until(shell.tmux.alternate, PATIENCE)
    os.kill(shell.pid(), signal.SIGKILL)
    shell.assert_nothing_is_left()
    shell.assert_spec_is_gone()
    shell.assert_sane_terminal()
    # What the outer shell said meanwhile may have gone with vi's screen.
    shell.tmux.press("Enter")
    assert shell.tmux.run("echo typed").endswith("typed")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_it_in_order(shell: Shell, number: signal.Signals) -> None:
    shell.open()
    shell.tmux.enter("vi Makefile")
    assert wait_until(shell.tmux.alternate, PATIENCE)
    os.kill(shell.pid(), number)
    assert shell.left() == 128 + number
    shell.assert_sane_terminal(0)
    assert shell.containers() == []
    assert f"The Nerves shell was ended: the helper got {number.name}." in shell.tmux.screen(history=True)


@pytest.mark.parametrize("inside", ["", "vi Makefile", "trap '' HUP; sleep 1000"])
def test_a_closed_window_leaves_no_container(shell: Shell, inside: str) -> None:
    shell.open()
    if inside:
        shell.tmux.enter(inside)
        assert wait_until(lambda: _runs(shell, inside.rpartition(";")[2].split()[0]), PATIENCE)
    pid = shell.pid()
    shell.tmux.close()
    shell.assert_nothing_is_left()
    shell.assert_spec_is_gone()
    assert wait_until(lambda: not Path(f"/proc/{pid}").exists())


def test_stopped_and_continued_it_is_raw_again(shell: Shell) -> None:
    shell.open()
    raw = shell.tmux.modes()
    os.kill(shell.pid(), signal.SIGSTOP)
    shell.tmux.wait_for(r"Stopped \(signal\)")
    subprocess.run(["stty", "-F", str(shell.tmux.device), "sane"], check=True)
    shell.tmux.enter("fg")
    assert wait_until(lambda: shell.tmux.modes() == raw)
    assert shell.tmux.run("echo still $((6 * 7))") == "still 42"


def test_nobody_else_builds_while_the_shell_is_open(shell: Shell) -> None:
    shell.open()
    (name,) = [name for name in shell.containers() if name.endswith("-session")]
    for op in ("build", "shell", "clean"):
        error = shell.system.run(op).error
        assert error is not None
        assert error["code"] == "volume_busy"
        assert name in error["message"]
    assert shell.tmux.run("echo undisturbed") == "undisturbed"


def test_the_shell_does_not_open_while_a_build_runs(shell: Shell) -> None:
    command = shell.prepare()
    with shell.system.helper() as helper:
        helper.start("build", shell.system.args(make_args=["RUN=sleep 1000"]))
        helper.follow(until_stage="make")
        shell.before = shell.tmux.modes()
        shell.tmux.enter(f"{command}; echo left=$?")
        assert shell.left() == 1
        screen = shell.tmux.screen()
        assert re.search(r"The build volume my_system-\S+ is in use by the container\s", screen), screen
        assert "docker stop" in screen
        # It can be tried again.
        assert Path(shell.spec).exists()
        shell.assert_sane_terminal(0)


def test_a_container_that_is_ended_from_outside_is_an_error(shell: Shell, client: docker.DockerClient) -> None:
    shell.open()
    (name,) = [name for name in shell.containers() if name.endswith("-session")]
    client.containers.get(name).kill()
    assert shell.left() == 1
    assert "Nerves shell exited with status 137" in shell.tmux.screen()
    shell.assert_sane_terminal(0)
    assert shell.containers() == []


class _Cut(Recorder):
    """A way to the engine that can be cut."""

    def cut(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _connection(self, client: socket.socket, engine: socket.socket) -> None:
        self._sockets = [*getattr(self, "_sockets", []), client, engine]
        super()._connection(client, engine)


def test_an_engine_that_goes_away_is_one_clear_error(
    root: Path, host: str, make_shell: Callable[..., Shell], client: docker.DockerClient
) -> None:
    with _Cut(root, host) as way:
        shell = make_shell(host=way.host)
        shell.open()
        way.cut()
        assert shell.left() == 1
        screen = shell.tmux.screen()
        assert screen.count("stopped answering") == 1, screen
        assert "Traceback" not in screen
        shell.assert_sane_terminal(0)
    # What is left at the engine, which is there after all, goes with the system.
    shell.spec = ""


def test_a_connection_that_is_lost_alone_is_made_again(root: Path, host: str, make_shell: Callable[..., Shell]) -> None:
    with _Cut(root, host) as way:
        shell = make_shell(host=way.host)
        shell.open()
        for one in list(way._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        assert shell.tmux.run("echo still $((6 * 7))").endswith("still 42")
        shell.tmux.enter("exit")
        assert shell.left() == 0


@pytest.mark.parametrize("redirected", ["< /dev/null", "| cat", "> /dev/null"])
def test_without_a_terminal_it_says_so_at_once(shell: Shell, redirected: str) -> None:
    command = shell.prepare()
    done = subprocess.run(
        ["sh", "-c", f"{command} {redirected}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        start_new_session=True,
    )
    assert "The build shell needs a terminal" in done.stderr
    assert done.returncode == (0 if "|" in redirected else 1)
    assert shell.containers() == []


def test_a_spec_that_is_no_use_is_one_clear_error(shell: Shell, root: Path) -> None:
    shell.prepare()
    (root / "text").write_text("text")
    (root / "text").chmod(0o644)
    for path, words in ((root / "none", "there is no such file"), (root / "text", "it belongs to somebody else")):
        command = " ".join([*shell.person(), *packaged_command(), "shell", str(path)])
        shell.tmux.enter(f"clear; {command}; echo left=$?")
        assert shell.left() == 1
        screen = shell.tmux.screen().replace("\n", " ")
        assert words in screen
        assert "Run `mix nerves.system.shell` again" in screen
        shell.tmux.enter("clear")
        shell.tmux.wait_for(rf"\A{OUTER.strip()}\Z")


def test_the_spec_is_private_and_holds_no_environment(system: System) -> None:
    with system.helper(TMPDIR=str(system.root), SECRET_TOKEN="s3cret", DOCKER_AUTH_CONFIG="also s3cret") as helper:
        spec = Path(helper.request("shell", system.args()).value()["spec"])
    assert spec.stat().st_mode & 0o777 == 0o600
    assert spec.parent.stat().st_mode & 0o777 == 0o700
    assert spec.stat().st_uid == system.uid
    assert b"s3cret" not in spec.read_bytes()
    assert system.host.encode() in spec.read_bytes()
    spec.unlink()
    spec.parent.rmdir()


def test_terminals_of_all_kinds_of_container_keep_bytes_that_come_with_the_headers(shell: Shell) -> None:
    # The title comes first of all, and it comes at once.
    for _ in range(5):
        shell.open()
        assert shell.tmux.title() == "Nerves Shell"
        shell.tmux.enter("printf '\\033]0;other\\007'; exit")
        assert shell.left() == 0
        shell.tmux.enter("clear")
        shell.tmux.wait_for(rf"\A{OUTER.strip()}\Z")
