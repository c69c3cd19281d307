"""Several steps in one container: what the script does in a real shell, and what is made of its marks."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerves_docker_port import scripts
from nerves_docker_port.volume.steps import (
    FileReceiver,
    Mark,
    Splitter,
    Step,
    marks_in,
    new_token,
    to_arguments,
    to_file,
)
from support.port import wait_until
from support.script import final_step_in, steps_in, steps_in_file

TOKEN = "0123456789abcdef0123456789abcdef"
NAMES = ("create_build", "make", "make_system")

Event = bytes | Mark


@dataclass
class Told:
    """What a splitter told, output put together where nothing came between."""

    events: list[Event] = field(default_factory=list)

    def output(self, data: bytes) -> None:
        assert data
        if self.events and isinstance(self.events[-1], bytes):
            self.events[-1] += data
        else:
            self.events.append(data)

    def mark(self, mark: Mark) -> None:
        self.events.append(mark)


def split(reads: list[bytes], token: str = TOKEN) -> list[Event]:
    told = Told()
    splitter = Splitter(token, told.output, told.mark)
    for read in reads:
        while read:
            read = splitter.feed(read)  # noqa: PLW2901
    splitter.finish()
    return told.events


def said(mark: Mark) -> bytes:
    return f"\x1e{TOKEN} {mark.number} {mark.name} {mark.status} {mark.killed}\x1e".encode()


# --- The script ------------------------------------------------------------------------------------------------


@dataclass
class Running:
    """scripts/steps.sh, run by this machine's bash; its state directory is one of the test's."""

    process: subprocess.Popen[bytes]
    state: Path

    def read(self, count: int) -> bytes:
        """So many bytes of its output."""
        assert self.process.stdout is not None
        return self.process.stdout.read(count)

    def deliver(self, first: int, *steps: list[str]) -> None:
        """Hand over further steps, as a helper and scripts/session.sh do it."""
        (self.state / "steps").write_bytes(to_file(first, named(steps)))
        self.tell(b"\n")

    def tell(self, line: bytes) -> None:
        """Wake the script with a line, as scripts/session.sh does."""
        with (self.state / "next").open("wb", buffering=0) as pipe:
            pipe.write(line)

    def end(self) -> list[Event]:
        """Ask it to end; the rest of its output."""
        self.process.send_signal(signal.SIGTERM)
        output, errors = self.process.communicate(timeout=30)
        assert (errors, self.process.returncode) == (b"", 143)
        return split([output])

    @property
    def ended(self) -> list[Mark]:
        """The marks in its file."""
        return marks_in((self.state / "ended").read_bytes())

    def wait_for(self, count: int) -> None:
        """Wait until so many steps have ended, and the script has nothing to do."""
        assert wait_until(lambda: len(self.ended) == count, 30)
        # It waits for a line: it has no child, and sleeps.
        assert wait_until(lambda: _children(self.process.pid) == [] and _stat(self.process.pid)[0] == "S", 30)


@contextmanager
def running(*steps: list[str], final: list[str] | None = None) -> Iterator[Running]:
    with tempfile.TemporaryDirectory() as directory:
        state = Path(directory)
        (state / "ended").touch()
        os.mkfifo(state / "next")
        (state / "tmp").mkdir()
        given = [f"{name}={value}\0".encode() for name, value in os.environ.items()]
        (state / "tmp" / "environment").write_bytes(b"".join(given))
        program = scripts.text("environment.sh", "kills.sh", "steps.sh").replace("/nerves-docker-port\n", f"{state}\n")
        assert str(state) in program
        last = None if final is None else Step("final_step", final)
        words = ["/bin/bash", "-c", program, "nerves-docker-port-steps", *to_arguments(TOKEN, named(steps), last)]
        process = subprocess.Popen(
            ["/bin/bash", "-c", 'exec 7<>"$0"; exec "$@"', str(state / "next"), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            yield Running(process, state)
        finally:
            process.kill()
            process.communicate()


def named(steps: Sequence[list[str]]) -> list[Step]:
    return [Step(name, step) for name, step in zip(NAMES, steps, strict=False)]


def run(*steps: list[str], ends: int | None = None) -> list[Event]:
    """What steps tell of which ``ends`` come to an end."""
    with running(*steps) as script:
        script.wait_for(len(steps) if ends is None else ends)
        events = script.end()
        assert [event for event in events if isinstance(event, Mark)] == script.ended
        return events


def test_steps_run_in_their_order_and_each_end_is_told() -> None:
    assert run(["echo", "one"], ["echo", "two"], ["echo", "three"]) == [
        b"one\n",
        Mark(1, "create_build", 0, 0),
        b"two\n",
        Mark(2, "make", 0, 0),
        b"three\n",
        Mark(3, "make_system", 0, 0),
    ]


def test_those_behind_one_that_fails_are_left_out() -> None:
    events = run(["true"], ["sh", "-c", "echo why; exit 7"], ["echo", "never"], ends=2)
    assert events == [Mark(1, "create_build", 0, 0), b"why\n", Mark(2, "make", 7, 0)]


def test_further_steps_are_taken_also_after_one_that_failed_and_counted_on() -> None:
    with running(["false"], ["echo", "never"]) as script:
        script.wait_for(1)
        script.deliver(2, ["echo", "two"], ["echo", "three"])
        script.wait_for(3)
        script.deliver(4, ["echo", "four"])
        script.wait_for(4)
        assert script.end() == [
            Mark(1, "create_build", 1, 0),
            b"two\n",
            Mark(2, "create_build", 0, 0),
            b"three\n",
            Mark(3, "make", 0, 0),
            b"four\n",
            Mark(4, "create_build", 0, 0),
        ]


def test_steps_that_are_handed_over_twice_run_once() -> None:
    with running(["true"]) as script:
        script.wait_for(1)
        for _ in range(3):
            script.deliver(2, ["echo", "once"])
            script.wait_for(2)
        assert script.end() == [Mark(1, "create_build", 0, 0), b"once\n", Mark(2, "create_build", 0, 0)]


def test_the_final_step_runs_when_it_is_asked_for_and_ends_the_script_where_it_ends_well() -> None:
    with running(["echo", "first"], final=["echo", "last"]) as script:
        script.wait_for(1)
        script.tell(b"final\n")
        output, errors = script.process.communicate(timeout=30)
    assert (errors, script.process.returncode) == (b"", 0)
    assert split([output]) == [b"first\n", Mark(1, "create_build", 0, 0), b"last\n", Mark(2, "final_step", 0, 0)]


def test_a_final_step_that_fails_runs_once_and_others_may_follow() -> None:
    with running(["true"], final=["sh", "-c", "echo no; exit 3"]) as script:
        script.wait_for(1)
        script.tell(b"final\n")
        script.wait_for(2)
        # The helper does not always know whether its signal has arrived, and sends it once more.
        script.tell(b"final\n")
        script.deliver(3, ["echo", "on"])
        script.wait_for(3)
        assert script.end() == [
            Mark(1, "create_build", 0, 0),
            b"no\n",
            Mark(2, "final_step", 3, 0),
            b"on\n",
            Mark(3, "create_build", 0, 0),
        ]


def test_where_there_is_no_final_step_none_runs() -> None:
    with running(["true"]) as script:
        script.wait_for(1)
        script.tell(b"final\n")
        script.deliver(2, ["echo", "on"])
        script.wait_for(2)
        assert script.end() == [Mark(1, "create_build", 0, 0), b"on\n", Mark(2, "create_build", 0, 0)]


def test_words_are_passed_on_as_they_are() -> None:
    words = ["", "a b", "it's", '"q"', "$HOME", "`id`", "*", "-n", "ü\n", "\\"]
    command = ["printf", "[%s]", *words]
    events = run(command, command)
    assert events[0] == events[2] == "".join(f"[{word}]" for word in words).encode()
    with running() as script:
        script.deliver(1, command)
        script.wait_for(1)
        assert script.end()[0] == events[0]


def test_both_outputs_come_in_the_order_in_which_they_were_written() -> None:
    lines = "for i in 1 2 3 4 5 6 7 8 9; do echo out $i; echo err $i >&2; done"
    assert run(["sh", "-c", lines])[0] == b"".join(b"out %d\nerr %d\n" % (i, i) for i in range(1, 10))


def test_a_command_that_is_not_there_is_told_and_fails() -> None:
    events = run(["/nowhere/create-build.sh"], ["true"], ends=1)
    assert isinstance(events[0], bytes)
    assert re.search(rb"/nowhere/create-build\.sh.*: No such file or directory\n$", events[0])
    assert events[1:] == [Mark(1, "create_build", 127, 0)]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_step_that_dies_of_a_signal_has_a_shells_status(number: signal.Signals) -> None:
    assert run(["sh", "-c", f"kill -{number.value} $$"]) == [Mark(1, "create_build", 128 + number, 0)]


def test_a_step_sees_nothing_of_the_script() -> None:
    """No signal that is ignored, no further descriptor, no variable: all as if it had been started by itself."""
    look = "grep SigIgn /proc/self/status; ls /proc/self/fd; readlink /proc/self/fd/0; env"
    events = run(["sh", "-c", look])
    # A library may have set variables that Python does not know.
    environ = dict(os.environ)
    alone = subprocess.run(["sh", "-c", look], stdin=subprocess.DEVNULL, capture_output=True, check=True, env=environ)
    assert events[0] == alone.stdout


def test_the_environment_of_a_step_is_in_no_argument_of_a_program(tmp_path: Path) -> None:
    """Every user of the machine can read the arguments of a program."""
    (tmp_path / "environment").write_bytes(b"PATH=/usr/bin:/bin\0a-name.b=s3cret\0TOKEN=first\0TOKEN=s3cret\nline\0")
    program = scripts.text("environment.sh") + '\nndp_read_environment "$1"; printf "%s\\0" "${ndp_with[@]}"'
    words = subprocess.run(
        ["/bin/bash", "-c", program, "test", str(tmp_path / "environment")], check=True, capture_output=True
    ).stdout.split(b"\0")[:-1]
    assert not any(b"s3cret" in word for word in words)
    seen = subprocess.run([*words, b"env", b"-0"], check=True, capture_output=True, env={"OTHER": "x"}).stdout
    assert seen == b"PATH=/usr/bin:/bin\0a-name.b=s3cret\0TOKEN=s3cret\nline\0"


def test_a_program_with_an_equals_sign_in_its_name_is_no_variable(tmp_path: Path) -> None:
    program = tmp_path / "a=b"
    program.write_text("#!/bin/sh\necho ran\n")
    program.chmod(0o755)
    assert run([str(program)]) == [b"ran\n", Mark(1, "create_build", 0, 0)]
    assert run(["A=1", "true"])[-1] == Mark(1, "create_build", 127, 0)


@pytest.mark.parametrize("status", [0, 3])
def test_a_step_that_ends_after_a_term_is_told_and_no_other_begins(status: int) -> None:
    """Everything in the container gets the TERM: the step, and the script.

    Where both come at once, bash may have lost the status of the step.
    """
    trap = f"trap 'echo in order; exit {status}' TERM; echo up; sleep 60 >&- 2>&- & wait"
    with running(["sh", "-c", trap], ["echo", "never"]) as script:
        assert script.read(3) == b"up\n"
        (step,) = _children(script.process.pid)
        sleeps = _children(step)
        script.process.send_signal(signal.SIGTERM)
        os.kill(step, signal.SIGTERM)
        output, _ = script.process.communicate(timeout=30)
        for pid in sleeps:
            os.kill(pid, signal.SIGKILL)
    said_in_order, mark = split([output])
    assert said_in_order == b"in order\n"
    assert mark in (Mark(1, "create_build", status, 0), Mark(1, "create_build", 143, 0))


def test_a_step_that_is_stopped_is_waited_for_without_work() -> None:
    with running(["sh", "-c", "echo up; kill -STOP $$; echo on"]) as script:
        assert script.read(3) == b"up\n"
        # The script also starts a `sleep` now and then.
        assert wait_until(lambda: _stopped_children(script.process.pid), 30)
        (step,) = _stopped_children(script.process.pid)
        before = _ticks(script.process.pid)
        assert not wait_until(lambda: script.process.poll() is not None, 1)
        # Of a hundred.
        assert _ticks(script.process.pid) - before < 20
        os.kill(step, signal.SIGCONT)
        script.wait_for(1)
        assert script.end() == [b"on\n", Mark(1, "create_build", 0, 0)]


def _stat(pid: int) -> list[str]:
    """State, and what follows it, of proc_pid_stat(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _ticks(pid: int) -> int:
    """The hundredths of a second of CPU that a process and its children have taken."""
    return sum(int(ticks) for ticks in _stat(pid)[11:15])


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _stopped_children(pid: int) -> list[int]:
    found = []
    for child in _children(pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            if _stat(child)[0] == "T":
                found.append(child)
    return found


# --- Steps on their way ----------------------------------------------------------------------------------------


commands = st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1, max_size=4)


@given(
    steps=st.lists(st.builds(Step, st.sampled_from(NAMES), commands), max_size=4),
    final=st.none() | st.builds(Step, st.sampled_from(NAMES), commands),
    first=st.integers(min_value=1, max_value=999),
)
def test_steps_arrive_as_they_are_whatever_their_words(steps: list[Step], final: Step | None, first: int) -> None:
    expected = [(step.name, list(step.command)) for step in steps]
    command = ["nerves-docker-port-steps", *to_arguments(TOKEN, steps, final)]
    assert steps_in(command) == (TOKEN, expected)
    assert final_step_in(command) == ([] if final is None else [(final.name, list(final.command))])
    assert steps_in_file(to_file(first, steps)) == (first, expected)


def test_a_word_that_is_no_text_arrives_as_the_bytes_that_it_is() -> None:
    assert to_file(1, [Step("make", [os.fsdecode(b"\xff")])]) == b"1\0make\x001\0\xff\0"


# --- What is made of the marks ---------------------------------------------------------------------------------


MARK = Mark(2, "make", 0, 0)
texts = st.one_of(
    st.binary(max_size=40),
    # What looks like the beginning of a mark, or is one of somebody else's.
    st.sampled_from([b"\x1e", b"\x1e\x1e", said(MARK)[:20], said(MARK)[:-1], b"\x1e" + b"f" * 32 + b" 2 make 0 0\x1e"]),
)
marks = st.builds(
    Mark,
    st.integers(0, 999_999_999),
    st.sampled_from([*NAMES, "below", "x" * 32]),
    st.integers(0, 255),
    st.integers(0, 999_999_999),
)
parts = st.lists(st.one_of(texts, marks), max_size=8)
cuts = st.lists(st.integers(min_value=0, max_value=10_000), max_size=12)


@given(parts=parts, cuts=cuts)
def test_every_byte_and_every_mark_comes_once_and_in_order_wherever_the_reads_are_cut(
    parts: list[Event], cuts: list[int]
) -> None:
    expected = Told()
    stream = b""
    for part in parts:
        if isinstance(part, bytes):
            # Half a mark that runs into a whole one would be a whole one of another kind.
            text = part + b"." if part.endswith(said(MARK)[:-1]) else part
            stream += text
            if text:
                expected.output(text)
        else:
            stream += said(part)
            expected.mark(part)
    positions = sorted(cut % (len(stream) + 1) for cut in cuts)
    reads = [stream[a:b] for a, b in zip([0, *positions], [*positions, len(stream)], strict=True)]
    assert split([read for read in reads if read]) == expected.events


def test_what_can_become_no_mark_is_not_held_back() -> None:
    told = Told()
    splitter = Splitter(TOKEN, told.output, told.mark)
    splitter.feed(b"a line\n")
    splitter.feed(b"half a line \x1e and")
    assert told.events == [b"a line\nhalf a line \x1e and"]
    splitter.feed(b"\x1e0123")
    assert told.events == [b"a line\nhalf a line \x1e and"]
    splitter.feed(b"x")
    assert told.events == [b"a line\nhalf a line \x1e and\x1e0123x"]


def test_half_a_mark_at_the_end_is_output() -> None:
    assert split([b"a line\n", said(MARK)[:-1]]) == [b"a line\n" + said(MARK)[:-1]]


@given(st.lists(marks, max_size=5))
def test_the_marks_in_the_file_are_all_read(noted: list[Mark]) -> None:
    lines = [f"{mark.number} {mark.name} {mark.status} {mark.killed}\n" for mark in noted]
    assert marks_in("".join(lines).encode()) == noted


def test_a_line_of_the_file_that_is_no_mark_is_left_out() -> None:
    assert marks_in(b"1 make 0 0\n2 make_system 0\n\xff\n\n") == [Mark(1, "make", 0, 0)]


def test_tokens_differ_and_are_of_one_word() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(re.fullmatch("[0-9a-f]{32}", token) for token in tokens)


# --- A file that a step copies ---------------------------------------------------------------------------------


CONTENT = b"a file with \x1e and " + TOKEN.encode() + b"\n"


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(place % (len(data) + 1) for place in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(places)]


@given(cuts=st.lists(st.integers(0, 500), max_size=8), expected_after=st.integers(0, 8))
def test_a_file_arrives_whole_wherever_the_reads_are_cut(cuts: list[int], expected_after: int) -> None:
    """Also if its beginning comes before the helper expects it, and if other output comes before and after it."""
    sent = b"before\n" + said(Mark(0, "file", 0, len(CONTENT))) + CONTENT + b"after\n"
    receiver, files, output = FileReceiver(TOKEN), [], b""

    def begin() -> Callable[[bytes], None]:
        files.append(bytearray())
        return files[-1].extend

    for number, read in enumerate(cut(sent, cuts)):
        if number == expected_after:
            receiver.expect(begin)
        output += receiver.feed(read)
    if expected_after > len(cuts):
        receiver.expect(begin)
    assert receiver.has_taken_file()
    assert files == [CONTENT]
    assert output == b"before\nafter\n"


def test_a_file_whose_connection_was_lost_begins_anew_and_its_rest_is_not_output() -> None:
    receiver, files = FileReceiver(TOKEN), []

    def begin() -> Callable[[bytes], None]:
        files.append(bytearray())
        return files[-1].extend

    receiver.expect(begin)
    mark = said(Mark(0, "file", 0, len(CONTENT)))
    assert receiver.feed(mark + CONTENT[:5]) == b""
    receiver.lose()
    assert receiver.feed(CONTENT[9:]) == b""
    assert not receiver.has_taken_file()
    assert receiver.feed(mark + CONTENT) == b""
    assert receiver.has_taken_file()
    assert files == [CONTENT[:5], CONTENT]
