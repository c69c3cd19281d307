"""Decides which workspace a build gets: the host's directories themselves, or copies of them.

The setting `workspace` can force one of the two. Otherwise the helper finds out whether the engine sees the same file
as the helper does. If the engine is clearly on this machine, this request is saved, and scripts/look.sh checks in the
session that the directories are the right ones.
"""

from __future__ import annotations

import os
import platform
import posixpath
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import docker.errors

from nerves_docker_port import directories, errors
from nerves_docker_port.engine import container
from nerves_docker_port.engine.client import Engine, labels
from nerves_docker_port.engine.container import Mount, Spec
from nerves_docker_port.image.ensure import Image
from nerves_docker_port.request.request import Request
from nerves_docker_port.request.settings import Settings, WorkspaceKind
from nerves_docker_port.volume.build_volume import ID_FILE
from nerves_docker_port.workspace.mounted import Workspace, limits

_PROBE = "/probe"
_NOT_MOUNTABLE = ',"\n'
"""Characters that a path may not have with Podman, which writes a mount as a line of CSV without quotes."""
_COMPARED = 4096
"""How many bytes of the file are compared at most."""


@dataclass(frozen=True)
class Choice:
    """The chosen workspace, and the reason in words that complete "because "."""

    kind: Literal["mounted", "copied"]
    reason: str


def which(engine: Engine, setting: WorkspaceKind, image: Image, file: Path, *, ask: bool = False) -> Choice:
    """Return the workspace to use for ``setting``, the value of the setting `workspace`.

    ``file`` is a file of the host that the engine sees if it sees the package's directory. With ``ask``, the engine is
    asked even if it is clearly on this machine. Raises ``RunnerError`` if the engine fails.
    """
    if setting != "auto":
        return Choice(setting, f"`workspace: :{setting}` is configured")
    if engine.capabilities.maps_users:
        return Choice("copied", "the engine maps user ids, so a container could not write your files")
    if engine.is_podman and any(character in str(file) for character in _NOT_MOUNTABLE):
        return Choice("copied", "Podman cannot mount a path with a comma, a double quote or a line break in it")
    if is_here(engine) and not ask:
        return Choice("mounted", "the engine runs on this machine")
    if "Docker Desktop" in engine.capabilities.system:
        # Docker Desktop translates the paths of shared directories, while `/` is the root of its virtual machine. So
        # `sees` would give a wrong answer. If a directory is not shared, it refuses the mount, and the session is
        # opened again with copies.
        return Choice("mounted", "the engine is Docker Desktop's, which shares directories")
    if sees(engine, image, file):
        return Choice("mounted", f"the engine sees {file.parent} as you do")
    return Choice("copied", f"the engine does not see {file.parent}")


def is_here(engine: Engine) -> bool:
    """Return whether the engine is clearly on this machine, and neither in a container nor in a virtual machine."""
    found = engine.capabilities
    return (
        engine.endpoint.url.startswith("unix://")
        and found.name == platform.node()
        and found.kernel == os.uname().release
    )


def sees(engine: Engine, image: Image, file: Path) -> bool:
    """Return whether the engine sees the same ``file`` as the helper does.

    A container that is never started mounts the file's directory, and the engine's archive call reads the file there.
    With Podman, it mounts the engine's whole file system, because Podman makes a directory that it does not find. With
    Docker it does not: while Docker reads, everything below the mounted directory is mounted on the engine's host a
    second time, so nobody there can remove a directory on which something was mounted.
    If the engine does not allow this container, the result is True, and scripts/look.sh checks the directories in the
    session. Raises ``RunnerError`` if the engine fails.
    """
    # Imported here to save time: for an engine on this machine this function is not called.
    import tarfile

    from nerves_docker_port.engine import archive

    # An absolute symbolic link would lead to a path of the container's own file system.
    path = os.path.realpath(file)
    source = "/" if engine.is_podman else os.path.dirname(path)  # noqa: PTH120
    inside = posixpath.join(_PROBE, posixpath.relpath(path, source))
    spec = Spec(
        name=f"nerves-docker-port-question-{secrets.token_hex(8)}",
        image=image.id,
        entrypoint=["true"],
        mounts=[Mount("bind", source, _PROBE, read_only=True)],
        labels=labels(project="nerves_docker_port", step="question"),
        networked=False,
    )
    with engine.failures("while it was asked whether it sees the package's directory"):
        try:
            made = container.create(engine, spec)
        except docker.errors.APIError as error:
            # Docker: 'invalid mount config for type "bind": bind source path does not exist: ...'.
            return "invalid mount config" not in str(error.explanation)
        try:
            with archive.opened(engine, made, inside) as content:
                found = None if content is None else content.read(_COMPARED)
        except (docker.errors.APIError, tarfile.TarError):
            found = None
        finally:
            with engine.cleaning_up():
                container.remove(engine, made)
    try:
        with Path(path).open("rb") as here:
            return found == here.read(_COMPARED)
    except OSError:
        return False


