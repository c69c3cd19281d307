"""The helper as a process on its two descriptors: hello, outcomes, ends, and what cannot disturb the protocol."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from nerves_docker_port import __version__, errors
from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.port import session, wire
from nerves_docker_port.port.wire import Atom, Term
from support.port import Helper, plain


def test_hello_comes_first_and_names_protocol_version_python_and_pid() -> None:
    with Helper() as helper:
        assert plain(helper.hello) == (
            "hello",
            {
                "protocol": 1,
                "version": __version__,
                "python": ".".join(str(part) for part in sys.version_info[:3]),
                "os_pid": helper.process.pid,
            },
        )


def test_helper_ends_when_the_port_closes() -> None:
    with Helper() as helper:
        helper.close()
        assert helper.process.wait(timeout=60) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_helper_ends_at_a_signal(number: signal.Signals) -> None:
    with Helper() as helper:
        helper.signal(number)
        assert helper.process.wait(timeout=60) == 0


def test_bad_arguments_are_one_bad_request_that_names_the_key() -> None:
    with Helper() as helper:
        conversation = helper.request("build", {})
        assert conversation.error is not None
        assert conversation.error["code"] == "bad_request"
        assert "`package`" in conversation.error["message"]


def test_helper_serves_one_request_after_another() -> None:
    with Helper() as helper:
        for request_id in (1, 2, 3):
            conversation = helper.request("clean", {}, request_id=request_id)
            assert conversation.error is not None


@pytest.mark.parametrize(
    "frame",
    [b"", b"\x83", b"nonsense", wire.encode([]), wire.encode((Atom("dance"), 1)), b"\x83P\x00\x00\x00\x01x"],
    ids=["empty", "version only", "nonsense", "a list", "unknown message", "compressed"],
)
def test_a_malformed_frame_is_answered_clearly_and_ends_the_helper(frame: bytes) -> None:
    with Helper() as helper:
        wire.write_frame(helper.to_helper, frame)
        done = plain(helper.receive())
        assert done[:2] == ("done", 0)
        assert done[2][1]["code"] == "bad_request"
        assert helper.receive() is None
        assert helper.process.wait(timeout=60) == 1


def test_a_frame_that_claims_to_be_huge_is_refused_at_once() -> None:
    with Helper() as helper:
        os.write(helper.to_helper, b"\xff\xff\xff\xff")
        done = plain(helper.receive())
        assert done[2][1]["code"] == "bad_request"


def test_nothing_that_is_printed_can_corrupt_the_protocol(tmp_path: Path) -> None:
    # A module that Python imports at start, inside the helper's process: prints, writes to standard output in every
    # way there is, starts a child that does, and leaves a traceback on standard error.
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, os, sys, subprocess, threading, time, traceback\n"
        "def noise():\n"
        "    while True:\n"
        "        print('stray', flush=True)\n"
        "        sys.stdout.write('x' * 5000)\n"
        "        os.write(1, b'\\x00\\x00\\x00\\x05stray')\n"
        "        time.sleep(0.001)\n"
        "def child():\n"
        "    subprocess.run(['sh', '-c', 'echo child; echo child >&3; echo child >&4'])\n"
        "    try:\n"
        "        raise RuntimeError('traceback of a library')\n"
        "    except RuntimeError:\n"
        "        traceback.print_exc()\n"
        "def later():\n"
        "    time.sleep(0.3)\n"
        "    child()\n"
        "threading.Thread(target=noise, daemon=True).start()\n"
        "threading.Thread(target=later, daemon=True).start()\n"
    )
    paths = f"{tmp_path}{os.pathsep}{Path(__file__).parent.parent.parent / 'python'}"
    with (
        (tmp_path / "stderr").open("wb") as stderr,
        Helper(env={"PYTHONPATH": paths}, stderr=stderr.fileno()) as helper,
    ):
        assert plain(helper.hello)[0] == "hello"
        for request_id in range(1, 200):
            conversation = helper.request("clean", {}, request_id=request_id)
            assert conversation.error is not None
            assert conversation.error["code"] == "bad_request"
        assert helper.wait_until(lambda: b"traceback of a library" in (tmp_path / "stderr").read_bytes())
        assert helper.request("clean", {}, request_id=999).error is not None
    noise = (tmp_path / "stderr").read_bytes()
    assert b"stray" in noise
    assert b"child" in noise


def test_port_without_a_shim_says_what_it_is_for() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "nerves_docker_port", "port"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent / "python")},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert ended.returncode == 64
    assert "for the Elixir shim" in ended.stderr


# --- With operations of the test's own -------------------------------------------------------------------------


Serve = Callable[[str, session.Flow, Cancellation], Term]


class Operations:
    """Does what a test says."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self.closed = 0

    def serve(self, op: str, args: Mapping[Term, Term], reporter: session.Flow, cancellation: Cancellation) -> Term:
        return self._serve(op, reporter, cancellation)

    def load_later(self, op: str) -> None:
        """There is nothing to load."""

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def handlers() -> Iterator[None]:
    """What a session changes in its process is put back."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    gc.unfreeze()


class Peer:
    """The other end of the port; ``converse`` of the test runs beside the session, which needs the main thread."""

    def __init__(self) -> None:
        self.fd_in, self._to_helper = os.pipe()
        self._from_helper, self.fd_out = os.pipe()
        self._reader = wire.FrameReader(self._from_helper)

    def send(self, *message: Term) -> None:
        wire.write_frame(self._to_helper, wire.encode(tuple(message)))

    def request(self, number: int, op: str = "build") -> None:
        self.send(Atom("request"), number, Atom(op), {})

    def receive(self) -> object:
        frame = self._reader.read_frame()
        return None if frame is None else plain(wire.decode(frame))

    def close(self) -> None:
        if self._to_helper >= 0:
            os.close(self._to_helper)
            self._to_helper = -1


def converse(serve: Serve, conversation: Callable[[Peer], None]) -> tuple[int, Operations]:
    """Serve a peer that says what ``conversation`` does and then goes; the exit status, and the operations."""
    peer, operations, failures = Peer(), Operations(serve), list[BaseException]()

    def talk() -> None:
        try:
            conversation(peer)
        except BaseException as error:  # noqa: BLE001  # raised again in the main thread
            failures.append(error)
        finally:
            peer.close()

    thread = threading.Thread(target=talk)
    thread.start()
    status = session.Session(peer.fd_in, peer.fd_out, lambda: operations).run()
    os.close(peer.fd_out)
    thread.join(30)
    for fd in (peer.fd_in, peer._from_helper):
        os.close(fd)
    for failure in failures:
        raise failure
    return status, operations


def asked_to_end(_op: str, _reporter: session.Flow, cancellation: Cancellation) -> Term:
    """A flow that works until it is cancelled."""
    ended = threading.Event()
    with cancellation.on_cancel(ended.set):
        assert ended.wait(30)
    cancellation.check()
    return None


@pytest.mark.usefixtures("handlers")
def test_every_request_has_one_outcome_and_what_was_kept_is_given_up_once_at_the_end() -> None:
    def serve(op: str, reporter: session.Flow, _cancellation: Cancellation) -> Term:
        reporter.headline(f"This is {op}")
        if op == "archive":
            raise errors.cancelled("by the test")
        if op == "clean":
            raise ZeroDivisionError("of the test")
        return {Atom("op"): op}

    def talk(peer: Peer) -> None:
        told: list[object] = []
        for number, op in enumerate(("build", "archive", "clean"), start=1):
            peer.request(number, op)
            assert peer.receive() == ("event", number, ("headline", f"This is {op}"))
            told.append(peer.receive())
        good, known, unknown = told
        assert good == ("done", 1, ("ok", {"op": "build", "stages": []}))
        assert isinstance(known, tuple)
        assert known[2][1]["code"] == "cancelled"
        assert isinstance(unknown, tuple)
        assert unknown[2][1]["code"] == "internal"
        assert "ZeroDivisionError: of the test" in unknown[2][1]["message"]

    status, operations = converse(serve, talk)
    assert (status, operations.closed) == (0, 1)


@pytest.mark.usefixtures("handlers")
def test_a_second_request_is_refused_and_the_first_goes_on() -> None:
    def talk(peer: Peer) -> None:
        peer.request(1)
        peer.request(2)
        refused = peer.receive()
        assert isinstance(refused, tuple)
        assert refused[:2] == ("done", 2)
        assert refused[2][1]["code"] == "bad_request"
        # A cancellation of another request is not for this one.
        peer.send(Atom("cancel"), 2)
        peer.send(Atom("cancel"), 1)
        outcome = peer.receive()
        assert isinstance(outcome, tuple)
        assert outcome[:2] == ("done", 1)
        assert "Mix asked for it" in outcome[2][1]["message"]

    assert converse(asked_to_end, talk)[0] == 0


@pytest.mark.usefixtures("handlers")
def test_a_peer_that_goes_cancels_the_flow() -> None:
    reasons: list[str] = []

    def serve(op: str, reporter: session.Flow, cancellation: Cancellation) -> Term:
        reporter.headline("begun")
        try:
            return asked_to_end(op, reporter, cancellation)
        except errors.RunnerError as error:
            reasons.append(error.message)
            raise

    def talk(peer: Peer) -> None:
        peer.request(1)
        assert peer.receive() == ("event", 1, ("headline", "begun"))

    _status, operations = converse(serve, talk)
    assert reasons == ["The build was cancelled: Mix has ended."]
    assert operations.closed == 1


@pytest.mark.usefixtures("handlers")
def test_a_question_is_answered_by_its_own_answer() -> None:
    def serve(_op: str, reporter: session.Flow, _cancellation: Cancellation) -> Term:
        return [reporter.ask(text, default=True) for text in ("one?", "two?")]

    def talk(peer: Peer) -> None:
        peer.request(1)
        for answer in (False, True):
            question = peer.receive()
            assert isinstance(question, tuple)
            assert question[0] == "ask"
            peer.send(Atom("answer"), question[2] + 100, not answer)
            peer.send(Atom("answer"), question[2], answer)
        assert peer.receive() == ("done", 1, ("ok", [False, True]))

    assert converse(serve, talk)[0] == 0
