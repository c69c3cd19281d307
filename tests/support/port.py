"""A peer for the helper, which starts it as the shim does (on descriptors 3 and 4) and exchanges messages with it."""

from __future__ import annotations

import atexit
import compileall
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from nerves_docker_port.port import wire
from nerves_docker_port.port.wire import Atom, Term

if TYPE_CHECKING:
    from typing_extensions import Self

ROOT = Path(__file__).parent.parent.parent
PYTHON = ROOT / "python"


@lru_cache(maxsize=1)
def packaged_command() -> tuple[str, ...]:
    """Return the command that runs the packaged helper as the shim does, from a copy that every user can read."""
    packaged = ROOT / "elixir_shim" / "priv" / "python"
    assert (packaged / "__main__.py").exists(), "run `make package` first"
    copy = tempfile.mkdtemp(prefix="ndp-helper-")
    atexit.register(shutil.rmtree, copy)
    Path(copy).chmod(0o755)
    shutil.copytree(packaged, Path(copy) / "python", ignore=shutil.ignore_patterns("__pycache__", "nerves_docker_port"))
    # The code of the helper comes from this checkout, because the packaged code may be older.
    shutil.copytree(PYTHON / "nerves_docker_port", Path(copy) / "python" / "nerves_docker_port")
    # Compiled now, as in an installation, because the users who run it cannot write there.
    compileall.compile_dir(copy, quiet=2)
    python = next(path for path in ("/usr/bin/python3", "/usr/local/bin/python3") if Path(path).exists())
    return (python, "-I", "-S", "-X", "utf8", str(Path(copy) / "python"))


@dataclass
class Conversation:
    """The messages that the helper sent for one request."""

    headlines: list[str] = field(default_factory=list)
    log: list[bytes] = field(default_factory=list)
    stages: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    progress: list[dict[str, Any]] = field(default_factory=list)
    status: list[dict[str, Any]] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    ok: dict[str, Any] | None = None
    error: dict[str, Any] | None = None

    @property
    def log_lines(self) -> list[bytes]:
        """The lines of all log events, one by one."""
        return b"\n".join(self.log).split(b"\n") if self.log else []

    @property
    def finished(self) -> list[str]:
        """The names of the stages that succeeded, in order."""
        return [name for name, state in self.stages if state == "finished"]

    def value(self) -> dict[str, Any]:
        """Return the value of a successful outcome. Fails the test if the outcome is an error."""
        assert self.error is None, self.error
        assert self.ok is not None
        return self.ok


