"""What an engine does not do on demand, each fault with its named outcome: the real helper against a fake engine.

The waits of the helper are shortened (support/fault_world.py), nothing else. ``World.helper`` kills what hangs.
"""

from __future__ import annotations

import itertools
import json
import platform
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nerves_docker_port.port.wire import Atom
from nerves_docker_port.volume import machine
from support.fake_engine import ARTIFACT, STDERR, STREAM_HEAD, Container, Exchange, Hook, Run, frame
from support.fault_world import CUT, LOST, FaultWorld, noted
from support.port import Conversation, wait_until

MISSING = "builder:missing"
BROKE_OFF = "The output of the build broke off; the last of it is not in the log."
PACKING = ["note_inputs", "make_system", "copy"]
STEPS = ["create_build", "make", *PACKING]


@pytest.fixture
def world() -> Iterator[FaultWorld]:
    with FaultWorld() as world:
        yield world


def never(exchange: Exchange) -> None:
    exchange.never_answer()


def no_such_container(exchange: Exchange) -> None:
    exchange.error(404, "No such container: 0123456789ab")


def test_by_itself_the_fake_engine_builds(world: FaultWorld) -> None:
    world.engine.runs["make"] = Run([frame(b">>> hello 1.0 Building\n"), frame(b"warning\n", STDERR)])
    conversation = world.run()
    assert Path(conversation.value()["path"]).read_bytes() == ARTIFACT
    assert conversation.log_lines == [b">>> hello 1.0 Building"]
    assert world.log == b">>> hello 1.0 Building\nwarning\n"
    assert world.engine.started == STEPS
    assert world.engine.names == []


# --- The stream ------------------------------------------------------------------------------------------------


def test_output_that_arrives_together_with_the_headers_is_kept(world: FaultWorld) -> None:
    world.engine.on_step(
        "POST", "attach", "make", lambda exchange: exchange.stream_output(head=STREAM_HEAD + frame(b">>> first\n"))
    )
    world.engine.runs["make"] = Run([frame(b"second\n")])
    conversation = world.run()
    conversation.value()
    assert world.log == b">>> first\nsecond\n"
    assert conversation.log_lines == [b">>> first"]
    assert conversation.warnings == []


def test_frames_split_at_every_byte_are_put_together(world: FaultWorld) -> None:
    stream = frame(b"before\n>>> hello") + frame(b"", STDERR) + frame(b" 1.0 Building\n", STDERR) + frame(b"after\n")

    def byte_by_byte(container: Container) -> None:
        for value in stream:
            container.emit_and_let_read(bytes([value]))

    world.engine.runs["make"] = Run([byte_by_byte])
    conversation = world.run()
    conversation.value()
    assert world.log == b"before\n>>> hello 1.0 Building\nafter\n"
    assert conversation.log_lines == [b">>> hello 1.0 Building"]
    assert conversation.warnings == []


