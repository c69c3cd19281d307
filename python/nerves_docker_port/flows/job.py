"""What every flow begins and ends with: preflight, the session, the log, the record, and what to say of a failed step.

The flows themselves (``build``, ``clean``, ``shell``) read as recipes because this is here.
"""

from __future__ import annotations

import functools
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from nerves_docker_port import errors
from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine.client import Engine
from nerves_docker_port.engine.container import Spec
from nerves_docker_port.image import ensure as images
from nerves_docker_port.record import build_time, journal
from nerves_docker_port.record.log import BuildLog
from nerves_docker_port.record.recorder import Recorder
from nerves_docker_port.record.reporter import stage
from nerves_docker_port.request.request import Request
from nerves_docker_port.stages import StageName
from nerves_docker_port.volume import build_volume, lock
from nerves_docker_port.volume.lock import session_name
from nerves_docker_port.volume.session import Failure, Session
from nerves_docker_port.volume.steps import Step, new_token
from nerves_docker_port.workspace.choose import open_workspace
from nerves_docker_port.workspace.mounted import Workspace, bash

HEADLINES = {"make_system": "Creating artifact archive"}
"""What a person is told when a step begins."""

QUIET = frozenset({"note_inputs", "bring_back", "ccache_count"})
"""Steps that are no stage of a flow: a person need not know of them."""


@dataclass(frozen=True)
class Prepared:
    """Engine, volume, image and mounts, found in order."""

    engine: Engine
    workspace: Workspace

    @property
    def request(self) -> Request:
        """What Mix asked for."""
        return self.workspace.request

    def as_records(self) -> list[journal.Record]:
        """What the journal holds of it."""
        found, image = self.engine.capabilities, self.workspace.image
        kind = "copied" if self.workspace.is_copy else "mounted"
        return [
            journal.Engine(
                # An address may have a password in it.
                endpoint=re.sub(r"(//[^/:@]*):[^/@]*@", r"\1@", self.engine.endpoint.url),
                version=found.engine_version,
                architecture=found.architecture,
                cpus=found.cpus,
                memory=found.memory,
            ),
            journal.Image(image.tag, image.id, image.digest),
            journal.Workspace(kind, self.workspace.volume, self.workspace.workdir),
        ]


@dataclass(frozen=True)
class Job:
    """A flow under way: a session on the build volume, and whom to tell of it."""

    workspace: Workspace
    session: Session
    log: BuildLog
    reporter: Recorder
    cancellation: Cancellation

    @property
    def request(self) -> Request:
        """What Mix asked for."""
        return self.workspace.request

    def run(self, steps: Sequence[Step]) -> None:
        """Run the steps to a good end. Each is a stage of the flow. Raises ``RunnerError``."""
        failure = self.attempt(steps)
        if self.reporter.has_seen_packages:
            self._record_package_steps()
        if failure is not None:
            raise failed_step(self, steps[failure.step], failure)

    def finish(self, final: Step) -> bool:
        """Run the session's final step; whether it ended well, and the session with it. Raises ``RunnerError``."""
        return self.attempt([final], is_final=True) is None

    def attempt(
        self, steps: Sequence[Step], on_output: Callable[[bytes], None] | None = None, *, is_final: bool = False
    ) -> Failure | None:
        """Run the steps, up to the first that fails; how that failed.

        ``on_output`` gets their output in place of the log.
        """
        if not steps:
            return None
        with ExitStack() as under_way:
            self._begin(steps[0], under_way)

            def on_end(index: int) -> None:
                self.log.end_step()
                under_way.close()
                if index + 1 < len(steps):
                    self._begin(steps[index + 1], under_way)

            tell = (on_output or self.log.write, on_end, self._say_gap, self.cancellation)
            failure = self.session.finish(*tell) if is_final else self.session.run(steps, *tell)
            self.log.end_step()
            if failure is not None:
                # A stage that fails is not reported as finished.
                under_way.pop_all()
            return failure

    def _record_package_steps(self) -> None:
        """Keep the times of the packages' steps, as Buildroot itself has noted them in the build directory."""
        found = self.session.read_file(f"{self.workspace.workdir}/{build_time.FILE}")
        if found is None:
            return
        content, engine_time = found
        ahead = 0.0 if engine_time is None else engine_time - time.time()
        # The engine tells its time in whole seconds. A smaller difference is none that we could know of.
        clock = journal.Clock(0.0 if abs(ahead) <= 1 else round(ahead, 1))
        steps = build_time.steps(content, self.reporter.opened_at + clock.ahead)
        self.reporter.record(clock, *steps)

    def bring_back(self) -> None:
        """Bring what was changed in a copy of the package's directory to the host, if there is a copy.

        Where that does not work now, the next session does it: the flow has come to its end, be it a good or a bad one.
        """
        if self.cancellation.requested or self.session.is_over:
            return
        try:
            failure = self.attempt(self.workspace.bringing_back(self.session.token))
        except errors.RunnerError as error:
            self.reporter.warning(errors.changes_stay(error.message))
        else:
            if failure is not None:
                self.reporter.warning(errors.changes_stay(f"the program for it ended with status {failure.status}."))

    def _begin(self, step: Step, under_way: ExitStack) -> None:
        if step.name == "make":
            self.reporter.tracker.ask(
                lambda what: self.session.output_of([*bash("packages", "packages.sh"), what], self.workspace.user)
            )
        if step.name in HEADLINES:
            self.reporter.headline(HEADLINES[step.name])
        if step.name not in QUIET:
            under_way.enter_context(stage(self.reporter, cast(StageName, step.name)))

    def _say_gap(self, text: str) -> None:
        self.log.note(text)
        self.reporter.warning(text)


