"""The flows that run on the user's terminal, which are first prepared through the port; and the build shell itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from nerves_docker_port import errors
from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine.container import Spec
from nerves_docker_port.engine.stream import Stream
from nerves_docker_port.flows.job import Prepared, log_opened_on_use, open_session, prepare
from nerves_docker_port.record.log import BuildLog
from nerves_docker_port.record.recorder import Recorder, recorded
from nerves_docker_port.record.reporter import Reporter
from nerves_docker_port.request.request import Request
from nerves_docker_port.volume import lock
from nerves_docker_port.volume.session import Session
from nerves_docker_port.workspace.mounted import Workspace


class Terminal(Protocol):
    """The user's terminal."""

    @property
    def size(self) -> tuple[int, int]:
        """The rows and columns of the terminal."""

    def __call__(self, stream: Stream, resize: Callable[[int, int], None]) -> None:
        """Connect the terminal with the stream until the stream ends. ``resize`` tells the engine a new size."""


def log_path(request: Request, flow: str) -> Path:
    """Return the path of the log of the flow ``shell`` or ``run``."""
    return request.log_dir / "run.log" if flow == "run" else request.cwd / "build.log"


def prepare_for_terminal(
    request: Request, flow: str, environ: Mapping[str, str], reporter: Reporter, cancellation: Cancellation
) -> None:
    """Prepare everything for ``on_terminal``, so that nothing has to be asked, pulled or refused there."""
    log = log_path(request, flow)
    with recorded(request, flow, reporter, log) as recorder, log_opened_on_use(log, recorder) as open_log:
        prepared = prepare(request, environ, recorder, cancellation, needs_tree=False, open_log=open_log)
        with lock.reserve(prepared.engine, prepared.workspace.volume, flow, prepared.workspace.image.id):
            pass
        prepared.engine.close()


@contextmanager
def on_terminal(
    request: Request,
    flow: str,
    environ: Mapping[str, str],
    reporter: Reporter,
    cancellation: Cancellation,
    spec: Callable[[Workspace, str], Spec],
) -> Iterator[tuple[Prepared, Session, Recorder, Callable[[], BuildLog]]]:
    """Start a session for the user's terminal, and end it after the body. ``spec`` describes its container.

    Warnings are shown after the body, because the program in the container uses the terminal until then.
    Raises ``RunnerError``.
    """
    # ``prepare_for_terminal`` has already asked the user about the image.
    opened = replace(request, settings=replace(request.settings, pull="missing", create_image="never"))
    log = log_path(request, flow)
    with recorded(opened, flow, reporter, log) as recorder, ExitStack() as stack:
        open_log = stack.enter_context(log_opened_on_use(log, recorder))
        prepared = prepare(opened, environ, recorder, cancellation, needs_tree=False, open_log=open_log)
        warnings: list[str] = []
        stack.callback(_show_warnings, recorder, warnings)
        stack.callback(prepared.engine.close)
        prepared, session = open_session(prepared, flow, cancellation, warnings.append, spec=spec)
        stack.callback(session.end)
        yield prepared, session, recorder, open_log


def _show_warnings(reporter: Reporter, warnings: list[str]) -> None:
    for text in warnings:
        reporter.warning(text)


def shell(
    request: Request,
    environ: Mapping[str, str],
    reporter: Reporter,
    cancellation: Cancellation,
    terminal: Terminal,
) -> None:
    """Prepare the build directory and run a shell in it on the user's terminal, until the user leaves the shell.

    The exit status of the shell, which is that of the user's last command, does not matter. The container ends with
    status 0 after the shell. Raises ``RunnerError`` if it ends with another status, because it was ended before.
    """

    def spec(workspace: Workspace, token: str) -> Spec:
        return workspace.shell(terminal.size, token)

    with on_terminal(request, "shell", environ, reporter, cancellation, spec) as (prepared, session, recorder, _log):
        recorder.record(*prepared.as_records())
        failure = session.run_on_terminal(terminal, cancellation)
        if failure is not None:
            raise errors.shell_died(failure.status, out_of_memory=bool(failure.out_of_memory))
