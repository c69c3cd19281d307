"""The flows, top-down: build, archive, clean, shell.

Each reads as the recipe that it is. What a step, an image, a volume or the engine is like is known elsewhere; so is the
port. A flow returns its result or raises one ``RunnerError``.
"""

from __future__ import annotations

import functools
import os
import re
import secrets
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from nerves_docker_port import errors
from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine import container, resources
from nerves_docker_port.engine.artifact import Artifact, fetch, is_whole
from nerves_docker_port.engine.client import Engine
from nerves_docker_port.flows.steps import Splitter, Step, new_token, to_command
from nerves_docker_port.image import ensure as image
from nerves_docker_port.port.protocol import StageName
from nerves_docker_port.record import journal
from nerves_docker_port.record.log import BuildLog
from nerves_docker_port.record.reporter import Reporter, stage
from nerves_docker_port.request.request import Request
from nerves_docker_port.shell.script import SHELL_SCRIPT
from nerves_docker_port.shell.terminal import Conversation
from nerves_docker_port.volume import build_volume as volume
from nerves_docker_port.workspace.mounted import PLATFORM, Workspace, open_workspace


@dataclass(frozen=True)
class Site:
    """Where a flow works, once preflight has found everything in order."""

    engine: Engine
    workspace: Workspace
    log: BuildLog
    reporter: Reporter
    cancellation: Cancellation
    record: dict[str, Any]
    """What the journal will hold of this flow."""

    @property
    def request(self) -> Request:
        """What Mix asked for."""
        return self.workspace.request


def build(request: Request, environ: Mapping[str, str], reporter: Reporter, cancellation: Cancellation) -> Artifact:
    """Build the system and bring its archive to the download directory."""
    with _preflight(request, environ, reporter, cancellation, log="build.log", needs_tree=False) as site:
        for text in resources.advice(site.engine.capabilities, request.settings, request.names.download_dir):
            reporter.warning(text)
        reporter.headline("Starting Build... (this may take a while)")
        create = [f"{PLATFORM}/create-build.sh", site.workspace.defconfig, site.workspace.workdir]
        steps = [Step("create_build", create), Step("make", ["make", *request.make_args])]
        return _pack_and_copy(site, "build", after=steps)


def archive(request: Request, environ: Mapping[str, str], reporter: Reporter, cancellation: Cancellation) -> Artifact:
    """Pack what has been built and bring the archive to the download directory."""
    with _preflight(request, environ, reporter, cancellation, log="archive.log", needs_tree=True) as site:
        return _reusable(site) or _pack_and_copy(site, "archive")


def clean(request: Request, environ: Mapping[str, str], reporter: Reporter, cancellation: Cancellation) -> list[str]:
    """Remove the build volume and the artifact from Nerves' cache; what was removed. Nothing to clean is fine."""
    removed = []
    with stage(reporter, "clean"):
        engine = Engine.connect(environ)
        cancellation.check()
        name = volume.name(request.package, request.names)
        if name is not None and volume.exists(engine, name):
            reporter.headline(f"Deleting build volume {name}")
            volume.sweep(engine, name)
            volume.remove(engine, name)
            removed.append(name)
        if os.path.lexists(request.names.cache_path):
            _remove_tree(request.names.cache_path)
            removed.append(str(request.names.cache_path))
    return removed


def prepare_shell(request: Request, environ: Mapping[str, str], reporter: Reporter, cancellation: Cancellation) -> None:
    """Everything that ``shell`` needs in order, so that nothing is asked, pulled or refused on the bare terminal."""
    with (
        _opened_on_use(request.cwd / "build.log", reporter) as open_log,
        _held(request, environ, reporter, cancellation, what="shell", needs_tree=False, open_log=open_log),
    ):
        pass


def shell(
    request: Request,
    environ: Mapping[str, str],
    reporter: Reporter,
    cancellation: Cancellation,
    conversation: Conversation,
) -> None:
    """Prepare the build directory, then a shell in it for the person at the terminal, until that person leaves it.

    How the shell ended is the person's business: its status is that of the last command typed. The container's status
    is 0 then; any other says that it did not come to that end, which is an error.
    """
    # Prepared: what was asked about the image was asked then.
    prepared = replace(request, settings=replace(request.settings, pull="missing", create_image="never"))
    with (
        _opened_on_use(request.cwd / "build.log", reporter) as open_log,
        _held(prepared, environ, reporter, cancellation, what="shell", needs_tree=False, open_log=open_log) as (
            engine,
            workspace,
        ),
    ):
        made = workspace.container(
            "shell",
            # The words after the script are its arguments: no path becomes part of a program.
            [
                *("/bin/bash", "-c", SHELL_SCRIPT, "nerves-shell"),
                *(f"{PLATFORM}/create-build.sh", workspace.defconfig, workspace.workdir),
            ],
        )
        spec = replace(made, console=conversation.size)
        ended = container.run_on_terminal(engine, spec, conversation, reporter.warning, cancellation)
        if ended.status != 0:
            raise errors.shell_died(ended.status, out_of_memory=ended.out_of_memory)


