"""Faults of the engine while one command runs or a file is copied: the real helper against a fake engine."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator

import pytest

from nerves_docker_port import errors
from nerves_docker_port.port.wire import Atom, Term
from support.fake_engine import Container, Exchange, Run, frame
from support.fault_world import CUT, LOST, FaultWorld, noted
from support.port import Conversation

FOUND = "/home/nerves/project/images"
"""The path in the container of what is copied."""


@pytest.fixture
def world() -> Iterator[FaultWorld]:
    with FaultWorld() as world:
        yield world


# --- run -------------------------------------------------------------------------------------------------------


def run(world: FaultWorld) -> Conversation:
    """Run a command, which does what the world's engine has for the step ``run``."""
    with world.helper() as helper:
        return helper.request("run", {**world.args(), Atom("command"): ["some", "command"]})


def log_of_run(world: FaultWorld) -> bytes:
    return (world.root / "my_system" / "run.log").read_bytes()


@pytest.mark.parametrize("status", [0, 3])
def test_a_command_whose_output_is_cut_goes_on_and_ends_with_its_own_status(world: FaultWorld, status: int) -> None:
    world.engine.runs["run"] = Run([frame(b"before\n"), *CUT, frame(b"after\n")], status=status)
    conversation = run(world)
    assert conversation.value() == {"status": status}
    assert conversation.warnings == [LOST]
    assert log_of_run(world).endswith(b"before\n" + noted(LOST) + b"after\n")
    assert world.engine.names == []


def test_a_command_that_ran_out_of_memory_has_its_status_and_is_told_why(world: FaultWorld) -> None:
    world.engine.runs["run"] = Run([frame(b"begun\n")], status=137, killed=1)
    conversation = run(world)
    assert conversation.value() == {"status": 137}
    assert conversation.warnings == [errors.COMMAND_OUT_OF_MEMORY]


def test_a_command_whose_container_somebody_removed_is_an_error(world: FaultWorld) -> None:
    world.engine.runs["run"] = Run([frame(b"begun\n"), world.engine.discard])
    error = run(world).error
    assert error is not None
    assert "was removed by somebody else before it had ended" in error["message"]
    assert log_of_run(world).endswith(b"begun\n")


def test_a_command_on_an_engine_that_goes_is_an_error(world: FaultWorld) -> None:
    world.engine.runs["run"] = Run([frame(b"begun\n"), Container.wait_for_attach, lambda _: world.engine.vanish()])
    with world.helper() as helper:
        args: dict[Term, Term] = {**world.args(patience=2), Atom("command"): ["some", "command"]}
        error = helper.request("run", args).error
    assert error is not None
    assert error["code"] == "engine_unreachable"


# --- copy ------------------------------------------------------------------------------------------------------


def copy(world: FaultWorld, answer: tuple[int, bytes]) -> Conversation:
    """Copy ``images``, which the engine answers with a status and a body; other files are handed over as usual."""

    def hand_over(exchange: Exchange) -> None:
        if exchange.asked.query["path"] == FOUND:
            exchange.answer(*answer)
        else:
            exchange.as_usual()

    with world.helper() as helper:
        helper.request("build", world.args()).value()
    world.engine.runs["find"] = Run([frame(f"\0{FOUND}\0".encode())])
    world.engine.on("GET", "/containers/.*/archive", hand_over)
    (world.root / "out").mkdir()
    with world.helper() as helper:
        args = {**world.args(), Atom("source"): "images", Atom("target"): str(world.root / "out")}
        return helper.request("copy", args)


def packed() -> bytes:
    """A directory with one file, as the engine packs it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        directory = tarfile.TarInfo("images")
        directory.type, directory.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(directory)
        file = tarfile.TarInfo("images/firmware")
        file.size = 100_000
        tar.addfile(file, io.BytesIO(bytes(range(250)) * 400))
    return buffer.getvalue()


def test_what_is_copied_is_written_whole(world: FaultWorld) -> None:
    there = world.root / "out" / "images"
    assert copy(world, (200, packed())).value() == {"path": str(there), "size": 100_000}
    assert (there / "firmware").read_bytes() == bytes(range(250)) * 400


@pytest.mark.parametrize("kept", [700, 50_000, -2_000], ids=["no file", "half a file", "no end"])
def test_a_copy_that_the_engine_ends_too_early_leaves_nothing(world: FaultWorld, kept: int) -> None:
    """The answer is complete as HTTP: an engine that fails in the middle ends it so."""
    error = copy(world, (200, packed()[:kept])).error
    assert error is not None
    assert "did not hand over the whole of images" in error["message"]
    assert list((world.root / "out").iterdir()) == []
    assert world.engine.names == []


@pytest.mark.parametrize(
    ("status", "said"),
    [(404, "There is no images in the build directory."), (500, "disk I/O error")],
)
def test_a_copy_that_the_engine_refuses_leaves_nothing(world: FaultWorld, status: int, said: str) -> None:
    error = copy(world, (status, b'{"message": "disk I/O error"}')).error
    assert error is not None
    assert said in error["message"]
    assert list((world.root / "out").iterdir()) == []
