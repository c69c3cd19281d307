"""Every way to end a build, at every stage of it, on the real engine: nothing runs on, nothing is lost.

Each cell: end it, then no container is left, the helper has gone, the artifact of the build before is untouched, and
the next build on the volume succeeds. Where the helper can say nothing any more (killed, frozen, cut off), the
container ends by itself: no further command of ours runs until it has. What must not end is here, too: a build whose
helper was away for less than the patience, a build that stood still together with its helper, a build during which the
clock was set. The shell's cells are in `tests/terminal`, but for the cancel message.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest

from nerves_docker_port.port.wire import Atom
from support.beam import Beam, helpers
from support.images import NEW
from support.port import Helper, wait_until
from support.recorder import Recorder
from support.requests import keyword
from support.system import System, ours

IGNORE = "trap '' TERM INT HUP; while :; do sleep 1; done"

PATIENCE = 10
"""Seconds; the least that the setting takes."""

GONE = PATIENCE + 50
"""Seconds after which a container without a helper is certainly gone. It should take ten more than the patience, five
of which are for a make that ignores TERM; the rest is for a busy machine."""


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
        "copy", sleeps=False, stall="/attach", script=("in_make_system.sh", "head -c 8000000 /dev/urandom > built\n")
    ),
]

LOUD = Stage("make that never stops talking", make_args=("RUN=sh -c 'sleep 600 & exec yes'",))
"""Where nobody takes its output, whoever writes to the container's output waits."""

HANDING_OVER = [LOUD, *(stage for stage in STAGES if stage.stall is not None)]

