"""The messages of the port protocol, as named tuples, and their terms.

This module implements the section *Messages* of docs/protocol.md: the messages in both directions and the atoms in
them. Other modules are responsible for the bytes (wire.py), for the hello, which is sent before this module is imported
(hello.py), for the meaning of a request's arguments (request.py), and for the codes of errors (errors.py).

No atom is made from data, because the shim decodes with `[:safe]`, which refuses an unknown atom. Every text for a
person passes through `printable`, because an engine or a registry may have written a part of it.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, TypeAlias, get_args

from nerves_docker_port import errors, stages
from nerves_docker_port.port.wire import Atom, Opaque, Term, WireError
from nerves_docker_port.printing import printable

Op: TypeAlias = Literal["build", "archive", "clean", "shell", "run", "copy", "doctor", "volumes", "report"]
StageName: TypeAlias = stages.StageName
Unit: TypeAlias = stages.Unit

OPS: Final[tuple[Op, ...]] = get_args(Op)
STAGES: Final[tuple[StageName, ...]] = get_args(StageName)
UNITS: Final[tuple[Unit, ...]] = get_args(Unit)

# --- From the helper ---------------------------------------------------------------------------------------


class Headline(NamedTuple):
    """A line that announces what the runner does next."""

    text: str

    def to_term(self) -> Term:
        return (Atom("headline"), printable(self.text))


class Log(NamedTuple):
    r"""Whole lines for the terminal, joined by \n, with no \n at the end.

    record/log.py has already removed the control characters.
    """

    lines: bytes

    def to_term(self) -> Term:
        return (Atom("log"), self.lines)


class Stage(NamedTuple):
    """A stage has started (`finished_ms` is None), or has succeeded after `finished_ms` milliseconds."""

    name: StageName
    finished_ms: int | None = None

    def to_term(self) -> Term:
        state = Atom("started") if self.finished_ms is None else (Atom("finished"), self.finished_ms)
        return (Atom("stage"), _vocabulary_atom(self.name, STAGES), state)


class Progress(NamedTuple):
    """The progress of a long task, counted in `unit`; `total` is None if it is not known."""

    what: str
    current: int
    total: int | None
    unit: Unit

    def to_term(self) -> Term:
        return (
            Atom("progress"),
            {
                Atom("what"): printable(self.what),
                Atom("current"): self.current,
                Atom("total"): self.total,
                Atom("unit"): _vocabulary_atom(self.unit, UNITS),
            },
        )


class Status(NamedTuple):
    """Where a build is; the peer shows it in place of the one before."""

    status: stages.Status

    def to_term(self) -> Term:
        told = self.status
        return (
            Atom("status"),
            {
                Atom("elapsed"): _milliseconds(told.elapsed),
                Atom("tasks"): [(printable(text), _milliseconds(seconds)) for text, seconds in told.tasks],
                Atom("done"): told.done,
                Atom("total"): told.total,
                Atom("left"): None if told.left is None else _milliseconds(told.left),
            },
        )


def _milliseconds(seconds: float) -> int:
    return max(0, round(seconds * 1000))


class Warning(NamedTuple):  # noqa: A001 - the protocol's word; used as protocol.Warning
    """A problem that does not stop the flow."""

    text: str

    def to_term(self) -> Term:
        return (Atom("warning"), printable(self.text))


EventKind: TypeAlias = Headline | Log | Stage | Progress | Status | Warning


class Event(NamedTuple):
    """Something that happened in the request `id`. Only events may be dropped (*Flow control* in docs/protocol.md)."""

    id: int
    event: EventKind

    def to_term(self) -> Term:
        return (Atom("event"), self.id, self.event.to_term())


class Ask(NamedTuple):
    """A question that the person answers with yes or no; `ref` identifies its answer."""

    id: int
    ref: int
    text: str
    default: bool

    def to_term(self) -> Term:
        return (Atom("ask"), self.id, self.ref, (Atom("yes_no"), printable(self.text), self.default))


class Ok(NamedTuple):
    """The request succeeded. The type of `value` depends on the operation (see docs/protocol.md)."""

    value: Term

    def to_term(self) -> Term:
        return (Atom("ok"), self.value)


class Error(NamedTuple):
    """The request failed. `code` is one of those in errors.py."""

    code: str
    message: str
    hint: str | None = None
    log: str | None = None
    cause: errors.Facts | None = None

    def to_term(self) -> Term:
        error: dict[Term, Term] = {
            Atom("code"): Atom(self.code),
            Atom("message"): printable(self.message),
            Atom("hint"): None if self.hint is None else printable(self.hint),
            Atom("log"): self.log,
        }
        if self.cause is not None:
            error["cause"] = {
                key: [printable(line) for line in value]
                if isinstance(value, tuple)
                else None
                if value is None
                else printable(value)
                for key, value in self.cause.items()
            }
        return (Atom("error"), error)


class Done(NamedTuple):
    """The outcome of the request `id`, sent exactly once. `id` is 0 if no request could be read."""

    id: int
    outcome: Ok | Error

    def to_term(self) -> Term:
        return (Atom("done"), self.id, self.outcome.to_term())


Outgoing: TypeAlias = Event | Ask | Done

# --- To the helper -----------------------------------------------------------------------------------------


class Request(NamedTuple):
    """Mix asks for an operation. `args` are not validated yet."""

    id: int
    op: Op
    args: dict[Term, Term]


class Answer(NamedTuple):
    """The person's answer to the question `ref`."""

    ref: int
    value: bool