@contextmanager
def log_opened_on_use(path: Path, reporter: Recorder) -> Iterator[Callable[[], BuildLog]]:
    """The log, made (or emptied) when it is first asked for.

    That is before the first step, or before an image is built. Not earlier: what is refused, because another build
    holds the volume, leaves that build's log alone.
    """
    with ExitStack() as stack:

        @functools.cache
        def open_log() -> BuildLog:
            _make_directory(path.parent, "The directory of the log")
            return stack.enter_context(BuildLog(path, reporter.log))

        yield open_log


def prepare(
    request: Request,
    environ: Mapping[str, str],
    reporter: Recorder,
    cancellation: Cancellation,
    *,
    needs_tree: bool,
    open_log: Callable[[], BuildLog],
) -> Prepared:
    """See that engine, volume, image and mounts are in order. ``open_log`` is for building an image."""
    with stage(reporter, "preflight"):
        engine = Engine.connect(environ)
        engine.ask_capabilities()
        cancellation.check()
        if needs_tree:
            name = build_volume.find_name(engine, request.package, request.names)
            if name is None or not build_volume.exists(engine, name):
                raise errors.no_build_tree(request.package.app, str(request.names.cache_path))
        name = build_volume.ensure_name(engine, request.package, request.names)
        if not needs_tree:
            build_volume.ensure(engine, name, request.package)
        image = images.ensure(
            engine,
            request.image,
            reporter,
            cancellation,
            policy=images.Policy(request.settings.pull, request.settings.create_image, request.interactive),
            environ=environ,
            before_work=lambda: lock.check_free(engine, name),
            open_log=open_log,
        )
        workspace = open_workspace(engine, request, image, name)
        _make_directory(request.names.download_dir, "The download directory")
        cancellation.check()
    return Prepared(engine, workspace)


def open_session(
    prepared: Prepared,
    flow: str,
    cancellation: Cancellation,
    tell: Callable[[str], None],
    *,
    steps: Sequence[Step] = (),
    final: Step | None = None,
    spec: Callable[[Workspace, str], Spec] | None = None,
) -> tuple[Prepared, Session]:
    """A session on the build volume, with ``steps`` to run first, or the one whose container ``spec`` describes.

    ``spec`` gets the workspace and the token of the marks. ``final`` is the step that ``Job.finish`` runs.
    With it comes what is prepared, now with the workspace that the session has: where the engine turns out not to see
    the directories of this machine, and no setting forces it, it gets copies of them. ``tell`` gets warnings. The
    caller ends the session. Raises ``RunnerError`` ``:volume_busy``.
    """
    try:
        return prepared, _open(prepared, flow, cancellation, tell, steps, final, spec)
    except errors.NotSeenError:
        if prepared.request.settings.workspace != "auto" or prepared.workspace.is_copy:
            raise
    from nerves_docker_port.workspace.copied import CopiedWorkspace

    elsewhere = replace(prepared, workspace=CopiedWorkspace.in_place_of(prepared.engine, prepared.workspace))
    return elsewhere, _open(elsewhere, flow, cancellation, tell, steps, final, spec)


