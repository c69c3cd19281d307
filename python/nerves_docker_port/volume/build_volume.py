"""The build volume: its name, its making and its removal. Who may use it is decided in ``lock``.

The name is ``<app>-<id>``, the id kept in the package as the stock runner keeps it, so that a user can change runners
and keep the build tree.
"""

from __future__ import annotations

import fcntl
import platform
import re
import secrets
import string
from contextlib import suppress

import docker.errors

from nerves_docker_port import errors
from nerves_docker_port.engine import container
from nerves_docker_port.engine.client import LABEL, Engine, label, labels
from nerves_docker_port.request.request import Names, Package
from nerves_docker_port.volume import lock, machine

ID_FILE = ".docker_id"
"""In the package's build path, where the stock runner keeps it, too."""

_ID_LENGTH = 16
_ID_ALPHABET = string.ascii_letters + string.digits + "_"


def name(package: Package, names: Names) -> str | None:
    """The volume's name if the package has one, else ``None``. Makes nothing.

    Raises ``RunnerError`` ``:bad_request`` where the id file holds something else than an id.
    """
    path = names.build_path / ID_FILE
    try:
        volume_id = path.read_text(errors="replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise errors.not_writable(str(path), "The file", str(error.strerror)) from error
    if not volume_id:
        # The process that made this file died before it wrote the id, so the file is treated as missing.
        return None
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", volume_id):
        raise errors.bad_request(
            f"{path} does not hold the id of a build volume: {volume_id[:40]!r}.",
            hint="Restore the file, or remove it to start with a new volume.",
        )
    return _engine_name(package.app, volume_id)


def ensure_name(engine: Engine, package: Package, names: Names) -> str:
    """The volume's name; where the package has none, one is made and kept.

    Where the id file is missing, but the engine has a volume of this package and version, that one is taken: Nerves
    removes the file where its cache is the build directory (``NERVES_ARTIFACTS_DIR=$PWD/.nerves/artifacts``). Two
    processes that start at once agree: the first to lock the file writes it, the other finds it written.
    """
    existing = name(package, names)
    if existing is not None:
        return existing
    known = find_by_label(engine, package)
    path = names.build_path / ID_FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            # It is also empty where a process died between making and writing it.
            if not file.read().strip():
                file.truncate(0)
                file.write(known or "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH)))
    except OSError as error:
        raise errors.not_writable(str(path), "The file", str(error.strerror)) from error
    made = name(package, names)
    if made is None:
        raise errors.not_writable(str(path), "The file", "it stays empty")
    return made


def find_name(engine: Engine, package: Package, names: Names) -> str | None:
    """The volume's name if the package has one, be it that only the engine knows it. Makes nothing."""
    known = name(package, names)
    if known is not None:
        return known
    volume_id = find_by_label(engine, package)
    return None if volume_id is None else _engine_name(package.app, volume_id)


def find_by_label(engine: Engine, package: Package) -> str | None:
    """The id of the volume that was made last for this package and version on this machine, if the engine has one."""
    wanted = labels(package=package.app, version=package.version, path=str(package.path), host=platform.node())
    filters = {"label": [f"{key}={value}" for key, value in wanted.items()]}
    with engine.failures("while it looked for the package's build volume"):
        found = engine.api.volumes(filters=filters).get("Volumes") or []
    # Filters match more than they say on some engines; the labels do not lie.
    fitting = [
        each
        for each in found
        if all((each.get("Labels") or {}).get(key) == value for key, value in wanted.items())
        and label(each.get("Labels"), "volume") == each.get("Name")
    ]
    newest = max(fitting, key=lambda each: str(each.get("CreatedAt") or ""), default=None)
    prefix = _engine_name(package.app, "")
    if newest is None or not str(newest["Name"]).startswith(prefix):
        return None
    return str(newest["Name"])[len(prefix) :]


def _engine_name(app: str, volume_id: str) -> str:
    """``<app>-<id>`` as the engine allows it: ``[a-zA-Z0-9][a-zA-Z0-9_.-]+``; an app's name may be any Unicode."""
    return re.sub(r"^[^A-Za-z0-9]+", "", re.sub(r"[^A-Za-z0-9_.-]", "_", f"{app}-{volume_id}"))


def exists(engine: Engine, volume: str) -> bool:
    """Whether the engine has a volume of exactly this name (its own filter matches substrings)."""
    with engine.failures(f"while it looked for the volume {volume}"):
        try:
            engine.api.inspect_volume(volume)
        except docker.errors.NotFound:
            return False
    return True


def ensure(engine: Engine, volume: str, package: Package) -> None:
    """Make the volume if it is not there. An engine that has it gives the one that is there."""
    with engine.failures(f"while it made the volume {volume}"):
        engine.api.create_volume(volume, labels=labels_of(volume, package))


def labels_of(volume: str, package: Package) -> dict[str, str]:
    """The labels of the build volume of ``package``."""
    return labels(
        project="nerves_docker_port",
        package=package.app,
        version=package.version,
        path=str(package.path),
        # The path means something on this machine only.
        host=platform.node(),
        machine=machine.machine_id(),
        directory=machine.directory_id(package.path),
        volume=volume,
    )


def ensure_part(engine: Engine, volume: str, part: str) -> str:
    """The name of a further volume that belongs to the build volume and goes with it; made if it is not there."""
    name = f"{volume}-{part}"
    with engine.failures(f"while it made the volume {name}"):
        engine.api.create_volume(name, labels=labels(project="nerves_docker_port", volume=volume, part=part))
    return name


def ensure_shared(engine: Engine, what: str) -> str:
    """The name of the volume that all packages at this engine share for ``what``; made if it is not there."""
    name = f"{LABEL}-{what}"
    with engine.failures(f"while it made the volume {name}"):
        engine.api.create_volume(name, labels=labels(project="nerves_docker_port", shared=what))
    return name


def _parts(engine: Engine, volume: str) -> list[str]:
    """The names of the volumes that belong to the build volume."""
    found = engine.api.volumes(filters={"label": [f"{LABEL}.volume={volume}"]}).get("Volumes") or []
    return [
        str(each["Name"])
        for each in found
        if label(each.get("Labels"), "volume") == volume and label(each.get("Labels"), "part") is not None
    ]


def remove(engine: Engine, volume: str) -> None:
    """Remove the volume; one that is not there is fine. The volume's lock is held meanwhile.

    Raises ``RunnerError`` ``:volume_busy`` while somebody uses it.
    """
    with (
        lock.reserve(engine, volume, "clean", _any_image(engine)) as holder,
        engine.failures(f"while it removed the volume {volume}"),
    ):
        for other in container.list_all(engine):
            if other["Id"] == holder or not lock.uses(other, volume):
                continue
            # Ours are parked or have ended, and may go. Those of somebody else keep the volume.
            if label(other.get("Labels"), "volume") != volume:
                raise lock.busy_with(engine, volume, other)
            container.remove(engine, str(other["Id"]))
        for each in [volume, *_parts(engine, volume)]:
            with suppress(docker.errors.NotFound):
                engine.api.remove_volume(each)


def _any_image(engine: Engine) -> str | None:
    """The id of some image at the engine, ``None`` if it has none."""
    with engine.failures("while it listed its images"):
        found = engine.api.images(quiet=True)
    return str(found[0]) if found else None
