"""Several steps in one container: what the script does in a real shell, and what is made of its words."""

from __future__ import annotations

import signal
import subprocess
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerves_docker_port.flows.steps import Splitter, Step, new_token, to_command
from support.port import wait_until

TOKEN = "0123456789abcdef0123456789abcdef"


@dataclass
class Told:
    """What a splitter told, output put together where nothing came between."""

    events: list[bytes | tuple[str, int]] = field(default_factory=list)

    def output(self, data: bytes) -> None:
        assert data
        if self.events and isinstance(self.events[-1], bytes):
            self.events[-1] += data
        else:
            self.events.append(data)

    def end(self, name: str, status: int) -> None:
        self.events.append((name, status))


def split(reads: list[bytes], token: str = TOKEN) -> list[bytes | tuple[str, int]]:
    told = Told()
    splitter = Splitter(token, told.output, told.end)
    for read in reads:
        splitter.feed(read)
    splitter.finish()
    return told.events


def said(name: str, status: int) -> bytes:
    return f"\x1e{TOKEN} {name} {status}\x1e".encode()


# --- The script ------------------------------------------------------------------------------------------------


def started(*steps: list[str]) -> subprocess.Popen[bytes]:
    names = ("create_build", "make", "make_system")
    words = to_command([Step(name, step) for name, step in zip(names, steps, strict=False)], TOKEN)  # type: ignore[arg-type]
    return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run(*steps: list[str]) -> tuple[list[bytes | tuple[str, int]], int]:
    process = started(*steps)
    output, errors = process.communicate(timeout=20)
    assert errors == b""
    return split([output]), process.returncode


def test_steps_run_in_their_order_and_each_end_is_told() -> None:
    events, status = run(["echo", "one"], ["echo", "two"], ["echo", "three"])
    assert events == [b"one\n", ("create_build", 0), b"two\n", ("make", 0), b"three\n", ("make_system", 0)]
    assert status == 0


def test_the_first_that_fails_is_the_last_and_its_status_the_status() -> None:
    events, status = run(["true"], ["sh", "-c", "echo why; exit 7"], ["echo", "never"])
    assert events == [("create_build", 0), b"why\n", ("make", 7)]
    assert status == 7


def test_words_are_passed_on_as_they_are() -> None:
    words = ["", "a b", "it's", '"q"', "$HOME", "`id`", "*", "-n", "ü\n", "\\"]
    events, _ = run(["printf", "[%s]", *words], ["printf", "<%s>", *words])
    assert events[0] == "".join(f"[{word}]" for word in words).encode()
    assert events[2] == "".join(f"<{word}>" for word in words).encode()


def test_both_outputs_come_in_the_order_in_which_they_were_written() -> None:
    lines = "for i in 1 2 3 4 5 6 7 8 9; do echo out $i; echo err $i >&2; done"
    events, _ = run(["sh", "-c", lines])
    assert events[0] == b"".join(b"out %d\nerr %d\n" % (i, i) for i in range(1, 10))


def test_a_command_that_is_not_there_is_told_and_fails() -> None:
    events, status = run(["/nowhere/create-build.sh"], ["true"])
    assert b"/nowhere/create-build.sh: No such file or directory" in bytes(events[0])  # type: ignore[arg-type]
    assert events[1:] == [("create_build", 127)]
    assert status == 127


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_step_that_dies_of_a_signal_has_a_shells_status(number: signal.Signals) -> None:
    assert run(["sh", "-c", f"kill -{number.value} $$"]) == ([("create_build", 128 + number)], 128 + number)


