"""The parts that all flows share: preflight, the session, the log, the record, and the error for a failed step.

They are here so that the flows themselves (``build``, ``clean``, ``shell``) read as recipes.
"""

from __future__ import annotations

import functools
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias, cast

from nerves_docker_port import directories, errors
from nerves_docker_port.background import Background
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
from nerves_docker_port.volume.session import KILLED, Failure, Session
from nerves_docker_port.volume.steps import Step, new_token
from nerves_docker_port.workspace.choose import open_workspace, workspace_without_host
from nerves_docker_port.workspace.mounted import Workspace, bash, shown

HEADLINES = {"make_system": "Creating artifact archive", "copy": "Copying artifact archive to host"}
"""The headline that the user sees when a step begins, by the name of the step."""

_KILLED_KIND = "killed"
"""The kind of the cause if a process was killed, and memory has not or may not have run out."""

_NO_MEMORY = re.compile(r"memory exhausted|out of memory|bad_alloc|MemoryError|cannot allocate", re.IGNORECASE)
"""What a program writes that has got no memory, other than that a process was killed."""

QUIET = frozenset({"note_inputs", "bring_back", "ccache_count"})
"""The names of the steps that are not reported as a stage of the flow."""


Listener: TypeAlias = Callable[[bytes], None]


@dataclass(frozen=True)
class Prepared:
    """The engine, and the workspace with its volume, image and mounts, after all of them were checked."""

    engine: Engine
    workspace: Workspace

    @property
    def request(self) -> Request:
        """The request that Mix sent."""
        return self.workspace.request

    def as_records(self) -> list[journal.Record]:
        """Return the records about the engine, the image and the workspace for the journal."""
        found, image = self.engine.capabilities, self.workspace.image
        kind = "copied" if self.workspace.is_copy else "mounted"
        return [
            journal.Engine(
                # The address can contain a password, which must not be in the journal.
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
    """A running flow: its session on the build volume, its log, and the reporter that passes its events on."""

    workspace: Workspace
    session: Session
    log: BuildLog
    reporter: Recorder
    cancellation: Cancellation
    _pending_records: list[Background[list[journal.Record]]] = field(default_factory=list)
    """The records that are being read out of the build directory for the journal."""

    @property
    def request(self) -> Request:
        """The request that Mix sent."""
        return self.workspace.request

    def run(self, steps: Sequence[Step]) -> None:
        """Run the steps, each as a stage of the flow. Raises ``RunnerError`` if one fails."""
        failure = self.attempt(steps)
        if self.reporter.has_seen_packages:
            self._pending_records.append(Background(self._package_steps))
        if failure is not None:
            raise failed_step(self, steps[failure.step], failure)

    def finish(self, final: Step) -> bool:
        """Run the session's final step. Return whether it succeeded, which ends the session. Raises ``RunnerError``."""
        return self._follow([final], self.session.finish) is None

    def receive(self, step: Step, begin: Callable[[], Callable[[bytes], None]]) -> Failure | None:
        """Run a step that copies a file to the helper (``Session.receive``). Return its failure, or ``None``.

        Raises ``RunnerError``.
        """
        return self._follow([step], lambda *listeners: self.session.receive(step, begin, *listeners))

    def attempt(self, steps: Sequence[Step], on_output: Callable[[bytes], None] | None = None) -> Failure | None:
        """Run the steps until one fails. Return its failure, or ``None`` if all steps succeed. Raises ``RunnerError``.

        The output goes to the log, or to ``on_output`` instead if it is given.
        """
        if not steps:
            return None
        return self._follow(steps, lambda *listeners: self.session.run(steps, *listeners), on_output)

    def _follow(
        self,
        steps: Sequence[Step],
        run: Callable[[Listener, Callable[[int], None], Callable[[str], None], Cancellation], Failure | None],
        on_output: Listener | None = None,
    ) -> Failure | None:
        """Call ``run``, which runs ``steps`` in the session, and report each step as a stage of the flow."""
        with ExitStack() as under_way:
            self._begin(steps[0], under_way)

            def on_end(index: int) -> None:
                self.log.end_step()
                under_way.close()
                if index + 1 < len(steps):
                    self._begin(steps[index + 1], under_way)

            failure = run(on_output or self.log.write, on_end, self._report_gap, self.cancellation)
            self.log.end_step()
            if failure is not None:
                # A stage that fails is not reported as finished.
                under_way.pop_all()
            return failure

    def record_package_steps(self) -> None:
        """Record the times of the packages' steps, which were read while the flow went on.

        A cancelled flow does not wait for them, because the engine may not answer any more.
        """
        if self.cancellation.requested:
            return
        for pending in self._pending_records:
            self.reporter.record(*pending.result())

    def _package_steps(self) -> list[journal.Record]:
        """Return the times of the packages' steps, which Buildroot has written to a file in the build directory."""
        found = self.session.read_file(f"{self.workspace.workdir}/{build_time.FILE}")
        if found is None:
            return []
        content, engine_time = found
        ahead = 0.0 if engine_time is None else engine_time - time.time()
        # The engine gives its time in whole seconds, so a smaller difference between the clocks cannot be known.
        clock = journal.Clock(0.0 if abs(ahead) <= 1 else round(ahead, 1))
        return [clock, *build_time.steps(content, self.reporter.opened_at + clock.ahead)]

    def bring_back(self) -> None:
        """Bring changes in a copy of the package's directory to the host, if the workspace is a copy.

        This is called at the end of a flow, also of one that failed. If it fails, it only warns, because the next
        session brings the changes.
        """
        if self.cancellation.requested or self.session.is_over or not self.session.has_workspace:
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
                lambda what: self.session.output_of(
                    [*bash("packages", "environment.sh", "packages.sh"), what], self.workspace.user
                )
            )
        if step.name in HEADLINES:
            self.reporter.headline(HEADLINES[step.name])
        if step.name not in QUIET:
            under_way.enter_context(stage(self.reporter, cast(StageName, step.name)))

    def _report_gap(self, text: str) -> None:
        self.log.note(text)
        self.reporter.warning(text)


@contextmanager
def log_opened_on_use(path: Path, reporter: Recorder) -> Iterator[Callable[[], BuildLog]]:
    """Yield a function that returns the log. Its first call makes the log file or empties it.

    The flow calls it before the first step, or before it builds an image. It must not call it earlier, because the flow
    may still be refused while another build uses the volume, and the log then belongs to that build.
    """
    with ExitStack() as stack:

        @functools.cache
        def open_log() -> BuildLog:
            directories.make(path.parent, "The directory of the log")
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
    uses_host: bool = True,
) -> Prepared:
    """Connect to the engine, and check or make the volume, the image and the mounts. Raises ``RunnerError``.

    With ``needs_tree`` the volume must already exist. ``open_log`` returns the log for the build of an image.
    Without ``uses_host``, the session needs none of the host's files, so they are neither checked nor made.
    """
    with stage(reporter, "preflight"):
        engine = Engine.connect(environ)
        engine.ask_capabilities()
        present = None
        if request.settings.pull != "always":
            present = Background(lambda: images.find(engine, request.image.tag))
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
            present=present,
            before_work=lambda: lock.check_free(engine, name),
            open_log=open_log,
        )
        if uses_host:
            workspace = open_workspace(engine, request, image, name)
            directories.make(request.names.download_dir, "The download directory")
        else:
            workspace = workspace_without_host(engine, request, image, name)
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
    then: Callable[[Workspace, str], Sequence[Step]] = lambda _workspace, _token: (),
    spec: Callable[[Workspace, str], Spec] | None = None,
) -> tuple[Prepared, Session]:
    """Start a session on the build volume. Return it, and ``prepared`` with the session's workspace.

    ``steps`` are the first steps of the session, and ``final`` is the step that ``Job.finish`` runs. ``then`` returns
    the steps that the container runs directly after ``steps``. If ``spec`` is given, it describes the session's
    container instead. Both get the workspace and the token of the marks.
    If the engine cannot see the directories of this machine, and no setting forbids copies, the workspace that is
    returned has copies of them. ``tell`` gets warnings. The caller must end the session.
    Raises ``RunnerError``, with the code ``:volume_busy`` if another container uses the volume.
    """
    try:
        return prepared, _open(prepared, flow, cancellation, tell, steps, final, then, spec)
    except errors.NotSeenError:
        if prepared.request.settings.workspace != "auto" or prepared.workspace.is_copy:
            raise
    from nerves_docker_port.workspace.copied import CopiedWorkspace

    elsewhere = replace(prepared, workspace=CopiedWorkspace.in_place_of(prepared.engine, prepared.workspace))
    return elsewhere, _open(elsewhere, flow, cancellation, tell, steps, final, then, spec)


