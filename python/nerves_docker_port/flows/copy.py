"""Copy a file or directory from the build tree to the host, without a build."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.flows.job import log_opened_on_use, open_session, prepare
from nerves_docker_port.record.recorder import recorded
from nerves_docker_port.record.reporter import Reporter, stage
from nerves_docker_port.request.request import NEW, OLD, Request
from nerves_docker_port.workspace import tree
from nerves_docker_port.workspace.tree import Copied


def copy(
    request: Request,
    source: str,
    target: str,
    environ: Mapping[str, str],
    reporter: Reporter,
    cancellation: Cancellation,
) -> Copied:
    """Copy ``source``, a path in the build directory, to ``target`` on the host, completely or not at all.

    If ``target`` is a directory or ends with a slash, the copy is made in that directory. Raises ``RunnerError``.
    """
    generation = request.platform.generation()
    workdirs = (OLD.workdir, NEW.workdir) if generation is None else (generation.workdir,)
    path = tree.path_in_tree(source, workdirs)
    place = tree.place_for(path, target, request.package.app)
    log = request.log_dir / "run.log"
    with recorded(request, "copy", reporter, log) as recorder, ExitStack() as stack:
        open_log = stack.enter_context(log_opened_on_use(log, recorder))
        prepared = prepare(
            request, environ, recorder, cancellation, needs_tree=True, open_log=open_log, uses_host=False
        )
        stack.callback(prepared.engine.close)
        prepared, session = open_session(
            prepared, "copy", cancellation, recorder.warning, spec=lambda workspace, token: workspace.reading(token)
        )
        stack.callback(session.end)
        recorder.record(*prepared.as_records())
        with stage(recorder, "copy"):
            copied = tree.bring(session, prepared.workspace, path, place, recorder, cancellation)
        for text in copied.warnings:
            recorder.warning(text)
        return copied