def open_workspace(engine: Engine, request: Request, image: Image, volume: str) -> Workspace:
    """Return the workspace for ``request`` on ``engine``, after the files that the settings name were found or made.

    Raises ``RunnerError`` ``:bad_request`` if one of them is missing or cannot be made.
    """
    # The engine's own refusal would mean that it does not see the directory.
    if not request.platform.path.is_dir():
        raise errors.platform_missing(str(request.platform.path))
    _check_settings(engine, request)
    workspace = workspace_without_host(engine, request, image, volume)
    choice = which(engine, request.settings.workspace, image, request.names.build_path / ID_FILE)
    if choice.kind == "copied":
        from nerves_docker_port.workspace.copied import CopiedWorkspace

        return CopiedWorkspace.in_place_of(engine, workspace)
    _check_nested_mounts(request.settings)
    _make_ccache(request)
    return workspace


def workspace_without_host(engine: Engine, request: Request, image: Image, volume: str) -> Workspace:
    """Return a workspace for a session that uses none of the host's files. Nothing on the host is checked for it."""
    rootless = engine.capabilities.rootless
    return Workspace(
        request=request,
        image=image,
        generation=request.platform.generation() or image.generation(),
        volume=volume,
        uid=0 if rootless else request.uid,
        gid=0 if rootless else request.gid,
        limits=limits(engine, request.settings),
        proxies=engine.proxy_environment(request.settings.env),
    )


def _check_settings(engine: Engine, request: Request) -> None:
    """Check that the mounts, the agent and the network of the settings exist.

    If one is missing, the engine's own message would be misleading.
    """
    settings = request.settings
    for mount in settings.mounts:
        if not mount.source.exists():
            raise errors.mount_source_missing(str(mount.source), mount.target)
    if settings.ssh_agent is not None and not settings.ssh_agent.is_socket():
        raise errors.ssh_agent(
            f"`ssh: :agent` wants the ssh agent, but SSH_AUTH_SOCK names no socket: {settings.ssh_agent}"
        )
    # Podman does not list the networks `none` and `host`.
    if settings.network not in (None, "none", "host"):
        networks = engine.networks()
        if settings.network not in networks:
            raise errors.network_missing(settings.network, networks)


def _check_nested_mounts(settings: Settings) -> None:
    """Check that each mount below another one finds its mount point there, where the engine could not make it.

    The engine makes a missing mount point in the source of the outer mount, which is not possible if that is read-only
    or a file, or if something of another kind is there.
    """
    for mount in settings.mounts:
        outer = [each for each in settings.mounts if each.target != mount.target and mount.is_below(each)]
        if not outer:
            continue
        nearest = max(outer, key=lambda each: len(each.target))
        point = nearest.source / mount.target[len(nearest.target) + 1 :]
        if point.exists():
            is_possible = point.is_dir() == mount.source.is_dir()
        else:
            is_possible = nearest.source.is_dir() and not nearest.read_only
        if not is_possible:
            raise errors.mount_has_no_point(mount.target, nearest.target, str(point), is_file=mount.source.is_file())


def _make_ccache(request: Request) -> None:
    directory = request.settings.ccache
    if directory is None:
        return
    directories.make(directory, "The ccache directory")