@contextmanager
def _preflight(
    request: Request,
    environ: Mapping[str, str],
    reporter: Reporter,
    cancellation: Cancellation,
    *,
    log: str,
    needs_tree: bool,
) -> Iterator[Site]:
    """What ``_held`` has in order, and the log, before the first step."""
    with ExitStack() as stack:
        open_log = stack.enter_context(_opened_on_use(request.cwd / log, reporter))
        engine, workspace = stack.enter_context(
            _held(request, environ, reporter, cancellation, what="build", needs_tree=needs_tree, open_log=open_log)
        )
        build_log = open_log()
        record = stack.enter_context(_recorded(engine, workspace, str(build_log.path)))
        yield Site(engine, workspace, build_log, reporter, cancellation, record)


@contextmanager
def _opened_on_use(path: Path, reporter: Reporter) -> Iterator[Callable[[], BuildLog]]:
    """The log, made (or emptied) when it is first asked for.

    That is before the first step, or before an image is built. Not earlier: what is refused, because another build
    holds the volume, leaves that build's log alone.
    """
    with ExitStack() as stack:
        yield functools.cache(lambda: stack.enter_context(BuildLog(path, reporter.log)))


@contextmanager
def _held(
    request: Request,
    environ: Mapping[str, str],
    reporter: Reporter,
    cancellation: Cancellation,
    *,
    what: str,
    needs_tree: bool,
    open_log: Callable[[], BuildLog],
) -> Iterator[tuple[Engine, Workspace]]:
    """Engine, volume, image and mounts in order, and the volume to ourselves. ``open_log`` is for building an image."""
    session = secrets.token_hex(8)
    with stage(reporter, "preflight"):
        engine = Engine.connect(environ)
        cancellation.check()
        if needs_tree:
            name = volume.name(request.package, request.names)
            if name is None or not volume.exists(engine, name):
                raise errors.no_build_tree(request.package.app, str(request.names.cache_path))
        else:
            name = volume.ensure_name(request.package, request.names)
            volume.ensure(engine, name, request.package)
        found = image.ensure(
            engine,
            request.image,
            reporter,
            cancellation,
            policy=image.Policy(request.settings.pull, request.settings.create_image, request.interactive),
            environ=environ,
            before_work=lambda: volume.check_unheld(engine, name),
            open_log=open_log,
        )
        workspace = open_workspace(engine, request, found, name, session)
        _make_directory(request.names.download_dir, "The download directory")
        cancellation.check()
    with volume.hold(engine, name, found.id, session, what):
        yield engine, workspace
    engine.close()


@contextmanager
def _recorded(engine: Engine, workspace: Workspace, log: str) -> Iterator[dict[str, Any]]:
    """Keep a record of the flow in the journal, however it ends."""
    request = workspace.request
    record: dict[str, Any] = {
        "session": workspace.session,
        "package": request.package.app,
        "version": request.package.version,
        "volume": workspace.volume,
        "engine": {"endpoint": engine.endpoint.url, "version": engine.capabilities.engine_version},
        "image": {"tag": workspace.image.tag, "id": workspace.image.id},
        "log": log,
        "started": time.time(),
        "stages": [],
        "outcome": "ok",
    }
    try:
        yield record
    except errors.RunnerError as error:
        record["outcome"] = error.code.value
        raise
    except BaseException:
        record["outcome"] = errors.Code.INTERNAL.value
        raise
    finally:
        journal.append(request.names.build_path, record)


@contextmanager
def _stage(site: Site, name: StageName) -> Iterator[None]:
    """A stage of the flow: reported and recorded."""
    started = time.monotonic()
    with stage(site.reporter, name):
        yield
    site.record["stages"].append([name, round((time.monotonic() - started) * 1000)])


@contextmanager
def _ended(site: Site, name: str, steps: Sequence[Step]) -> Iterator[container.Exit]:
    """Run the steps to a good end, in one container; it is there until the body is left."""
    token = new_token()
    spec = site.workspace.container(name, to_command(steps, token))
    with ExitStack() as under_way:
        progress = _Progress(site, steps, under_way)
        output = Splitter(token, site.log.write, progress.end)
        with container.ended(site.engine, spec, output.feed, site.reporter.warning, site.cancellation) as done:
            output.finish()
            progress.finish(done)
            yield done


class _Progress:
    """Which of a container's steps is ``under_way``. Each is a stage of the flow, and may have a headline."""

    def __init__(self, site: Site, steps: Sequence[Step], under_way: ExitStack) -> None:
        self._site = site
        self._steps = steps
        self._done = 0
        self._under_way = under_way
        self._failed = False
        self._begin()

    def end(self, name: str, status: int) -> None:
        """The container says that the step ``name`` has ended."""
        # What it said of those before may have been lost with a connection.
        while self._steps[self._done].name != name:
            self._next()
        if status == 0:
            self._next()
        else:
            self._failed = True

    def finish(self, ended: container.Exit) -> None:
        """The container has ended. Raises ``RunnerError`` where a step did not end well."""
        self._site.log.end_step()
        if ended.status != 0:
            # Who is killed says nothing. Of anything else we should have heard: it may have been any of them.
            known = self._failed or ended.status > 128
            # None is left where the container was killed just after the last.
            suspects = self._steps[self._done :] or self._steps[-1:]
            raise _failure(self._site, suspects[:1] if known else suspects, ended)
        while self._done < len(self._steps):
            self._next()

    def _begin(self) -> None:
        step = self._steps[self._done]
        if step.headline is not None:
            self._site.reporter.headline(step.headline)
        self._under_way.enter_context(_stage(self._site, step.name))

    def _next(self) -> None:
        self._site.log.end_step()
        self._under_way.close()
        self._done += 1
        if self._done < len(self._steps):
            self._begin()


