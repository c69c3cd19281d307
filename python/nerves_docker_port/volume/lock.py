"""The lock of a build volume: only one session at a time may use the volume, and the engine decides which.

A session is a container whose name is made from the volume's name. An engine allows each name only once, so it refuses
to make a second session for the volume, also for other users, terminals and hosts. No lock file and no clock of a host
is needed. A process that is refused inspects the container that has the name, which is called the holder. If the holder
runs, or was made less than a minute ago and not started yet, the volume is busy. If the holder has ended, or was not
started for a minute by the engine's clock, it is a leftover and is removed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from nerves_docker_port import errors, text
from nerves_docker_port.engine import container
from nerves_docker_port.engine.client import Engine, label, labels
from nerves_docker_port.engine.container import NameTakenError, NoContainerError, Spec

LEFTOVER_AGE = 60
"""Seconds by the engine's clock after which a container that was made but never started is a leftover. A helper that is
alive starts a container a few milliseconds after it has made it."""

TAKE_TIMEOUT = 20.0
"""Seconds that the engine may take to remove a holder that has ended."""

_RUNNING = ("running", "paused", "restarting")
_ENDED = ("exited", "dead", "removing")
_WITHOUT_VOLUME = ("question", "doctor")
"""What our containers that use no build volume are for (workspace/choose.py, doctor/examine.py)."""


def session_name(volume: str) -> str:
    """Return the name of the container that holds ``volume``."""
    return f"{volume}-session"


def parked_name(volume: str, identity: str) -> str:
    """Return the name of a session between a build and its archive, while it does not hold ``volume``.

    ``identity`` is the id of the session's container.
    """
    return f"{_parked_prefix(volume)}{identity[:12]}"


def container_labels(volume: str, flow: str) -> dict[str, str]:
    """Return the labels of a container that we make for ``volume``. ``flow`` is the name of the flow that needs it."""
    return labels(project="nerves_docker_port", volume=volume, step=flow)


def take(engine: Engine, volume: str, spec: Spec, *, checks: bool = True) -> str:
    """Make the container ``spec``, whose name is the lock of ``volume``, and return its id. It is not started.

    Raises ``RunnerError`` with the code ``:volume_busy`` if another container uses the volume. Without ``checks``, only
    the name is checked, and the caller must call ``check_free`` before it starts the container.
    """
    deadline = time.monotonic() + TAKE_TIMEOUT
    while True:
        with engine.failures(f"while it reserved the volume {volume}"):
            try:
                made = container.create(engine, spec)
                break
            except NameTakenError:
                holder = container.inspect(engine, spec.name)
            if holder is not None:
                if _is_busy(engine, holder):
                    raise _busy_error(engine, volume, holder)
                container.remove(engine, str(holder["Id"]))
        if time.monotonic() > deadline:
            raise errors.container_name_taken(spec.name)
        time.sleep(0.05)
    if not checks:
        return made
    try:
        check_free(engine, volume, own=made)
    except BaseException:
        with engine.cleaning_up():
            container.remove(engine, made)
        raise
    return made


@contextmanager
def reserve(engine: Engine, volume: str, flow: str, image: str | None) -> Iterator[str | None]:
    """Reserve the volume while the body of the ``with`` runs, by a container that never starts. Yields its id.

    ``image`` is the id of any image that the engine has, or ``None`` if it has no image. Without an image nobody can
    make a container that uses the volume, so nothing is reserved and ``None`` is yielded.
    Raises ``RunnerError`` with the code ``:volume_busy`` if another container uses the volume.
    """
    if image is None:
        yield None
        return
    spec = Spec(
        name=session_name(volume),
        image=image,
        entrypoint=["true"],
        labels=container_labels(volume, flow),
        networked=False,
    )
    made = take(engine, volume, spec)
    try:
        yield made
    finally:
        with engine.cleaning_up():
            container.remove(engine, made)


def check_free(engine: Engine, volume: str, *, own: str | None = None) -> None:
    """Check that no other container uses ``volume``. Remove containers that an older version of this package left.

    Containers of ours that belong to no volume and whose helper was killed are removed, too. ``own`` is the id of the
    container that holds the volume for this process, if there is one.
    Raises ``RunnerError`` with the code ``:volume_busy`` if another container uses the volume, and
    ``NoContainerError`` if the container ``own`` has ended.
    """
    with engine.failures(f"while it listed the users of the volume {volume}"):
        for other in container.list_all(engine):
            name = name_of(other)
            # `Session.unpark` can rename a container that has ended, until the engine removes it.
            if other["Id"] == own and other.get("State") in _ENDED:
                raise NoContainerError(name)
            if other["Id"] == own or name.startswith(_parked_prefix(volume)):
                continue
            ours = label(other.get("Labels"), "volume") == volume
            if own is None and name == session_name(volume):
                holder = container.inspect(engine, str(other["Id"]))
                if holder is not None and _is_busy(engine, holder):
                    raise _busy_error(engine, volume, holder)
            elif other.get("State") in _RUNNING:
                if uses(other, volume):
                    inspected = container.inspect(engine, str(other["Id"]))
                    if inspected is not None:
                        raise _busy_error(engine, volume, inspected)
            elif ours and name != session_name(volume):
                # Version 0.1.0 held a volume with a container that was made but never started.
                if other.get("State") == "created" and engine.now() - float(other["Created"]) < LEFTOVER_AGE:
                    inspected = container.inspect(engine, str(other["Id"]))
                    if inspected is not None:
                        raise _busy_error(engine, volume, inspected)
                else:
                    container.remove(engine, str(other["Id"]))
            elif _is_abandoned(engine, other):
                container.remove(engine, str(other["Id"]))


def _is_abandoned(engine: Engine, listed: Mapping[str, Any]) -> bool:
    """Return whether this is a container of ours without a volume whose helper was killed before it removed it."""
    if label(listed.get("Labels"), "step") not in _WITHOUT_VOLUME:
        return False
    return listed.get("State") in ("created", "exited") and engine.now() - float(listed["Created"]) > LEFTOVER_AGE


def left_behind(engine: Engine) -> list[str]:
    """Return the names of all containers of this package, on any volume, that are leftovers."""
    with engine.failures("while it listed what was left behind"):
        now = engine.now()
        return [
            name_of(each)
            for each in container.list_all(engine)
            if label(each.get("Labels"), "project") is not None
            # A container has the labels of its image, too. An image that we have built has the label `context`, so a
            # container with that label and without `step` is not one of ours.
            and (label(each.get("Labels"), "step") or label(each.get("Labels"), "context") is None)
            # The engine is already removing a container in the state `removing`, so nobody has to do anything.
            and each.get("State") not in (*_RUNNING, "removing")
            and now - float(each["Created"]) > LEFTOVER_AGE
        ]


def uses(listed: Mapping[str, Any], volume: str) -> bool:
    """Return whether a container from the engine's list mounts ``volume``, even if the container does not run."""
    return any(mount.get("Name") == volume for mount in listed.get("Mounts") or [])


