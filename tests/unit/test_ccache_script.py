"""When scripts/ccache.sh leaves out the store of a team, and when it uses it again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from nerves_docker_port import scripts
from support.port import wait_until

Answer = Callable[[int], float | None]
"""The seconds after which the question with this number is answered, or ``None`` for no answer."""

FIRST = 3
"""The questions before the build."""


class Store:
    """A store that answers each question as it is told."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked = 0
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        """Take connections until the socket is closed."""
        with suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                self.asked += 1
                after = self.answer(self.asked - FIRST) if self.asked > FIRST else 0.0
                threading.Thread(target=self._reply, args=(connection, after), daemon=True).start()

    @staticmethod
    def _reply(connection: socket.socket, after: float | None) -> None:
        with closing(connection), suppress(OSError):
            if after is not None:
                time.sleep(after)
                connection.sendall(b"+PONG\r\n")
            # The client hangs up.
            while connection.recv(64):
                pass


@contextmanager
def watched(directory: Path, answer: Answer) -> Iterator[tuple[Store, Path]]:
    """Run the script with a store; the store and the directory of the script's files."""
    store = Store(answer)
    (directory / "tmp").mkdir()
    (directory / "ccache.on").write_text("on")
    (directory / "ccache.off").write_text("off")
    (directory / "ccache.probe").write_text(f"127.0.0.1\n{store.socket.getsockname()[1]}\n1\n[+]PONG\n50000\n")
    (directory / "ccache.question").write_bytes(b"PING\r\n")
    program = "ndp_ask() { :; }; ndp_say() { :; }\n" + scripts.text("ccache.sh")
    process = subprocess.Popen(
        ["/bin/bash", "-c", program.replace("/nerves-docker-port", str(directory)), "ccache", "token", "sleep", "600"],
        start_new_session=True,
    )
    try:
        assert wait_until(lambda: conf(directory) == "on", 30)
        yield store, directory
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
        store.socket.close()


def conf(directory: Path) -> str:
    """What ccache is configured to: ``on`` or ``off``."""
    with suppress(FileNotFoundError):
        return (directory / "tmp/ccache-conf").read_text()
    return ""


def lost(directory: Path) -> bool:
    return (directory / "tmp/ccache-lost").exists()


@pytest.mark.parametrize("silent", [1, 2])
def test_a_store_that_answers_when_it_is_asked_again_stays(tmp_path: Path, silent: int) -> None:
    """As on a very busy machine. The third question has a second of time."""
    with watched(tmp_path, lambda number: None if number <= silent else 0.0) as (store, directory):
        # The next round has begun, so this one has been judged.
        assert wait_until(lambda: store.asked >= FIRST + silent + 2, 60)
        assert conf(directory) == "on"
        assert not lost(directory)


def test_a_store_that_is_silent_is_left_out_until_it_answers(tmp_path: Path) -> None:
    with watched(tmp_path, lambda _number: None) as (store, directory):
        assert wait_until(lambda: conf(directory) == "off", 60)
        assert lost(directory)
        store.answer = lambda _number: 0.0
        assert wait_until(lambda: conf(directory) == "on", 60)


def test_a_store_that_stays_slow_is_left_out(tmp_path: Path) -> None:
    """Each compilation would wait for several such answers."""
    with watched(tmp_path, lambda _number: 0.4) as (store, directory):
        assert wait_until(lambda: conf(directory) == "off", 60)
        assert store.asked > FIRST + 6
        store.answer = lambda _number: 0.0
        assert wait_until(lambda: conf(directory) == "on", 60)


def test_a_store_that_nobody_reaches_is_left_out_until_it_is_there(tmp_path: Path) -> None:
    with watched(tmp_path, lambda _number: 0.0) as (store, directory):
        address = store.socket.getsockname()
        store.socket.shutdown(socket.SHUT_RDWR)
        store.socket.close()
        assert wait_until(lambda: conf(directory) == "off", 60)
        with socket.create_server(address) as again:
            store.socket = again
            threading.Thread(target=store.serve, daemon=True).start()
            assert wait_until(lambda: conf(directory) == "on", 60)
