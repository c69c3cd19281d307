"""A real terminal for tests: one tmux window, into which a test types, and whose screen it reads.

Every wait ends when an expected text appears, or fails after a time limit. Nothing sleeps for a fixed time.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from integration.host import apt_install

if TYPE_CHECKING:
    from typing_extensions import Self

PATIENCE = 60.0
"""The time limit in seconds. What takes one second can take much longer on a busy machine."""

OUTER = "outer> "
"""The prompt of the window's own shell, a plain ``sh`` that does not change the modes of the terminal."""


def ensure_tmux() -> None:
    """Make sure that tmux is installed. Raises ``WorldError`` if it cannot be."""
    apt_install(["tmux"], "the build shell is tested at a real terminal")


class Tmux:
    """A window with a shell in it. It is closed at the end of the ``with`` block."""

    def __init__(
        self, directory: Path, *, columns: int = 100, rows: int = 30, env: Mapping[str, str] | None = None
    ) -> None:
        self._socket = directory / f"tmux-{secrets.token_hex(4)}"
        # When dash runs as root, it ignores PS1 in the environment, but it reads the file that ENV names.
        rc = directory / "outer.rc"
        rc.write_text(f"PS1={shlex.quote(OUTER)}\n")
        # In a file, because the first window would not get the limit from a later command.
        self._configuration = directory / "tmux.conf"
        self._configuration.write_text("set-option -g history-limit 5000\nset-option -g set-titles on\n")
        self._env = {**os.environ, "LC_ALL": "C.UTF-8", "ENV": str(rc), "TERM": "xterm-256color", **(env or {})}
        self._env.pop("TMUX", None)
        self._env.pop("CI", None)
        self._directory = directory
        self._run("new-session", "-d", "-x", str(columns), "-y", str(rows), "exec sh -i")
        self.device = Path(self._run("display-message", "-p", "#{pane_tty}").strip())
        self.wait_for(re.escape(OUTER.strip()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        screen = self.screen(check=False)
        if screen:
            print(f"----- the terminal -----\n{screen}\n------------------------")
        self._run("kill-server", check=False)

    def _run(self, *words: str, check: bool = True, stdin: bytes | None = None) -> str:
        done = subprocess.run(
            ["tmux", "-u", "-f", str(self._configuration), "-S", str(self._socket), *words],
            env=self._env,
            cwd=self._directory,
            input=stdin if stdin is not None else b"",
            capture_output=True,
            timeout=PATIENCE,
        )
        assert not check or done.returncode == 0, f"tmux {words}: {done.stderr.decode()}"
        return done.stdout.decode()

    # --- What a person sees ---

    def screen(self, *, history: bool = False, colours: bool = False, wrapped: bool = False, check: bool = True) -> str:
        """Return the text in the window; with ``history``, also the text that has scrolled out of it.

        With ``wrapped``, a line that the terminal has wrapped is several lines, as a person sees it.
        """
        words = ["capture-pane", "-p", *(["-S", "-"] if history else [])]
        words += ["-e"] if colours else [] if wrapped else ["-J"]
        return "\n".join(line.rstrip() for line in self._run(*words, check=check).splitlines()).rstrip("\n")

    def wait_for(self, pattern: str, seconds: float = PATIENCE, *, history: bool = False, colours: bool = False) -> str:
        """Wait until ``pattern`` (a multi-line regular expression) matches the screen; return the screen."""
        deadline = time.monotonic() + seconds
        while True:
            screen = self.screen(history=history, colours=colours)
            if re.search(pattern, screen, re.MULTILINE):
                return screen
            assert time.monotonic() < deadline, f"not seen: {pattern}\n-----\n{screen}\n-----"
            time.sleep(0.05)

    def title(self) -> str:
        """Return the title of the terminal."""
        return self._run("display-message", "-p", "#{pane_title}").strip()

    def alternate(self) -> bool:
        """Return whether the terminal shows its alternate screen."""
        return self._run("display-message", "-p", "#{alternate_on}").strip() == "1"

    def state(self) -> dict[str, str]:
        """Return what programs can change at the terminal, such as the cursor and the mouse, by tmux's names."""
        names = "alternate_on cursor_flag insert_flag keypad_cursor_flag keypad_flag mouse_any_flag mouse_sgr_flag "
        names += "origin_flag scroll_region_lower scroll_region_upper wrap_flag"
        values = self._run("display-message", "-p", " ".join(f"#{{{name}}}" for name in names.split())).split()
        return dict(zip(names.split(), values, strict=True))

    def modes(self) -> str:
        """Return the modes of the terminal, as ``stty -a`` prints them."""
        return subprocess.run(
            ["stty", "-a", "-F", str(self.device)], capture_output=True, text=True, check=True, timeout=PATIENCE
        ).stdout

    # --- What a person does ---

    def type(self, text: str) -> None:
        """Type ``text``, without Enter."""
        self._run("send-keys", "-l", "--", text)

    def press(self, *keys: str) -> None:
        """Press keys, given by tmux's names for them: ``Enter``, ``C-c``, ``Up``."""
        self._run("send-keys", *keys)

    def interrupt_program(self) -> str:
        """Run a program in the shell, press Ctrl-C, and return the program's exit status as the shell has it."""
        # The program says itself that it runs. The line that was typed is on the screen before the shell has read it.
        self.enter("""sh -c "echo run''ning; exec sleep 1000\"""")
        self.wait_for("^running$")
        self.press("C-c")
        return self.run("echo $?")

    def enter(self, line: str) -> None:
        """Type a line, and press Enter."""
        self.type(line)
        self.press("Enter")

    def run(self, line: str, seconds: float = PATIENCE) -> str:
        """Type a command, wait until it has ended, and return its output, which must be less than a screen."""
        mark = secrets.token_hex(4)
        # The command line contains the mark in two parts, so that only its output matches the whole mark.
        self.enter(f"{line}; echo {mark[:4]}''{mark[4:]}=$?")
        # The pattern does not begin with ^, because tmux joins a line as wide as the window with the next line.
        screen = self.wait_for(rf"{mark}=\d+$", seconds, history=True)
        # Text that is typed before the prompt appears is on the screen twice: the terminal and the shell both echo it.
        return screen.rpartition(f"{mark[4:]}=$?")[2].partition(f"{mark}=")[0].strip("\n")

    def paste(self, text: str) -> None:
        """Paste ``text``, which may be long."""
        file = self._directory / "paste"
        file.write_text(text)
        self._run("load-buffer", str(file))
        self._run("paste-buffer", "-d")

    def resize(self, columns: int, rows: int) -> None:
        """Change the size of the window."""
        self._run("resize-window", "-x", str(columns), "-y", str(rows))

    def record(self) -> Path:
        """Record every byte that is sent to the terminal from now on. Returns the path of the recording."""
        file = self._directory / "recorded"
        file.touch()
        self._run("pipe-pane", "-O", f"cat >> {shlex.quote(str(file))}")
        return file

    def close(self) -> None:
        """Close the window, as a person does with a click."""
        self._run("kill-server")


def processes_with(word: str, *, program: str = "python") -> list[int]:
    """Return the pids of a program's processes with ``word`` among their arguments, without their own forks."""
    found: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            argv = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            status = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if Path(argv[0]).name.startswith(program) and word in argv and status[0] != "Z":
            found[int(entry.name)] = int(status[1])
    return [pid for pid, parent in found.items() if parent not in found]
