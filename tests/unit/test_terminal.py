"""The person's terminal in a build shell, with a terminal of our own. What takes an engine is in tests/terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import queue
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from nerves_docker_port import errors
from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine.stream import Stream
from nerves_docker_port.errors import Code, RunnerError
from nerves_docker_port.port.wire import Atom
from nerves_docker_port.shell import command as shell
from nerves_docker_port.shell.terminal import Conversation, Outer, Terminal, window_size
from support.port import wait_until
from support.requests import arguments

if TYPE_CHECKING:
    from typing_extensions import Self

PATIENCE = 60.0
"""Seconds after which a test is taken to hang."""


class Person:
    """Somebody at a terminal: types, and looks at what is shown."""

    def __init__(self) -> None:
        self.keyboard, self.stdin = pty.openpty()
        set_size(self.keyboard, 30, 100)
        self.modes = termios.tcgetattr(self.stdin)
        self.shown = b""

    def type(self, text: bytes) -> None:
        os.write(self.keyboard, text)

    def wait_for(self, text: bytes) -> None:
        """Look until ``text`` is shown."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.shown:
            assert time.monotonic() < deadline, f"not seen: {text!r} in {self.shown!r}"
            if select.select([self.keyboard], [], [], 0.1)[0]:
                self.shown += os.read(self.keyboard, 65536)

    def is_raw(self) -> bool:
        return not termios.tcgetattr(self.stdin)[3] & termios.ICANON

    def close(self) -> None:
        os.close(self.keyboard)
        os.close(self.stdin)


@pytest.fixture
def person() -> Iterator[Person]:
    person = Person()
    yield person
    person.close()