def _open(
    prepared: Prepared,
    flow: str,
    cancellation: Cancellation,
    tell: Callable[[str], None],
    steps: Sequence[Step],
    final: Step | None,
    spec: Callable[[Workspace, str], Spec] | None,
) -> Session:
    token = new_token()
    workspace, engine = prepared.workspace, prepared.engine
    made = workspace.session(flow, steps, final, token) if spec is None else spec(workspace, token)
    cancellation.check()
    session = Session(
        engine,
        workspace.volume,
        made,
        token=token,
        patience=workspace.request.settings.patience,
        questions=workspace.questions(engine, token, tell, cancellation),
        doing=f"while it ran the container {made.name}",
    )
    try:
        session.begin(cancellation)
    except BaseException:
        session.end()
        raise
    return session


@contextmanager
def job_on(
    prepared: Prepared,
    session: Session,
    log: BuildLog,
    reporter: Recorder,
    cancellation: Cancellation,
    *,
    brings_back: bool = True,
) -> Iterator[Job]:
    """A flow's work on a session.

    Without ``brings_back``, the session's own program brings what was changed in a copied package to the host.
    """
    reporter.record(*prepared.as_records())
    job = Job(prepared.workspace, session, log, reporter, cancellation)
    try:
        yield job
    finally:
        if brings_back:
            job.bring_back()


def failed_step(job: Job, step: Step, failure: Failure) -> errors.RunnerError:
    """What to say of a step that ended badly, from its status and the log."""
    kind, told, facts = _cause(job)
    failed = _step_error(job, step, failure, kind, told)
    # A program is told of the cause where the person is: some errors say better what happened.
    if told and told in failed.message:
        failed.cause = facts
    return failed


def _step_error(job: Job, step: Step, failure: Failure, kind: str, told: str) -> errors.RunnerError:
    if failure.by_somebody:
        return errors.container_gone(session_name(job.workspace.volume))
    last_lines = job.log.last_lines()
    log = str(job.log.path)
    if step.name == "make_system" and "No rule to make target 'system'" in last_lines:
        package, names = job.request.package, job.request.names
        return errors.no_build_tree(package.app, str(names.cache_path), last_lines, log)
    command = shlex.join(step.command)
    # The kernel's count tells of processes in the container, the log of those that a compiler's driver has started.
    if failure.out_of_memory or kind == "out-of-memory" or "Killed signal terminated program" in last_lines:
        return errors.out_of_memory(command, failure.status, last_lines, log, cause=told)
    used, engine = job.workspace.image, job.session.engine
    if used.is_foreign(engine) and "exec format error" in last_lines.lower():
        native = engine.capabilities.architecture
        return errors.image_of_other_platform(used.tag, used.architecture, native, last_lines, log)
    failed = errors.step_failed(command, failure.status, last_lines, log, cause=told)
    if kind == "disk-full" or errors.says_disk_full(last_lines):
        return errors.disk_full(failed.message, log)
    # Where the cause is another one, such as a wrong hash, failed mirrors afterwards mislead.
    if kind == "download-no-network" or (not kind and errors.says_no_network(last_lines)):
        return errors.no_network(failed)
    return failed


def _cause(job: Job) -> tuple[str, str, errors.Facts | None]:
    """The kind of the failure's cause, found in the whole log, and what to say of it; nothing where it is not found."""
    # Imported where it is needed, because the tables in it take a tenth of the time of all imports.
    from nerves_docker_port.record.explain import explain, facts, render

    try:
        cause = explain(job.log.path)
    except Exception:  # noqa: BLE001  # a defect here must not hide that the build has failed
        return "", "", None
    if cause is None:
        return "", "", None
    job.reporter.record(journal.Cause(cause.package, cause.step, cause.kind, cause.lines, cause.remedy))
    return cause.kind, render(cause), facts(cause)


def _make_directory(path: Path, what: str) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise errors.not_writable(str(path), what, str(error.strerror)) from error
