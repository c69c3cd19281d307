"""What the engine is asked to do with one container, and every byte of what that one writes."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import docker.errors
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.version import Version

from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine import archive, container
from nerves_docker_port.engine.client import Engine
from nerves_docker_port.engine.container import (
    End,
    Limits,
    Mount,
    NameTakenError,
    NoContainerError,
    Output,
    Spec,
)
from nerves_docker_port.errors import Code, RunnerError
from support.fake_engine import STDERR, Container, FakeEngine, Run, frame
from support.port import wait_until

SPEC = Spec(
    name="my_system-0123-session",
    image="builder:new",
    entrypoint=["/bin/bash", "-c", "exit"],
    command=["make", "A=it's $HOME, a b"],
    workdir="/home/nerves/project",
    env=["UID=1000", "TERM=dumb"],
    mounts=[Mount("volume", "v", "/home/nerves/project"), Mount("bind", "/a, 'b'/ü", "/nerves/env", read_only=True)],
    labels={"nerves-docker-port.step": "make"},
)


def read_all(output: Output) -> bytes:
    found = bytearray()
    while (data := output.read()) is not None:
        found += data
    return bytes(found)


# --- Making it -------------------------------------------------------------------------------------------------


def test_what_the_engine_is_asked_for_is_a_structure_and_no_string(engine: Engine, fake: FakeEngine) -> None:
    container.create(engine, SPEC)
    (asked,) = fake.requests("POST", "/containers/create")
    assert asked.query == {"name": SPEC.name}
    body = asked.body
    assert body["Image"] == "builder:new"
    assert body["Entrypoint"] == ["/bin/bash", "-c", "exit"]
    assert body["Cmd"] == ["make", "A=it's $HOME, a b"]
    assert body["User"] == "0:0"
    assert body["WorkingDir"] == "/home/nerves/project"
    assert body["Env"] == ["UID=1000", "TERM=dumb"]
    assert body["Labels"] == {"nerves-docker-port.step": "make"}
    assert body["Tty"] is False
    assert body["StopSignal"] == "SIGTERM"
    assert body["HostConfig"]["Mounts"] == [
        {"Type": "volume", "Source": "v", "Target": "/home/nerves/project", "ReadOnly": False},
        {"Type": "bind", "Source": "/a, 'b'/ü", "Target": "/nerves/env", "ReadOnly": True},
    ]
    assert body["HostConfig"]["LogConfig"] == {"Type": "none", "Config": {}}
    assert body["HostConfig"]["Init"] is False
    assert body["HostConfig"]["AutoRemove"] is True
    assert "NetworkMode" not in body["HostConfig"]


def test_what_is_decided_here_counts_before_the_settings_fields() -> None:
    spec = replace(
        SPEC,
        network="host",
        limits=Limits(Decimal("1.5"), 2**30, 2**31),
        host_config={"AutoRemove": False, "NetworkMode": "none", "Privileged": True},
    )
    asked: Any = spec.to_api(Version("1.41"))
    host_config = asked["HostConfig"]
    assert host_config["AutoRemove"] is True
    assert host_config["NetworkMode"] == "host"
    assert host_config["Privileged"] is True
    assert (host_config["NanoCpus"], host_config["Memory"], host_config["MemorySwap"]) == (1_500_000_000, 2**30, 2**31)


@pytest.mark.parametrize(("api", "size"), [("1.41", None), ("1.42", [24, 80])])
def test_a_terminal_has_its_size_from_the_start_where_the_engine_can(api: str, size: list[int] | None) -> None:
    asked: Any = replace(SPEC, console=(24, 80)).to_api(Version(api))
    assert asked["Tty"] is True
    assert asked["HostConfig"].get("ConsoleSize") == size


def test_a_name_can_exist_once(engine: Engine, fake: FakeEngine) -> None:
    made = container.create(engine, SPEC)
    with pytest.raises(NameTakenError):
        container.create(engine, SPEC)
    other = container.create(engine, replace(SPEC, name="other"))
    with pytest.raises(NameTakenError):
        container.rename(engine, other, SPEC.name)
    container.rename(engine, made, "away")
    container.rename(engine, other, SPEC.name)
    assert fake.names == ["away", SPEC.name]


def test_a_name_that_is_taken_is_known_by_podmans_words(engine: Engine, fake: FakeEngine) -> None:
    words = "renaming container: name my_system is already in use"
    fake.on("POST", "/containers/.*/rename", lambda exchange: exchange.error(500, words))
    with pytest.raises(NameTakenError):
        container.rename(engine, container.create(engine, SPEC), "my_system")


# --- What is not there -----------------------------------------------------------------------------------------


CALLS: dict[str, Callable[[Engine, str], object]] = {
    "start": container.start,
    "signal": lambda engine, name: container.signal(engine, name, "SIGUSR1", timeout=20),
    "rename": lambda engine, name: container.rename(engine, name, "x"),
    "put": lambda engine, name: container.put_file(engine, name, "/x/y", b""),
    "read": lambda engine, name: archive.read_file(engine, name, "/x/y"),
    "attach": Output,
    "terminal": container.attach_terminal,
}


@pytest.mark.parametrize("call", CALLS)
def test_a_container_that_has_gone_is_told_apart_from_every_other_refusal(
    engine: Engine, fake: FakeEngine, call: str
) -> None:
    with pytest.raises(NoContainerError):
        CALLS[call](engine, "0123456789ab")
    for method in ("GET", "POST", "PUT"):
        fake.on(method, "/containers/.*", lambda exchange: exchange.error(500, "the disk fell off"))
    with pytest.raises(docker.errors.APIError, match="the disk fell off"):
        CALLS[call](engine, "0123456789ab")


def test_a_signal_to_what_does_not_run_says_so(engine: Engine) -> None:
    with pytest.raises(NoContainerError):
        container.signal(engine, container.create(engine, SPEC), "SIGUSR1", timeout=20)


def test_stopping_and_removing_what_is_gone_or_never_ran_is_fine(engine: Engine, fake: FakeEngine) -> None:
    container.stop(engine, "not there")
    container.remove(engine, "not there")
    made = container.create(engine, SPEC)
    container.stop(engine, made)
    container.remove(engine, made)
    assert fake.names == []
    assert container.inspect(engine, made) is None


def test_a_removal_that_somebody_else_has_begun_is_waited_for(engine: Engine, fake: FakeEngine) -> None:
    made = fake.add_container("x")
    fake.on("DELETE", "/containers/.*", lambda exchange: exchange.error(409, "removal is already in progress"))
    looks: list[int] = []

    def gone_at_the_third_look(exchange: Any) -> None:
        looks.append(1)
        if len(looks) == 3:
            fake.discard(made)
        exchange.as_usual()

    fake.on("GET", "/containers/.*/json", gone_at_the_third_look)
    container.remove(engine, made.id)
    assert len(looks) == 3


def test_a_container_that_ends_while_podman_removes_it_is_removed(engine: Engine, fake: FakeEngine) -> None:
    made = fake.add_container("x")
    said = "cannot remove container x as it could not be stopped: container state improper: stopped"
    fake.on("DELETE", "/containers/.*", lambda exchange: exchange.error(500, said), times=2)
    container.remove(engine, made.id)
    assert fake.names == []


def test_a_container_that_podman_has_just_removed_is_not_there(engine: Engine, fake: FakeEngine) -> None:
    said = "container x does not exist in database: no such container"
    fake.on("GET", "/containers/.*/json", lambda exchange: exchange.error(500, said))
    assert container.inspect(engine, "x") is None


def test_a_removal_that_the_engine_cannot_do_is_an_error(engine: Engine, fake: FakeEngine) -> None:
    made = fake.add_container("x")
    fake.on("DELETE", "/containers/.*", lambda exchange: exchange.error(500, "disk is broken"))
    with pytest.raises(docker.errors.APIError, match="disk is broken"):
        container.remove(engine, made.id)


# --- Files -----------------------------------------------------------------------------------------------------


def test_a_file_arrives_as_it_is(engine: Engine, fake: FakeEngine) -> None:
    made = container.create(engine, SPEC)
    content = bytes(range(256)) * 100
    container.put_file(engine, made, "/nerves-docker-port/steps", content)
    found = fake.find(made)
    assert found is not None
    assert found.files == {"/nerves-docker-port/steps": content}
    found.marks += ["1 make 0 0", "2 make_system 3 0"]
    assert archive.read_file(engine, made, "/nerves-docker-port/ended") == b"1 make 0 0\n2 make_system 3 0\n"


def test_a_file_that_is_not_there_is_not_a_container_that_is_not_there(engine: Engine, fake: FakeEngine) -> None:
    words = "Could not find the file /x in container 0123"
    fake.on("GET", "/containers/.*/archive", lambda exchange: exchange.error(404, words))
    assert archive.read_file(engine, container.create(engine, SPEC), "/x") is None


# --- How it ended ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("doing", "end"),
    [
        (lambda running: running.end(7), End(7)),
        (Container.stop, End(143)),
        (Container.kill, End(137, killed=True)),
        (Container.run_out_of_memory, End(137, out_of_memory=True)),
        (lambda running: running.engine.discard(running), End(137, killed=True)),
    ],
    ids=["by itself", "stopped", "killed", "memory", "removed"],
)
def test_the_events_tell_how_a_container_ended_that_has_gone(
    engine: Engine, fake: FakeEngine, doing: Callable[[Container], None], end: End
) -> None:
    fake.runs["make"] = Run([600])
    made = container.create(engine, SPEC)
    other = fake.add_container("other")
    container.start(engine, made)
    found = fake.find(made)
    assert found is not None
    other.kill()
    doing(found)
    assert wait_until(lambda: fake.find(made) is None, 30)
    assert container.how_it_ended(engine, made) == end


def test_podmans_events_are_read_too(engine: Engine, fake: FakeEngine) -> None:
    """Its words for the same (Podman 4.3)."""
    body = b'{"Action":"died","Actor":{"ID":"x","Attributes":{"containerExitCode":"75"}}}\nnonsense\n'
    fake.on("GET", "/events", lambda exchange: exchange.answer(200, body))
    assert container.how_it_ended(engine, "x") == End(75)


def test_of_what_the_events_do_not_tell_nothing_is_said(engine: Engine) -> None:
    assert container.how_it_ended(engine, "0123456789ab") == End()


# --- The output ------------------------------------------------------------------------------------------------


def output_of(engine: Engine, spec: Spec = SPEC) -> bytes:
    made = container.create(engine, spec)
    output = Output(engine, made)
    container.start(engine, made)
    found = read_all(output)
    assert output.is_whole
    output.close()
    return found


def test_output_of_megabytes_is_complete(engine: Engine, fake: FakeEngine) -> None:
    payloads = [bytes([65 + i % 26]) * (1 + i * 7919 % 65536) for i in range(200)]
    fake.runs["make"] = Run([b"".join(frame(payload) for payload in payloads)])
    assert output_of(engine) == b"".join(payloads)


def test_frames_that_arrive_with_the_headers_are_the_first(engine: Engine, fake: FakeEngine) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\n\r\n"
    early = frame(b"early ") + frame(b"in pieces")
    fake.on("POST", "/containers/.*/attach", lambda exchange: exchange.stream_output(head=head + early[:-4]))
    fake.runs["make"] = Run([early[-4:], frame(b" late", STDERR)])
    assert output_of(engine) == b"early in pieces late"


def test_a_chunked_stream_is_read_too(engine: Engine, fake: FakeEngine) -> None:
    """Some proxies make one of it."""

    def chunked(exchange: Any) -> None:
        exchange.chunks()
        whole = frame(b"one ") + frame(b"two")
        for position in range(len(whole)):
            exchange.chunk(whole[position : position + 1])
        exchange.chunk(b"")

    fake.on("POST", "/containers/.*/attach", chunked)
    assert output_of(engine) == b"one two"


def test_somebody_else_can_end_the_reading(engine: Engine, fake: FakeEngine) -> None:
    fake.runs["make"] = Run([frame(b"before"), 600])
    made = container.create(engine, SPEC)
    output = Output(engine, made)
    container.start(engine, made)
    assert output.read() == b"before"
    output.hang_up()
    assert output.read() is None
    output.close()


def test_a_small_container_is_run_to_its_end_and_removed(engine: Engine, fake: FakeEngine) -> None:
    fake.runs["make"] = Run([frame(b"out\n"), frame(b"err\n", STDERR)], status=3)
    assert container.run(engine, SPEC, Cancellation()) == (3, b"out\nerr\n")
    (asked,) = fake.requests("POST", "/containers/create")
    assert asked.body["HostConfig"]["AutoRemove"] is False
    assert fake.names == []


def test_a_small_container_is_gone_after_a_cancellation(engine: Engine, fake: FakeEngine) -> None:
    cancellation = Cancellation()
    fake.runs["make"] = Run([lambda _container: cancellation.cancel("enough"), 600])
    began = time.monotonic()
    with pytest.raises(RunnerError, match="enough") as caught:
        container.run(engine, SPEC, cancellation)
    assert caught.value.code is Code.CANCELLED
    assert time.monotonic() - began < 60
    assert fake.names == []


# --- The stream by itself --------------------------------------------------------------------------------------


class Reads:
    """An engine that answers every request with a body that comes in these reads; and that answer."""

    timeout = 1
    api_version = "1.41"

    def __init__(self, reads: list[bytes]) -> None:
        self._reads = [read for read in reads if read]
        self.api = self.raw = self

    def post(self, *_words: object, **_options: object) -> Reads:
        return self

    def url(self, path: str) -> str:
        return path

    def raise_for_status(self) -> None:
        pass

    def wait_forever(self, _response: object) -> None:
        pass

    def read1(self, _size: int) -> bytes:
        return self._reads.pop(0) if self._reads else b""


def drained(reads: list[bytes]) -> tuple[bytes, bool]:
    engine: Any = Reads(reads)
    output = Output(engine, "x")
    return read_all(output), output.is_whole


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted(cut % (len(data) + 1) for cut in cuts)
    return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]


frames = st.lists(st.tuples(st.sampled_from([0, 1, 2]), st.binary(max_size=40)), max_size=8)
cuts = st.lists(st.integers(min_value=0, max_value=10_000), max_size=12)


@settings(deadline=None)
@given(frames=frames, cuts=cuts)
def test_every_byte_arrives_once_and_in_order_wherever_the_reads_are_cut(
    frames: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    stream = b"".join(frame(payload, number) for number, payload in frames)
    output, whole = drained(pieces(stream, cuts))
    assert output == b"".join(payload for _, payload in frames)
    assert whole


@settings(deadline=None)
@given(frames=frames, cuts=cuts, end=st.integers(min_value=0, max_value=10_000))
def test_a_stream_that_ends_in_the_middle_of_a_frame_is_not_whole(
    frames: list[tuple[int, bytes]], cuts: list[int], end: int
) -> None:
    stream = b"".join(frame(payload, number) for number, payload in frames)
    boundaries = {0}
    for _, payload in frames:
        boundaries.add(max(boundaries) + 8 + len(payload))
    end %= len(stream) + 1
    output, whole = drained(pieces(stream[:end], cuts))
    assert b"".join(payload for _, payload in frames).startswith(output)
    assert whole == (end in boundaries)


def test_a_frame_that_promises_gigabytes_takes_no_memory_before_they_come() -> None:
    output, whole = drained([struct.pack(">BxxxL", 1, 2**32 - 1), b"only this"])
    assert output == b"only this"
    assert not whole