EVENTS = [
    "SIGKILL BEAM",
    "SIGTERM BEAM",
    "kill the Elixir caller",
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
            assert wait_until(is_there, 60), "the build did not get there"
            end()
            assert wait_until(lambda: not helpers(), 30), "the helper is still there"
            for connection in taken:
                connection.close()
            assert wait_until(lambda: ours(client, system.volume) == [], 30), ours(client, system.volume)
    assert system.artifact.read_bytes() == before
    if stage.script is not None:
        (system.package / stage.script[0]).unlink()
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


class Moment:
    """A system, and a helper of its own, which has brought a build of it to one moment."""

    def __init__(self, system: System, stage: Stage | None, stack: ExitStack, client: docker.DockerClient) -> None:
        """``stage`` is ``None`` for a build that has ended and waits for its archive."""
        self.system = system
        system.run("build").value()
        self.before = system.artifact.read_bytes()
        self.script = None if stage is None else stage.script
        if self.script is not None:
            system.write(f"my_system/{self.script[0]}", self.script[1])
        stall = None if stage is None else stage.stall
        self.recorder = stack.enter_context(Recorder(system.root, system.host, stall=stall))
        self.helper = stack.enter_context(system.helper(DOCKER_HOST=self.recorder.host))
        # A helper that is frozen would not go when its input ends.
        stack.callback(self.helper.signal, signal.SIGCONT)
        make_args = [] if stage is None else list(stage.make_args)
        self.helper.start("build", system.args(make_args=make_args, env=PATIENT))
        if stage is None:
            self.helper.follow()
            self.before = system.artifact.read_bytes()
        else:
            sleeps = stage.sleeps
            assert wait_until(lambda: _runs(client, system, "sleep") if sleeps else self.recorder.stalled.is_set(), 60)

    def end(self, how: str) -> None:
        """Take the helper away from its container."""
        if how == "killed":
            self.helper.signal(signal.SIGKILL)
        elif how == "frozen":
            self.helper.signal(signal.SIGSTOP)
        else:
            self.recorder.cut()


PATIENT = {"NERVES_DOCKER_PATIENCE": str(PATIENCE)}


@pytest.mark.parametrize("how", ["killed", "frozen", "cut off"])
def test_a_container_that_hears_no_helper_ends_by_itself_although_nobody_runs_another_command(
    how: str, make_system: Callable[..., System], client: docker.DockerClient
) -> None:
    """At every moment in which there is a container, all at once, because each takes as long as the patience."""
    stages = [*(stage for stage in STAGES if not stage.pulls), LOUD, None]
    if how == "frozen":
        # The test below has those that have something to hand over.
        stages = [stage for stage in stages if stage is None or stage not in HANDING_OVER]
    with ExitStack() as stack:
        moments = [Moment(make_system(uid=os.getuid()), stage, stack, client) for stage in stages]
        for moment in moments:
            moment.end(how)
        deadline = time.monotonic() + GONE
        for moment in moments:
            volume = moment.system.volume
            assert wait_until(lambda volume=volume: ours(client, volume) == [], deadline - time.monotonic())
            assert client.containers.list(all=True, filters={"volume": volume}, ignore_removed=True) == []
        for moment in moments:
            if moment.script is not None:
                (moment.system.package / moment.script[0]).unlink()
            assert moment.system.artifact.read_bytes() == moment.before
            # While the helper is still there, frozen or cut off as it is.
            moment.system.run("build").value()
            assert ours(client, moment.system.volume) == []
            left = [path.name for path in moment.system.artifact.parent.iterdir()]
            assert left == [moment.system.artifact.name] or moment.script is not None


@pytest.mark.parametrize("stage", HANDING_OVER, ids=lambda stage: stage.name)
def test_nothing_runs_on_for_a_frozen_helper_that_has_not_taken_everything(
    stage: Stage, make_system: Callable[..., System], client: docker.DockerClient
) -> None:
    """The engine keeps a container in its books while a client that lives has not taken all that it asked for."""
    with ExitStack() as stack:
        moment = Moment(make_system(uid=os.getuid()), stage, stack, client)
        volume = moment.system.volume
        # Without asking about the one container, which the engine answers only when it has handed over its files.
        (container,) = client.api.containers(filters={"volume": volume})
        assert _processes_in(container["Id"])
        moment.end("frozen")
        assert wait_until(lambda: not _processes_in(container["Id"]), GONE)
        moment.helper.signal(signal.SIGKILL)
        assert wait_until(lambda: ours(client, volume) == [], 30)
        if moment.script is not None:
            (moment.system.package / moment.script[0]).unlink()
        moment.system.run("build").value()


def _processes_in(container: str) -> list[int]:
    """The processes of a container by the kernel's books, not by the engine's."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cgroup"):
        with suppress(OSError):
            if container in entry.read_text():
                found.append(int(entry.parent.name))
    return found


def test_a_helper_that_was_frozen_for_too_long_says_why_its_build_has_ended(
    make_system: Callable[..., System], client: docker.DockerClient
) -> None:
    system = make_system()
    with system.helper() as helper:
        helper.start("build", system.args(make_args=["RUN=sleep 600"], env=PATIENT))
        conversation = helper.follow(until_stage="make")
        helper.signal(signal.SIGSTOP)
        try:
            assert wait_until(lambda: ours(client, system.volume) == [], GONE)
        finally:
            helper.signal(signal.SIGCONT)
        error = helper.follow(conversation).error
    assert error is not None
    assert error["code"] == "engine_unreachable"
    assert f"could not be reached for more than {PATIENCE} seconds" in error["message"]
    assert "NERVES_DOCKER_PATIENCE" in error["hint"]


def test_a_helper_that_is_cut_off_for_good_says_so_and_goes_on_serving(
    make_system: Callable[..., System], client: docker.DockerClient, host: str
) -> None:
    system = make_system(uid=os.getuid())
    with Recorder(system.root, host) as recorder, system.helper(DOCKER_HOST=recorder.host) as helper:
        helper.start("build", system.args(make_args=["RUN=sleep 600"], env=PATIENT))
        conversation = helper.follow(until_stage="make")
        recorder.cut()
        error = helper.follow(conversation).error
        assert error is not None
        assert error["code"] == "engine_unreachable"
        assert "the build continues where it was" in error["hint"]
        assert wait_until(lambda: ours(client, system.volume) == [], GONE)
        recorder.mend()
        helper.request("build", system.args(), request_id=2).value()


COUNT = "RUN=for i in $$(seq 1 400); do echo line $$i; sleep 0.05; done"
"""Twenty seconds of output, of which one can see whether any is missing."""


def test_a_connection_that_is_lost_for_half_of_the_patience_costs_a_gap_in_the_log_which_is_said(
    make_system: Callable[..., System], client: docker.DockerClient, host: str
) -> None:
    system = make_system(uid=os.getuid())
    with Recorder(system.root, host) as recorder, system.helper(DOCKER_HOST=recorder.host) as helper:
        helper.start("build", system.args(make_args=[COUNT], env=PATIENT))
        conversation = helper.follow(until_stage="make")
        assert wait_until(lambda: b"line 20\n" in system.build_log.read_bytes(), 60)
        recorder.cut()
        time.sleep(PATIENCE / 2)
        recorder.mend()
        conversation = helper.follow(conversation)
    conversation.value()
    assert conversation.finished == ["preflight", "create_build", "make", "make_system", "copy"]
    (warning,) = conversation.warnings
    assert "not in the log" in warning
    before, note, after = system.build_log.read_text().partition(f"[nerves_docker_port] {warning}\n")
    assert note
    first, second = ([int(n) for n in re.findall(r"^line (\d+)$", part, re.MULTILINE)] for part in (before, after))
    assert first == list(range(1, first[-1] + 1))
    assert second == list(range(second[0], 401))
    assert second[0] > first[-1] + 1
    assert ours(client, system.volume) == []


@pytest.mark.parametrize("workspace", ["mounted", "copied"])
def test_a_connection_that_is_lost_while_the_artifact_is_copied_costs_nothing(
    workspace: str, make_system: Callable[..., System], client: docker.DockerClient, host: str
) -> None:
    system = make_system(uid=os.getuid())
    system.write("my_system/in_make_system.sh", "head -c 3200000 /dev/urandom > built\n")
    env = {**PATIENT, "NERVES_DOCKER_WORKSPACE": workspace}
    parts = system.artifact.parent
    slow = ("/attach", 0.1)
    with Recorder(system.root, host, slow=slow) as recorder, system.helper(DOCKER_HOST=recorder.host) as helper:
        helper.start("build", system.args(env=env))
        assert wait_until(lambda: any(path.stat().st_size > 500_000 for path in parts.glob(".*.part")), 60)
        recorder.cut()
        recorder.mend()
        conversation = helper.follow()
        archived = helper.request("archive", system.args(env=env), request_id=2)
    assert conversation.value()["sha256"] == hashlib.sha256(system.artifact.read_bytes()).hexdigest()
    assert conversation.finished == ["preflight", "create_build", "make", "make_system", "copy"]
    assert conversation.warnings == []
    assert archived.headlines[0].startswith("Reusing artifact archive from ")
    assert [path.name for path in parts.iterdir()] == [system.artifact.name]
    assert ours(client, system.volume) == []


def test_an_artifact_that_takes_longer_than_the_patience_to_arrive_arrives(
    make_system: Callable[..., System], client: docker.DockerClient, host: str
) -> None:
    """Heartbeats reach the container meanwhile, so the session is there for the archive, which is not packed again."""
    system = make_system(uid=os.getuid())
    system.write("my_system/in_make_system.sh", "head -c 3200000 /dev/urandom > built\n")
    # Fifty times 64 KiB, in three times the patience.
    slow = ("/attach", 3 * PATIENCE / 50)
    with Recorder(system.root, host, slow=slow) as recorder, system.helper(DOCKER_HOST=recorder.host) as helper:
        started = time.monotonic()
        conversation = helper.request("build", system.args(env=PATIENT))
        assert conversation.value()["size"] > 3_000_000
        assert time.monotonic() - started > 2 * PATIENCE
        assert conversation.warnings == []
        archived = helper.request("archive", system.args(env=PATIENT), request_id=2)
        archived.value()
        assert archived.headlines[0].startswith("Reusing artifact archive from ")
        assert archived.warnings == []
    assert ours(client, system.volume) == []


def test_a_build_that_stands_still_together_with_its_helper_goes_on_with_it(
    make_system: Callable[..., System], client: docker.DockerClient
) -> None:
    """As on a laptop that sleeps: neither side has missed the other for a single second."""
    system = make_system()
    with system.helper() as helper:
        helper.start("build", system.args(make_args=[COUNT], env=PATIENT))
        conversation = helper.follow(until_stage="make")
        assert wait_until(lambda: b"line 20\n" in system.build_log.read_bytes(), 60)
        (container,) = client.containers.list(filters={"volume": system.volume})
        helper.signal(signal.SIGSTOP)
        try:
            container.pause()
            time.sleep(2 * PATIENCE)
            container.unpause()
        finally:
            helper.signal(signal.SIGCONT)
        conversation = helper.follow(conversation)
    conversation.value()
    assert conversation.warnings == []
    numbers = [int(n) for n in re.findall(r"^line (\d+)$", system.build_log.read_text(), re.MULTILINE)]
    assert numbers == list(range(1, 401))


def test_a_clock_that_is_set_a_day_ahead_ends_no_build(
    make_system: Callable[..., System], client: docker.DockerClient
) -> None:
    """The clock of the helper and of every program in the container, its first one included, but not the machine's."""
    system = make_system()
    source = system.write("clock/clock.c", (Path(__file__).parent / "clock.c").read_text())
    client.containers.run(
        NEW,
        ["gcc", "-Wall", "-Werror", "-shared", "-fPIC", "-O2", "-o", "clock.so", "clock.c"],
        mounts=[docker.types.Mount("/clock", str(source.parent), type="bind")],
        working_dir="/clock",
        user="0",
        remove=True,
    )
    ahead = system.write("clock/ahead", "0\n")
    config = keyword(
        mounts=[(str(source.parent), "/clock", Atom("ro"))],
        env=keyword(LD_PRELOAD="/clock/clock.so", CLOCK_FILE="/clock/ahead"),
    )
    # Twice as long as the patience, from one day to the next.
    run = f"RUN=date +day=%F; echo is there; sleep {2 * PATIENCE}; date +day=%F"
    with system.helper(LD_PRELOAD=str(source.parent / "clock.so"), CLOCK_FILE=str(ahead)) as helper:
        helper.start("build", system.args(make_args=[run], runner_config=config, env=PATIENT))
        conversation = helper.follow(until_stage="make")
        assert wait_until(lambda: b"is there" in system.build_log.read_bytes(), 60)
        ahead.write_text("86400\n")
        conversation = helper.follow(conversation)
        conversation.value()
        assert conversation.warnings == []
        archived = helper.request("archive", system.args(runner_config=config, env=PATIENT), request_id=2)
        archived.value()
    first, second = re.findall(r"^day=(.*)$", system.build_log.read_text(), re.MULTILINE)
    assert first < second
    # The helper saw the same.
    (headline,) = archived.headlines
    assert f"Reusing artifact archive from {second}" in headline
    assert ours(client, system.volume) == []


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