class Cancel(NamedTuple):
    """Stop the request `id`."""

    id: int


Incoming: TypeAlias = Request | Answer | Cancel


def parse(term: Term) -> Incoming:
    """Return the message in `term`. Raises `WireError` if it is not a message of the protocol."""
    match term:
        case tuple((Atom("request"), request_id, op, args)):
            return Request(_positive(request_id, "request: id"), _op(op), _map(args))
        case tuple((Atom("answer"), ref, value)):
            return Answer(_positive(ref, "answer: ref"), _boolean(value))
        case tuple((Atom("cancel"), request_id)):
            return Cancel(_positive(request_id, "cancel: id"))
        case tuple((Atom("request" | "answer" | "cancel" as name), *fields)):
            raise _wrong(name, "another number of fields", f"{len(fields)}")
        case tuple((Atom() as name, *_)):
            raise _wrong("message", ":request, :answer or :cancel", _describe(name))
        case _:
            raise _wrong("message", "a tuple that begins with an atom", _describe(term))


def _positive(field: Term, name: str) -> int:
    if isinstance(field, int) and not isinstance(field, bool) and field > 0:
        return field
    raise _wrong(name, "a positive integer", _describe(field))


def _op(field: Term) -> Op:
    if isinstance(field, Atom):
        for op in OPS:
            if field.name == op:
                return op
    raise _wrong("request: op", ", ".join(f":{op}" for op in OPS), _describe(field))


def _map(field: Term) -> dict[Term, Term]:
    if isinstance(field, dict):
        return field
    raise _wrong("request: args", "a map", _describe(field))


def _boolean(field: Term) -> bool:
    if isinstance(field, bool):
        return field
    raise _wrong("answer", "true or false", _describe(field))


def _wrong(name: str, expected: str, found: str) -> WireError:
    return WireError(f"{name}: expected {expected}, not {found}")


def _describe(term: Term) -> str:
    """Describe a term for an error message, in Elixir's words.

    The description never quotes text, elements, keys or values: these can be large, or a secret.
    """
    if isinstance(term, Atom):
        return f":{term.name}"
    if term is None or isinstance(term, bool):
        return {None: "nil", True: "true", False: "false"}[term]
    if isinstance(term, int) and abs(term) < 2**64:  # Python limits how long a printed integer may be (4300 digits)
        return str(term)
    for kind, words in _DESCRIPTIONS.items():
        if isinstance(term, kind):
            return words
    return "something else"


_DESCRIPTIONS: Final[dict[type, str]] = {
    int: "an integer",
    float: "a float",
    str: "a string",
    bytes: "a binary",
    list: "a list",
    tuple: "a tuple",
    dict: "a map",
    Opaque: "a term of a type that is only passed on",
}


def _vocabulary_atom(name: str, vocabulary: tuple[str, ...]) -> Atom:
    if name not in vocabulary:
        raise _wrong("atom", "one of the protocol's", f":{name}")
    return Atom(name)
