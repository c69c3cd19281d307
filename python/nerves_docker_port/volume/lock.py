"""Who may use a build volume: one session at a time, and the engine decides.

A session is a container whose name is made of the volume's. A name can exist only once at an engine, so the second one
who asks is refused, between users, terminals and hosts, with no file and no clock of ours. Whoever is refused looks at
the holder: one that runs is busy, and so is one that is about to be started; one that has ended, or was never started
for a minute by the engine's clock, is a leftover and is removed.
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
"""Seconds by the engine's clock after which a container that was made but never started is nobody's. Between these two
requests a living helper lets milliseconds pass."""

TAKE_TIMEOUT = 20.0
"""Seconds that a holder which has ended may take to go."""

_RUNNING = ("running", "paused", "restarting")
_ENDED = ("exited", "dead", "removing")


def session_name(volume: str) -> str:
    """The name of the container that holds ``volume``."""
    return f"{volume}-session"


def parked_name(volume: str, identity: str) -> str:
    """The name of a session between a build and its archive, when it holds nothing. ``identity`` is its container's."""
    return f"{_parked_prefix(volume)}{identity[:12]}"


def container_labels(volume: str, flow: str) -> dict[str, str]:
    """The labels of every container that we make for ``volume``. ``flow`` is what it is for, in a word."""
    return labels(project="nerves_docker_port", volume=volume, step=flow)


def take(engine: Engine, volume: str, spec: Spec) -> str:
    """Make the container ``spec``, whose name is the lock of ``volume``; its id. It is not started.

    Raises ``RunnerError`` ``:volume_busy`` where somebody else uses the volume.
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
                    raise _busy(engine, volume, holder)
                container.remove(engine, str(holder["Id"]))
        if time.monotonic() > deadline:
            raise errors.container_name_taken(spec.name)
        time.sleep(0.05)
    try:
        check_free(engine, volume, own=made)
    except BaseException:
        with engine.cleaning_up():
            container.remove(engine, made)
        raise
    return made


@contextmanager
def held(engine: Engine, volume: str, flow: str, image: str | None) -> Iterator[str | None]:
    """Have the volume to oneself while the body runs, without a container that uses it; gives the holder's id.

    ``image`` is any image that the engine has. Where it has none (``None``), no container can be made, neither by us
    nor by anybody else, and there is nothing to exclude. Raises ``RunnerError`` ``:volume_busy``.
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
    """Raise ``:volume_busy`` if somebody uses ``volume``; ``own`` is the id of the container that holds it for us.

    Raises ``NoContainerError`` where that one has ended.

    Containers that an older version of this package left behind are removed on the way.
    """
    with engine.failures(f"while it listed the users of the volume {volume}"):
        for other in container.list_all(engine):
            name = name_of(other)
            # One that has ended can still be renamed, until the engine removes it.
            if other["Id"] == own and other.get("State") in _ENDED:
                raise NoContainerError(name)
            if other["Id"] == own or name.startswith(_parked_prefix(volume)):
                continue
            ours = label(other.get("Labels"), "volume") == volume
            if own is None and name == session_name(volume):
                holder = container.inspect(engine, str(other["Id"]))
                if holder is not None and _is_busy(engine, holder):
                    raise _busy(engine, volume, holder)
            elif other.get("State") in _RUNNING:
                if uses(other, volume):
                    inspected = container.inspect(engine, str(other["Id"]))
                    if inspected is not None:
                        raise _busy(engine, volume, inspected)
            elif ours and name != session_name(volume):
                # Version 0.1.0 held a volume with a container that was made but never started.
                if other.get("State") == "created" and engine.now() - float(other["Created"]) < LEFTOVER_AGE:
                    inspected = container.inspect(engine, str(other["Id"]))
                    if inspected is not None:
                        raise _busy(engine, volume, inspected)
                else:
                    container.remove(engine, str(other["Id"]))


def left_behind(engine: Engine) -> list[str]:
    """The names of our containers, on whichever volume, that do not run and never will."""
    with engine.failures("while it listed what was left behind"):
        now = engine.now()
        return [
            name_of(each)
            for each in container.list_all(engine)
            if label(each.get("Labels"), "project") is not None
            # One that the engine is removing already is nobody's task.
            and each.get("State") not in (*_RUNNING, "removing")
            and now - float(each["Created"]) > LEFTOVER_AGE
        ]


def uses(listed: Mapping[str, Any], volume: str) -> bool:
    """Whether a container of the engine's list mounts ``volume``, running or not."""
    return any(mount.get("Name") == volume for mount in listed.get("Mounts") or [])


def name_of(listed: Mapping[str, Any]) -> str:
    """The name of a container of the engine's list."""
    return str((listed.get("Names") or [listed["Id"]])[0]).lstrip("/")


def busy_with(engine: Engine, volume: str, listed: Mapping[str, Any]) -> errors.RunnerError:
    """The error for a volume that a container of the engine's list uses."""
    inspected = container.inspect(engine, str(listed["Id"]))
    return _busy(engine, volume, inspected or {"Name": name_of(listed), "Config": {"Labels": listed.get("Labels")}})


def _parked_prefix(volume: str) -> str:
    return f"{volume}-parked-"


def _is_busy(engine: Engine, holder: Mapping[str, Any]) -> bool:
    """Whether the container that holds a volume (inspected) is at work, or is about to be."""
    state = str(holder["State"]["Status"])
    if state in _RUNNING:
        return True
    age = _age(engine, holder)
    return state == "created" and (age is None or age < LEFTOVER_AGE)


def _age(engine: Engine, inspected: Mapping[str, Any]) -> float | None:
    """For how many seconds a container has been there, by the engine's clock."""
    made = text.parse_time(str(inspected.get("Created") or ""))
    return None if made is None else engine.now() - made / 10**9


def _busy(engine: Engine, volume: str, holder: Mapping[str, Any]) -> errors.RunnerError:
    flow = label(holder["Config"].get("Labels"), "step") or "not started by this runner"
    name = str(holder["Name"]).lstrip("/")
    seconds = _age(engine, holder)
    age = "of unknown age" if seconds is None else f"started {text.ago(seconds)}"
    runs = holder.get("State", {}).get("Status") in _RUNNING
    # What was never started cannot be stopped.
    return errors.volume_busy(volume, name, flow, age, f"docker {'stop' if runs else 'rm --force'} {name}")
