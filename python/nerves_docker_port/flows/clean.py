"""Remove what a build has left: the build volume, and the artifact in Nerves' cache."""

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
    """Remove the build volume and the artifact from Nerves' cache; what was removed. Nothing to clean is fine."""
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
    """Remove a directory, or the link that Nerves may have put in its place, but not what such a link points to."""
    try:
        if path.is_symlink() or not path.is_dir():
            path.unlink()
        else:
            shutil.rmtree(path)
    except OSError as error:
        raise errors.not_writable(str(path), "The cached artifact", str(error.strerror)) from error
