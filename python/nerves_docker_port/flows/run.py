"""Run one command in the build directory, in the container and as the user of a build step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from nerves_docker_port import errors
from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine.container import Spec
from nerves_docker_port.flows.job import Job, failed_step, job_on, log_opened_on_use, open_session, prepare
from nerves_docker_port.flows.shell import Terminal, log_path, on_terminal
from nerves_docker_port.record.recorder import recorded
from nerves_docker_port.record.reporter import Reporter
from nerves_docker_port.request.request import Request
from nerves_docker_port.volume.lock import session_name
from nerves_docker_port.volume.session import KILLED, Failure
from nerves_docker_port.volume.steps import Step
from nerves_docker_port.workspace.mounted import Workspace


def run(
    request: Request,
    words: Sequence[str],
    environ: Mapping[str, str],
    reporter: Reporter,
    cancellation: Cancellation,
    show: Callable[[bytes], None],
) -> int:
    """Run the command ``words`` without a terminal. Return its exit status. ``show`` gets everything that it writes.

    Raises ``RunnerError`` if the build directory cannot be prepared, or if the command did not end by itself.
    """
    log = log_path(request, "run")
    with recorded(request, "run", reporter, log) as recorder, ExitStack() as stack:
        open_log = stack.enter_context(log_opened_on_use(log, recorder))
        prepared = prepare(request, environ, recorder, cancellation, needs_tree=False, open_log=open_log)
        stack.callback(prepared.engine.close)
        first = [prepared.workspace.create_build]
        prepared, session = open_session(prepared, "run", cancellation, recorder.warning, steps=first)
        stack.callback(session.end)
        job = stack.enter_context(job_on(prepared, session, open_log(), recorder, cancellation))
        job.run(first)

        def on_output(data: bytes) -> None:
            job.log.keep(data)
            show(data)

        # The command runs separately, so that `show` gets none of the output of create-build.sh.
        return _status(job, job.attempt([Step("run", words)], on_output))


def run_on_terminal(
    request: Request,
    words: Sequence[str],
    environ: Mapping[str, str],
    reporter: Reporter,
    cancellation: Cancellation,
    terminal: Terminal,
) -> int:
    """Run the command ``words`` on the user's terminal. Return its exit status.

    The log gets everything that the terminal shows. Raises the errors of ``run``.
    """

    def spec(workspace: Workspace, token: str) -> Spec:
        return workspace.command(words, terminal.size, token)

    with (
        on_terminal(request, "run", environ, reporter, cancellation, spec) as (prepared, session, recorder, open_log),
        job_on(prepared, session, open_log(), recorder, cancellation, brings_back=False) as job,
    ):
        failure = session.run_on_terminal(terminal, cancellation, job.log.keep, steps=2)
        if failure is not None and failure.step == 0:
            raise failed_step(job, prepared.workspace.create_build, failure)
        return _status(job, failure)


def _status(job: Job, failure: Failure | None) -> int:
    """Return the command's exit status. Raises ``RunnerError`` if somebody killed or removed the container."""
    if failure is None:
        return 0
    if failure.by_somebody:
        raise errors.container_gone(session_name(job.workspace.volume))
    if failure.out_of_memory:
        job.reporter.warning(errors.COMMAND_OUT_OF_MEMORY)
    elif failure.out_of_memory is None and failure.status == KILLED:
        job.reporter.warning(errors.COMMAND_KILLED)
    return failure.status
