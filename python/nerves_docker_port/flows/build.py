"""Build the system and pack it: the flows ``build`` and ``archive``, and the session that ``archive`` takes over."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from nerves_docker_port import errors
from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine import resources
from nerves_docker_port.flows import compile_cache
from nerves_docker_port.flows.job import Job, Prepared, failed_step, job_on, log_opened_on_use, open_session, prepare
from nerves_docker_port.flows.place import check_artifact
from nerves_docker_port.record import journal
from nerves_docker_port.record.recorder import Recorder, recorded
from nerves_docker_port.record.reporter import Reporter, stage
from nerves_docker_port.request.request import Request
from nerves_docker_port.volume.session import Session
from nerves_docker_port.volume.steps import Step
from nerves_docker_port.workspace import cache
from nerves_docker_port.workspace.mounted import Workspace, bash

if TYPE_CHECKING:
    from nerves_docker_port.flows.artifact import Artifact


_NOT_COPIED = {
    65: "{} became shorter while it was copied",
    66: "there is no {} in the build directory",
}
"""The reasons why an archive was not copied, by the exit status of scripts/copy.sh."""


@dataclass(frozen=True)
class ParkedBuild:
    """A session that has just built and packed a system, and waits for the request for the archive.

    It has released the volume, so another session can take it. The archive is packed again unless such a session can
    show that nothing has changed.
    """

    prepared: Prepared
    session: Session
    artifact: Artifact
    packed_at: datetime

    def fits(self, request: Request) -> bool:
        """Return whether a session for ``request`` would be made in the same way as this one."""
        # Nerves passes `make_args` only to a build.
        return replace(request, make_args=()) == replace(self.prepared.request, make_args=())

    def is_of_use(self, request: Request) -> bool:
        """Return whether the session can check for ``request`` that packing again would give the same artifact."""
        return self.fits(request) and self.prepared.workspace.is_current() and self.session.is_undisturbed()

    def end(self) -> None:
        """End the session and close the connections to the engine."""
        self.session.end()
        self.prepared.engine.close()


def build(
    request: Request, environ: Mapping[str, str], reporter: Reporter, cancellation: Cancellation
) -> tuple[Artifact, ParkedBuild | None]:
    """Build the system and copy its archive to the download directory.

    Return the artifact, and the session if it could be parked. Raises ``RunnerError``.
    """
    log = request.log_dir / "build.log"
    with recorded(request, "build", reporter, log) as recorder, ExitStack() as stack:
        check_artifact(request.names.download_path)
        open_log = stack.enter_context(log_opened_on_use(log, recorder))
        prepared = prepare(request, environ, recorder, cancellation, needs_tree=False, open_log=open_log)
        workspace = prepared.workspace
        steps = [
            workspace.create_build,
            Step("make", ["make", *request.make_args]),
            *compile_cache.counting_steps(request.settings),
            *_packing(workspace),
        ]
        check = _check(workspace)
        prepared, session = open_session(
            prepared, "build", cancellation, recorder.warning, steps=steps, final=check, then=_handing_over
        )
        life = stack.enter_context(ExitStack())
        life.callback(session.end)
        with job_on(prepared, session, open_log(), recorder, cancellation) as job:
            for text in resources.advice(prepared.engine.capabilities, request.settings, request.names.download_dir):
                recorder.warning(text)
            cache.check(request, recorder.warning)
            recorder.headline("Starting Build... (this may take a while)")
            with compile_cache.report_use(job):
                job.run(steps)
            artifact = _copy(job)
        if not session.park():
            return artifact, None
        life.pop_all()
        return artifact, ParkedBuild(prepared, session, artifact, datetime.now(timezone.utc))


def archive(
    request: Request,
    environ: Mapping[str, str],
    reporter: Reporter,
    cancellation: Cancellation,
    parked: ParkedBuild | None = None,
) -> Artifact:
    """Pack the system that was built and copy the archive to the download directory.

    ``parked`` is the session of the last build, if there is one. It is ended here. If nothing has changed since that
    session packed the system, its artifact is returned again. Raises ``RunnerError``.
    """
    with recorded(request, "archive", reporter, request.log_dir / "archive.log") as recorder:
        check_artifact(request.names.download_path)
        return _archive(request, environ, recorder, cancellation, parked)


def _archive(
    request: Request,
    environ: Mapping[str, str],
    recorder: Recorder,
    cancellation: Cancellation,
    parked: ParkedBuild | None,
) -> Artifact:
    with ExitStack() as stack:
        open_log = stack.enter_context(log_opened_on_use(request.log_dir / "archive.log", recorder))
        if parked is not None:
            stack.callback(parked.end)
            if parked.is_of_use(request):
                with stage(recorder, "preflight"):
                    cancellation.check()
                job = stack.enter_context(job_on(parked.prepared, parked.session, open_log(), recorder, cancellation))
                artifact = _reuse(job, parked)
                if artifact is not None:
                    return artifact
                if parked.session.unpark():
                    return _pack_and_copy(job)
            stack.close()
            return _archive(request, environ, recorder, cancellation, None)
        prepared = prepare(request, environ, recorder, cancellation, needs_tree=True, open_log=open_log)
        packing = _packing(prepared.workspace)
        prepared, session = open_session(
            prepared, "archive", cancellation, recorder.warning, steps=packing, then=_handing_over
        )
        stack.callback(session.end)
        job = stack.enter_context(job_on(prepared, session, open_log(), recorder, cancellation))
        return _pack_and_copy(job)


def _packing(workspace: Workspace) -> list[Step]:
    """Return the steps that pack the system in the build directory."""
    note = [*_inputs("note"), *workspace.input_dirs]
    make_system = ["make", "system", f"NERVES_ARTIFACT_NAME={workspace.request.names.artifact}"]
    return [Step("note_inputs", note), Step("make_system", make_system)]


def _copying(workspace: Workspace, token: str) -> Step:
    """Return the step that copies the archive to the helper. ``token`` is that of the session's marks."""
    return Step("copy", [*bash("copy", "copy.sh"), token, f"{workspace.workdir}/{workspace.request.names.file}"])


