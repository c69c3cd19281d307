"""Text of engines, registries, logs and credential helpers never reaches a terminal raw."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import pytest

from nerves_docker_port import errors
from nerves_docker_port.doctor import examine as doctor
from nerves_docker_port.port import protocol
from nerves_docker_port.port.wire import Atom
from nerves_docker_port.printing import from_output, printable
from nerves_docker_port.shell import command as shell

HOSTILE = [
    ("\x1b]52;c;ZXZpbA==\x07", ""),  # the clipboard
    ("\x1b]52;c;ZXZpbA==\x1b\\", ""),
    ("\x1b]0;title\x07", ""),
    ("\x1b]8;;http://x/\x1b\\link\x1b]8;;\x1b\\", "link"),
    ("\x1b[31mred\x1b[0m", "red"),
    ("\x1b[2J\x1b[1;1H\x1b[?1049h\x1b[>4;1m\x1b[!p", ""),
    ('\x1bP$q"p\x1b\\\x1b_x\x1b\\\x1b^x\x1b\\\x1bXx\x1b\\', ""),
    ("\x1bc\x1b(0\x1b#8\x1b7\x1b=", ""),
    ("\u009b31m\u009d0;title\u009c\u0090x\u009c", ""),
    ("\u0085\u008d\u008e", "\ufffd\ufffd\ufffd"),
    ("\x1b]0;without an end", "0;without an end"),
    ("\x1b\x1b[31m[2J", "\ufffd[2J"),
    ("gone\r\x08\x08shown", "gone\ufffd\ufffd\ufffdshown"),
    ("\x00\x07\x0b\x0c\x0e\x7f", "\ufffd" * 6),
    ("a\u202eb\u202c\u2066c\u2069\u200f\u061c", "a\ufffdb\ufffd\ufffdc\ufffd\ufffd\ufffd"),
    ("one\r\ntwo\n\tthree \u00e9 \u4e2d \U0001f600", "one\ntwo\n\tthree \u00e9 \u4e2d \U0001f600"),
    ("a path\udcff", "a path\\udcff"),
]


@pytest.mark.parametrize(("text", "shown"), HOSTILE, ids=ascii)
def test_text_is_harmless_and_keeps_its_lines(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(("text", "shown"), HOSTILE, ids=ascii)
def test_every_message_for_a_person_is_harmless(text: str, shown: str) -> None:
    code = errors.Code.INTERNAL.value
    messages: list[protocol.Outgoing] = [
        protocol.Event(1, protocol.Headline(text)),
        protocol.Event(1, protocol.Warning(text)),
        protocol.Event(1, protocol.Progress(text, 1, None, "layers")),
        protocol.Ask(1, 1, text, default=True),
        protocol.Done(1, protocol.Error(code, text, text)),
    ]
    for message in messages:
        assert repr(shown) in repr(message.to_term())
        if text != shown:
            assert repr(text) not in repr(message.to_term())


@pytest.mark.parametrize(("text", "shown"), HOSTILE, ids=ascii)
def test_the_commands_print_nothing_else(text: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    error = io.StringIO()
    monkeypatch.setattr("sys.stderr", error)
    # What the command `shell` prints with before the shell has the terminal.
    reporter = shell._TerminalReporter(SimpleNamespace(has_begun=False))  # type: ignore[arg-type]
    reporter.headline(text)
    reporter.warning(text)
    reporter.log(text.encode("utf-8", "replace"))
    shell._print_error(errors.bad_request(text, text))
    printed = error.getvalue()
    assert printed.count(shown.replace("\\udcff", "")) >= 5
    assert all(character.isprintable() for character in printed.replace("\n", "").replace("\t", ""))


def test_the_report_for_a_program_has_no_control_either() -> None:
    report = doctor.to_json([doctor.Finding("engine", "problem", "\x1b[31m\u009b31m\u202e", None)])
    assert report.isascii()
    assert report.replace("\n", "").isprintable()
    assert json.loads(report)["findings"][0]["text"] == "\x1b[31m\u009b31m\u202e"


def test_output_is_read_as_a_terminal_with_eight_bits_would() -> None:
    assert from_output(b"\x9b31mred\x9bm \xc3\x9b \xe9 \x07") == "red \u00db \ufffd "


def test_the_error_s_log_stays_a_path() -> None:
    term = protocol.Error("internal", "x", None, "/tmp/a\u202eb/build.log").to_term()
    assert isinstance(term, tuple)
    assert isinstance(term[1], dict)
    assert term[1][Atom("log")] == "/tmp/a\u202eb/build.log"