def test_a_headline_that_begins_in_the_same_read_as_the_step_before_it_ends_is_whole(
    world: FaultWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    def together(container: Container) -> None:
        say = container.say

        def say_and_begin(mark: str) -> None:
            monkeypatch.setattr(container, "say", say)
            ended = frame(f"\x1e{container.token} {mark}\x1e".encode())
            container.emit_and_let_read(ended + frame(b">>> hello 1.0 Down"))

        monkeypatch.setattr(container, "say", say_and_begin)

    world.engine.runs["create_build"] = Run([together])
    world.engine.runs["make"] = Run([frame(b"loading\n>>> hello 1.0 Building\n")])
    conversation = world.run()
    conversation.value()
    assert conversation.log_lines == [b">>> hello 1.0 Downloading", b">>> hello 1.0 Building"]


HALVES = pytest.mark.parametrize(
    "half", [frame(b"lost")[:3], frame(b"half of it is lost")[:-8]], ids=["header", "payload"]
)


@HALVES
@pytest.mark.parametrize("status", [0, 2])
def test_half_a_frame_then_a_close_is_told_and_the_status_is_the_true_one(
    world: FaultWorld, half: bytes, status: int
) -> None:
    world.engine.runs["make"] = Run([frame(b"whole\n"), half, Container.cut], status=status)
    conversation = world.run()
    assert conversation.warnings == [LOST]
    assert world.log.startswith(b"whole\n")
    assert world.log.endswith(noted(LOST))
    if status == 0:
        conversation.value()
    else:
        assert conversation.error is not None
        assert conversation.error["code"] == "step_failed"
        assert "`make` ended with exit status 2" in conversation.error["message"]
    assert world.engine.names == []


@HALVES
def test_half_a_frame_at_the_end_of_the_container_is_told(world: FaultWorld, half: bytes) -> None:
    world.engine.runs["make"] = Run([frame(b"whole\n"), half, Container.run_out_of_memory])
    conversation = world.run()
    assert conversation.warnings == [BROKE_OFF]
    assert world.log.startswith(b"whole\n")
    assert world.log.endswith(noted(BROKE_OFF))
    assert conversation.error is not None
    assert conversation.error["code"] == "out_of_memory"
    assert "`make` ended with exit status 137" in conversation.error["message"]


def test_steps_whose_ends_were_lost_with_the_connection_are_known_from_the_container(world: FaultWorld) -> None:
    world.engine.runs["create_build"] = Run([Container.wait_for_attach, Container.cut])
    world.engine.runs["make_system"] = Run([Container.wait_for_look, frame(b"here\n")])
    conversation = world.run()
    conversation.value()
    assert conversation.finished == ["preflight", "create_build", "make", "make_system", "copy"]
    assert conversation.warnings == [LOST]
    assert world.log == noted(LOST) + b"here\n"


def test_an_end_mark_that_arrives_twice_counts_once(world: FaultWorld) -> None:
    """Fault A10."""

    def say_all_again(container: Container) -> None:
        for mark in container.marks:
            container.say(mark)

    for step in STEPS[1:-1]:
        world.engine.runs[step] = Run([say_all_again, frame(step.encode() + b"\n")])
    conversation = world.run()
    conversation.value()
    assert conversation.finished == ["preflight", "create_build", "make", "make_system", "copy"]
    assert world.log == b"make\nnote_inputs\nmake_system\n"


def test_a_container_that_is_removed_just_after_the_packing_is_called_that(world: FaultWorld) -> None:
    world.engine.runs["copy"] = Run([world.engine.discard])
    error = world.fail()
    assert error["code"] == "step_failed"
    assert "was removed by somebody else before it had ended" in error["message"]


def test_silence_for_much_longer_than_any_request_may_take_is_a_builds_right(world: FaultWorld) -> None:
    # 3 s are twice the request timeout here, and 15 probes; 90 s are 1.5 times the real one, and 3 probes.
    world.engine.runs["make"] = Run([frame(b"before\n"), 3, frame(b"after\n")])
    conversation = world.run(engine__client__REQUEST_TIMEOUT=1.5)
    conversation.value()
    assert world.log == b"before\nafter\n"
    assert conversation.warnings == []


@pytest.mark.parametrize("status", [0, 3])
def test_a_stream_that_is_cut_while_the_container_runs_on_is_taken_up_again(world: FaultWorld, status: int) -> None:
    world.engine.runs["make"] = Run([frame(b"before\n"), *CUT, frame(b"after\n")], status=status)
    conversation = world.run()
    assert conversation.warnings == [LOST]
    assert world.log == b"before\n" + noted(LOST) + b"after\n"
    if status == 0:
        conversation.value()
    else:
        assert conversation.error is not None
        assert "`make` ended with exit status 3" in conversation.error["message"]
    assert world.engine.names == []


@pytest.mark.parametrize("status", [0, 3])
def test_a_stream_that_is_cut_while_its_step_ends_is_no_success_by_itself(world: FaultWorld, status: int) -> None:
    world.engine.runs["make"] = Run([frame(b"before\n"), Container.cut], status=status)
    conversation = world.run()
    if status == 0:
        conversation.value()
    else:
        assert conversation.error is not None
        assert conversation.error["code"] == "step_failed"
        assert "`make` ended with exit status 3" in conversation.error["message"]
    assert conversation.warnings == [LOST]


def test_a_stream_that_is_cut_before_the_container_has_noted_anything_is_taken_up_again(world: FaultWorld) -> None:
    world.engine.on(
        "GET",
        "/containers/.*/archive",
        lambda exchange: exchange.error(404, "Could not find the file /nerves-docker-port/ended in container 0123"),
        times=1,
    )
    world.engine.runs["create_build"] = Run([Container.wait_for_attach, Container.cut, Container.wait_for_attach])
    conversation = world.run()
    conversation.value()
    assert conversation.warnings == [LOST]


def test_a_stream_that_stays_open_after_its_container_has_ended_is_not_waited_for(world: FaultWorld) -> None:
    def forget_the_stream(container: Container) -> None:
        # The connection died on its way: nobody at the other end closes it.
        world.engine.forgotten.extend(container.streams)
        container.streams.clear()

    world.engine.runs["make"] = Run([frame(b"before\n"), forget_the_stream, Container.run_out_of_memory])
    error = world.fail()
    assert error["code"] == "out_of_memory"
    assert "exit status 137" in error["message"]


# --- The copy of the artifact ----------------------------------------------------------------------------------


def send_a_part(container: Container) -> None:
    """Send the beginning of the artifact, so that the helper has read it."""
    head = f"\x1e{container.token} 0 file 0 {len(ARTIFACT)}\x1e".encode()
    container.emit_and_let_read(frame(head, STDERR) + frame(ARTIFACT[:40], STDERR))


def cut_once(world: FaultWorld, item: Callable[[Container], None]) -> Run:
    """Do ``item`` and cut the stream in the first copy, and send the artifact in the second one."""

    def first(container: Container) -> None:
        item(container)
        world.engine.runs.pop("copy")
        container.wait_for_attach()
        container.cut()

    return Run([first])


def assert_arrived(world: FaultWorld, conversation: Conversation, *, copied_again: bool) -> None:
    artifact = Path(conversation.value()["path"])
    assert artifact.read_bytes() == ARTIFACT
    assert [path.name for path in artifact.parent.iterdir()] == [artifact.name]
    assert conversation.finished == ["preflight", "create_build", "make", "make_system", "copy"]
    assert conversation.warnings == []
    assert (world.engine.started.count("copy") > 1) is copied_again


@pytest.mark.parametrize("item", [send_a_part, lambda _container: None], ids=["in the middle", "before it begins"])
def test_an_artifact_whose_copy_is_cut_is_copied_again(world: FaultWorld, item: Callable[[Container], None]) -> None:
    world.engine.runs["copy"] = cut_once(world, item)
    assert_arrived(world, world.run(), copied_again=True)


def test_an_artifact_whose_rest_is_lost_after_the_mark_is_copied_again(world: FaultWorld) -> None:
    def send_a_part_and_end(container: Container) -> None:
        send_a_part(container)
        world.engine.runs["copy"] = Run([Container.send_file])
        container.mark("copy", 0)
        container.wait_for_attach()
        container.cut()
        container.wait_for_attach()
        container.marks.pop()

    world.engine.runs["copy"] = Run([send_a_part_and_end])
    assert_arrived(world, world.run(), copied_again=True)


def test_an_artifact_arrives_that_comes_in_pieces_before_and_after_its_mark(world: FaultWorld) -> None:
    def send_late(container: Container) -> None:
        send_a_part(container)
        container.mark("copy", 0)
        for byte in ARTIFACT[40:]:
            container.emit(frame(bytes([byte]), STDERR))
        container.marks.pop()

    world.engine.runs["copy"] = Run([send_late])
    assert_arrived(world, world.run(), copied_again=False)


def test_what_an_earlier_step_writes_late_is_in_the_log_and_not_in_the_artifact(world: FaultWorld) -> None:
    def send_with_noise(container: Container) -> None:
        send_a_part(container)
        container.emit(frame(b"a line from before\n"))
        container.emit(frame(ARTIFACT[40:], STDERR))

    world.engine.runs["copy"] = Run([send_with_noise])
    assert_arrived(world, world.run(), copied_again=False)
    assert world.log == b"a line from before\n"


def test_an_artifact_that_no_connection_lasts_for_is_given_up(world: FaultWorld) -> None:
    def send_a_part_and_cut(container: Container) -> None:
        send_a_part(container)
        container.cut()
        container.wait_for_attach()

    world.engine.runs["copy"] = Run([send_a_part_and_cut])
    error = world.fail()
    assert error["code"] == "engine_unreachable"
    assert "the connection broke each time while a file was copied" in error["message"]
    assert world.engine.names == []


@pytest.mark.parametrize(
    ("status", "words"),
    [(66, "there is no /home/nerves/project/my_system-portable-"), (65, "became shorter while it was copied")],
)
def test_an_artifact_that_cannot_be_copied_is_called_that(world: FaultWorld, status: int, words: str) -> None:
    world.engine.runs["copy"] = Run(status=status)
    error = world.fail()
    assert error["code"] == "artifact_missing"
    assert words in error["message"]


# --- A connection that is lost for a while ---------------------------------------------------------------------


def be_away(seconds: float) -> list[bytes | float | Callable[[Container], None]]:
    """What a run does while the engine cannot be reached: connections break, and further ones are refused."""
    return [
        lambda container: container.engine.vanish(),
        seconds,
        lambda container: container.engine.come_back(),
    ]


def test_an_engine_that_is_away_for_less_than_the_patience_costs_a_gap_in_the_log(world: FaultWorld) -> None:
    """Fault A9."""
    world.engine.runs["make"] = Run(
        [
            frame(b"before\n"),
            Container.wait_for_attach,
            *be_away(3),
            Container.wait_for_look,
            Container.wait_for_beats,
            frame(b"after\n"),
        ]
    )
    conversation = world.run(changes={"patience": 30})
    conversation.value()
    assert conversation.warnings == [LOST]
    assert world.log == b"before\n" + noted(LOST) + b"after\n"
    assert conversation.finished == ["preflight", "create_build", "make", "make_system", "copy"]
    assert world.engine.names == []


def test_steps_that_end_while_the_engine_is_away_are_known_afterwards(world: FaultWorld) -> None:
    away = be_away(1)
    world.engine.runs["create_build"] = Run(away[:1])
    world.engine.runs["make"] = Run([frame(b"nobody hears this\n"), *away[1:]])
    conversation = world.run()
    conversation.value()
    assert conversation.finished == ["preflight", "create_build", "make", "make_system", "copy"]
    assert conversation.warnings == [LOST]


@pytest.mark.parametrize("request_", ["attach", "ended"])
def test_a_connection_that_breaks_again_while_it_is_made_again_is_made_once_more(
    world: FaultWorld, request_: str
) -> None:
    def cut_and_refuse(container: Container) -> None:
        if request_ == "attach":
            world.engine.on("POST", "/containers/.*/attach", hang_up, times=3)
        else:
            world.engine.on("GET", "/containers/.*/archive", hang_up, times=3)
        container.wait_for_attach()
        container.cut()
        container.wait_for_attach()

    world.engine.runs["make"] = Run([cut_and_refuse], status=4)
    error = world.fail()
    assert error["code"] == "step_failed"
    assert "`make` ended with exit status 4" in error["message"]


def test_an_engine_that_is_still_starting_when_it_is_asked_again_is_waited_for(world: FaultWorld) -> None:
    def cut_and_start(container: Container) -> None:
        container.wait_for_attach()
        world.engine.on("POST", "/containers/.*/attach", starting, times=3)
        container.cut()
        container.wait_for_attach()

    world.engine.runs["make"] = Run([cut_and_start])
    conversation = world.run()
    conversation.value()
    assert conversation.warnings == [LOST]


@pytest.mark.parametrize("status", [503, 0], ids=["refused", "hung up"])
def test_an_output_that_cannot_be_had_again_is_given_up_although_heartbeats_arrive(
    world: FaultWorld, status: int
) -> None:
    def cut_for_good(container: Container) -> None:
        container.wait_for_attach()
        world.engine.on("POST", "/containers/.*/attach", starting if status else hang_up)
        container.cut()

    world.engine.runs["make"] = Run([cut_for_good, 600])
    error = world.fail(changes={"patience": 2})
    assert error["code"] == ("internal" if status else "engine_unreachable")
    assert f"while it ran the container {world.session}" in error["message"]
    assert world.engine.names == []


def refuse(exchange: Exchange) -> None:
    exchange.error(500, "the disk fell off")


@pytest.mark.parametrize("trouble", [refuse, lambda exchange: exchange.hang_up()], ids=["500", "hung up"])
def test_a_heartbeat_that_does_not_arrive_now_and_then_costs_nothing(world: FaultWorld, trouble: Hook) -> None:
    turns = itertools.count()

    def now_and_then(exchange: Exchange) -> None:
        (trouble if next(turns) % 2 else Exchange.as_usual)(exchange)

    world.engine.on("POST", "/containers/.*/kill", now_and_then)
    world.engine.runs["make"] = Run([lambda container: container.wait_for_beats(4), frame(b"here\n")])
    conversation = world.run(volume__session__BEAT_INTERVAL=0.2)
    conversation.value()
    assert conversation.warnings == []
    assert world.log == b"here\n"


def test_trouble_that_has_passed_is_not_blamed_for_a_removal(world: FaultWorld) -> None:
    world.engine.on("POST", "/containers/.*/kill", hang_up, times=1)
    world.engine.runs["make"] = Run([lambda container: container.wait_for_beats(2), world.engine.discard])
    error = world.fail(volume__session__BEAT_INTERVAL=0.2)
    assert "was removed by somebody else before it had ended" in error["message"]


def expired(world: FaultWorld, error: dict[str, str], patience: int) -> None:
    assert error["code"] == "engine_unreachable"
    assert f"because the engine could not be reached for more than {patience} seconds" in error["message"]
    assert "NERVES_DOCKER_PATIENCE" in error["hint"]
    assert world.engine.names == []


def test_a_container_that_ended_for_want_of_a_heartbeat_is_called_that(world: FaultWorld) -> None:
    world.engine.runs["make"] = Run([be_away(0)[0], Container.expire])
    threading.Thread(target=come_back_when_all_is_gone, args=(world,)).start()
    expired(world, world.fail(), 60)


def come_back_when_all_is_gone(world: FaultWorld) -> None:
    assert wait_until(lambda: any(event["Action"] == "destroy" for event in world.engine.events), 30)
    world.engine.come_back()


def test_a_helper_that_was_stopped_for_too_long_is_told_that_its_build_has_ended(world: FaultWorld) -> None:
    world.engine.runs["make"] = Run([frame(b"before\n"), 600])
    with world.helper() as helper:
        helper.start("build", world.args(patience=2))
        conversation = helper.follow(until_stage="make")
        helper.signal(signal.SIGSTOP)
        try:
            assert wait_until(lambda: world.engine.names == [], 30)
        finally:
            helper.signal(signal.SIGCONT)
        conversation = helper.follow(conversation)
    assert conversation.error is not None
    expired(world, conversation.error, 2)


def test_the_container_of_a_helper_that_was_killed_ends_by_itself(world: FaultWorld) -> None:
    world.engine.runs["make"] = Run([frame(b"before\n"), 600])
    with world.helper() as helper:
        helper.start("build", world.args(patience=2))
        helper.follow(until_stage="make")
        helper.signal(signal.SIGKILL)
    assert wait_until(lambda: world.engine.names == [], 30)
    assert [event["Actor"]["Attributes"].get("exitCode") for event in world.engine.events[:1]] == ["75"]
    world.engine.behave()
    world.run().value()


# --- Races: not found and conflict -----------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["attach", "start"])
def test_a_container_that_somebody_else_removed_is_called_that(world: FaultWorld, action: str) -> None:
    world.engine.on_step("POST", action, "make", no_such_container)
    error = world.fail()
    assert error["code"] == "step_failed"
    assert error["message"] == f"The container {world.session} was removed by somebody else before it had ended."
    assert "run the command again" in error["hint"]
    assert world.engine.names == []


def test_a_container_that_is_removed_while_it_runs_is_called_that(world: FaultWorld) -> None:
    world.engine.runs["make"] = Run([frame(b"before\n"), world.engine.discard])
    error = world.fail()
    assert error["code"] == "step_failed"
    assert "was removed by somebody else before it had ended" in error["message"]


@pytest.mark.parametrize(("method", "action"), [("POST", "rename"), ("DELETE", "")])
def test_a_container_that_somebody_removed_after_its_end_is_survived(
    world: FaultWorld, method: str, action: str
) -> None:
    world.engine.on_step(method, action, "make", no_such_container)
    assert world.run().warnings == []
    assert world.downloads != []


def test_a_container_that_is_killed_from_outside_is_a_failed_step(world: FaultWorld) -> None:
    """By `docker stop`, which is what an error of ours tells who wants the volume."""
    world.engine.runs["make"] = Run([Container.stop])
    error = world.fail()
    assert error["code"] == "step_failed"
    assert "`make` ended with exit status 143" in error["message"]


def test_a_container_that_is_killed_from_outside_at_once_is_called_that(world: FaultWorld) -> None:
    world.engine.runs["make"] = Run([frame(b"before\n"), Container.kill])
    error = world.fail()
    assert error["code"] == "step_failed"
    assert error["message"] == f"The container {world.session} was removed by somebody else before it had ended."


def test_a_removal_that_is_under_way_already_is_fine(world: FaultWorld) -> None:
    def conflict(exchange: Exchange) -> None:
        world.engine.discard(exchange.container)
        exchange.error(409, "removal of container 0123456789ab is already in progress")

    world.engine.on("DELETE", "/containers/.*", conflict)
    assert world.run().warnings == []
    assert world.engine.names == []


def conflict_on_build(world: FaultWorld, *, times: int) -> None:
    left = [times]

    def conflict(exchange: Exchange) -> None:
        if exchange.asked.query["name"] == world.session and left[0] > 0:
            left[0] -= 1
            exchange.error(409, "Conflict. The container name is already in use")
        else:
            exchange.as_usual()

    world.engine.on("POST", "/containers/create", conflict)


def test_a_name_that_is_taken_for_a_moment_is_waited_for(world: FaultWorld) -> None:
    conflict_on_build(world, times=3)
    world.run().value()


def test_a_name_that_stays_taken_is_called_that(world: FaultWorld) -> None:
    conflict_on_build(world, times=1_000_000)
    error = world.fail(volume__lock__TAKE_TIMEOUT=1)
    assert error["code"] == "volume_busy"
    assert world.session in error["message"]
    assert "docker rm -f" in error["hint"]
    assert world.engine.names == []


# --- Refusals --------------------------------------------------------------------------------------------------


def test_an_error_of_the_engine_is_told_in_its_words_whatever_they_look_like(world: FaultWorld) -> None:
    # More of them in tests/unit/test_engine.py.
    bodies = {
        b"the disk fell off": "the disk fell off",
        b'{"message": "the disk fell off"}': "the disk fell off",
        b'{"cause": "the disk fell off"}': '{"cause": "the disk fell off"}',
        b"": "500 Server Error",
    }

    def refuse_with(body: bytes) -> Hook:
        return lambda exchange: exchange.answer(500, body)

    errors = world.errors(("POST", "/containers/.*/start", refuse_with(body)) for body in bodies)
    for error, told in zip(errors, bodies.values(), strict=True):
        assert error["code"] == "internal"
        assert "The engine reported an error while it ran the container my_system-" in error["message"]
        assert told in error["message"]
        assert error["hint"] is not None


def test_an_error_of_the_engine_says_what_was_being_done(world: FaultWorld) -> None:
    doing = {
        ("POST", "/volumes/create"): f"while it made the volume {world.volume}",
        ("GET", "/images/.*"): "while it looked for the image builder:new",
        ("GET", "/info"): "while it was asked about itself",
        ("POST", "/containers/create"): f"while it reserved the volume {world.volume}",
        ("GET", "/containers/json"): f"while it listed the users of the volume {world.volume}",
        ("POST", "/containers/.*/attach"): f"while it ran the container {world.session}",
        ("POST", "/containers/.*/start"): f"while it ran the container {world.session}",
    }
    errors = world.errors(
        (method, path, lambda exchange: exchange.error(500, "the disk fell off")) for method, path in doing
    )
    for error, words in zip(errors, doing.values(), strict=True):
        assert error["code"] == "internal"
        assert error["message"].startswith(f"The engine reported an error {words}")
        assert error["message"].endswith(": the disk fell off")


def test_an_engine_that_cannot_list_its_volumes_is_not_one_without_a_build_tree(world: FaultWorld) -> None:
    world.engine.on("GET", "/volumes", refuse)
    error = world.fail()
    assert error["message"] == (
        "The engine reported an error while it looked for the package's build volume: the disk fell off"
    )
    assert world.engine.volumes == {}


@pytest.mark.parametrize("hook", [lambda exchange: exchange.error(500, "device or resource busy"), never])
def test_a_container_that_cannot_be_removed_after_a_good_build_ends_by_itself(world: FaultWorld, hook: Hook) -> None:
    world.engine.on("DELETE", "/containers/.*", hook)
    conversation = world.run(changes={"patience": 2}, engine__client__REQUEST_TIMEOUT=2)
    conversation.value()
    assert conversation.warnings == []
    assert wait_until(lambda: world.engine.names == [], 30)


def test_a_failing_step_is_told_even_if_its_container_cannot_be_removed(world: FaultWorld) -> None:
    world.engine.runs["make"] = Run(status=2)
    world.engine.on("DELETE", "/containers/.*", lambda exchange: exchange.error(500, "device or resource busy"))
    error = world.fail()
    assert error["code"] == "step_failed"


def test_no_space_at_the_engine_is_a_full_disk(world: FaultWorld) -> None:
    for error in world.errors(
        ("POST", path, lambda exchange: exchange.error(500, "mkdir /var/lib/x: no space left on device"))
        for path in ("/volumes/create", "/containers/create", "/containers/.*/start")
    ):
        assert error["code"] == "disk_full"
        assert "ran out of disk space" in error["message"]
        assert "docker system df" in error["hint"]


def test_no_space_in_the_build_is_a_full_disk(world: FaultWorld) -> None:
    world.engine.runs["make"] = Run(
        [frame(b"cc1: error writing x.s: No space left on device\nmake: Error 1\n")], status=2
    )
    error = world.fail()
    assert error["code"] == "disk_full"
    assert "exit status 2" in error["message"]
    assert error["log"].endswith("build.log")


@pytest.mark.parametrize(
    "run",
    [
        Run([frame(b"make: *** [all] Killed\n")], status=137, killed=1),
        Run([frame(b"cc1plus: out of memory\nmake: *** [x.o] Error 1\n")], status=2),
        Run([frame(b"virtual memory exhausted: Cannot allocate memory\nmake: *** [x.o] Error 1\n")], status=2),
    ],
    ids=["flag", "compiler", "limit"],
)
def test_want_of_memory_is_called_that(world: FaultWorld, run: Run) -> None:
    world.engine.runs["make"] = run
    error = world.fail()
    assert error["code"] == "out_of_memory"
    assert f"exit status {run.status}" in error["message"]
    assert "make: ***" in error["message"]
    assert "more memory" in error["hint"]
    assert error["log"].endswith("build.log")


KILLS = {
    "compiler": (b"g++: fatal error: Killed signal terminated program cc1plus\nmake: *** [x.o] Error 1\n", 2),
    "recipe": (b"make: *** [Makefile:2: all] Killed\n", 2),
    "inner shell": (b"make: *** [Makefile:2: all] Error 137\n", 2),
    "step": (b"before\n", 137),
}
"""What a build writes in which a process is killed, and its exit status."""


@pytest.mark.parametrize("kill", KILLS)
@pytest.mark.parametrize("known", [True, False], ids=["known", "not known"])
def test_a_kill_is_called_want_of_memory_only_if_the_kernel_says_so(world: FaultWorld, kill: str, known: bool) -> None:
    said, status = KILLS[kill]
    world.engine.runs["make"] = Run([frame(said)], status=status, killed=0 if known else 999_999_999)
    error = world.fail()
    assert error["code"] == "step_failed"
    assert f"exit status {status}" in error["message"]
    assert "run out of memory" not in error["message"]
    assert "A process was killed (signal 9)" in error["hint"]
    if known:
        assert "the kernel did not do it for want of memory" in error["hint"]
        assert "more memory" not in error["hint"]
    else:
        assert "does not tell whether memory ran out" in error["hint"]
        assert "more memory" in error["hint"]


def test_a_container_that_the_kernel_kills_for_want_of_memory_is_called_that(world: FaultWorld) -> None:
    world.engine.runs["make"] = Run([frame(b"before\n"), Container.run_out_of_memory])
    error = world.fail()
    assert error["code"] == "out_of_memory"
    assert "`make` ended with exit status 137" in error["message"]


def test_a_process_that_was_killed_for_want_of_memory_in_a_step_that_ends_well_is_no_error(world: FaultWorld) -> None:
    world.engine.runs["make"] = Run(killed=1)
    world.run().value()


# --- Answers that never come -----------------------------------------------------------------------------------


def test_an_answer_that_never_comes_is_not_waited_for(world: FaultWorld) -> None:
    errors = world.errors(
        [
            (method, path, never)
            for method, path in (
                ("GET", "/version"),
                ("GET", "/images/.*"),
                ("POST", "/containers/create"),
                ("POST", "/containers/.*/attach"),
                ("POST", "/containers/.*/start"),
            )
        ],
        engine__client__REQUEST_TIMEOUT=1,
    )
    assert len(errors) == 5
    for error in errors:
        assert error["code"] == "engine_unreachable"
        assert error["message"].endswith("it did not answer in time")
        assert error["hint"] is not None


def test_an_engine_that_freezes_under_a_silent_build_is_found_out(world: FaultWorld) -> None:
    world.engine.runs["make"] = Run([frame(b"before\n"), lambda _container: world.engine.freeze(), 600])
    error = world.fail(changes={"patience": 2})
    assert error["code"] == "engine_unreachable"
    assert (
        f"stopped answering while it ran the container {world.session}: it did not answer in time" in error["message"]
    )
    assert "the build continues where it was" in error["hint"]
    # The engine wakes. What it could not be asked to remove has ended by itself.
    world.engine.thaw()
    assert wait_until(lambda: world.engine.names == [], 30)
    world.engine.runs["make"] = Run()
    world.run().value()
    assert world.engine.names == []


@pytest.mark.parametrize("end", ["cancel", "end of file"])
def test_a_cancellation_does_not_wait_for_a_frozen_engine(world: FaultWorld, end: str) -> None:
    world.engine.runs["make"] = Run([frame(b">>> before\n"), lambda _container: world.engine.freeze(), 600])
    # The patience is so long that it is not found out before the cancellation; then the stop is waited for.
    hasty = {
        "engine__client__REQUEST_TIMEOUT": 1,
        "port__session__END_TIMEOUT": 1,
    }
    with world.helper(**hasty) as helper:
        helper.start("build", world.args())
        conversation = helper.follow(until_stage="make")
        assert wait_until(lambda: world.log != b"")
        if end == "cancel":
            helper.send((Atom("cancel"), 1))
            conversation = helper.follow(conversation)
            assert conversation.error is not None
            assert conversation.error["code"] == "cancelled"
        else:
            helper.close()
            helper.process.wait(timeout=20)


def test_an_engine_that_goes_in_mid_build_is_called_that(world: FaultWorld) -> None:
    def go(container: Container) -> None:
        threading.Thread(target=world.engine.vanish).start()

    world.engine.runs["make"] = Run([frame(b"before\n"), go, 600])
    error = world.fail(changes={"patience": 2})
    assert error["code"] == "engine_unreachable"
    assert f"stopped answering while it ran the container {world.session}: Connection refused" in error["message"]
    assert "journalctl" in error["hint"]
    assert world.log == b"before\n"


# --- What is no engine, or none that will do --------------------------------------------------------------------


def hang_up(exchange: Exchange) -> None:
    exchange.hang_up()


def html(exchange: Exchange) -> None:
    exchange.answer(200, b"<html>It works!</html>", "text/html")


def starting(exchange: Exchange) -> None:
    exchange.error(503, "starting up")


def garbage(exchange: Exchange) -> None:
    exchange.send(b"\x00\xffSSH-2.0-OpenSSH_9.2\r\n\r\n")
    exchange.hang_up()


def cut_short(exchange: Exchange) -> None:
    exchange.send(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"ApiVersion":')
    exchange.hang_up()


def test_what_does_not_answer_as_an_engine_is_unreachable(world: FaultWorld) -> None:
    # More of them in tests/unit/test_engine.py.
    told: dict[Hook, str] = {
        html: "what answers there is not a Docker engine",
        garbage: "what answers there is not a Docker engine",
        hang_up: "it closed the connection without an answer",
        cut_short: "its answer broke off",
        starting: "starting up",
    }
    errors = world.errors(("GET", "/version", hook) for hook in told)
    for error, words in zip(errors, told.values(), strict=True):
        assert error["code"] == "engine_unreachable"
        assert error["message"].endswith(f"No engine answers at {world.engine.host} (DOCKER_HOST): {words}")
        assert "docker version" in error["hint"]


def test_an_engine_that_is_too_old_is_called_that(world: FaultWorld) -> None:
    world.engine.version = {"Version": "1.12.6", "ApiVersion": "1.24"}
    error = world.fail()
    assert error["code"] == "engine_too_old"
    assert "1.24; 1.26 or later is needed" in error["message"]
    assert error["hint"] is not None


# --- Pulls -----------------------------------------------------------------------------------------------------


def downloading(current: int) -> bytes:
    return (
        json.dumps(
            {"status": "Downloading", "id": "0123", "progressDetail": {"current": current, "total": 1000}}
        ).encode()
        + b"\r\n"
    )


def pull_then(end: Hook) -> Hook:
    def pull(exchange: Exchange) -> None:
        exchange.chunks()
        exchange.chunk(downloading(500))
        end(exchange)

    return pull


def pull_fails(world: FaultWorld, hook: Hook, *, silence: float = 1) -> dict[str, str]:
    world.engine.on("POST", "/images/create", hook)
    error = world.fail(
        changes={"image": MISSING}, engine__transfer__PULL_TIMEOUT=silence, engine__client__REQUEST_TIMEOUT=1
    )
    assert world.engine.names == []
    return error


def test_an_error_event_in_a_pull_is_told(world: FaultWorld) -> None:
    def end(exchange: Exchange) -> None:
        exchange.chunk(json.dumps({"errorDetail": {"message": "unauthorized"}, "error": "unauthorized"}).encode())
        exchange.chunk(b"")

    error = pull_fails(world, pull_then(end))
    assert error["code"] == "image_unavailable"
    assert f"{MISSING} is not at the engine and could not be pulled: unauthorized" in error["message"]


def test_no_space_in_a_pull_is_a_full_disk(world: FaultWorld) -> None:
    def end(exchange: Exchange) -> None:
        exchange.chunk(json.dumps({"error": "write /var/lib/docker/tmp/x: no space left on device"}).encode())
        exchange.chunk(b"")

    error = pull_fails(world, pull_then(end))
    assert error["code"] == "disk_full"
    assert MISSING in error["message"]


def test_a_pull_that_is_cut_is_called_that(world: FaultWorld) -> None:
    error = pull_fails(world, pull_then(hang_up))
    assert error["code"] == "engine_unreachable"
    assert f"stopped answering while it pulled {MISSING}: its answer broke off" in error["message"]


def test_a_pull_that_ends_in_the_middle_of_an_event_is_called_that(world: FaultWorld) -> None:
    def end(exchange: Exchange) -> None:
        exchange.chunk(downloading(700)[:20])
        exchange.chunk(b"")

    error = pull_fails(world, pull_then(end))
    assert error["code"] == "engine_unreachable"
    assert "its answer broke off" in error["message"]


def test_a_pull_that_ends_well_without_the_image_is_no_success(world: FaultWorld) -> None:
    error = pull_fails(world, pull_then(lambda exchange: exchange.chunk(b"")))
    assert error["code"] == "image_unavailable"
    assert "the pull ended without it" in error["message"]


@pytest.mark.parametrize("hook", [never, pull_then(never)], ids=["no answer", "no further event"])
def test_a_pull_that_says_nothing_for_too_long_is_given_up(world: FaultWorld, hook: Hook) -> None:
    error = pull_fails(world, hook)
    assert error["code"] == "image_unavailable"
    assert f"{MISSING} is not at the engine and could not be pulled: nothing has arrived for 1 s" in error["message"]
    assert world.engine.requests("GET", "/_ping") != []


def test_an_engine_that_freezes_in_a_pull_is_found_out(world: FaultWorld) -> None:
    def freeze(exchange: Exchange) -> None:
        world.engine.freeze()
        exchange.never_answer()

    error = pull_fails(world, pull_then(freeze), silence=600)
    assert error["code"] == "engine_unreachable"
    assert "it did not answer in time" in error["message"]


def test_a_slow_pull_is_waited_for_and_its_progress_told(world: FaultWorld) -> None:
    def end(exchange: Exchange) -> None:
        world.engine.closing.wait(0.7)
        exchange.chunk(downloading(1000))
        world.engine.add_image(MISSING)
        exchange.chunk(b"")

    world.engine.on("POST", "/images/create", pull_then(end))
    conversation = world.run(changes={"image": MISSING})
    conversation.value()
    assert [progress["current"] for progress in conversation.progress] == [500, 1000]


@pytest.mark.parametrize("hook", [never, pull_then(never)], ids=["no answer", "no further event"])
def test_a_silent_pull_is_cancelled_at_once(world: FaultWorld, hook: Hook) -> None:
    world.engine.on("POST", "/images/create", hook)
    with world.helper(engine__transfer__PROBE_INTERVAL=600) as helper:
        helper.start("build", world.args(image=MISSING))
        conversation = helper.follow(until_stage="pull")
        assert wait_until(lambda: world.engine.requests("POST", "/images/create"))
        helper.send((Atom("cancel"), 1))
        conversation = helper.follow(conversation)
    assert conversation.error is not None
    assert conversation.error["code"] == "cancelled"


# --- Cancellation ----------------------------------------------------------------------------------------------


def test_a_cancellation_just_before_the_start_is_not_lost(world: FaultWorld) -> None:
    with world.helper() as helper:

        def cancel_first(exchange: Exchange) -> None:
            helper.send((Atom("cancel"), 1))
            assert wait_until(lambda: world.engine.requests("POST", "/containers/.*/stop"))
            exchange.as_usual()

        world.engine.on_step("POST", "start", "make", cancel_first)
        world.engine.runs["make"] = Run([600])
        conversation = helper.request("build", world.args())
    assert conversation.error is not None
    assert conversation.error["code"] == "cancelled"
    assert world.engine.names == []


@pytest.mark.parametrize(
    "hook", [None, lambda exchange: exchange.error(500, "cannot"), never], ids=["stops", "500", "never"]
)
def test_a_cancelled_build_ends_whatever_the_engine_says_to_the_stop(world: FaultWorld, hook: Hook | None) -> None:
    if hook is not None:
        world.engine.on("POST", "/containers/.*/stop", hook)
    world.engine.runs["make"] = Run([frame(b"before\n"), 600], ignores_term=True)
    with world.helper(engine__client__REQUEST_TIMEOUT=1) as helper:
        helper.start("build", world.args())
        conversation = helper.follow(until_stage="make")
        assert wait_until(lambda: world.log != b"")
        helper.send((Atom("cancel"), 1))
        conversation = helper.follow(conversation)
    assert conversation.error is not None
    assert conversation.error["code"] == "cancelled"
    assert world.engine.names == []
    assert world.downloads == []


@pytest.mark.parametrize("status", [None, 0], ids=["killed", "ends well"])
def test_a_step_that_ends_because_the_build_was_cancelled_is_no_failure_of_its_own(
    world: FaultWorld, status: int | None
) -> None:
    def end_well(container: Container) -> None:
        container.stopping.wait()
        container.mark("make", 0)
        container.end(143)

    world.engine.runs["make"] = Run([frame(b"before\n"), 600 if status is None else end_well])
    with world.helper() as helper:
        helper.start("build", world.args())
        conversation = helper.follow(until_stage="make")
        assert wait_until(lambda: world.log != b"")
        helper.send((Atom("cancel"), 1))
        conversation = helper.follow(conversation)
    assert conversation.error is not None
    assert conversation.error["code"] == "cancelled"
    assert world.engine.names == []


# --- Who has the volume ----------------------------------------------------------------------------------------


def test_another_build_on_the_volume_is_refused_by_name(world: FaultWorld) -> None:
    world.engine.add_container("somebody", mounted=world.volume, step="make")
    error = world.fail()
    assert error["code"] == "volume_busy"
    assert f"{world.volume} is in use by the container somebody (make, started " in error["message"]
    assert "docker stop somebody" in error["hint"]


@pytest.mark.parametrize("ahead", [-86_400, 86_400], ids=["behind", "ahead"])
@pytest.mark.parametrize("op", ["build", "clean"])
def test_a_container_that_was_made_but_never_started_is_judged_by_the_engines_clock(
    world: FaultWorld, ahead: float, op: str
) -> None:
    world.engine.ahead = ahead
    world.engine.volumes[world.volume] = {}
    made = world.engine.add_container(world.session, status="created", step="build")
    made.created -= 30
    with world.helper() as helper:
        error = helper.request(op, world.args()).error
        assert error is not None
        assert error["code"] == "volume_busy"
        assert f"the container {world.session} (build, started just now)" in error["message"]
        assert f"docker rm --force {world.session}" in error["hint"]
        made.created -= 60
        helper.request(op, world.args(), request_id=2).value()
    assert world.engine.find(made.id) is None


def test_what_version_0_1_0_left_behind_is_removed(world: FaultWorld) -> None:
    labels = {"project": "nerves_docker_port", "volume": world.volume}
    engine = world.engine
    engine.add_container(f"{world.volume}-hold", status="created", **labels, step="build").created -= 90
    engine.add_container(f"{world.volume}-make-1234", status="exited", mounted=world.volume, **labels, step="make")
    engine.add_container("other-hold", status="created", project="nerves_docker_port", step="build").created -= 90
    engine.add_container("somebody", status="exited", mounted=world.volume)
    world.run().value()
    assert engine.names == ["other-hold", "somebody"]


def test_a_build_of_version_0_1_0_that_has_just_begun_is_respected(world: FaultWorld) -> None:
    labels = {"project": "nerves_docker_port", "volume": world.volume}
    world.engine.add_container(f"{world.volume}-hold", status="created", **labels, step="build")
    error = world.fail()
    assert error["code"] == "volume_busy"
    assert f"the container {world.volume}-hold (build, started " in error["message"]
    assert world.engine.names == [f"{world.volume}-hold"]


@pytest.mark.parametrize("op", ["build", "archive", "clean"])
def test_whoever_comes_while_a_build_runs_is_refused_and_the_build_goes_on(world: FaultWorld, op: str) -> None:
    refused: list[Conversation] = []

    def meanwhile(_container: Container) -> None:
        with world.helper() as other:
            refused.append(other.request(op, world.args(cwd=world.root / "home")))

    world.engine.runs["make"] = Run([meanwhile])
    world.run().value()
    (conversation,) = refused
    assert conversation.error is not None
    assert conversation.error["code"] == "volume_busy"
    assert f"the container {world.session} (build, started " in conversation.error["message"]
    assert f"docker stop {world.session}" in conversation.error["hint"]


def test_a_volume_of_a_package_that_is_gone_is_not_pruned_while_a_session_has_it(world: FaultWorld) -> None:
    package = world.root / "gone"
    package.mkdir()
    gone = {
        "project": "nerves_docker_port",
        "package": "gone",
        "version": "1.0.0",
        "path": str(package),
        "host": platform.node(),
        "machine": machine.machine_id(),
        "directory": machine.directory_id(package),
        "volume": "gone-1234",
    }
    package.rmdir()
    world.engine.volumes["gone-1234"] = {f"nerves-docker-port.{key}": value for key, value in gone.items()}
    session = world.engine.add_container("gone-1234-session", mounted="gone-1234", volume="gone-1234", step="build")
    args = {**world.args(), Atom("all"): True, Atom("prune"): True, Atom("yes"): True}
    with world.helper() as helper:
        helper.request("volumes", args)
        assert "gone-1234" in world.engine.volumes
        assert world.engine.names == ["gone-1234-session"]
        world.engine.discard(session)
        helper.request("volumes", args, request_id=2).value()
    assert world.engine.volumes == {}


@pytest.mark.parametrize("network", ["none", "host"])
def test_an_engine_need_not_list_the_networks_that_every_engine_has(world: FaultWorld, network: str) -> None:
    # Podman lists neither; this fake lists no network at all.
    world.run(changes={"env": {"NERVES_DOCKER_NETWORK": network}}).value()
    (created,) = [asked for asked in world.engine.asked if asked.path == "/containers/create"]
    assert created.body["HostConfig"]["NetworkMode"] == network


def test_what_is_odd_in_config_json_is_told_once(world: FaultWorld) -> None:
    config = world.root / "home" / ".docker" / "config.json"
    config.parent.mkdir()
    config.write_text('{"proxies": "none"}')
    conversation = world.run()
    conversation.value()
    assert len(conversation.warnings) == 1
    assert "proxies" in conversation.warnings[0]


# --- From a build to its archive -------------------------------------------------------------------------------


def test_a_build_and_its_archive_take_sixteen_requests(world: FaultWorld) -> None:
    with world.helper() as helper:
        helper.request("build", world.args()).value()
        conversation = helper.request("archive", world.args(), request_id=2)
    assert Path(conversation.value()["path"]).read_bytes() == ARTIFACT
    assert conversation.headlines[0].startswith("Reusing artifact archive from ")
    assert world.engine.started == [*STEPS, "check_tree"]
    asked = [each for each in world.engine.asked if each.query.get("signal") != "SIGUSR1"]
    assert len(asked) <= 16, [f"{each.method} {each.path}" for each in asked]
    assert world.engine.names == []


def test_an_archive_after_a_change_packs_again_in_the_session_that_is_there(world: FaultWorld) -> None:
    world.engine.runs["check_tree"] = Run(status=1)
    with world.helper() as helper:
        helper.request("build", world.args()).value()
        conversation = helper.request("archive", world.args(), request_id=2)
    conversation.value()
    assert world.engine.started == [*STEPS, "check_tree", *PACKING]
    assert len(world.engine.requests("POST", "/containers/create")) == 1
    assert conversation.finished == ["preflight", "make_system", "copy"]


@pytest.mark.parametrize(("method", "action"), [("PUT", "archive"), ("POST", "kill")])
@pytest.mark.parametrize("changed", [True, False], ids=["changed", "the same"])
def test_a_connection_that_breaks_while_the_archive_is_asked_for_costs_nothing(
    world: FaultWorld, method: str, action: str, changed: bool
) -> None:
    world.engine.runs["check_tree"] = Run(status=int(changed))
    with world.helper() as helper:
        helper.request("build", world.args()).value()
        world.engine.on(method, f"/containers/.*/{action}", hang_up, times=2)
        helper.request("archive", world.args(), request_id=2).value()
    packed = PACKING if changed else []
    assert world.engine.started == [*STEPS, "check_tree", *packed]


@pytest.mark.parametrize("removed", [True, False], ids=["gone", "just ended"])
def test_a_session_that_has_ended_since_the_build_is_replaced_by_another(world: FaultWorld, removed: bool) -> None:
    if not removed:
        world.engine.removal = 600
    with world.helper() as helper:
        helper.request("build", world.args()).value()
        (parked,) = list(world.engine.containers.values())
        assert parked.name == f"{world.volume}-parked-{parked.id[:12]}"
        parked.stop()
        assert wait_until(lambda: parked.status == "exited" and (world.engine.names == []) is removed, 30)
        helper.request("archive", world.args(), request_id=2).value()
    assert world.engine.started == [*STEPS, *PACKING]
    assert world.engine.names == []


def test_who_has_taken_the_volume_since_the_build_keeps_it(world: FaultWorld) -> None:
    with world.helper() as helper:
        helper.request("build", world.args()).value()
        other = world.engine.add_container(world.session, mounted=world.volume, step="shell")
        error = helper.request("archive", world.args(), request_id=2).error
        assert error is not None
        assert error["code"] == "volume_busy"
        assert f"the container {world.session} (shell, started " in error["message"]
        assert world.engine.names == [world.session]
        world.engine.discard(other)
        helper.request("archive", world.args(), request_id=3).value()
    assert world.engine.started == [*STEPS, *PACKING]


def test_a_clean_takes_a_session_that_waits_for_its_archive_along(world: FaultWorld) -> None:
    with world.helper() as helper:
        helper.request("build", world.args()).value()
        with world.helper() as other:
            assert other.request("clean", world.args()).value() == {"removed": [world.volume]}
        assert world.engine.names == []
        assert world.engine.volumes == {}
        error = helper.request("archive", world.args(), request_id=2).error
        assert error is not None
        assert error["code"] == "no_build_tree"


@pytest.mark.parametrize("same", [True, False], ids=["same helper", "another helper"])
def test_a_volume_is_found_again_where_nerves_has_removed_the_file_with_its_id(world: FaultWorld, same: bool) -> None:
    """Fault A7: with `NERVES_ARTIFACTS_DIR=$PWD/.nerves/artifacts` the build path is the cache path."""
    build_path = world.root / "my_system" / ".nerves"
    with world.helper() as first:
        first.request("build", world.args()).value()
        shutil.rmtree(build_path)
        if same:
            first.request("archive", world.args(), request_id=2).value()
    if not same:
        with world.helper() as second:
            second.request("archive", world.args()).value()
    shutil.rmtree(build_path, ignore_errors=True)
    world.run().value()
    assert len(world.engine.volumes) == 1
    shutil.rmtree(build_path)
    with world.helper() as third:
        assert third.request("clean", world.args()).value()["removed"] != []
    assert world.engine.volumes == {}


def test_a_platform_that_is_missing_is_named_and_not_taken_for_one_that_the_engine_does_not_see(
    world: FaultWorld,
) -> None:
    (world.root / "platform").rmdir()
    error = world.fail()
    assert error["code"] == "bad_request"
    assert error["message"] == f"The directory of the platform is not there: {world.root}/platform"
    assert "mix deps.get" in error["hint"]
    assert world.engine.names == []
