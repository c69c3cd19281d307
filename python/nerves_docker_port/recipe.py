"""The flows, top-down: build, archive, clean.

Each reads as the recipe that it is. What a step, an image, a volume or the engine is like is known elsewhere; so is the
port. A flow returns its result or raises one ``RunnerError``.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nerves_docker_port import container, errors, image, volume
from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine import Engine
from nerves_docker_port.output import BuildLog
from nerves_docker_port.protocol import StageName
from nerves_docker_port.reporter import Reporter, stage
from nerves_docker_port.request import Request
from nerves_docker_port.workspace import DOWNLOADS, PLATFORM, Workspace, open_workspace


@dataclass(frozen=True)
class Artifact:
    """The archive of a built system on the host."""

    path: Path
    size: int
    """Bytes."""
    sha256: str
    """Hexadecimal."""


@dataclass(frozen=True)
class Site:
    """Where a flow works, once preflight has found everything in order."""

    engine: Engine
    workspace: Workspace
    log: BuildLog
    reporter: Reporter
    cancellation: Cancellation

    @property
    def request(self) -> Request:
        """What Mix asked for."""
        return self.workspace.request


def build(request: Request, environ: Mapping[str, str], reporter: Reporter, cancellation: Cancellation) -> Artifact:
    """Build the system and bring its archive to the download directory."""
    with _preflight(request, environ, reporter, cancellation, log="build.log", needs_tree=False) as site:
        reporter.headline("Starting Build... (this may take a while)")
        _run(
            site,
            "create_build",
            [f"{PLATFORM}/create-build.sh", site.workspace.defconfig, site.workspace.workdir],
        )
        _run(site, "make", ["make", *request.make_args])
        return _pack_and_copy(site)


def archive(request: Request, environ: Mapping[str, str], reporter: Reporter, cancellation: Cancellation) -> Artifact:
    """Pack what has been built and bring the archive to the download directory."""
    with _preflight(request, environ, reporter, cancellation, log="archive.log", needs_tree=True) as site:
        return _pack_and_copy(site)


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
    """Engine, volume, image, mounts and log in order, and the volume to ourselves, before the first step."""
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
        found = image.ensure(engine, request.image, reporter, cancellation)
        workspace = open_workspace(engine, request, found, name, session)
        _make_directory(request.names.download_dir, "The download directory")
        cancellation.check()
    with (
        volume.hold(engine, name, found.id, session, "build"),
        BuildLog(request.cwd / log, reporter.log) as build_log,
    ):
        yield Site(engine, workspace, build_log, reporter, cancellation)
    engine.close()


def _run(site: Site, name: StageName, command: Sequence[str]) -> None:
    """Run one step to a good end."""
    if site.workspace.chown_steps:
        _run_container(site, "chown", site.workspace.chown_step())
    _run_container(site, name, site.workspace.step(name, command))


def _run_container(site: Site, name: StageName, spec: container.Spec) -> None:
    with stage(site.reporter, name):
        ended = container.run(site.engine, spec, site.log.write, site.reporter.warning, site.cancellation)
        site.log.end_step()
        if ended.status != 0:
            raise _failure(site, name, spec, ended)


def _failure(site: Site, name: StageName, spec: container.Spec, ended: container.Exit) -> errors.RunnerError:
    """What to say of a step that ended badly, from its status and the log."""
    last_lines = site.log.last_lines()
    log = str(site.log.path)
    if name == "make_system" and "No rule to make target 'system'" in last_lines:
        package, names = site.request.package, site.request.names
        return errors.no_build_tree(package.app, str(names.cache_path), last_lines, log)
    doing = "setting permissions" if name == "chown" else "building"
    return errors.step_failed(shlex.join(spec.command), ended.status, last_lines, log, doing=doing)


def _pack_and_copy(site: Site) -> Artifact:
    """Pack the system in the build directory, then bring the archive to the host, whole or not at all."""
    names = site.request.names
    site.reporter.headline("Creating artifact archive")
    _run(site, "make_system", ["make", "system", f"NERVES_ARTIFACT_NAME={names.artifact}"])
    site.reporter.headline("Copying artifact archive to host")
    # Under another name until it is whole: Nerves takes what it finds under the final one.
    partial = f".{names.file}.{site.workspace.session}.part"
    partial_path = names.download_dir / partial
    try:
        _run(site, "copy", ["cp", names.file, f"{DOWNLOADS}/{partial}"])
        artifact = _check(partial_path, names.download_path, str(site.log.path))
        partial_path.replace(names.download_path)
    finally:
        partial_path.unlink(missing_ok=True)
    return artifact


def _check(partial: Path, final: Path, log: str) -> Artifact:
    """Read the copied archive to its end; what it will be under its final name."""
    digest = hashlib.sha256()
    size = 0
    try:
        with partial.open("rb") as file:
            while data := file.read(1 << 20):
                digest.update(data)
                size += len(data)
    except OSError as error:
        raise errors.artifact_missing(str(final), str(error.strerror), log) from error
    if size == 0:
        raise errors.artifact_missing(str(final), "it is empty", log)
    return Artifact(final, size, digest.hexdigest())


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
