"""The helper as a process on its two descriptors: hello, outcomes, ends, and what cannot disturb the protocol."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nerves_docker_port import __version__
from nerves_docker_port.port import wire
from nerves_docker_port.port.wire import Atom
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
        assert helper.process.wait(timeout=10) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_helper_ends_at_a_signal(number: signal.Signals) -> None:
    with Helper() as helper:
        helper.signal(number)
        assert helper.process.wait(timeout=10) == 0


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
        assert helper.process.wait(timeout=10) == 1


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
