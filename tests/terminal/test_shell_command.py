"""The build shell at a real terminal, by the Python command alone: `shell SPEC`."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import docker
import pytest

from support import hostile
from support.images import NEW, NEW_1_28_0, OLD
from support.port import packaged_command, wait_until
from support.recorder import Recorder
from support.requests import keyword
from support.system import System
from support.tmux import OUTER, PATIENCE

if TYPE_CHECKING:
    from terminal.conftest import Shell

PROMPT = r"^ Nerves  project >"


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


def test_it_opens_whatever_the_environment_says_and_the_person_sees_that_environment(shell: Shell) -> None:
    names = ("BASH_FUNC_printf%%", "EXECIGNORE", "FUNCNEST", "LC_ALL", "LD_PRELOAD", "PATH", "TMPDIR", "ndp_state")
    shell.open(runner_config=keyword(env=keyword(**{name: hostile.VARIABLES[name] for name in names})))
    assert shell.tmux.run('echo "$FUNCNEST|$LC_ALL|$PATH|$TMPDIR|$ndp_state|${ndp_with-unset}"').splitlines()[-1] == (
        "1|xx_YY|/usr/sbin:/usr/bin|/nowhere|/nowhere|unset"
    )
    shell.tmux.enter("exit")
    assert shell.left() == 0


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
        _wait_for_size(shell, rows, columns)
        shell.tmux.press("C-l")


def _below_script(shell: Shell, command: str, around: str) -> str:
    """As `InteractiveCmd` runs it below a Mix: a session of its own, with a terminal of its own."""
    command = f"{command} --mix {os.getpid()} --terminal {shell.tmux.device}"
    person = shlex.join(shell.person())
    return f"setsid -w {person} {around.format(shlex.quote(command.removeprefix(person).strip()))}"


def _wait_for_size(shell: Shell, rows: int, columns: int) -> None:
    shell.tmux.enter(f"until [ \"$(stty size)\" = '{rows} {columns}' ]; do sleep 0.1; done; echo seen $((6 * 7))")
    shell.tmux.wait_for(r"^seen 42$")


def test_a_terminal_of_somebody_else_without_a_session_is_one_too(shell: Shell) -> None:
    """As `su -c` leaves it: not the controlling terminal, and its device may not be opened."""
    command = shell.prepare()
    shell.look()
    shell.tmux.enter(f"clear; setsid -w {command}; echo left=$?")
    shell.tmux.wait_for(PROMPT)
    shell.tmux.resize(90, 40)
    _wait_for_size(shell, 40, 90)
    shell.tmux.resize(100, 30)
    shell.tmux.enter("seq 1 100000; exit")
    assert shell.left() == 0
    assert "99999\n100000\n" in shell.tmux.screen(history=True)
    # tmux takes its time for a size.
    shell.assert_sane_terminal()


def test_the_size_of_a_terminal_of_somebody_else_around_ours_is_followed(shell: Shell) -> None:
    command = _below_script(shell, shell.prepare(), "script -q -e -c {} /dev/null")
    shell.look()
    shell.tmux.enter(f"clear; stty raw -echo opost; {command}; stty sane; echo left=$?")
    screen = shell.tmux.wait_for(PROMPT)
    assert "cannot follow" not in screen
    assert shell.tmux.run("stty size") == "30 100"
    shell.tmux.resize(90, 40)
    _wait_for_size(shell, 40, 90)
    shell.tmux.enter("exit")
    assert shell.left() == 0


def test_where_the_size_cannot_be_followed_it_is_said_once(shell: Shell) -> None:
    # Python's own pty.spawn does not pass sizes on.
    spawn = "import pty, sys; sys.exit(pty.spawn(['sh', '-c', sys.argv[1]]) >> 8)"
    command = _below_script(shell, shell.prepare(), f"python3 -c {shlex.quote(spawn)} {{}}")
    shell.tmux.enter(f"clear; {command}; stty sane; echo left=$?")
    shell.tmux.wait_for(PROMPT)
    screen = shell.tmux.screen(history=True)
    assert screen.count("cannot follow the size of this terminal") == 1, screen
    assert "stty rows ROWS cols COLUMNS" in screen
    shell.tmux.enter("stty rows 40 cols 90; stty size; exit")
    shell.tmux.wait_for("^40 90$", history=True)
    assert shell.left() == 0


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
    assert wait_until(lambda: _runs(shell, "sleep 1000"), PATIENCE)
    shell.tmux.press("C-c")
    assert wait_until(lambda: not _runs(shell, "sleep 1000"), PATIENCE)
    assert shell.tmux.run("echo $?").endswith("130")
    shell.tmux.enter("sleep 1001")
    assert wait_until(lambda: _runs(shell, "sleep 1001"), PATIENCE)
    shell.tmux.press("C-z")
    shell.tmux.wait_for(r"^\[1\]\+  Stopped +sleep 1001")
    shell.tmux.enter("fg")
    shell.tmux.wait_for(r"^sleep 1001$")
    shell.tmux.press("C-c")
    assert wait_until(lambda: not _runs(shell, "sleep 1001"), PATIENCE)
    shell.tmux.enter("cat")
    # Ctrl-D that is typed before the terminal is cat's is no end.
    assert wait_until(lambda: _runs(shell, "cat"), PATIENCE)
    shell.tmux.type("C-d next")
    shell.tmux.press("Enter", "C-d")
    assert shell.tmux.run("echo $?").splitlines()[-1] == "0"


def _runs(shell: Shell, command: str) -> bool:
    """Return whether a command line in the container begins with ``command``. session.sh often runs `sleep 1`."""
    (name,) = [name for name in shell.containers() if name.endswith("-session")]
    processes = shell._client.containers.get(name).top()["Processes"]
    return any(words[-1].startswith(command) for words in processes)


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
    # Without echo: a kernel drops what is echoed faster than a busy engine reads it (Linux, n_tty.c: echo_buf).
    shell.tmux.enter("stty -echo; cat > pasted; stty echo; echo got $((6 * 7))")
    assert wait_until(lambda: _runs(shell, "cat"), PATIENCE)
    shell.tmux.paste(text)
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
    # Its container ends by itself when it has not heard from it for so many seconds.
    shell.open(env={"NERVES_DOCKER_PATIENCE": "10"})
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


@pytest.mark.parametrize("pause", [0, 0.0001])
def test_many_signals_at_once_end_it_in_order(shell: Shell, pause: float) -> None:
    """A window that closes sends two of them."""
    shell.open()
    pid = shell.pid()
    for number in (signal.SIGHUP, signal.SIGTERM) * 10:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        # Not a wait for something: how far the handlers have come is what differs.
        time.sleep(pause)
    assert shell.left() in (128 + signal.SIGHUP, 128 + signal.SIGTERM)
    shell.assert_sane_terminal(0)
    assert shell.containers() == []


LEFT_BEHIND = {
    "alternate screen": r"\033[?1049h",
    "half a title": r"\033]0;half",
    "half an image": r"\033Pq#0;2",
    "half a colour": r"\033[38;5",
    "old alternate screen": r"\033[?47h",
    "hidden cursor": r"\033[?25l",
    "mouse": r"\033[?1000h\033[?1002h\033[?1006h",
    "application keys": r"\033[?1h\033=",
    "insert mode": r"\033[4h",
    # It moves the cursor to the top; below is where the outer shell has room.
    "scroll region": r"\033[5;10r\033[25H",
    "origin mode": r"\033[5;10r\033[?6h",
    "no autowrap": r"\033[?7l",
    "line drawing": r"\033(0",
    "shifted out": r"\033)0\016",
    "colours": r"\033[1;7;31m",
    "cursor shape and colour": r"\033[5 q\033]12;red\007",
    "bracketed paste and focus": r"\033[?2004h\033[?1004h",
}


@pytest.mark.parametrize("left_behind", LEFT_BEHIND.values(), ids=LEFT_BEHIND.keys())
def test_what_a_program_left_behind_is_gone_after_a_normal_exit(shell: Shell, left_behind: str) -> None:
    shell.open()
    recorded = shell.tmux.record()
    # In one line, since bash draws a prompt anew, and sets some of it back.
    shell.tmux.enter(f"printf '{left_behind}'; exit")
    assert shell.left() == 0
    shell.assert_sane_terminal(0)
    assert shell.tmux.run("echo lqqk").endswith("lqqk")
    coloured = shell.tmux.screen(colours=True)
    assert re.search(r"^(?:\x1b\[0?m)?lqqk$", coloured, re.MULTILINE), coloured
    # What tmux does not tell.
    for set_it, undone in (
        (b"\x1b[5 q", b"\x1b[0 q"),
        (b"\x1b]12;red", b"\x1b]112\x1b\\"),
        (b"\x1b[?2004h", b"\x1b[?2004l"),
        (b"\x1b[?1004h", b"\x1b[?1004l"),
    ):
        assert recorded.read_bytes().rfind(undone) >= recorded.read_bytes().rfind(set_it)


def test_what_was_set_before_the_shell_stays_set(shell: Shell) -> None:
    shell.tmux.run(r"printf '\033[?1002h\033[?1006h\033[?1h\033='")
    shell.open()
    assert shell.state_before["mouse_any_flag"] == "1"
    shell.tmux.run("true")
    shell.tmux.enter("exit")
    assert shell.left() == 0
    assert shell.tmux.state() == shell.state_before


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
        shell.look()
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
        # The person waits for no longer than the patience.
        shell.open(env={"NERVES_DOCKER_PATIENCE": "10"})
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
        # Typed at once: what no connection has taken goes to the next one.
        assert shell.tmux.run("echo still $((6 * 7))").endswith("still 42")
        screen = shell.tmux.screen()
        assert screen.count("The connection to the build shell was lost and has been made again.") == 1, screen
        shell.tmux.enter("exit")
        assert shell.left() == 0
        shell.assert_sane_terminal(0)


def test_a_full_screen_program_survives_a_lost_connection(
    root: Path, host: str, make_shell: Callable[..., Shell]
) -> None:
    with _Cut(root, host) as way:
        shell = make_shell(host=way.host)
        shell.open()
        shell.tmux.run("seq 1 200 > numbers")
        shell.tmux.enter("vi numbers")
        shell.tmux.wait_for(r"^1\n2\n3$")
        for one in list(way._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        shell.tmux.press("G")
        # Drawn anew as a whole, without what the person was told meanwhile.
        shell.tmux.wait_for(r"\A172\n173\n(?:\d+\n){25}199\n200$")
        shell.tmux.enter(":q")
        shell.tmux.wait_for(r"^ Nerves  project >")
        shell.tmux.enter("exit")
        assert shell.left() == 0
        shell.assert_sane_terminal(0)


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
