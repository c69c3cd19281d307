"""Which workspace a build gets: the host's directories themselves, or copies of them.

A setting forces one; otherwise the engine is asked whether it sees the same file as we do. An engine that is plainly on
this machine is not asked: scripts/look.sh finds out in the session itself.
"""

from __future__ import annotations

import os
import platform
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import docker.errors

from nerves_docker_port import errors
from nerves_docker_port.engine import container
from nerves_docker_port.engine.client import Engine, labels
from nerves_docker_port.engine.container import Mount, Spec
from nerves_docker_port.image.ensure import Image
from nerves_docker_port.request.request import Request
from nerves_docker_port.request.settings import WorkspaceKind
from nerves_docker_port.volume.build_volume import ID_FILE
from nerves_docker_port.workspace.mounted import Workspace, limits

_PROBE = "/probe"
_NOT_MOUNTABLE = ',"\n'
"""Podman writes a mount as a line of CSV without quotes, and reads it again."""
_LONGEST = 4096
"""Bytes of a file that are compared."""


@dataclass(frozen=True)
class Choice:
    """Which workspace, and why, in words that complete "because "."""

    kind: Literal["mounted", "copied"]
    reason: str


def which(engine: Engine, setting: WorkspaceKind, image: Image, file: Path, *, ask: bool = False) -> Choice:
    """The workspace for ``setting``. ``file`` is one of the host's that the engine sees if it sees the directories.

    With ``ask``, also an engine that is plainly on this machine is asked. Raises ``RunnerError``.
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
        # It translates the paths of the directories that are shared with it; `/` is its virtual machine's own. It
        # refuses what is not shared, and then there are copies after all.
        return Choice("mounted", "the engine is Docker Desktop's, which shares directories")
    if sees(engine, image, file):
        return Choice("mounted", f"the engine sees {file.parent} as you do")
    return Choice("copied", f"the engine does not see {file.parent}")


def is_here(engine: Engine) -> bool:
    """Whether the engine is plainly on this machine, in no container and no virtual machine."""
    found = engine.capabilities
    return (
        engine.endpoint.url.startswith("unix://")
        and found.name == platform.node()
        and found.kernel == os.uname().release
    )


def sees(engine: Engine, image: Image, file: Path) -> bool:
    """Whether the engine sees the same ``file`` as we do.

    Nothing of ours is mounted for that, because Podman makes the directories that it does not find: a container that is
    never started gets the engine's whole file system, and the engine's archive call reads the file there. Where the
    engine does not allow that, the answer is yes, and the session finds out. Raises ``RunnerError``.
    """
    # Imported where they are needed, because an engine on this machine is not asked.
    import tarfile

    from nerves_docker_port.engine import archive

    # In the container, an absolute link leads somewhere else.
    path = os.path.realpath(file)
    spec = Spec(
        name=f"nerves-docker-port-question-{secrets.token_hex(8)}",
        image=image.id,
        entrypoint=["true"],
        mounts=[Mount("bind", "/", _PROBE, read_only=True)],
        labels=labels(project="nerves_docker_port", step="question"),
        networked=False,
    )
    with engine.failures("while it was asked whether it sees the package's directory"):
        try:
            made = container.create(engine, spec)
        except docker.errors.APIError:
            return True
        try:
            with archive.opened(engine, made, f"{_PROBE}{path}") as content:
                found = None if content is None else content.read(_LONGEST)
        except (docker.errors.APIError, tarfile.TarError):
            found = None
        finally:
            with engine.cleaning_up():
                container.remove(engine, made)
    try:
        with Path(path).open("rb") as here:
            return found == here.read(_LONGEST)
    except OSError:
        return False


def open_workspace(engine: Engine, request: Request, image: Image, volume: str) -> Workspace:
    """The workspace for ``request`` on ``engine``, once what the settings name has been found or made.

    Raises ``RunnerError`` ``:bad_request``.
    """
    _check_settings(engine, request)
    rootless = engine.capabilities.rootless
    workspace = Workspace(
        request=request,
        image=image,
        generation=request.platform.generation() or image.generation(),
        volume=volume,
        uid=0 if rootless else request.uid,
        gid=0 if rootless else request.gid,
        limits=limits(engine, request.settings),
        proxies=engine.proxy_environment(request.settings.env),
    )
    choice = which(engine, request.settings.workspace, image, request.names.build_path / ID_FILE)
    if choice.kind == "copied":
        from nerves_docker_port.workspace.copied import CopiedWorkspace

        return CopiedWorkspace.in_place_of(engine, workspace)
    _make_ccache(request)
    return workspace


def _check_settings(engine: Engine, request: Request) -> None:
    """See that what the settings name is there: the engine's own words for it would be about something else."""
    settings = request.settings
    for mount in settings.mounts:
        if not mount.source.exists():
            raise errors.mount_source_missing(str(mount.source), mount.target)
    if settings.ssh_agent is not None and not settings.ssh_agent.is_socket():
        raise errors.ssh_agent(
            f"`ssh: :agent` wants the ssh agent, but SSH_AUTH_SOCK names no socket: {settings.ssh_agent}"
        )
    # Podman does not list these two.
    if settings.network not in (None, "none", "host"):
        networks = engine.networks()
        if settings.network not in networks:
            raise errors.network_missing(settings.network, networks)


def _make_ccache(request: Request) -> None:
    directory = request.settings.ccache
    if directory is None:
        return
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise errors.not_writable(str(directory), "The ccache directory", str(error.strerror)) from error
