"""The build volume: its name, its making and removal, and who may use it.

The name is ``<app>-<id>``, the id kept in the package as the stock runner keeps it, so that a user can change runners
and keep the build tree.
"""

from __future__ import annotations

import fcntl
import platform
import re
import secrets
import string
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from typing import Any

import docker.errors

from nerves_docker_port import errors
from nerves_docker_port.engine.client import LABEL, Engine, label, labels
from nerves_docker_port.engine.container import remove as remove_container
from nerves_docker_port.request.request import Names, Package
from nerves_docker_port.volume.owner import Owner, this_process

_ID_LENGTH = 16
HOLD_TIMEOUT = 30.0
"""Seconds that a hold from another host may go without a container of its session. At its ends a flow has none."""

_ID_ALPHABET = string.ascii_letters + string.digits + "_"


def name(package: Package, names: Names) -> str | None:
    """The volume's name if the package has one, else ``None``. Makes nothing.

    Raises ``RunnerError`` ``:bad_request`` where the id file holds something else than an id.
    """
    path = names.build_path / ".docker_id"
    try:
        volume_id = path.read_text(errors="replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise errors.not_writable(str(path), "The file", str(error.strerror)) from error
    if not volume_id:
        # Left by something that died between making and writing it: as good as none.
        return None
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", volume_id):
        raise errors.bad_request(
            f"{path} does not hold the id of a build volume: {volume_id[:40]!r}.",
            hint="Restore the file, or remove it to start with a new volume.",
        )
    return _engine_name(package.app, volume_id)


def ensure_name(package: Package, names: Names) -> str:
    """The volume's name; where the package has none, one is made and kept.

    Two that start at once agree: the first to lock the file writes it, the other finds it written.
    """
    existing = name(package, names)
    if existing is not None:
        return existing
    path = names.build_path / ".docker_id"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            # Empty, too, where something died between making and writing it.
            if not file.read().strip():
                file.truncate(0)
                file.write("".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH)))
    except OSError as error:
        raise errors.not_writable(str(path), "The file", str(error.strerror)) from error
    made = name(package, names)
    if made is None:
        raise errors.not_writable(str(path), "The file", "it stays empty")
    return made


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
    """Make the volume if it is not there. Making one that exists is no error at the engine."""
    if exists(engine, volume):
        return
    with engine.failures(f"while it made the volume {volume}"):
        engine.api.create_volume(
            volume,
            labels=labels(
                project="nerves_docker_port",
                package=package.app,
                version=package.version,
                path=str(package.path),
                # The path means something there only.
                host=platform.node(),
                volume=volume,
            ),
        )


def remove(engine: Engine, volume: str) -> None:
    """Remove the volume; one that is not there is fine.

    Raises ``RunnerError`` ``:volume_busy`` while a container uses it.
    """
    check_unheld(engine, volume)
    with engine.failures(f"while it removed the volume {volume}"), suppress(docker.errors.NotFound):
        # Containers that have ended hold the volume, too. Ours may go; somebody else's make the engine refuse.
        for container in _containers(engine, volume):
            if label(container.get("Labels"), "volume") == volume:
                _remove_container(engine, str(container["Id"]))
        engine.api.remove_volume(volume)


@contextmanager
def hold(engine: Engine, volume: str, image: str, session: str, what: str) -> Iterator[None]:
    """Have the volume to oneself: nobody else builds or opens a shell on it while the body runs.

    The hold is a container that is made but never started. Its name can exist once, and the engine sees to that, so it
    works between users, terminals and hosts. It tells its owner; one whose owner has died is removed.
    Raises ``RunnerError`` ``:volume_busy``.
    """
    made = _take_hold(engine, volume, image, session, what)
    try:
        yield
    finally:
        with engine.cleaning_up():
            _remove_container(engine, made)


def _take_hold(engine: Engine, volume: str, image: str, session: str, what: str) -> str:
    config = {
        "Image": image,
        "Entrypoint": ["true"],
        "Labels": container_labels(volume, what, session),
        "NetworkDisabled": True,
    }
    hold_name = _hold_name(volume)
    deadline = time.monotonic() + HOLD_TIMEOUT
    while True:
        sweep(engine, volume)
        check_free(engine, volume)
        with engine.failures(f"while it reserved the volume {volume}"):
            try:
                return str(engine.api.create_container_from_config(config, hold_name)["Id"])
            except docker.errors.APIError as error:
                if error.status_code != 409:
                    raise
        holder = _inspect(engine, hold_name)
        if holder is not None and _is_alive(engine, volume, holder):
            raise _busy(engine, volume, holder)
        if time.monotonic() > deadline:
            # Its owner lives elsewhere, and for all that time it ran nothing: it has died.
            deadline = time.monotonic() + HOLD_TIMEOUT
            if holder is not None:
                _remove_container(engine, str(holder["Id"]))
        # The holder has just gone or is about to show whether it lives.
        time.sleep(0.1)


