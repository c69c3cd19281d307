"""Remove the results of a build: the build volume, and the artifact in Nerves' cache."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from nerves_docker_port import errors
from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine.client import Engine
from nerves_docker_port.record.recorder import recorded
from nerves_docker_port.record.reporter import Reporter, stage
from nerves_docker_port.request.request import Request
from nerves_docker_port.volume import build_volume


def clean(request: Request, environ: Mapping[str, str], reporter: Reporter, cancellation: Cancellation) -> list[str]:
    """Remove the build volume, and the artifact in Nerves' cache, as far as they exist.

    Return the name of the volume and the path of the artifact if they were removed. Raises ``RunnerError``.
    """
    removed = []
    with recorded(request, "clean", reporter) as recorder, stage(recorder, "clean"):
        engine = Engine.connect(environ)
        cancellation.check()
        name = build_volume.find_name(engine, request.package, request.names)
        if name is not None and build_volume.exists(engine, name):
            recorder.headline(f"Deleting build volume {name}")
            build_volume.remove(engine, name)
            removed.append(name)
        if os.path.lexists(request.names.cache_path):
            _remove_tree(request.names.cache_path)
            removed.append(str(request.names.cache_path))
    return removed


def _remove_tree(path: Path) -> None:
    """Remove a directory. If Nerves has made a link in its place, remove only the link and not its target."""
    try:
        if path.is_symlink() or not path.is_dir():
            path.unlink()
        else:
            shutil.rmtree(path)
    except OSError as error:
        raise errors.not_writable(str(path), "The cached artifact", str(error.strerror)) from error
