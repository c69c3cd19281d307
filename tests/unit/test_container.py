"""One container from its making to its removal: what the engine is asked for, and every byte of what it writes."""

from __future__ import annotations

import struct
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine import container
from nerves_docker_port.engine.client import Engine
from nerves_docker_port.engine.container import Exit, Mount, Spec
from nerves_docker_port.errors import Code, RunnerError
from support.fake_engine import STDERR, Container, Exchange, FakeEngine, Run, frame
from support.port import wait_until

if TYPE_CHECKING:
    from typing_extensions import Self

SPEC = Spec(
    name="my_system-0123-make-4567",
    image="builder:new",
    command=["make", "A=it's $HOME, a b"],
    workdir="/home/nerves/project",
    env=["UID=1000", "TERM=dumb"],
    mounts=[Mount("volume", "v", "/home/nerves/project"), Mount("bind", "/a, 'b'/ü", "/nerves/env", read_only=True)],
    labels={"nerves-docker-port.step": "make"},
)


@dataclass
class Watched:
    """Runs a container and keeps what came of it."""

    engine: Engine
    output: bytes = b""
    warnings: list[str] = field(default_factory=list)
    cancellation: Cancellation = field(default_factory=Cancellation)

    def run(self, spec: Spec = SPEC) -> Exit:
        return container.run(self.engine, spec, self.write, self.warnings.append, self.cancellation)

    def write(self, data: bytes) -> None:
        assert data
        self.output += data