def test_a_step_sees_nothing_of_the_script() -> None:
    """No signal that is ignored, no further descriptor, no variable: all as if it had been started by itself."""
    look = "grep SigIgn /proc/self/status; ls /proc/self/fd; readlink /proc/self/fd/0; env | grep -v ^_= | sort"
    events, _ = run(["sh", "-c", look])
    alone = subprocess.run(["sh", "-c", look], stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout
    # What bash itself exports, whatever it runs.
    added = [b"SHLVL=", b"PWD=", b"OLDPWD="]
    assert _without(bytes(events[0]), added) == _without(alone, added)  # type: ignore[arg-type]


def _without(lines: bytes, beginnings: list[bytes]) -> list[bytes]:
    return [line for line in lines.split(b"\n") if not line.startswith(tuple(beginnings))]


def test_a_step_is_asked_to_end_as_the_container_is_and_no_other_begins() -> None:
    process = started(
        ["sh", "-c", "trap 'echo in order; exit 3' TERM; echo up; sleep 20 >&- 2>&- & wait"], ["echo", "never"]
    )
    assert process.stdout is not None
    assert process.stdout.read(3) == b"up\n"
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=10)
    assert split([output]) == [b"in order\n", ("create_build", 3)]
    assert process.returncode == 3


def test_a_step_that_ends_well_although_it_was_asked_to_end_is_no_success() -> None:
    process = started(["sh", "-c", "trap 'exit 0' TERM; echo up; sleep 20 >&- 2>&- & wait"], ["echo", "never"])
    assert process.stdout is not None
    assert process.stdout.read(3) == b"up\n"
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=10)
    assert split([output]) == [("create_build", 0)]
    assert process.returncode == 128 + signal.SIGTERM


def test_a_step_that_is_stopped_is_waited_for_without_work() -> None:
    process = started(["sh", "-c", "echo up; kill -STOP $$; echo on"])
    assert process.stdout is not None
    assert process.stdout.read(3) == b"up\n"
    step = int(subprocess.check_output(["pgrep", "-P", str(process.pid)]))
    assert wait_until(lambda: _stat(step)[0] == "T")
    before = _stat(process.pid)[11:13]
    assert not wait_until(lambda: process.poll() is not None, 0.5)
    assert _stat(process.pid)[11:13] == before
    subprocess.run(["kill", "-CONT", str(step)], check=True)
    output, _ = process.communicate(timeout=10)
    assert split([output]) == [b"on\n", ("create_build", 0)]


def _stat(pid: int) -> list[str]:
    """State, and what follows it, of proc_pid_stat(5)."""
    with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
        return file.read().rpartition(")")[2].split()


# --- What is made of its words ---------------------------------------------------------------------------------


texts = st.one_of(
    st.binary(max_size=40),
    # What looks like the beginning of one of the script's words, or is one of somebody else's.
    st.sampled_from(
        [b"\x1e", b"\x1e\x1e", said("make", 0)[:20], said("make", 0)[:-1], b"\x1e" + b"f" * 32 + b" make 0\x1e"]
    ),
)
ends = st.tuples(st.sampled_from(["create_build", "make", "make_system"]), st.integers(0, 255))
parts = st.lists(st.one_of(texts, ends), max_size=8)
cuts = st.lists(st.integers(min_value=0, max_value=10_000), max_size=12)


@given(parts=parts, cuts=cuts)
def test_every_byte_and_every_end_comes_once_and_in_order_wherever_the_reads_are_cut(
    parts: list[bytes | tuple[str, int]], cuts: list[int]
) -> None:
    expected = Told()
    stream = b""
    for part in parts:
        if isinstance(part, bytes):
            # Half a word that runs into a whole one would be a whole one of another kind.
            text = part + b"." if part.endswith(said("make", 0)[:-1]) else part
            stream += text
            if text:
                expected.output(text)
        else:
            stream += said(*part)
            expected.end(*part)
    positions = sorted(cut % (len(stream) + 1) for cut in cuts)
    reads = [stream[a:b] for a, b in zip([0, *positions], [*positions, len(stream)], strict=True)]
    assert split([read for read in reads if read]) == expected.events


def test_what_can_become_no_word_is_not_held_back() -> None:
    told = Told()
    splitter = Splitter(TOKEN, told.output, told.end)
    splitter.feed(b"a line\n")
    splitter.feed(b"half a line \x1e and")
    assert told.events == [b"a line\nhalf a line \x1e and"]
    splitter.feed(b"\x1e0123")
    assert told.events == [b"a line\nhalf a line \x1e and"]
    splitter.feed(b"x")
    assert told.events == [b"a line\nhalf a line \x1e and\x1e0123x"]


def test_tokens_differ() -> None:
    assert len({new_token() for _ in range(100)}) == 100