def _failure(site: Site, steps: Sequence[Step], ended: container.Exit) -> errors.RunnerError:
    """What to say of a container that ended badly, in one of ``steps``, from its status and the log."""
    last_lines = site.log.last_lines()
    log = str(site.log.path)
    if "make_system" in (step.name for step in steps) and "No rule to make target 'system'" in last_lines:
        package, names = site.request.package, site.request.names
        return errors.no_build_tree(package.app, str(names.cache_path), last_lines, log)
    command = " && ".join(shlex.join(step.command) for step in steps)
    # The engine's flag tells of the container's own limit, the compiler's driver (gcc.c) of the whole engine's.
    if ended.out_of_memory or "Killed signal terminated program" in last_lines:
        return errors.out_of_memory(command, ended.status, last_lines, log)
    used = site.workspace.image
    if used.is_foreign(site.engine) and "exec format error" in last_lines.lower():
        native = site.engine.capabilities.architecture
        return errors.image_of_other_platform(used.tag, used.architecture, native, last_lines, log)
    failed = errors.step_failed(command, ended.status, last_lines, log)
    if errors.says_disk_full(last_lines):
        return errors.disk_full(failed.message, log)
    return errors.no_network(failed) if errors.says_no_network(last_lines) else failed


def _pack_and_copy(site: Site, name: str, *, after: Sequence[Step] = ()) -> Artifact:
    """Pack the system in the build directory, then bring the archive to the host, whole or not at all.

    The steps that come before run in the same container.
    """
    names = site.request.names
    pack = Step(
        "make_system",
        ["make", "system", f"NERVES_ARTIFACT_NAME={names.artifact}"],
        headline="Creating artifact archive",
    )
    with _ended(site, name, [*after, pack]) as packed:
        site.reporter.headline("Copying artifact archive to host")
        with _stage(site, "copy"):
            artifact = fetch(
                site.engine,
                packed.container,
                f"{site.workspace.workdir}/{names.file}",
                names.download_path,
                log=str(site.log.path),
                session=site.workspace.session,
                cancellation=site.cancellation,
            )
    site.record["artifact"] = {"file": names.file, "size": artifact.size, "sha256": artifact.sha256}
    site.record["packed_at"] = packed.finished_at
    return artifact


def _reusable(site: Site) -> Artifact | None:
    """The artifact on the host, if packing the build directory again would give the same.

    It would where nothing in the build directory has changed since the last `make system` ended, be it by a shell or by
    another runner: the files themselves are asked. The host's copy must be what that `make system` made.
    """
    names = site.request.names
    for record in reversed(journal.read(names.build_path)):
        made = record.get("artifact")
        since = _seconds(str(record.get("packed_at")))
        if record.get("volume") != site.workspace.volume or made is None or made["file"] != names.file:
            continue
        artifact = Artifact(names.download_path, made["size"], made["sha256"])
        if since is None or not is_whole(artifact) or _changed_since(site, since):
            return None
        reuse = f"Reusing artifact archive from {_date(since)}: nothing was built since"
        site.reporter.headline(reuse)
        site.log.write(f"{reuse}\n{artifact.path}\n".encode())
        return artifact
    return None


def _changed_since(site: Site, since: str) -> bool:
    """Whether anything in the build directory has changed after ``since`` (seconds since 1970, the engine's clock)."""
    found = bytearray()
    with _stage(site, "check_tree"):
        spec = site.workspace.changed_container(since)
        done = container.run(site.engine, spec, found.extend, site.reporter.warning, site.cancellation)
    return done.status != 0 or bool(found)


def _seconds(moment: str) -> str | None:
    """An RFC 3339 time as seconds of the epoch, its fraction kept to the digit; ``None`` where it is something else."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?Z", moment)
    if match is None:
        return None
    whole = datetime.fromisoformat(match[1]).replace(tzinfo=timezone.utc)
    return f"{int(whole.timestamp())}{match[2] or ''}"


def _date(seconds: str) -> str:
    return datetime.fromtimestamp(int(seconds.partition(".")[0])).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _make_directory(path: Path, what: str) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise errors.not_writable(str(path), what, str(error.strerror)) from error


def _remove_tree(path: Path) -> None:
    """Remove a directory, or the link that Nerves may have put in its place, but not what such a link points to."""
    try:
        if path.is_symlink() or not path.is_dir():
            path.unlink()
        else:
            shutil.rmtree(path)
    except OSError as error:
        raise errors.not_writable(str(path), "The cached artifact", str(error.strerror)) from error