@pytest.fixture
def watched(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Watched:
    """Shorter waits than in earnest."""
    monkeypatch.setattr(container, "SETTLE_TIMEOUT", 1)
    monkeypatch.setattr(container, "PROBE_INTERVAL", 0.1)
    return Watched(engine)


def test_what_the_engine_is_asked_for_is_a_structure_and_no_string(watched: Watched, fake: FakeEngine) -> None:
    watched.run()
    (asked,) = fake.requests("POST", "/containers/create")
    assert asked.query == {"name": SPEC.name}
    body = asked.body
    assert body["Image"] == "builder:new"
    assert body["Cmd"] == ["make", "A=it's $HOME, a b"]
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
    assert body["HostConfig"]["Init"] is True
    assert "AutoRemove" not in body["HostConfig"]
    assert "Entrypoint" not in body
    assert "User" not in body


def test_an_entrypoint_and_a_user_are_asked_for_where_there_are_some(watched: Watched, fake: FakeEngine) -> None:
    watched.run(replace(SPEC, entrypoint=("/bin/sh", "-c"), user="0:0"))
    (asked,) = fake.requests("POST", "/containers/create")
    assert (asked.body["Entrypoint"], asked.body["User"]) == (["/bin/sh", "-c"], "0:0")


def test_the_steps_of_a_container_come_in_their_order(watched: Watched, fake: FakeEngine) -> None:
    watched.run()
    calls = [asked.path.rpartition("/")[2] for asked in fake.asked if asked.path.startswith("/containers")]
    assert calls[:4] == ["create", "attach", "start", "wait"]
    assert calls[4] == "json"
    assert [asked.method for asked in fake.asked][-1] == "DELETE"
    assert fake.names == []


@pytest.mark.parametrize("status", [0, 1, 2, 137, 255])
def test_the_status_is_the_engines_and_the_container_is_gone(watched: Watched, fake: FakeEngine, status: int) -> None:
    fake.runs["make"] = Run([frame(b"out\n"), frame(b"err\n", STDERR)], status=status)
    ended = watched.run()
    assert (ended.status, ended.out_of_memory) == (status, False)
    assert watched.output == b"out\nerr\n"
    assert watched.warnings == []
    assert fake.names == []


def test_the_flag_of_memory_is_passed_on(watched: Watched, fake: FakeEngine) -> None:
    fake.runs["make"] = Run(status=137, oom_killed=True)
    assert watched.run().out_of_memory


def test_output_of_megabytes_is_complete(watched: Watched, fake: FakeEngine) -> None:
    payloads = [bytes([65 + i % 26]) * (1 + i * 7919 % 65536) for i in range(200)]
    fake.runs["make"] = Run([b"".join(frame(payload) for payload in payloads)])
    watched.run()
    assert watched.output == b"".join(payloads)


def test_whoever_receives_the_output_may_fail_and_the_container_is_gone(watched: Watched, fake: FakeEngine) -> None:
    fake.runs["make"] = Run([frame(b"x"), 600])

    def full(_data: bytes) -> None:
        raise RunnerError(Code.DISK_FULL, "no space for the log")

    with pytest.raises(RunnerError, match="no space for the log"):
        container.run(watched.engine, SPEC, full, watched.warnings.append, watched.cancellation)
    assert fake.names == []


def test_a_cancelled_flow_makes_no_container(watched: Watched, fake: FakeEngine) -> None:
    watched.cancellation.cancel("enough")
    with pytest.raises(RunnerError, match="enough"):
        watched.run()
    assert fake.requests("POST", "/containers/.*") == []


@pytest.mark.parametrize("when", ["create", "attach", "start"])
def test_a_cancellation_at_any_moment_ends_the_container(watched: Watched, fake: FakeEngine, when: str) -> None:
    def cancel_first(exchange: Exchange) -> None:
        watched.cancellation.cancel("enough")
        exchange.as_usual()

    fake.on("POST", rf"/containers/(.*/)?{when}", cancel_first)
    fake.runs["make"] = Run([600])
    with pytest.raises(RunnerError) as caught:
        watched.run()
    assert caught.value.code is Code.CANCELLED
    assert fake.names == []


def test_a_running_container_is_asked_to_stop_before_it_is_removed(watched: Watched, fake: FakeEngine) -> None:
    # Once there is output, it runs. (What is cancelled before that is removed at once.)
    fake.runs["make"] = Run([frame(b"x"), 600])
    with pytest.raises(RunnerError, match="enough"):
        container.run(
            watched.engine,
            SPEC,
            lambda _data: watched.cancellation.cancel("enough"),
            watched.warnings.append,
            watched.cancellation,
        )
    (stop,) = fake.requests("POST", "/containers/.*/stop")
    assert stop.query == {"t": str(container.STOP_GRACE)}
    assert fake.names == []


def test_stopping_what_is_gone_or_never_ran_is_fine(engine: Engine, fake: FakeEngine) -> None:
    container.stop(engine, "not there")
    container.stop(engine, fake.add_container("made", status="created"))


def test_a_stream_is_taken_up_as_often_as_it_is_cut(watched: Watched, fake: FakeEngine) -> None:
    def cut(running: Container) -> None:
        running.cut()
        running.wait_for_attach()

    fake.runs["make"] = Run([Container.wait_for_attach, frame(b"1"), cut, frame(b"2"), cut, frame(b"3")], status=5)
    assert watched.run().status == 5
    assert watched.output == b"123"
    assert len(watched.warnings) == 2


def test_frames_that_arrive_with_the_headers_are_the_first(watched: Watched, fake: FakeEngine) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\n\r\n"
    early = frame(b"early ") + frame(b"in pieces")
    fake.on("POST", "/containers/.*/attach", lambda exchange: exchange.stream_output(head=head + early[:-4]))
    fake.runs["make"] = Run([early[-4:], frame(b" late")])
    watched.run()
    assert watched.output == b"early in pieces late"


def test_a_chunked_stream_is_read_too(watched: Watched, fake: FakeEngine) -> None:
    """Some proxies make one of it."""

    def chunked(exchange: Exchange) -> None:
        exchange.chunks()
        whole = frame(b"one ") + frame(b"two")
        for position in range(len(whole)):
            exchange.chunk(whole[position : position + 1])
        exchange.chunk(b"")

    fake.on("POST", "/containers/.*/attach", chunked)
    watched.run()
    assert watched.output == b"one two"
    assert watched.warnings == []


def test_no_thread_stays_behind(watched: Watched) -> None:
    watched.run()
    assert wait_until(lambda: "watch" not in {thread.name for thread in threading.enumerate()})


# --- The stream by itself --------------------------------------------------------------------------------------


class Reads:
    """A response whose body comes in these reads."""

    def __init__(self, reads: list[bytes]) -> None:
        self._reads = [read for read in reads if read]
        self.raw = self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def read1(self, _size: int) -> bytes:
        return self._reads.pop(0) if self._reads else b""


def drained(reads: list[bytes]) -> tuple[bytes, bool]:
    output: list[bytes] = []
    response: Any = Reads(reads)
    whole = container._drain(response, output.append, lambda: None)
    return b"".join(output), whole


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
