"""The build volume: its name, and how it is made and removed. The module ``lock`` decides who may use it.

The name is ``<app>-<id>``. The id is kept in the same file of the package in which the stock runner keeps it, so that a
user can change from one runner to the other and keep the build tree.
"""

from __future__ import annotations

import fcntl
import platform
import re
import secrets
import string
from contextlib import suppress

import docker.errors

from nerves_docker_port import directories, errors
from nerves_docker_port.engine import container
from nerves_docker_port.engine.client import LABEL, Engine, label, labels
from nerves_docker_port.request.request import Names, Package
from nerves_docker_port.volume import lock, machine

ID_FILE = ".docker_id"
"""The name of the file with the id. It lies in the package's build path, where the stock runner also keeps it."""

_ID_LENGTH = 16
_ID_ALPHABET = string.ascii_letters + string.digits + "_"


def name(package: Package, names: Names) -> str | None:
    """Return the name of the package's volume, or ``None`` if the package has no id. Nothing is made.

    Raises ``RunnerError`` with the code ``:bad_request`` if the id file has a content that is not an id.
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
    """Return the name of the package's volume. If the package has no id, write one to the id file.

    If the id file is missing, but the engine has a volume of this package and version, the id of that volume is used.
    This happens because Nerves removes the file if its artifact directory is the build directory
    (``NERVES_ARTIFACTS_DIR=$PWD/.nerves/artifacts``). Two processes that start together get the same id, because
    the first one that locks the file writes the id, and the other one then reads it.
    """
    existing = name(package, names)
    if existing is not None:
        return existing
    known = find_by_label(engine, package)
    path = names.build_path / ID_FILE
    directories.make(path.parent, "The directory")
    try:
        with path.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            # The file is also empty if another process made it and died before it wrote the id.
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
    """Return the name of the package's volume, also if only the engine knows it, or ``None``. Nothing is made."""
    known = name(package, names)
    if known is not None:
        return known
    volume_id = find_by_label(engine, package)
    return None if volume_id is None else _engine_name(package.app, volume_id)


def find_by_label(engine: Engine, package: Package) -> str | None:
    """Return the id of the newest volume for this package and version from this machine, if the engine has one."""
    wanted = labels(package=package.app, version=package.version, path=str(package.path), host=platform.node())
    filters = {"label": [f"{key}={value}" for key, value in wanted.items()]}
    with engine.failures("while it looked for the package's build volume"):
        found = engine.api.volumes(filters=filters).get("Volumes") or []
    # On some engines a filter also matches other volumes, so the labels are compared here.
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
    """Return ``<app>-<id>`` in the characters that an engine allows: ``[a-zA-Z0-9][a-zA-Z0-9_.-]+``.

    The name of an app can have any Unicode characters.
    """
    return re.sub(r"^[^A-Za-z0-9]+", "", re.sub(r"[^A-Za-z0-9_.-]", "_", f"{app}-{volume_id}"))


def exists(engine: Engine, volume: str) -> bool:
    """Return whether the engine has a volume of exactly this name. The engine's own filter also matches substrings."""
    with engine.failures(f"while it looked for the volume {volume}"):
        try:
            engine.api.inspect_volume(volume)
        except docker.errors.NotFound:
            return False
    return True


def ensure(engine: Engine, volume: str, package: Package) -> None:
    """Make the volume if the engine does not have it."""
    with engine.failures(f"while it made the volume {volume}"):
        engine.api.create_volume(volume, labels=labels_of(volume, package))


def labels_of(volume: str, package: Package) -> dict[str, str]:
    """Return the labels of the build volume of ``package``."""
    return labels(
        project="nerves_docker_port",
        package=package.app,
        version=package.version,
        path=str(package.path),
        # A path is only meaningful on its own machine.
        host=platform.node(),
        machine=machine.machine_id(),
        directory=machine.directory_id(package.path),
        volume=volume,
    )


def ensure_part(engine: Engine, volume: str, part: str) -> str:
    """Make a further volume that is removed together with the build volume, if it is missing. Return its name."""
    name = f"{volume}-{part}"
    with engine.failures(f"while it made the volume {name}"):
        engine.api.create_volume(name, labels=labels(project="nerves_docker_port", volume=volume, part=part))
    return name


def ensure_shared(engine: Engine, what: str) -> str:
    """Make the volume that all packages at this engine share for ``what``, if it is missing. Return its name."""
    name = f"{LABEL}-{what}"
    with engine.failures(f"while it made the volume {name}"):
        engine.api.create_volume(name, labels=labels(project="nerves_docker_port", shared=what))
    return name


def _parts(engine: Engine, volume: str) -> list[str]:
    """Return the names of the volumes that ``ensure_part`` has made for the build volume."""
    found = engine.api.volumes(filters={"label": [f"{LABEL}.volume={volume}"]}).get("Volumes") or []
    return [
        str(each["Name"])
        for each in found
        if label(each.get("Labels"), "volume") == volume and label(each.get("Labels"), "part") is not None
    ]


def remove(engine: Engine, volume: str) -> None:
    """Remove the volume, if it exists, and the volumes that belong to it. The volume is locked meanwhile.

    Raises ``RunnerError`` with the code ``:volume_busy`` if another container uses the volume.
    """
    with (
        lock.reserve(engine, volume, "clean", _any_image(engine)) as holder,
        engine.failures(f"while it removed the volume {volume}"),
    ):
        for other in container.list_all(engine):
            if other["Id"] == holder or not lock.uses(other, volume):
                continue
            # A container of this package can be removed here, because it is parked or has ended. A container that
            # somebody else made is never removed, so the volume stays if such a container uses it.
            if label(other.get("Labels"), "volume") != volume:
                raise lock.busy_with(engine, volume, other)
            container.remove(engine, str(other["Id"]))
        for each in [volume, *_parts(engine, volume)]:
            with suppress(docker.errors.NotFound):
                engine.api.remove_volume(each)


def _any_image(engine: Engine) -> str | None:
    """Return the id of any image at the engine, or ``None`` if it has no image."""
    with engine.failures("while it listed its images"):
        found = engine.api.images(quiet=True)
    return str(found[0]) if found else None
