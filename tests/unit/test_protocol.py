"""The messages of docs/protocol.md: their terms, and the refusal of other terms."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nerves_docker_port import stages
from nerves_docker_port.port import hello, protocol
from nerves_docker_port.port.protocol import (
    Answer,
    Ask,
    Cancel,
    Done,
    Error,
    Event,
    Headline,
    Log,
    Ok,
    Progress,
    Request,
    Stage,
    Status,
    Warning,  # noqa: A004
    parse,
)
from nerves_docker_port.port.wire import Atom, Opaque, Term, WireError, decode, encode

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()


@pytest.mark.parametrize(
    ("message", "term"),
    [
        (Event(1, Headline("grüße")), (Atom("event"), 1, (Atom("headline"), "grüße"))),
        (Event(1, Log(b">>> a\n\xff")), (Atom("event"), 1, (Atom("log"), b">>> a\n\xff"))),
        (Event(1, Stage("make")), (Atom("event"), 1, (Atom("stage"), Atom("make"), Atom("started")))),
        (
            Event(1, Stage("make_system", 0)),
            (Atom("event"), 1, (Atom("stage"), Atom("make_system"), (Atom("finished"), 0))),
        ),
        (
            Event(1, Progress("pulling", 3, None, "layers")),
            (
                Atom("event"),
                1,
                (
                    Atom("progress"),
                    {
                        Atom("what"): "pulling",
                        Atom("current"): 3,
                        Atom("total"): None,
                        Atom("unit"): Atom("layers"),
                    },
                ),
            ),
        ),
        (
            Event(1, Status(stages.Status(61.5, (("a Building", 2.0004),), 3, 9, None))),
            (
                Atom("event"),
                1,
                (
                    Atom("status"),
                    {
                        Atom("elapsed"): 61_500,
                        Atom("tasks"): [("a Building", 2000)],
                        Atom("done"): 3,
                        Atom("total"): 9,
                        Atom("left"): None,
                    },
                ),
            ),
        ),
        (Event(1, Warning("old engine")), (Atom("event"), 1, (Atom("warning"), "old engine"))),
        (Ask(1, 2, "Pull?", True), (Atom("ask"), 1, 2, (Atom("yes_no"), "Pull?", True))),
        (
            Done(1, Ok({Atom("removed"): ["a"]})),
            (Atom("done"), 1, (Atom("ok"), {Atom("removed"): ["a"]})),
        ),
        (
            Done(0, Error("bad_request", "No.", hint="Yes.")),
            (
                Atom("done"),
                0,
                (
                    Atom("error"),
                    {
                        Atom("code"): Atom("bad_request"),
                        Atom("message"): "No.",
                        Atom("hint"): "Yes.",
                        Atom("log"): None,
                    },
                ),
            ),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_message_is_sent_in_the_form_of_the_protocol_page(message: protocol.Outgoing, term: Term) -> None:
    assert message.to_term() == term
    sent = decode(encode(message.to_term()))
    assert sent == term or isinstance(message, Event)  # the bytes of a log are decoded as text if they are UTF-8


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (
            (Atom("request"), 1, Atom("build"), {Atom("cwd"): "/"}),
            Request(1, "build", {Atom("cwd"): "/"}),
        ),
        ((Atom("request"), 2**70, Atom("doctor"), {}), Request(2**70, "doctor", {})),
        ((Atom("answer"), 3, True), Answer(3, True)),
        ((Atom("answer"), 3, False), Answer(3, False)),
        ((Atom("cancel"), 7), Cancel(7)),
    ],
)
def test_a_message_of_the_protocol_page_is_parsed(term: Term, message: protocol.Incoming) -> None:
    assert parse(term) == message
    assert parse(decode(encode(term))) == message


def test_the_cause_of_a_failure_is_added_to_an_error_and_holds_no_atom() -> None:
    def sent(error: Error) -> dict[Term, Term]:
        term = decode(encode(error.to_term()))
        assert isinstance(term, tuple)
        assert isinstance(term[1], dict)
        return term[1]

    with_cause = sent(Error("step_failed", "No.", cause={"title": "a\x1b[1m", "lines": ("b\a",), "remedy": None}))
    without = sent(Error("step_failed", "No."))
    assert with_cause == {**without, "cause": {"title": "a", "lines": ["b\ufffd"], "remedy": None}}


@pytest.mark.parametrize("os_pid", [1, 255, 256, 4711, 2**31 - 1])
def test_the_handwritten_frame_of_the_hello_is_a_correct_term(os_pid: int) -> None:
    frame = hello.frame("0.1.0", "3.12.1", os_pid)
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    assert decode(frame[4:]) == (
        Atom("hello"),
        {
            Atom("protocol"): 1,
            Atom("version"): "0.1.0",
            Atom("python"): "3.12.1",
            Atom("os_pid"): os_pid,
        },
    )


@pytest.mark.parametrize("op", protocol.OPS)
def test_every_operation_is_parsed(op: protocol.Op) -> None:
    assert parse((Atom("request"), 1, Atom(op), {})) == Request(1, op, {})


def test_the_vocabulary_is_the_one_of_the_protocol_page() -> None:
    def atoms_after(words: str) -> tuple[str, ...]:
        (found,) = re.findall(re.escape(words) + r"(.*?)(?:\. One request|\|)", PAGE, re.DOTALL)
        return tuple(re.findall(r"`:(\w+)`", found))

    assert atoms_after("`name` is one of") == protocol.STAGES
    assert atoms_after("`op` is") == protocol.OPS
    assert "`unit: " + " \\| ".join(f":{unit}" for unit in protocol.UNITS) + "`" in PAGE
    assert f"The port protocol, version {hello.PROTOCOL_VERSION}" in PAGE


@pytest.mark.parametrize(
    ("term", "reason"),
    [
        (None, "message: expected a tuple that begins with an atom, not nil"),
        (Atom("cancel"), "not :cancel"),
        ([Atom("cancel"), 7], "not a list"),
        ((), "not a tuple"),
        (("cancel", 7), "not a tuple"),
        ((Atom("hello"), {}), "expected :request, :answer or :cancel, not :hello"),
        ((Atom("cancel"),), "cancel: expected another number of fields, not 0"),
        ((Atom("cancel"), 7, 7), "cancel: expected another number of fields, not 2"),
        ((Atom("request"), 1, Atom("build")), "request: expected another number of fields, not 2"),
        ((Atom("cancel"), 0), "cancel: id: expected a positive integer, not 0"),
        ((Atom("cancel"), -(10**5000)), "a positive integer, not an integer"),
        ((Atom("cancel"), True), "cancel: id: expected a positive integer, not true"),
        ((Atom("cancel"), 1.0), "not a float"),
        ((Atom("cancel"), "7"), "not a string"),
        ((Atom("cancel"), b"\xff"), "not a binary"),
        ((Atom("cancel"), Opaque(b"M\0\0\0\1\3\xa0")), "only passed on"),
        ((Atom("answer"), 1, None), "answer: expected true or false, not nil"),
        ((Atom("answer"), 1, 1), "answer: expected true or false"),
        ((Atom("answer"), Atom("a"), True), "answer: ref: expected a positive integer, not :a"),
        ((Atom("request"), 1, "build", {}), "request: op: expected :build, :archive"),
        ((Atom("request"), 1, Atom("format"), {}), "not :format"),
        ((Atom("request"), 1, Atom("build"), []), "request: args: expected a map, not a list"),
    ],
)
def test_the_error_names_what_is_wrong_with_a_message(term: Term, reason: str) -> None:
    with pytest.raises(WireError, match=re.escape(reason)):
        parse(term)


def test_an_unknown_stage_or_unit_is_not_sent() -> None:
    with pytest.raises(WireError, match=":mkae"):
        Stage("mkae").to_term()  # type: ignore[arg-type]
    with pytest.raises(WireError, match=":litres"):
        Progress("pulling", 1, 2, "litres").to_term()  # type: ignore[arg-type]
