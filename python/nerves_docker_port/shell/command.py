"""The commands `shell SPEC` and `run SPEC`: open a build shell, or run one command, on this terminal.

Mix has prepared both. This module is responsible for the file SPEC, which says what to open, for signals, and for the
exit status and the error message. The flows are in `flows`. docs/protocol.md ("The shell") is the contract with Mix.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from nerves_docker_port import errors
from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine import endpoint
from nerves_docker_port.port import wire
from nerves_docker_port.port.protocol import Error, Ok
from nerves_docker_port.port.wire import Atom, Term
from nerves_docker_port.printing import printable
from nerves_docker_port.shell.guardian import Guardian
from nerves_docker_port.shell.signals import Signals
from nerves_docker_port.shell.terminal import Conversation, Outer, Terminal
from nerves_docker_port.stages import StageName, Status, Unit

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on

_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)

_DESCRIPTIONS = {
    "shell": "Open a prepared build shell.",
    "run": "Run a prepared command in the build directory.",
}

_DIRECTORY = "nerves-shell-"
_FILE = "spec"


def write_spec(args: Mapping[Term, Term], environ: Mapping[str, str]) -> Path:
    """Write a request's ``args`` and the engine's variables to a file that only this user can read. Return its path.

    With these variables the shell is opened at the engine where it was prepared, even if the environment of the
    terminal names another engine.
    """
    engine: dict[Term, Term] = {name: environ[name] for name in endpoint.VARIABLES if name in environ}
    spec: Term = {Atom("args"): dict(args), Atom("engine"): engine}
    try:
        directory = Path(tempfile.mkdtemp(prefix=_DIRECTORY))
        path = directory / _FILE
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123
            file.write(wire.encode(spec))
    except OSError as error:
        raise errors.not_writable(tempfile.gettempdir(), "The directory", str(error.strerror)) from error
    return path


def read_spec(path: Path) -> tuple[Mapping[Term, Term], dict[str, str]]:
    """Return the arguments and the variables in a file of ``write_spec``. Raises ``RunnerError`` ``:bad_request``."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_uid != os.getuid():
                raise errors.no_spec(str(path), "it belongs to somebody else")
            spec = wire.decode(file.read())
    except FileNotFoundError as error:
        raise errors.no_spec(str(path), "there is no such file (any more)") from error
    except OSError as error:
        raise errors.no_spec(str(path), str(error.strerror)) from error
    except wire.WireError as error:
        raise errors.no_spec(str(path), str(error)) from error
    args, engine = (spec.get(Atom(key)) if isinstance(spec, dict) else None for key in ("args", "engine"))
    if not isinstance(args, dict) or not isinstance(engine, dict):
        raise errors.no_spec(str(path), "it holds something else")
    return args, {str(name): str(value) for name, value in engine.items()}


def remove_spec(path: Path) -> None:
    """Remove the file and its directory. Both may be missing."""
    with suppress(OSError):
        path.unlink()
    if path.parent.name.startswith(_DIRECTORY):
        with suppress(OSError):
            path.parent.rmdir()


