"""What runs on a person's own terminal: prepared through the port, then opened there; and the build shell itself."""

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
    """The person's side."""

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""

    def __call__(self, stream: Stream, resize: Callable[[int, int], None]) -> None:
        """Connect the person with the stream until that ends; ``resize`` tells the engine another size."""


def log_path(request: Request, flow: str) -> Path:
    """Where the log of the flow ``shell`` or ``run`` is."""
    return request.log_dir / "run.log" if flow == "run" else request.cwd / "build.log"


def prepare_for_terminal(
    request: Request, flow: str, environ: Mapping[str, str], reporter: Reporter, cancellation: Cancellation
) -> None:
    """Have everything in order for ``on_terminal``, so that nothing is asked, pulled or refused there."""
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
    """A session for the person at the terminal while the body runs; ``spec`` describes its container.

    Warnings are told when the body has ended: until then the terminal is the program's. Raises ``RunnerError``.
    """
    # What was to be asked about the image was asked by ``prepare_for_terminal``.
    opened = replace(request, settings=replace(request.settings, pull="missing", create_image="never"))
    log = log_path(request, flow)
    with recorded(opened, flow, reporter, log) as recorder, ExitStack() as stack:
        open_log = stack.enter_context(log_opened_on_use(log, recorder))
        prepared = prepare(opened, environ, recorder, cancellation, needs_tree=False, open_log=open_log)
        warnings: list[str] = []
        stack.callback(_tell, recorder, warnings)
        stack.callback(prepared.engine.close)
        prepared, session = open_session(prepared, flow, cancellation, warnings.append, spec=spec)
        stack.callback(session.end)
        yield prepared, session, recorder, open_log


def _tell(reporter: Reporter, warnings: list[str]) -> None:
    for text in warnings:
        reporter.warning(text)


def shell(
    request: Request,
    environ: Mapping[str, str],
    reporter: Reporter,
    cancellation: Cancellation,
    terminal: Terminal,
) -> None:
    """Prepare the build directory, then a shell in it for the person at the terminal, until that person leaves it.

    How the shell ended is the person's business: its status is that of the last command typed. The container's status
    is 0 then; any other says that it did not come to that end, which is an error.
    """

    def spec(workspace: Workspace, token: str) -> Spec:
        return workspace.shell(terminal.size, token)

    with on_terminal(request, "shell", environ, reporter, cancellation, spec) as (prepared, session, recorder, _log):
        recorder.record(*prepared.as_records())
        failure = session.run_on_terminal(terminal, cancellation)
        if failure is not None:
            raise errors.shell_died(failure.status, out_of_memory=failure.out_of_memory)
