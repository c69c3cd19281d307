"""Every way to end a build, at every stage of it, on the real engine: nothing runs on, nothing is lost.

Each cell: end it, then no container is left within ten seconds (where the helper itself is killed: after the next
command), the helper has gone, the artifact of the build before is untouched, and the next build on the volume succeeds.
The shell's cells are in `tests/terminal`, but for the cancel message.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import docker
import pytest

from nerves_docker_port.port.wire import Atom
from support.beam import Beam, helpers
from support.images import NEW
from support.port import Helper, wait_until
from support.recorder import Recorder
from support.system import System, ours

IGNORE = "trap '' TERM INT HUP; while :; do sleep 1; done"


@dataclass(frozen=True)
class Stage:
    """A moment in a build, and how to have the build stay there."""

    name: str
    sleeps: bool = True
    """In a container, that is."""
    make_args: tuple[str, ...] = ()
    script: tuple[str, str] | None = None
    stall: str | None = None
    pulls: bool = False
    """From a registry that takes the connection and never answers."""


STAGES = [
    Stage("pulling", sleeps=False, pulls=True),
    Stage("create-build", script=("in_create_build.sh", "sleep 600\n")),
    Stage("make", make_args=("RUN=sleep 600",)),
    Stage("make that ignores SIGTERM", make_args=(f'RUN=sh -c "{IGNORE}"',)),
    Stage("make system", script=("in_make_system.sh", "sleep 600\n")),
    Stage(
        "copy", sleeps=False, stall="/archive", script=("in_make_system.sh", "head -c 8000000 /dev/urandom > built\n")
    ),
]

EVENTS = [
    "SIGKILL BEAM",
    "SIGTERM BEAM",
    "kill the Elixir caller",
    "SIGKILL helper",
    "SIGTERM helper",
    "end of file",
    "cancel message",
]


@contextmanager
def running(event: str, system: System, args: dict[Any, Any], env: dict[str, str]) -> Iterator[Callable[[], None]]:
    """A build under way; gives what ends it."""
    if "BEAM" in event or "caller" in event:
        with Beam("build", args, system.root, env) as beam:
            ends = {
                "SIGKILL BEAM": lambda: beam.signal(signal.SIGKILL),
                "SIGTERM BEAM": lambda: beam.signal(signal.SIGTERM),
                "kill the Elixir caller": beam.kill_caller,
            }
            yield ends[event]
            if "caller" in event:
                assert beam.process.poll() is None, "the BEAM itself must live on"
    else:
        with system.helper(DOCKER_HOST=env["DOCKER_HOST"]) as helper:
            helper.start("build", args)
            ends = {
                "SIGKILL helper": lambda: helper.signal(signal.SIGKILL),
                "SIGTERM helper": lambda: helper.signal(signal.SIGTERM),
                "end of file": helper.close,
                "cancel message": lambda: _cancel(helper),
            }
            yield ends[event]


def _cancel(helper: Helper) -> None:
    helper.send((Atom("cancel"), 1))
    conversation = helper.follow()
    assert conversation.error is not None
    assert conversation.error["code"] == "cancelled"
    # It would serve the next request; the cell ends it.
    helper.close()


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
@pytest.mark.parametrize("event", EVENTS)
def test_whatever_ends_a_build_nothing_runs_on_and_nothing_is_lost(
    event: str, stage: Stage, make_system: Callable[..., System], client: docker.DockerClient, host: str
) -> None:
    system = make_system(uid=os.getuid())
    system.run("build").value()
    before = system.artifact.read_bytes()
    if stage.script is not None:
        system.write(f"my_system/{stage.script[0]}", stage.script[1])
    with Recorder(system.root, host, stall=stage.stall) as recorder, socket.create_server(("127.0.0.1", 0)) as registry:
        registry.setblocking(False)
        image = f"127.0.0.1:{registry.getsockname()[1]}/acme/kill:1" if stage.pulls else NEW
        taken: list[socket.socket] = []

        def is_there() -> bool:
            if stage.pulls:
                with suppress(BlockingIOError):
                    taken.append(registry.accept()[0])
                return bool(taken)
            return _runs(client, system, "sleep") if stage.sleeps else recorder.stalled.is_set()

        args = system.args(make_args=list(stage.make_args), image=image)
        with running(event, system, args, {"DOCKER_HOST": recorder.host}) as end:
            assert wait_until(is_there, 20), "the build did not get there"
            end()
            assert wait_until(lambda: not helpers(), 10), "the helper is still there"
            for connection in taken:
                connection.close()
            if event != "SIGKILL helper":
                assert wait_until(lambda: ours(client, system.volume) == [], 10), ours(client, system.volume)
    assert system.artifact.read_bytes() == before
    if stage.script is not None:
        (system.package / stage.script[0]).unlink()
    # The next command finds a usable volume, and removes what a killed helper left.
    system.run("build").value()
    assert ours(client, system.volume) == []
    assert [path.name for path in system.artifact.parent.iterdir()] == [system.artifact.name]


def _runs(client: docker.DockerClient, system: System, program: str) -> bool:
    """Whether a container of the system's runs ``program``."""
    for container in client.containers.list(filters={"label": f"nerves-docker-port.volume={system.volume}"}):
        try:
            titles = container.top()
        except docker.errors.APIError:
            continue
        if any(row[-1].startswith(program) for row in titles["Processes"]):
            return True
    return False


def test_a_shell_that_is_still_being_prepared_can_be_cancelled(
    make_system: Callable[..., System], client: docker.DockerClient
) -> None:
    """Once it is open, it is at the terminal, and no message reaches it: tests/terminal has its ends."""
    system = make_system(uid=os.getuid())
    with socket.create_server(("127.0.0.1", 0)) as registry, system.helper() as helper:
        registry.settimeout(20)
        helper.start("shell", system.args(image=f"127.0.0.1:{registry.getsockname()[1]}/acme/kill:1"))
        connection, _ = registry.accept()
        with connection:
            _cancel(helper)
    assert ours(client, system.volume) == []
    system.run("build").value()


def test_a_part_of_an_artifact_that_a_killed_helper_left_goes_with_a_later_build(
    make_system: Callable[..., System],
) -> None:
    system = make_system()
    system.run("build").value()
    left = system.write(f"dl/.{system.artifact.name}.0123456789abcdef.part", "half")
    fresh = system.write(f"dl/.{system.artifact.name}.fedcba9876543210.part", "another build's, at work")
    os.utime(left, (0, 0))
    system.run("build").value()
    assert not left.exists()
    assert fresh.exists()


def test_nothing_but_ours_is_ever_removed(make_system: Callable[..., System], client: docker.DockerClient) -> None:
    system = make_system()
    system.run("build").value()
    foreign = client.containers.create(NEW, "true", name=f"foreign-{system.volume}", labels={"owner": "somebody 1 1"})
    try:
        system.run("build").value()
        foreign.reload()
    finally:
        foreign.remove()