class Helper:
    """A running helper. At the end of the ``with`` block the port is closed, and the helper must exit."""

    def __init__(
        self,
        *,
        env: Mapping[str, str] | None = None,
        command: Sequence[str] | None = None,
        user: int | None = None,
        stderr: int | None = None,
    ) -> None:
        to_helper, self.to_helper = os.pipe()
        self.from_helper, from_helper = os.pipe()
        # Numbers from 10 on, so that a copy to descriptor 3 or 4 cannot overwrite a descriptor that is copied later.
        to_helper_high = fcntl.fcntl(to_helper, fcntl.F_DUPFD_CLOEXEC, 10)
        from_helper_high = fcntl.fcntl(from_helper, fcntl.F_DUPFD_CLOEXEC, 10)
        os.close(to_helper)
        os.close(from_helper)
        environment = {**os.environ, "PYTHONPATH": str(PYTHON), **(env or {})}

        words = [*(command or [sys.executable, "-m", "nerves_docker_port"]), "port"]
        # Bash (dash knows only one digit) moves the pipe's ends to 3 and 4, as the Erlang VM does.
        self.process = subprocess.Popen(
            [
                "/bin/bash",
                "-c",
                f'exec 3<&{to_helper_high} 4>&{from_helper_high} {to_helper_high}<&- {from_helper_high}>&-; exec "$@"',
                "sh",
                *words,
            ],
            pass_fds=(to_helper_high, from_helper_high),
            env=environment,
            stdin=subprocess.DEVNULL,
            stderr=stderr,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            start_new_session=True,
        )
        os.close(to_helper_high)
        os.close(from_helper_high)
        self._reader = wire.FrameReader(self.from_helper)
        self.hello = self.receive()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        try:
            self.process.wait(timeout=60)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            os.close(self.from_helper)
            if self.process.stderr is not None:
                self.process.stderr.close()

    def close(self) -> None:
        """Close the pipe to the helper's descriptor 3. The helper reads the end of file, as after the death of Mix."""
        if self.to_helper >= 0:
            os.close(self.to_helper)
            self.to_helper = -1

    def send(self, message: Term) -> None:
        """Send one message."""
        wire.write_frame(self.to_helper, wire.encode(message))

    def receive(self) -> Term:
        """Return the helper's next message, or ``None`` after the helper has closed its descriptor 4."""
        frame = self._reader.read_frame()
        return None if frame is None else wire.decode(frame)

    def start(self, op: str, args: Mapping[Term, Term], *, request_id: int = 1) -> None:
        """Send a request, and do not wait for its outcome."""
        self.send((Atom("request"), request_id, Atom(op), dict(args)))

    def request(
        self, op: str, args: Mapping[Term, Term], *, request_id: int = 1, answers: Sequence[bool] = ()
    ) -> Conversation:
        """Send a request, and collect its messages up to the outcome."""
        self.start(op, args, request_id=request_id)
        return self.follow(answers=answers)

    def follow(
        self,
        conversation: Conversation | None = None,
        *,
        until_stage: str | None = None,
        until: Callable[[Conversation], bool] = lambda _: False,
        answers: Sequence[bool] = (),
    ) -> Conversation:
        """Collect messages up to the outcome, to the start of a stage, or to a status after which ``until`` holds."""
        conversation = conversation or Conversation()
        left = list(answers)
        while True:
            message = self.receive()
            match message:
                case (Atom("event"), _, (Atom("headline"), str() as text)):
                    conversation.headlines.append(text)
                case (Atom("event"), _, (Atom("log"), (str() | bytes()) as lines)):
                    conversation.log.append(lines.encode() if isinstance(lines, str) else lines)
                case (Atom("event"), _, (Atom("stage"), Atom() as stage, Atom("started"))):
                    conversation.stages.append((stage.name, "started"))
                    if stage.name == until_stage:
                        return conversation
                case (Atom("event"), _, (Atom("stage"), Atom() as stage, (Atom("finished"), int()))):
                    conversation.stages.append((stage.name, "finished"))
                case (Atom("event"), _, (Atom("warning"), str() as text)):
                    conversation.warnings.append(text)
                case (Atom("event"), _, (Atom("progress"), dict() as progress)):
                    conversation.progress.append(plain(progress))
                case (Atom("event"), _, (Atom("status"), dict() as status)):
                    conversation.status.append(plain(status))
                    if until(conversation):
                        return conversation
                case (Atom("ask"), _, ref, (Atom("yes_no"), str() as text, _)):
                    conversation.questions.append(text)
                    self.send((Atom("answer"), ref, left.pop(0)))
                case (Atom("done"), _, (Atom("ok"), value)):
                    conversation.ok = plain(value)
                    return conversation
                case (Atom("done"), _, (Atom("error"), value)):
                    conversation.error = plain(value)
                    return conversation
                case _:
                    raise AssertionError(f"the helper said {message!r}")

    def signal(self, number: signal.Signals) -> None:
        """Send the helper a signal."""
        self.process.send_signal(number)

    def wait_until(self, condition: Any, seconds: float = 60) -> bool:
        """Return whether ``condition()`` becomes true within ``seconds``."""
        return wait_until(condition, seconds)


def wait_until(condition: Any, seconds: float = 60) -> bool:
    """Return whether ``condition()`` becomes true within ``seconds``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return bool(condition())


def plain(term: Any) -> Any:
    """Return the term with text in place of atoms, so that a test can compare it easily."""
    if isinstance(term, Atom):
        return term.name
    if isinstance(term, dict):
        return {plain(key): plain(value) for key, value in term.items()}
    if isinstance(term, list):
        return [plain(item) for item in term]
    if isinstance(term, tuple):
        return tuple(plain(item) for item in term)
    return term
