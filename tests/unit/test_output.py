"""The output of a container: the log has all of it, each headline is shown once and in order, errors quote the end."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nerves_docker_port.errors import Code, RunnerError
from nerves_docker_port.record.log import BuildLog, Headlines

TERMINALS = [
    (
        name,
        begin.encode().decode("unicode_escape").encode("latin-1"),
        end.encode().decode("unicode_escape").encode("latin-1"),
    )
    for name, begin, end in (
        line.split("\t")
        for line in (Path(__file__).parent / "terminfo-standout.tsv").read_text().splitlines()
        if not line.startswith("#")
    )
]
"""For each value of TERM: its name, and the byte sequences that begin and end standout mode (`smso` and `rmso`)."""

HEADLINE = b"\x1b[7m>>> hello 1.0 Building\x1b[27m\n"


def headlines(*reads: bytes) -> list[bytes]:
    found = Headlines()
    shown = [line for read in reads for line in found.feed(read)]
    return [*shown, *found.finish()]


def test_only_lines_that_begin_with_the_mark_are_headlines() -> None:
    output = b">>> plain one\nnot >>> this\n" + HEADLINE + b" >>> nor this\n\t>>> nor that\n"
    assert headlines(output) == [b">>> plain one", b">>> hello 1.0 Building"]


@pytest.mark.parametrize("text", [b">>> host-skeleton  Extracting", b">>>   Finalizing host directory"])
def test_headlines_are_found_and_cleaned_for_every_terminal_type(text: bytes) -> None:
    assert len(TERMINALS) > 150
    for name, begin, end in TERMINALS:
        line = begin + text + end
        output = b"x\n" + line + b"\nnot " + line + b"\n" + line + b"\n"
        # Of the usual form, one in the midst of a line counts, too: see below.
        expected = [text] * (3 if begin.endswith(b"\x1b[7m") else 2)
        assert headlines(output) == expected, name
        assert headlines(*(output[i : i + 1] for i in range(len(output)))) == expected, name
        assert headlines(line) == [text], name


@pytest.mark.parametrize(
    "begin",
    [
        b"\x1b[0m\x1b[1m\x1b[38;2;255;0;0m\x1b[48:5:3m",
        b"\x1b]0;make: the title of a window > that is longer than most\x07",
        b"\x1b]8;;http://x/\x1b\\\x1b[4:3m",
        b"\x1bP1$r0m\x1b\\\x1b[>4;1m",
        b"\x1b(B\x1b)0\x0f\x1b[m\x1b=",
        b"\x9b1;7m\x8d",
        b"\r\x1b[K\x1b[7m",
    ],
)
def test_headlines_are_found_after_any_escape_sequences(begin: bytes) -> None:
    line = begin + b">>> hello 1.0 Building\x1b(B\x1b[m"
    assert headlines(b"x\n" + line + b"\n", line) == [b">>> hello 1.0 Building"] * 2


@pytest.mark.parametrize(
    "line",
    [
        b"\x1b[1mnot >>> this\x1b[0m",
        b"\x1b[7mx>>> y",
        b"\x0enot >>> this",
        b"\x1b(Bnot >>> this",
        b"\x1b]0;title\x07not >>> this",
        b"\x1b]0;>>> not ended",
        b"[7m>>> no escape",
        b"\x1b[32m100%\x1b[0m >>> no",
        b"\x1b[7m>> no",
        "\u00db7m>>> no".encode(),
    ],
)
def test_a_mark_after_text_is_no_headline_even_after_an_escape_sequence(line: bytes) -> None:
    assert headlines(line + b"\n>>> yes\n" + line) == [b">>> yes"]


def test_a_line_that_begins_with_a_sequence_and_never_ends_does_not_fill_the_memory() -> None:
    found = Headlines()
    for _ in range(50):
        assert found.feed(b"\x1b[32m" + b"x" * 1_000_000) == []
    assert found.feed(b"\n>>> yes\n") == [b">>> yes"]


def test_control_sequences_within_a_headline_are_removed() -> None:
    output = ">>> caf\u00e9 \u00db \x1b]52;c;eA==\x071.0\x07 \u009b31mBuil\u202eding".encode() + b" \xff\x9b27m\n"
    assert headlines(output) == [">>> caf\u00e9 \u00db 1.0 Building \ufffd".encode()]


def test_a_headline_in_a_line_that_another_package_has_not_ended_is_found() -> None:
    output = b"checking for pipe... " + HEADLINE + b"yes\nchecking for >>> x... no\n"
    assert headlines(output) == [b">>> hello 1.0 Building"]
    assert headlines(b"x" * 10_000, b"x\x1b[7", b"m>>> a 1 Buil", b"ding\n", HEADLINE) == [
        b">>> a 1 Building",
        b">>> hello 1.0 Building",
    ]


@pytest.mark.parametrize("cut", range(len(b"x\n" + HEADLINE + b"y\n") + 1))
def test_a_headline_cut_anywhere_between_two_reads_is_shown_once(cut: int) -> None:
    output = b"x\n" + HEADLINE + b"y\n"
    assert headlines(output[:cut], output[cut:]) == [b">>> hello 1.0 Building"]


def test_a_headline_that_comes_byte_by_byte_is_shown_once() -> None:
    output = b"x>>>\n" + HEADLINE * 3
    assert headlines(*(output[i : i + 1] for i in range(len(output)))) == [b">>> hello 1.0 Building"] * 3


def test_a_headline_without_a_newline_at_the_end_is_shown() -> None:
    assert headlines(b"x\n>>> la", b"st") == [b">>> last"]


def test_a_mark_in_the_middle_of_a_long_line_is_no_headline_wherever_the_reads_end() -> None:
    assert headlines(b"x" * 10_000, b">>> no\n>>> yes\n") == [b">>> yes"]
    assert headlines(b"x" * 10_000 + b">>> no") == []


def test_a_headline_of_50_mb_is_shown_shortened_and_does_not_fill_the_memory() -> None:
    found = Headlines()
    assert found.feed(b">>> " + b"x" * 1_000_000) == []
    for _ in range(49):
        assert found.feed(b"x" * 1_000_000) == []
    (line,) = found.feed(b"\n")
    assert len(line) == 4096


@settings(max_examples=300, deadline=None)
@given(
    lines=st.lists(
        st.sampled_from(
            [b">>> a 1 X", b"\x1b[7m>>> b 2 Y\x1b[27m", b"", b">", b">>", b"\x1b[7m", b"z>>>", b"z\x1b[7m>>> c"]
        )
    ),
    seed=st.integers(),
)
def test_headlines_do_not_depend_on_where_the_reads_are_cut(lines: list[bytes], seed: int) -> None:
    output = b"".join(line + b"\n" for line in lines)
    cuts = sorted(random.Random(seed).choices(range(len(output) + 1), k=5))
    reads = [output[a:b] for a, b in zip([0, *cuts], [*cuts, len(output)], strict=True)]
    assert headlines(*reads) == headlines(output)


def test_the_log_holds_every_byte_and_is_truncated_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "build.log"
    path.write_bytes(b"of an earlier build")
    shown: list[bytes] = []
    with BuildLog(path, shown.append) as log:
        assert path.read_bytes() == b""
        log.write(b"a\xff\x00\r\n" + HEADLINE)
        # A person may read the log at any time, so it must be complete after every write.
        assert path.read_bytes() == b"a\xff\x00\r\n" + HEADLINE
        log.write(b"no newline")
    assert path.read_bytes() == b"a\xff\x00\r\n" + HEADLINE + b"no newline"
    assert shown == [b">>> hello 1.0 Building"]


def test_headlines_of_two_steps_are_separate_lines(tmp_path: Path) -> None:
    shown: list[bytes] = []
    with BuildLog(tmp_path / "build.log", shown.append) as log:
        log.write(b">>> one")
        log.end_step()
        log.write(b">>> two")
        log.end_step()
    assert shown == [b">>> one", b">>> two"]


def test_the_last_sixteen_lines_are_shown_without_escape_sequences(tmp_path: Path) -> None:
    with BuildLog(tmp_path / "build.log", lambda _lines: None) as log:
        log.write(b"".join(b"\x1b[31mline %d\x1b[0m\r\n" % i for i in range(100)))
        assert log.last_lines().splitlines() == [f"line {i}" for i in range(84, 100)]


def test_the_last_line_of_a_log_may_be_huge_and_not_utf8(tmp_path: Path) -> None:
    with BuildLog(tmp_path / "build.log", lambda _lines: None) as log:
        log.write(b"\xff" * 1_000_000)
        assert len(log.last_lines()) <= 16 * 1024


def test_the_error_names_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "build.log").mkdir()
    with pytest.raises(RunnerError) as failure:
        BuildLog(tmp_path / "build.log", lambda _lines: None)
    assert failure.value.code is Code.BAD_REQUEST
    assert str(tmp_path / "build.log") in failure.value.message


def test_a_full_disk_is_reported_when_the_log_cannot_be_written() -> None:
    if not os.path.exists("/dev/full"):  # noqa: PTH110
        pytest.fail("/dev/full is needed")
    with BuildLog(Path("/dev/full"), lambda _lines: None) as log, pytest.raises(RunnerError) as failure:
        log.write(b"x")
    assert failure.value.code is Code.DISK_FULL
    assert failure.value.hint is not None