def set_size(fd: int, rows: int, columns: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def connect() -> tuple[Stream, socket.socket]:
    """A stream, and its other end."""
    ours, theirs = socket.socketpair()
    buffered = ours.makefile("rb")

    def close() -> None:
        buffered.close()
        ours.close()

    response: Any = SimpleNamespace(raw=SimpleNamespace(_fp=SimpleNamespace(fp=buffered)), close=close)
    ours.setblocking(False)
    theirs.settimeout(PATIENCE)
    return Stream(response), theirs


class Talk:
    """A conversation in a thread, as ``container.run_on_terminal`` has it: once more for each connection."""

    def __init__(self, person: Person) -> None:
        self._person = person
        self.sizes: list[tuple[int, int]] = []
        self.cancellation = Cancellation()
        self.terminal = Terminal(person.stdin, person.stdin)
        self.conversation = Conversation(self.terminal, Outer(None, None), self.cancellation)
        self.error: BaseException | None = None
        self._streams: queue.SimpleQueue[Stream | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            with self.conversation:
                while (stream := self._streams.get()) is not None:
                    try:
                        self.conversation(stream, lambda rows, columns: self.sizes.append((rows, columns)))
                    finally:
                        stream.close()
        except RunnerError as error:
            self.error = error

    def connect(self) -> socket.socket:
        """One more connection; the container's end of it, once every key is for it."""
        stream, theirs = connect()
        self._streams.put(stream)
        assert wait_until(self._person.is_raw, PATIENCE)
        return theirs

    def end(self) -> None:
        """There are no more connections."""
        self._streams.put(None)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        os.close(self.terminal.fd)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread.is_alive():
            self.cancellation.cancel("the test is over")
            self.end()


def receive(theirs: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        read = theirs.recv(count - len(data))
        assert read, f"the connection ended after {data!r}"
        data += read
    return data


TYPED = "make 'ä'\r\x03\x04\x1b[Als\n".encode()


@pytest.mark.parametrize("point", range(len(TYPED) + 1))
def test_nothing_that_is_typed_is_lost_with_a_connection_that_ended_before(person: Person, point: int) -> None:
    with Talk(person) as talk:
        first = talk.connect()
        person.type(TYPED[:point])
        assert receive(first, point) == TYPED[:point]
        first.close()
        person.type(TYPED[point:])
        second = talk.connect()
        assert receive(second, len(TYPED) - point) == TYPED[point:]
        person.wait_for(b"The connection to the build shell was lost and has been made again.")
        second.sendall(b"goodbye")
        second.close()
        person.wait_for(b"goodbye")
        talk.end()
    assert person.shown.count(b"The connection") == 1
    assert termios.tcgetattr(person.stdin) == person.modes


@pytest.mark.parametrize("point", range(1, len(TYPED)))
def test_nothing_is_typed_twice_and_the_person_is_told_when_keys_may_be_lost(person: Person, point: int) -> None:
    with Talk(person) as talk:
        first = talk.connect()
        # Nobody will read it: it is gone with the connection.
        person.type(TYPED[:point])
        assert select.select([first], [], [], PATIENCE)[0]
        assert wait_until(lambda: len(first.recv(100, socket.MSG_PEEK)) == point, PATIENCE)
        first.close()
        person.type(TYPED[point:])
        second = talk.connect()
        assert receive(second, len(TYPED) - point) == TYPED[point:]
        person.wait_for(b"keys that were typed just before may not have arrived")
        second.close()
        talk.end()


def test_keys_typed_between_two_connections_are_the_programs(person: Person) -> None:
    with Talk(person) as talk:
        talk.connect().close()
        # Ctrl-C and Enter, which a terminal that is not raw would take as a signal and as another character.
        person.type(b"\x03\rq")
        second = talk.connect()
        assert receive(second, 3) == b"\x03\rq"
        second.close()
        talk.end()


def test_a_connection_that_was_made_again_has_programs_draw_everything_anew(person: Person) -> None:
    with Talk(person) as talk:
        talk.connect().close()
        second = talk.connect()
        assert wait_until(lambda: talk.sizes == [(31, 101), (30, 100)], PATIENCE), talk.sizes
        second.close()
        talk.end()


def test_a_broken_connection_that_does_not_end_is_an_end_too(person: Person) -> None:
    with Talk(person) as talk:
        first = talk.connect()
        first.sendall(b"last words")
        # It takes nothing any more, and says nothing, but it is not closed.
        first.shutdown(socket.SHUT_RD)
        person.type(b"abc")
        second = talk.connect()
        assert receive(second, 3) == b"abc"
        person.wait_for(b"last words")
        for one in (first, second):
            one.close()
        talk.end()


def test_the_terminal_is_as_it_was_after_a_normal_end(person: Person) -> None:
    with Talk(person) as talk:
        first = talk.connect()
        first.sendall(b"\x1b[?1049h\x1b[?25l\x1b[?1000h\x1b[3;9r\x1b(0\x1b[1mhello")
        person.wait_for(b"hello")
        first.close()
        talk.end()
    person.wait_for(b"\x1b[?1049l\x1b[?1000l\x1b[?25h\x1b7\x1b[r\x1b8\x1b(B\x1b[0m\x1b[?1000;25r")
    assert termios.tcgetattr(person.stdin) == person.modes


def test_a_cut_connection_leaves_a_full_screen_program_its_screen(person: Person) -> None:
    with Talk(person) as talk:
        first = talk.connect()
        first.sendall(b"\x1b[?1049hvi")
        person.wait_for(b"vi")
        first.close()
        second = talk.connect()
        second.sendall(b"drawn anew")
        person.wait_for(b"drawn anew")
        assert b"\x1b[?1049l" not in person.shown
        second.close()
        talk.end()
    person.wait_for(b"\x1b[?1049l")


def test_a_cancellation_ends_a_conversation_that_waits(person: Person) -> None:
    with Talk(person) as talk:
        first = talk.connect()
        first.sendall(b"\x1b[?1049hhello")
        person.wait_for(b"hello")
        talk.cancellation.cancel("the helper got SIGHUP")
        talk.end()
        first.close()
    assert isinstance(talk.error, RunnerError)
    assert talk.error.code is Code.CANCELLED
    person.wait_for(b"\x1b[?1049l")
    assert termios.tcgetattr(person.stdin) == person.modes


def test_a_new_size_is_passed_on_where_no_signal_tells_of_it(person: Person) -> None:
    # A terminal that is not the controlling one, as below `su -c`.
    with Talk(person) as talk:
        first = talk.connect()
        assert not talk.terminal.is_controlling
        set_size(person.keyboard, 40, 120)
        assert wait_until(lambda: talk.sizes == [(40, 120)], PATIENCE), talk.sizes
        first.close()
        talk.end()


def test_a_terminal_without_a_size_has_the_usual_one() -> None:
    parent, child = pty.openpty()
    assert window_size(child) == (24, 80)

    outer = Outer(os.ttyname(child), None)
    assert outer.can_resize(child)
    assert not outer.is_gone()
    os.close(parent)
    assert outer.is_gone()
    os.close(child)


def test_our_terminal_gets_the_size_of_the_one_around_it(person: Person) -> None:
    keyboard, ours = pty.openpty()
    outer = Outer(os.ttyname(person.stdin), None)
    assert outer.can_resize(ours)
    outer.resize(ours)
    assert window_size(ours) == (30, 100)
    for fd in (keyboard, ours):
        os.close(fd)


def test_where_the_terminal_around_ours_cannot_be_opened_and_nobody_else_can_it_is_known(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nerves_docker_port.shell.terminal._FOLLOW_TIMEOUT", 0.1)
    outer = Outer("/nowhere/such-a-terminal", os.getpid())
    assert not outer.can_resize(person.stdin)
    assert window_size(person.stdin) == (30, 100)


def run(script: str, *, terminal: int | None = None, status: int = 0) -> str:
    """Run Python in a process whose signals are its own business; what it printed where there is no terminal."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script]
    stdout = subprocess.PIPE if terminal is None else terminal
    done = subprocess.run(
        command, env=environ, stdin=terminal, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=2 * PATIENCE
    )
    assert done.returncode == status, done.stderr
    return done.stdout


@pytest.mark.parametrize("signals", [(signal.SIGHUP, signal.SIGTERM), (signal.SIGTERM,) * 5, (signal.SIGINT,)])
def test_a_signal_while_the_main_thread_holds_the_lock_waits_for_nobody(signals: tuple[signal.Signals, ...]) -> None:
    script = f"""
import os, signal, sys, threading
from nerves_docker_port.shell.signals import Signals
lock, seen = threading.Lock(), threading.Event()
def on_signal(number):
    with lock:
        seen.set()
hears = Signals((signal.SIGHUP, signal.SIGTERM, signal.SIGINT))
hears.start(on_signal)
with lock:
    for number in {[int(number) for number in signals]}:
        os.kill(os.getpid(), number)
    sys.stdout.write("free ")
assert seen.wait({PATIENCE})
print("seen")
"""
    assert run(script) == "free seen\n"


def test_a_second_signal_while_the_first_is_being_served_does_not_hang_the_shell(
    person: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    spec = shell.write_spec(arguments(tmp_path), {})
    script = f"""
import os, signal, sys, threading, time
from nerves_docker_port.flows import shell as flow
from nerves_docker_port.shell import command

class Lock:
    lock, is_first = threading.Lock(), True
    def __enter__(self):
        self.lock.acquire()
        if self.is_first:
            self.is_first = False
            os.kill(os.getpid(), signal.SIGTERM)
    def __exit__(self, *_error):
        self.lock.release()

def shell(request, environ, reporter, cancellation, conversation):
    cancellation._lock = Lock()
    os.kill(os.getpid(), signal.SIGHUP)
    while True:
        cancellation.check()
        time.sleep(0.01)

flow.shell = shell
sys.exit(command.main([{str(spec)!r}], os.environ))
"""
    run(script, terminal=person.stdin, status=128 + signal.SIGHUP)
    assert termios.tcgetattr(person.stdin) == person.modes


def test_a_signal_that_came_before_anybody_wanted_to_hear_is_heard() -> None:
    script = f"""
import os, signal, threading
from nerves_docker_port.shell.signals import Signals
heard, enough = [], threading.Event()
def on_signal(number):
    heard.append(number.name)
    if len(heard) == 2:
        enough.set()
hears = Signals((signal.SIGHUP, signal.SIGTERM))
os.kill(os.getpid(), signal.SIGHUP)
os.kill(os.getpid(), signal.SIGTERM)
hears.start(on_signal)
assert enough.wait({PATIENCE})
print(heard)
"""
    assert run(script) == "['SIGHUP', 'SIGTERM']\n"


def test_without_a_terminal_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "isatty", lambda _fd: False)
    with pytest.raises(errors.RunnerError, match="needs a terminal"):
        Terminal()


def test_the_spec_is_kept_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    environ = {"DOCKER_HOST": "tcp://h:1", "DOCKER_AUTH_CONFIG": "secret", "TOKEN": "secret"}
    path = shell.write_spec({Atom("cwd"): "/x"}, environ)
    assert shell.read_spec(path) == ({Atom("cwd"): "/x"}, {"DOCKER_HOST": "tcp://h:1"})
    shell.remove_spec(path)
    shell.remove_spec(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content", [b"", b"\x83", b"\x83a\x07", b"\x83t\0\0\0\0", pytest.param(random.Random(1).randbytes(100), id="noise")]
)
def test_a_spec_that_is_none_is_one_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "spec").write_bytes(content)
    with pytest.raises(errors.RunnerError, match="does not say which shell to open"):
        shell.read_spec(tmp_path / "spec")
    shell.remove_spec(tmp_path / "spec")
    # Not a directory of ours.
    assert tmp_path.exists()