def name_of(listed: Mapping[str, Any]) -> str:
    """Return the name of a container from the engine's list."""
    return str((listed.get("Names") or [listed["Id"]])[0]).lstrip("/")


def busy_with(engine: Engine, volume: str, listed: Mapping[str, Any]) -> errors.RunnerError:
    """Return the error for ``volume`` if a container from the engine's list uses it."""
    inspected = container.inspect(engine, str(listed["Id"]))
    return _busy_error(
        engine, volume, inspected or {"Name": name_of(listed), "Config": {"Labels": listed.get("Labels")}}
    )


def _parked_prefix(volume: str) -> str:
    return f"{volume}-parked-"


def _is_busy(engine: Engine, holder: Mapping[str, Any]) -> bool:
    """Return whether the inspected container ``holder`` runs or is about to be started."""
    state = str(holder["State"]["Status"])
    if state in _RUNNING:
        return True
    age = _age(engine, holder)
    return state == "created" and (age is None or age < LEFTOVER_AGE)


def _age(engine: Engine, inspected: Mapping[str, Any]) -> float | None:
    """Return the seconds since a container was made, by the engine's clock, or ``None`` if that time is not known."""
    made = text.parse_time(str(inspected.get("Created") or ""))
    return None if made is None else engine.now() - made / 10**9


def _busy_error(engine: Engine, volume: str, holder: Mapping[str, Any]) -> errors.RunnerError:
    flow = label(holder["Config"].get("Labels"), "step") or "not started by this runner"
    name = str(holder["Name"]).lstrip("/")
    seconds = _age(engine, holder)
    age = "of unknown age" if seconds is None else f"started {text.ago(seconds)}"
    runs = holder.get("State", {}).get("Status") in _RUNNING
    # `docker stop` has no effect on a container that was never started.
    return errors.volume_busy(volume, name, flow, age, f"docker {'stop' if runs else 'rm --force'} {name}")
