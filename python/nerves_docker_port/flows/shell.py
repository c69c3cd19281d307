"""A shell in the build directory: prepared through the port, then opened on the person's terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

from nerves_docker_port import errors
from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine.stream import Stream
from nerves_docker_port.flows.job import log_opened_on_use, open_session, prepare
from nerves_docker_port.record.recorder import recorded
from nerves_docker_port.record.reporter import Reporter
from nerves_docker_port.request.request import Request
from nerves_docker_port.volume import lock


class Terminal(Protocol):
    """The person's side of the shell."""

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""

    def __call__(self, stream: Stream, resize: Callable[[int, int], None]) -> None:
        """Connect the person with the stream until that ends; ``resize`` tells the engine another size."""


def prepare_shell(request: Request, environ: Mapping[str, str], reporter: Reporter, cancellation: Cancellation) -> None:
    """Have everything in order for ``shell``, so that nothing is asked, pulled or refused on the bare terminal."""
    log = request.cwd / "build.log"
    with recorded(request, "shell", reporter, log) as recorder, log_opened_on_use(log, recorder) as open_log:
        prepared = prepare(request, environ, recorder, cancellation, needs_tree=False, open_log=open_log)
        with lock.held(prepared.engine, prepared.workspace.volume, "shell", prepared.workspace.image.id):
            pass
        prepared.engine.close()


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
    # What was to be asked about the image was asked when the shell was prepared.
    opened = replace(request, settings=replace(request.settings, pull="missing", create_image="never"))
    log = request.cwd / "build.log"
    with recorded(opened, "shell", reporter, log) as recorder, log_opened_on_use(log, recorder) as open_log:
        prepared = prepare(opened, environ, recorder, cancellation, needs_tree=False, open_log=open_log)
        # The terminal is the shell's until it has ended.
        warnings: list[str] = []
        try:
            prepared, session = open_session(
                prepared,
                "shell",
                cancellation,
                warnings.append,
                spec=lambda workspace, token: workspace.shell(terminal.size, token),
            )
        except BaseException:
            prepared.engine.close()
            raise
        recorder.record(*prepared.as_records())
        try:
            failure = session.run_on_terminal(terminal, cancellation)
        finally:
            session.end()
            prepared.engine.close()
            for text in warnings:
                recorder.warning(text)
        if failure is not None:
            raise errors.shell_died(failure.status, out_of_memory=failure.out_of_memory)
