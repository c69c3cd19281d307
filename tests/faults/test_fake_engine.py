"""What an engine does not do on demand, each fault with its named outcome: the real helper against a fake engine.

The waits of the helper are shortened (support/fault_world.py), nothing else. ``World.helper`` kills what hangs.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nerves_docker_port.port.wire import Atom
from support.fake_engine import ARTIFACT, STDERR, STREAM_HEAD, Container, Exchange, Hook, Run, frame
from support.fault_world import FaultWorld
from support.port import wait_until
from support.script import steps_in

MISSING = "builder:missing"


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
    assert world.engine.started[:3] == ["create_build", "make", "make_system"]
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


@pytest.mark.parametrize("half", [frame(b"lost")[:3], frame(b"half of it is lost")[:-8]], ids=["header", "payload"])
@pytest.mark.parametrize("status", [0, 2])
def test_half_a_frame_then_a_close_is_told_and_the_status_is_the_true_one(
    world: FaultWorld, half: bytes, status: int
) -> None:
    world.engine.runs["make"] = Run([frame(b"whole\n"), half, Container.cut], status=status)
    conversation = world.run()
    assert conversation.warnings == [f"The output of {build_name(world)} broke off; the last of it is not in the log."]
    assert world.log.startswith(b"whole\n")
    if status == 0:
        conversation.value()
    else:
        assert conversation.error is not None
        assert conversation.error["code"] == "step_failed"
        # What the container said of the step went with the connection: it may have been the next one, too.
        assert "`make && make system NERVES_ARTIFACT_NAME=" in conversation.error["message"]
        assert "` ended with exit status 2" in conversation.error["message"]
    assert world.engine.names == []


def test_a_step_whose_end_was_lost_with_the_connection_has_ended_when_a_later_one_has(world: FaultWorld) -> None:
    world.engine.runs["create_build"] = Run([Container.cut])
    world.engine.runs["make"] = Run([Container.wait_for_attach, Container.wait_for_attach, frame(b"here\n")])
    conversation = world.run()
    conversation.value()
    assert conversation.finished == ["preflight", "create_build", "make", "make_system", "copy"]
    assert len(conversation.warnings) == 1
    assert world.log == b"here\n"


def test_a_container_that_is_killed_just_after_its_last_step_is_a_failure_of_that(world: FaultWorld) -> None:
    def end_well_and_be_killed(container: Container) -> None:
        token, _steps = steps_in(container.config["Cmd"])
        container.emit(frame(f"\x1e{token} make_system 0\x1e".encode()))
        container._end(137)

    world.engine.runs["make_system"] = Run([end_well_and_be_killed])
    error = world.fail()
    assert error["code"] == "step_failed"
    assert "`make system NERVES_ARTIFACT_NAME=" in error["message"]
    assert "` ended with exit status 137" in error["message"]


def test_silence_for_much_longer_than_any_request_may_take_is_a_builds_right(world: FaultWorld) -> None:
    # 3 s are twice the request timeout here, and 15 probes; 90 s are 1.5 times the real one, and 3 probes.
    world.engine.runs["make"] = Run([frame(b"before\n"), 3, frame(b"after\n")])
    conversation = world.run(engine__client__REQUEST_TIMEOUT=1.5)
    conversation.value()
    assert world.log == b"before\nafter\n"
    assert conversation.warnings == []


@pytest.mark.parametrize("status", [0, 3])
def test_a_stream_that_is_cut_while_the_container_runs_on_is_taken_up_again(world: FaultWorld, status: int) -> None:
    def cut_and_wait(container: Container) -> None:
        container.wait_for_attach()
        container.cut()
        container.wait_for_attach()

    world.engine.runs["make"] = Run([frame(b"before\n"), cut_and_wait, frame(b"after\n")], status=status)
    conversation = world.run()
    assert conversation.warnings == [
        f"The connection to the output of {build_name(world)} was lost; what it wrote meanwhile is not in the log."
    ]
    assert world.log == b"before\nafter\n"
    if status == 0:
        conversation.value()
    else:
        assert conversation.error is not None
        assert "exit status 3" in conversation.error["message"]
    assert world.engine.names == []


@pytest.mark.parametrize("status", [0, 3])
def test_a_stream_that_is_cut_while_the_container_ends_is_no_success_by_itself(world: FaultWorld, status: int) -> None:
    world.engine.runs["make"] = Run([frame(b"before\n"), Container.cut, 0.1], status=status)
    conversation = world.run()
    if status == 0:
        conversation.value()
    else:
        assert conversation.error is not None
        assert conversation.error["code"] == "step_failed"
        assert "exit status 3" in conversation.error["message"]
    assert conversation.warnings == []


def test_a_stream_that_stays_open_after_its_container_has_ended_is_not_waited_for(world: FaultWorld) -> None:
    def forget_the_stream(container: Container) -> None:
        # The connection died on its way: nobody at the other end closes it.
        world.engine.forgotten.extend(container.streams)
        container.streams.clear()

    world.engine.runs["make"] = Run([frame(b"before\n"), forget_the_stream], status=4)
    error = world.fail()
    assert error["code"] == "step_failed"
    assert "exit status 4" in error["message"]


# --- Races: not found and conflict -----------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["attach", "start", "wait"])
def test_a_container_that_somebody_else_removed_is_called_that(world: FaultWorld, action: str) -> None:
    world.engine.on_step("POST", action, "make", no_such_container)
    error = world.fail()
    assert error["code"] == "step_failed"
    assert error["message"] == f"The container {build_name(world)} was removed by somebody else before it had ended."
    assert "run the command again" in error["hint"]
    assert world.engine.names == []


def test_a_container_that_is_removed_while_it_runs_is_called_that(world: FaultWorld) -> None:
    world.engine.runs["make"] = Run([frame(b"before\n"), world.engine.discard])
    error = world.fail()
    assert error["code"] == "step_failed"
    assert "was removed by somebody else before it had ended" in error["message"]


@pytest.mark.parametrize(("method", "action"), [("GET", "json"), ("DELETE", "")])
def test_a_container_that_somebody_removed_after_its_end_is_survived(
    world: FaultWorld, method: str, action: str
) -> None:
    world.engine.on_step(method, action, "make", no_such_container)
    assert world.run().warnings == []
    assert world.downloads != []


def test_a_container_that_is_killed_from_outside_is_a_failed_step(world: FaultWorld) -> None:
    world.engine.runs["make"] = Run([lambda container: container.stopping.set()])
    error = world.fail()
    assert error["code"] == "step_failed"
    assert "exit status 143" in error["message"]


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
        if "-build-" in exchange.asked.query["name"] and left[0] > 0:
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
    error = world.fail()
    assert error["code"] == "volume_busy"
    assert build_name(world) in error["message"]
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
        ("GET", "/volumes/.*"): f"while it looked for the volume {world.volume}",
        ("POST", "/volumes/create"): f"while it made the volume {world.volume}",
        ("GET", "/images/.*"): "while it looked for the image builder:new",
        ("GET", "/info"): "while it was asked about itself",
        ("GET", "/containers/json"): "while it listed ",
        ("POST", "/containers/create"): f"while it reserved the volume {world.volume}",
        ("POST", "/containers/.*/attach"): f"while it ran the container {world.volume}-build-",
        ("POST", "/containers/.*/wait"): f"while it ran the container {world.volume}-build-",
    }
    errors = world.errors(
        (method, path, lambda exchange: exchange.error(500, "the disk fell off")) for method, path in doing
    )
    for error, words in zip(errors, doing.values(), strict=True):
        assert error["code"] == "internal"
        assert error["message"].startswith(f"The engine reported an error {words}")
        assert error["message"].endswith(": the disk fell off")


def test_a_container_that_cannot_be_removed_is_a_warning_after_a_good_step(world: FaultWorld) -> None:
    world.engine.on_step("DELETE", "", "make", lambda exchange: exchange.error(500, "device or resource busy"))
    conversation = world.run()
    conversation.value()
    (warning,) = conversation.warnings
    assert f"while it removed the container of {build_name(world)}: device or resource busy" in warning


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
        Run([frame(b"make: *** [all] Killed\n")], status=137, oom_killed=True),
        Run(
            [frame(b"g++: fatal error: Killed signal terminated program cc1plus\nmake: *** [x.o] Error 1\n")], status=2
        ),
    ],
    ids=["flag", "compiler"],
)
def test_want_of_memory_is_called_that(world: FaultWorld, run: Run) -> None:
    world.engine.runs["make"] = run
    error = world.fail()
    assert error["code"] == "out_of_memory"
    assert f"exit status {run.status}" in error["message"]
    assert "make: ***" in error["message"]
    assert "more memory" in error["hint"]
    assert error["log"].endswith("build.log")


def test_a_flag_of_memory_on_a_good_end_is_no_error(world: FaultWorld) -> None:
    world.engine.runs["make"] = Run(oom_killed=True)
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
                ("GET", "/containers/.*/json"),
            )
        ],
        engine__client__REQUEST_TIMEOUT=1,
    )
    assert len(errors) == 6
    for error in errors:
        assert error["code"] == "engine_unreachable"
        assert error["message"].endswith("it did not answer in time")
        assert error["hint"] is not None


def test_a_wait_that_is_never_answered_is_replaced_by_a_look(world: FaultWorld) -> None:
    world.engine.on("POST", "/containers/.*/wait", never)
    world.engine.runs["make_system"] = Run(status=7)
    error = world.fail(engine__container__SETTLE_TIMEOUT=0.3)
    assert error["code"] == "step_failed"
    assert "exit status 7" in error["message"]


def test_a_removal_that_is_never_answered_is_a_warning(world: FaultWorld) -> None:
    world.engine.on_step("DELETE", "", "make", never)
    conversation = world.run(engine__client__REQUEST_TIMEOUT=1)
    conversation.value()
    (warning,) = conversation.warnings
    assert "it did not answer in time" in warning


def test_an_engine_that_freezes_under_a_silent_build_is_found_out(world: FaultWorld) -> None:
    world.engine.runs["make"] = Run([frame(b"before\n"), lambda _container: world.engine.freeze(), 600])
    error = world.fail(engine__client__REQUEST_TIMEOUT=1)
    assert error["code"] == "engine_unreachable"
    assert (
        f"stopped answering while it ran the container {build_name(world)}: it did not answer in time"
        in error["message"]
    )
    assert "the build continues where it was" in error["hint"]
    # The engine wakes, and the next command finds what was left.
    world.engine.thaw()
    world.engine.runs["make"] = Run()
    world.run().value()
    assert world.engine.names == []


@pytest.mark.parametrize("end", ["cancel", "end of file"])
def test_a_cancellation_does_not_wait_for_a_frozen_engine(world: FaultWorld, end: str) -> None:
    world.engine.runs["make"] = Run([frame(b">>> before\n"), lambda _container: world.engine.freeze(), 600])
    # So long that it is not found out before the cancellation; then the stop is waited for.
    hasty = {
        "engine__container__PROBE_INTERVAL": 600,
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
    error = world.fail()
    assert error["code"] == "engine_unreachable"
    assert f"stopped answering while it ran the container {build_name(world)}: Connection refused" in error["message"]
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


def test_another_build_on_the_volume_is_refused_by_name(world: FaultWorld) -> None:
    world.engine.add_container("somebody", volume=world.volume, step="make")
    error = world.fail()
    assert error["code"] == "volume_busy"
    assert f"{world.volume} is in use by the container somebody (make, started " in error["message"]
    assert "docker stop somebody" in error["hint"]


def build_name(world: FaultWorld) -> str:
    """The name of the build's container."""
    names = [asked.query["name"] for asked in world.engine.requests("POST", "/containers/create")]
    return next(name for name in names if "-build-" in name)