def _handing_over(workspace: Workspace, token: str) -> list[Step]:
    """Return the steps that follow the packing: for the archive, and for the changes in a copied package."""
    return [_copying(workspace, token), *workspace.bringing_back(token)]


def _check(workspace: Workspace) -> Step:
    """Return the step that succeeds if packing again would give the same archive."""
    return Step("check_tree", [*_inputs("check"), *workspace.input_dirs])


def _inputs(what: str) -> list[str]:
    return [*bash("inputs", "inputs.sh"), what]


def _pack_and_copy(job: Job) -> Artifact:
    job.run(_packing(job.workspace))
    return _copy(job)


def _copy(job: Job) -> Artifact:
    """Copy the archive that `make system` has made to the host, completely or not at all."""
    # This is imported only here, because the helper loads the module while the container starts (operations.py).
    from nerves_docker_port.flows.artifact import Incoming

    target, log = job.request.names.download_path, str(job.log.path)
    step = _copying(job.workspace, job.session.token)
    with Incoming(target, log=log, session=secrets.token_hex(8), cancellation=job.cancellation) as incoming:
        failure = job.receive(step, incoming.begin)
        if failure is None:
            artifact = incoming.finish()
        elif failure.status in _NOT_COPIED:
            raise errors.artifact_missing(str(target), _NOT_COPIED[failure.status].format(step.command[-1]), log)
        else:
            raise failed_step(job, step, failure)
    _record(job, artifact)
    return artifact


def _reuse(job: Job, parked: ParkedBuild) -> Artifact | None:
    """Return the artifact on the host if packing again would give the same archive, else ``None``."""
    from nerves_docker_port.flows.artifact import is_whole

    if not is_whole(parked.artifact) or not job.finish(_check(job.workspace)):
        return None
    packed_at = parked.packed_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    reuse = f"Reusing artifact archive from {packed_at}: nothing was built since"
    job.reporter.headline(reuse)
    job.log.write(f"{reuse}\n{parked.artifact.path}\n".encode())
    _record(job, parked.artifact)
    return parked.artifact


def _record(job: Job, artifact: Artifact) -> None:
    job.reporter.record(journal.Artifact(str(artifact.path), artifact.size, artifact.sha256))