def _hold_name(volume: str) -> str:
    return f"{volume}-hold"


def _is_alive(engine: Engine, volume: str, holder: Mapping[str, Any]) -> bool:
    """Whether a hold (inspected) certainly has a living owner: a process here, or containers of the same session."""
    held = holder["Config"].get("Labels")
    owner = Owner.from_label(label(held, "owner") or "")
    if owner is not None and owner.is_here():
        return not owner.is_dead()
    session = label(held, "session")
    return any(label(other.get("Labels"), "session") == session for other in _containers(engine, volume))


def container_labels(volume: str, step: str, session: str) -> dict[str, str]:
    """The labels of every container that we make for ``volume``."""
    return labels(
        project="nerves_docker_port",
        volume=volume,
        step=step,
        session=session,
        owner=this_process().to_label(),
    )


def sweep(engine: Engine, volume: str) -> None:
    """Remove the containers that a dead owner left on ``volume``. Touches nothing without our label."""
    with engine.failures("while it listed what was left behind"):
        left = engine.api.containers(all=True, filters={"label": f"{LABEL}.volume={volume}"})
    for container in left:
        if _is_dead(container.get("Labels")):
            _remove_container(engine, str(container["Id"]))


def check_free(engine: Engine, volume: str) -> None:
    """Raise ``:volume_busy`` if a running container, ours or not, uses ``volume``."""
    for container in _containers(engine, volume):
        # A created or exited container of ours is one that is about to start or be removed.
        if container.get("State") in ("running", "paused", "restarting") and not _is_dead(container.get("Labels")):
            inspected = _inspect(engine, str(container["Id"]))
            if inspected is not None:
                raise _busy(engine, volume, inspected)


def check_unheld(engine: Engine, volume: str) -> None:
    """Raise ``:volume_busy`` if somebody uses or holds ``volume`` now; ``hold`` is what makes sure of it."""
    check_free(engine, volume)
    # A flow that has no container yet, or no longer, holds the volume all the same.
    holder = _inspect(engine, _hold_name(volume))
    if holder is not None and _is_alive(engine, volume, holder):
        raise _busy(engine, volume, holder)


def _containers(engine: Engine, volume: str) -> list[Mapping[str, Any]]:
    """All containers that mount ``volume``, running or not."""
    with engine.failures(f"while it listed the users of the volume {volume}"):
        found = engine.api.containers(all=True, filters={"volume": volume})
    # Filters match more than they say on some engines; the mounts do not lie.
    return [c for c in found if any(mount.get("Name") == volume for mount in c.get("Mounts") or [])]


def _busy(engine: Engine, volume: str, container: Mapping[str, Any]) -> errors.RunnerError:
    """The error for a volume that ``container`` (inspected) uses; of a hold, its session's container is named."""
    session = label(container["Config"].get("Labels"), "session")
    if session is not None and str(container["Name"]).endswith("-hold"):
        for other in _containers(engine, volume):
            if label(other.get("Labels"), "session") == session:
                container = _inspect(engine, str(other["Id"])) or container
    step = label(container["Config"].get("Labels"), "step") or "not started by this runner"
    name_of_it, age = str(container["Name"]).lstrip("/"), _age(str(container.get("Created", "")))
    # A hold never runs, so it cannot be stopped.
    end = "docker rm --force" if name_of_it == _hold_name(volume) else "docker stop"
    return errors.volume_busy(volume, name_of_it, step, age, f"{end} {name_of_it}")


def _age(created: str) -> str:
    """How long ago an RFC 3339 time was, in words."""
    # Python before 3.11 reads neither nanoseconds nor a Z.
    match = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)", created)
    if match is None:
        return "of unknown age"
    then = datetime.fromisoformat(match[1]).replace(tzinfo=timezone.utc)
    seconds = max(0, round((datetime.now(timezone.utc) - then).total_seconds()))
    for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= 2 * size:
            return f"started {seconds // size} {unit}s ago"
    return f"started {seconds} seconds ago"


def _inspect(engine: Engine, container: str) -> Mapping[str, Any] | None:
    with engine.failures("while it was asked about a container"):
        try:
            found: Mapping[str, Any] = engine.api.inspect_container(container)
        except docker.errors.NotFound:
            return None
    return found


def _is_dead(container_labels: Mapping[str, str] | None) -> bool:
    owner = Owner.from_label(label(container_labels, "owner") or "")
    return owner is not None and owner.is_dead()


def _remove_container(engine: Engine, container: str) -> None:
    with engine.failures("while it removed a container"):
        remove_container(engine, container)
