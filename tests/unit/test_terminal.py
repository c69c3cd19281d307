"""What can be known of the terminal without one. The rest is in tests/terminal."""

from __future__ import annotations

import os
import pty
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerves_docker_port import errors
from nerves_docker_port.port.wire import Atom
from nerves_docker_port.shell import command as shell
from nerves_docker_port.shell.terminal import Outer, Screen, Terminal, window_size


def test_what_a_program_changed_is_undone() -> None:
    screen = Screen()
    screen.note(b"\x1b[?1049h\x1b[?1;2004h text \x1b[?25l\x1b[?1000h\x1b[?1000l")
    assert screen.undo() == b"\x1b[?1l\x1b[?25h\x1b[?1049l\x1b[?2004l\x1b>\x1b[0m"
    screen.note(b"\x1b[?1049l\x1b[?1l\x1b[?25h\x1b[?2004l")
    assert screen.undo() == b"\x1b>\x1b[0m"


@given(
    st.lists(st.sampled_from([b"\x1b[?1049h", b"\x1b[?1049;25l", b"\x1b", b"[?", b"text", b"\x1b[?2004h"])), st.data()
)
def test_it_does_not_matter_how_the_reads_cut_a_sequence(parts: list[bytes], data: st.DataObject) -> None:
    text = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)))))
    whole, cut = Screen(), Screen()
    whole.note(text)
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        cut.note(text[start:end])
    assert cut.undo() == whole.undo()


def test_a_forked_process_sees_what_the_other_noted() -> None:
    screen = Screen()
    pid = os.fork()
    if pid == 0:
        screen.note(b"\x1b[?1049h")
        os._exit(0)
    os.waitpid(pid, 0)
    assert b"\x1b[?1049l" in screen.undo()


def test_a_terminal_without_a_size_has_the_usual_one() -> None:
    parent, child = pty.openpty()
    assert window_size(child) == (24, 80)

    outer = Outer(os.ttyname(child), None)
    assert not outer.is_gone()
    assert outer.size() == window_size(child)
    os.close(parent)
    assert outer.is_gone()
    os.close(child)


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


@pytest.mark.parametrize("content", [b"", b"\x83", b"\x83a\x07", b"\x83t\0\0\0\0", os.urandom(100)])
def test_a_spec_that_is_none_is_one_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "spec").write_bytes(content)
    with pytest.raises(errors.RunnerError, match="does not say which shell to open"):
        shell.read_spec(tmp_path / "spec")
    shell.remove_spec(tmp_path / "spec")
    # Not a directory of ours.
    assert tmp_path.exists()