def main(arguments: Sequence[str], environ: Mapping[str, str], *, operation: str = "shell") -> int:
    """Run the command ``operation`` (``shell`` or ``run``), and return the exit status of this process.

    For ``shell`` it is 0 if the user has left the shell, whatever the shell's own status was. For ``run`` it is the
    exit status of the user's command. In both cases it is 1 after an error, or 128 and the number of a signal.
    """
    parser = argparse.ArgumentParser(prog=f"nerves_docker_port {operation}", description=_DESCRIPTIONS[operation])
    parser.add_argument("spec", metavar="SPEC", type=Path, help="the file that Mix names")
    parser.add_argument("--mix", type=int, metavar="PID", help=argparse.SUPPRESS)
    parser.add_argument("--terminal", metavar="DEVICE", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    spec: Path = given.spec
    signals = _SignalHandling()
    outer = Outer(given.terminal, given.mix)
    try:
        status = _open(spec, environ, signals, outer, operation)
    except errors.RunnerError as error:
        shown = _with_own_words(error, operation)
        if given.mix is None:
            _print_error(shown)
        elif not outer.is_gone():
            _write_outcome(Error(shown.code.value, shown.message, shown.hint, shown.log), spec)
        return 1 if signals.ending is None else 128 + signals.ending
    if given.mix is not None:
        _write_outcome(Ok({Atom("status"): status}), spec)
    return status


class _SignalHandling:
    """Handles the signals of this process. Some end it, the others only wake the conversation."""

    def __init__(self) -> None:
        self.cancellation = Cancellation()
        self.ending: signal.Signals | None = None
        """The first signal that told this process to end."""
        self._signals = Signals((*_ENDING, signal.SIGWINCH, signal.SIGCONT))

    def start(self, conversation: Conversation) -> None:
        def on_signal(number: signal.Signals) -> None:
            if number not in _ENDING:
                conversation.wake()
                return
            self.ending = self.ending or number
            self.cancellation.cancel(f"the helper got {number.name}")

        self._signals.start(on_signal)


def _open(spec: Path, environ: Mapping[str, str], signals: _SignalHandling, outer: Outer, operation: str) -> int:
    terminal = Terminal()
    args, engine = read_spec(spec)
    kept = {name: value for name, value in environ.items() if name not in endpoint.VARIABLES}
    with Guardian(terminal, lambda: remove_spec(spec)):
        try:
            is_resized = outer.can_resize(terminal.fd)
            conversation = Conversation(terminal, outer, signals.cancellation)
        except OSError as error:
            raise errors.cancelled("the terminal was closed") from error
        # This starts a thread, so it must come after the guardian was forked.
        signals.start(conversation)
        from nerves_docker_port.request import request

        # TERM describes this terminal, which may be another one than that of Mix.
        term: dict[Term, Term] = {"TERM": environ["TERM"]} if environ.get("TERM") else {}
        env = args.get(Atom("env"))
        wanted = request.from_args({**args, Atom("env"): {**(env if isinstance(env, dict) else {}), **term}}, environ)
        with _TerminalReporter(conversation) as reporter:
            if not is_resized:
                reporter.warning(errors.SIZE_NOT_FOLLOWED)
            try:
                with conversation:
                    to = ({**kept, **engine}, reporter, signals.cancellation, conversation)
                    if operation == "run":
                        from nerves_docker_port.flows.run import run_on_terminal
                        from nerves_docker_port.request import commands

                        return run_on_terminal(wanted, commands.command_from_args(args).words, *to)
                    from nerves_docker_port.flows.shell import shell

                    shell(wanted, *to)
                    return 0
            finally:
                # If the shell could not be opened, for example because a build runs, the file is kept, so that the user
                # can try again. If Mix waits for this command, Mix removes the file.
                if conversation.has_begun and (outer.is_gone() or not outer.is_watched):
                    remove_spec(spec)


def _with_own_words(error: errors.RunnerError, operation: str) -> errors.RunnerError:
    """Return the error to show: a cancellation in the words of this command, any other error unchanged."""
    if error.code is errors.Code.CANCELLED:
        reason = error.message.rpartition(": ")[2].rstrip(".")
        return errors.command_ended(reason) if operation == "run" else errors.shell_ended(reason)
    return error


def _print_error(error: errors.RunnerError) -> None:
    text = error.message if error.hint is None else f"{error.message.rstrip()}\n\n{error.hint}"
    # The terminal may be gone.
    with suppress(OSError):
        print(f"\n{printable(text)}", file=sys.stderr)  # noqa: T201


def _write_outcome(outcome: Ok | Error, spec: Path) -> None:
    """Write the outcome to a file beside SPEC, where Mix reads it."""
    with suppress(OSError):
        spec.with_suffix(".outcome").write_bytes(wire.encode(outcome.to_term()))


class _TerminalReporter:
    """A reporter that prints on this terminal. It asks no questions, because Mix has asked them before.

    As soon as the shell has the terminal, the texts are kept and printed at the end of the ``with`` block. Otherwise
    they would be printed into the picture of a full-screen program.
    """

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._waiting: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # The terminal may be gone.
        with suppress(OSError):
            for text in self._waiting:
                print(text, file=sys.stderr)  # noqa: T201

    def headline(self, text: str) -> None:
        self._say(printable(text))

    def log(self, lines: bytes) -> None:
        self._say(printable(lines.decode("utf-8", "replace")))

    def warning(self, text: str) -> None:
        self._say(printable(text))

    def stage_started(self, name: StageName) -> None:
        pass

    def stage_finished(self, name: StageName, milliseconds: int) -> None:
        pass

    def progress(self, what: str, current: int, total: int | None, unit: Unit) -> None:
        pass

    def status(self, status: Status) -> None:
        pass

    def ask(self, _text: str, *, default: bool) -> bool:
        return default

    def _say(self, text: str) -> None:
        if self._conversation.has_begun:
            self._waiting.append(text)
        else:
            print(text, file=sys.stderr)  # noqa: T201
