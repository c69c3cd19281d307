"""What programs change at a terminal is known, and can be undone."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerves_docker_port.shell.screen import Screen


def undone(*written: bytes) -> bytes:
    screen = Screen()
    for data in written:
        screen.note(data)
    return screen.undo()


@pytest.mark.parametrize(
    ("left", "undo"),
    [
        (b"\x1b[?1049h", b"\x1b[?1049l"),
        (b"\x1b[?47h", b"\x1b[?47l"),
        (b"\x1b[?1047h", b"\x1b[?1047l"),
        (b"\x1b[?25l", b"\x1b[?25h\x1b[?25r"),
        (b"\x1b[?7l", b"\x1b[?7h\x1b[?7r"),
        (b"\x1b[?1h", b"\x1b[?1l\x1b[?1r"),
        (b"\x1b[?1000h", b"\x1b[?1000l\x1b[?1000r"),
        (b"\x1b[?1002;1006h", b"\x1b[?1002l\x1b[?1006l\x1b[?1002;1006r"),
        (b"\x1b[?1003h", b"\x1b[?1003l\x1b[?1003r"),
        (b"\x1b[?1004h", b"\x1b[?1004l\x1b[?1004r"),
        (b"\x1b[?2004h", b"\x1b[?2004l\x1b[?2004r"),
        (b"\x1b[?2026h", b"\x1b[?2026l\x1b[?2026r"),
        (b"\x1b[?6h", b"\x1b[?6l\x1b[999H"),
        (b"\x1b[4h", b"\x1b[4l"),
        (b"\x1b[20h", b"\x1b[20l"),
        (b"\x1b=", b"\x1b>"),
        (b"\x1b[4 q", b"\x1b[0 q"),
        (b"\x1b[5;20r", b"\x1b7\x1b[r\x1b8"),
        (b"\x1b(0", b"\x1b(B"),
        (b"\x1b)0\x0e", b"\x1b)B\x0f"),
        (b"\x1b[1;31m", b"\x1b[0m"),
        (b"\x1b[38;5;0m", b"\x1b[0m"),
        (b"\x1b[4:3m", b"\x1b[0m"),
        (b"\x1b]11;#000000\x07", b"\x1b]111\x1b\\"),
        (b"\x1b]4;1;rgb:ff/00/00\x1b\\", b"\x1b]104\x1b\\"),
        (b"\x1b[>4;2m", b"\x1b[>4m"),
        (b"\x1b[>1u\x1b[>5u", b"\x1b[<2u"),
        (b"\x1b[=1u", b"\x1b[=0u"),
    ],
)
def test_what_a_program_leaves_behind_is_undone(left: bytes, undo: bytes) -> None:
    assert undone(b"text" + left + b"text") == undo


@pytest.mark.parametrize(
    "cut",
    [
        (b"\x1b",),
        (b"\x1b[",),
        (b"\x1b[38;5",),
        (b"\x1b[", b"?25"),
        (b"\x1b(",),
        (b"\x1b]0;title",),
        (b"\x1b]", b"52;c;", b"QUJD" * 1000, b"QUJD"),
        (b"\x1bPq#0;2;0;0;0",),
        (b"\x1b_Gf=100;AAAA",),
        (b"\x1b", b"]0;title"),
    ],
)
def test_a_sequence_that_was_cut_off_is_ended(cut: tuple[bytes, ...]) -> None:
    """A terminal would take what follows as the rest of it."""
    assert undone(b"text", *cut).startswith(b"\x1b\\")
    ends = (b"\x07", b"\x1b\\") if cut[-1][-4:] in (b"itle", b"QUJD") else (b"\x1b\\",)
    for end in ends:
        assert not undone(b"text", *cut, end).startswith(b"\x1b\\")
        assert not undone(b"text", *cut, end[:1], end[1:] + b"text").startswith(b"\x1b\\")


@pytest.mark.parametrize(
    "clean",
    [
        b"",
        b"text\r\n\x1b[2J\x1b[H\x1b[10;5H\x1b[K",
        b"\x1b]0;a title\x07",
        b"\x1b]11;?\x07",
        b"\x1b[?1049h\x1b[?1049l",
        b"\x1b[1;31mred\x1b[m",
        b"\x1b[1;31mred\x1b[0m",
        b"\x1b[5;20r\x1b[r",
        b"\x1b=\x1b>",
        b"\x1b[4 q\x1b[ q",
        b"\x1b(0qqq\x1b(B",
        b"\x0eqqq\x0f",
        b"\x1b[4hx\x1b[4l",
        b"\x1b[>1u\x1b[<u",
        b"\x1b[>1u\x1b[>1u\x1b[<2u",
        b"\x1b[>4;2m\x1b[>4;m",
        b"\x1b]12;red\x07\x1b]112\x07",
        b"\x1b[c\x1b[>c\x1b[6n\x1b[?2004$p\x1b[!p",
    ],
)
def test_what_a_program_left_alone_or_undid_itself_is_left_alone(clean: bytes) -> None:
    assert undone(clean) == b""


def test_a_mode_that_was_touched_is_what_it_was_before_where_the_terminal_can_remember() -> None:
    assert Screen.save.startswith(b"\x1b[?1;5;6;9;12;")
    assert b";2004;" in Screen.save
    # Bash sets and resets bracketed paste at each prompt; the person's own shell may have had it on.
    assert undone(b"\x1b[?2004h", b"\x1b[?2004l") == b"\x1b[?2004r"
    # What the terminal remembers now is the program's.
    assert undone(b"\x1b[?2004s\x1b[?2004h", b"\x1b[?2004l") == b""


def test_a_full_reset_by_a_program_leaves_nothing_to_undo_but_what_was_there_before() -> None:
    after = undone(b"\x1b[?1049h\x1b[?25l\x1b[5;20r\x1b(0\x1b[1m\x1b[>1u", b"\x1bc")
    assert after.startswith(b"\x1b[?1;5;9;12;")
    assert after.endswith(b";7;25r")


def test_the_order_is_one_that_a_terminal_takes() -> None:
    undo = undone(b"\x1b[1m\x1b[5;20r\x1b[?1049h\x1b[>1u")
    # Keyboard modes are those of the alternate screen; leaving that screen and setting the margins restore the cursor.
    assert undo == b"\x1b[<1u\x1b[?1049l\x1b7\x1b[r\x1b8\x1b[0m"


def test_what_a_line_editor_has_set_since_is_left_alone() -> None:
    screen = Screen()
    screen.note(b"\x1b[?2004h\x1b[?1h\x1b=\x1b[?1049h\x1b[?1000h")
    assert screen.undo(has_line_editor=True) == b"\x1b[?1049l\x1b[?1000l\x1b[?1000r"


@given(
    st.lists(
        st.sampled_from(
            [
                *(b"\x1b[?1049h", b"\x1b[?1049;25l", b"\x1b", b"[?", b"text", b"\x1b[?2004h", b"\x1b]11;red\x1b\\"),
                *(
                    b"\x1b(0",
                    b"\x1b[5 q",
                    b"\x0e",
                    b"\x0f",
                    b"\x1b[>1u",
                    b"\x1b[<u",
                    b"\x1bc",
                    b"\x1b[1;31m",
                    b"\x1b[m",
                ),
            ]
        )
    ),
    st.data(),
)
def test_it_does_not_matter_how_the_reads_cut_a_sequence(parts: list[bytes], data: st.DataObject) -> None:
    text = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)))))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert undone(*pieces) == undone(text)


def test_a_forked_process_sees_what_the_other_noted() -> None:
    screen = Screen()
    pid = os.fork()
    if pid == 0:
        screen.note(b"\x1b[?1049h")
        os._exit(0)
    os.waitpid(pid, 0)
    assert screen.undo() == b"\x1b[?1049l"