def _open(
    prepared: Prepared,
    flow: str,
    cancellation: Cancellation,
    tell: Callable[[str], None],
    steps: Sequence[Step],
    final: Step | None,
    then: Callable[[Workspace, str], Sequence[Step]],
    spec: Callable[[Workspace, str], Spec] | None,
) -> Session:
    token = new_token()
    workspace, engine = prepared.workspace, prepared.engine
    steps = [*steps, *then(workspace, token)]
    made = workspace.session(flow, steps, final, token) if spec is None else spec(workspace, token)
    cancellation.check()
    session = Session(
        engine,
        workspace.volume,
        made,
        steps=steps,
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
    """Yield the job of a flow that uses the session, and bring changes in a copied package to the host at the end.

    Without ``brings_back``, the session's own program does the latter.
    """
    reporter.record(*prepared.as_records())
    job = Job(prepared.workspace, session, log, reporter, cancellation)
    try:
        yield job
    finally:
        if brings_back:
            job.bring_back()
        job.record_package_steps()


def failed_step(job: Job, step: Step, failure: Failure) -> errors.RunnerError:
    """Return the error for a failed step, made from its exit status and the log."""
    kind, cause, facts = _cause(job, failure)
    failed = _step_error(job, step, failure, kind, cause)
    # Some errors explain the failure better and leave the cause out of their message. They get no facts either.
    if cause and cause in failed.message:
        failed.cause = facts
    return failed


def _step_error(job: Job, step: Step, failure: Failure, kind: str, cause: str) -> errors.RunnerError:
    if failure.by_somebody:
        return errors.container_gone(session_name(job.workspace.volume))
    last_lines = job.log.last_lines()
    log = str(job.log.path)
    if step.name == "make_system" and "No rule to make target 'system'" in last_lines:
        package, names = job.request.package, job.request.names
        return errors.no_build_tree(package.app, str(names.cache_path), last_lines, log)
    command = shlex.join(shown(step.command))
    if failure.out_of_memory or kind == "out-of-memory":
        return errors.out_of_memory(command, failure.status, last_lines, log, cause=cause)
    used, engine = job.workspace.image, job.session.engine
    if used.is_foreign(engine) and "exec format error" in last_lines.lower():
        native = engine.capabilities.architecture
        return errors.image_of_other_platform(used.tag, used.architecture, native, last_lines, log)
    hint = None
    if kind == _KILLED_KIND or failure.status == KILLED or "Killed signal terminated program" in last_lines:
        hint = errors.killed_hint(memory_is_known=failure.out_of_memory is not None)
    failed = errors.step_failed(command, failure.status, last_lines, log, cause=cause, hint=hint)
    if kind == "disk-full" or errors.says_disk_full(last_lines):
        return errors.disk_full(failed.message, log)
    # If another cause was found, such as a wrong hash, downloads that failed after it are not the cause.
    if kind == "download-no-network" or (not kind and errors.says_no_network(last_lines)):
        return errors.no_network(failed)
    return failed


def _cause(job: Job, failure: Failure) -> tuple[str, str, errors.Facts | None]:
    """Look for the cause of the failure in the whole log. Return its kind, its text for the user, and its facts.

    Return two empty strings and ``None`` if no cause is found.
    """
    # This is imported only here, because the tables in it take a tenth of the time of all imports.
    from nerves_docker_port.record.explain import explain, facts, render

    try:
        cause = explain(job.log.path)
    except Exception:  # noqa: BLE001  # a defect here must not hide that the build has failed
        return "", "", None
    if cause is None:
        return "", "", None
    is_kill = cause.kind in ("out-of-memory", _KILLED_KIND)
    if is_kill and not failure.out_of_memory and not _NO_MEMORY.search("\n".join(cause.lines)):
        # The log only says that a process was killed. That can have other reasons, and the kernel's count tells them
        # apart.
        cause = replace(cause, kind=_KILLED_KIND, remedy=None)
    job.reporter.record(journal.Cause(cause.package, cause.step, cause.kind, cause.lines, cause.remedy))
    return cause.kind, render(cause), facts(cause)
