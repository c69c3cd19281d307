"""The messages of the port protocol, as frozen dataclasses, and their terms.

Responsible for the section *Messages* of docs/protocol.md: what is sent, what is understood, and the atoms
that are used for it. Not for bytes (wire.py), for the hello, which goes out before this is imported (hello.py), for
what the arguments of a request mean (request.py), nor for the codes of errors (errors.py).

Atoms are never made of data: the shim decodes with `[:safe]`, which refuses an atom that it does not know. Text for a
person may be an engine's or a registry's: it is made harmless here, whatever it was made of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

from nerves_docker_port import stages
from nerves_docker_port.port.wire import Atom, Opaque, Term, WireError
from nerves_docker_port.printing import printable

Op: TypeAlias = Literal["build", "archive", "clean", "shell", "doctor", "volumes"]
StageName: TypeAlias = stages.StageName
Unit: TypeAlias = stages.Unit

OPS: Final[tuple[Op, ...]] = get_args(Op)
STAGES: Final[tuple[StageName, ...]] = get_args(StageName)
UNITS: Final[tuple[Unit, ...]] = get_args(Unit)

# --- From the helper ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Headline:
    """The runner announces something."""

    text: str

    def to_term(self) -> Term:
        return (Atom("headline"), printable(self.text))


@dataclass(frozen=True, slots=True)
class Log:
    r"""Whole lines for the terminal, joined by \n, none at the end; without controls (record/log.py has taken them)."""

    lines: bytes

    def to_term(self) -> Term:
        return (Atom("log"), self.lines)


@dataclass(frozen=True, slots=True)
class Stage:
    """A step begins (`finished_ms` is None) or has ended well, after so many milliseconds."""

    name: StageName
    finished_ms: int | None = None

    def to_term(self) -> Term:
        state = Atom("started") if self.finished_ms is None else (Atom("finished"), self.finished_ms)
        return (Atom("stage"), _known(self.name, STAGES), state)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far something is; `total` is None where nobody knows."""

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
                Atom("unit"): _known(self.unit, UNITS),
            },
        )


@dataclass(frozen=True, slots=True)
class Warning:  # noqa: A001 - the protocol's word; used as protocol.Warning
    """Something is not as it should be, but the flow goes on."""

    text: str

    def to_term(self) -> Term:
        return (Atom("warning"), printable(self.text))


EventKind: TypeAlias = Headline | Log | Stage | Progress | Warning


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in the request `id`. May be dropped; nothing else is."""

    id: int
    event: EventKind

    def to_term(self) -> Term:
        return (Atom("event"), self.id, self.event.to_term())


@dataclass(frozen=True, slots=True)
class Ask:
    """A question to the person, to be answered with yes or no."""

    id: int
    ref: int
    text: str
    default: bool

    def to_term(self) -> Term:
        return (Atom("ask"), self.id, self.ref, (Atom("yes_no"), printable(self.text), self.default))


@dataclass(frozen=True, slots=True)
class Ok:
    """The request succeeded. The shape of `value` is the operation's."""

    value: Term

    def to_term(self) -> Term:
        return (Atom("ok"), self.value)


@dataclass(frozen=True, slots=True)
class Error:
    """The request failed. `code` is one of those in errors.py."""

    code: str
    message: str
    hint: str | None = None
    log: str | None = None

    def to_term(self) -> Term:
        return (
            Atom("error"),
            {
                Atom("code"): Atom(self.code),
                Atom("message"): printable(self.message),
                Atom("hint"): None if self.hint is None else printable(self.hint),
                Atom("log"): self.log,
            },
        )


@dataclass(frozen=True, slots=True)
class Done:
    """The one outcome of the request `id`; 0 where no request could be read."""

    id: int
    outcome: Ok | Error

    def to_term(self) -> Term:
        return (Atom("done"), self.id, self.outcome.to_term())


Outgoing: TypeAlias = Event | Ask | Done

# --- To the helper -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Request:
    """Run a flow. `args` are as they came."""

    id: int
    op: Op
    args: dict[Term, Term]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the person said to the question `ref`."""

    ref: int
    value: bool


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop the request `id`."""

    id: int


Incoming: TypeAlias = Request | Answer | Cancel


def parse(term: Term) -> Incoming:
    """The message that `term` is; a WireError says what is wrong with it."""
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
    """What a term is, in Elixir's words: never text or what a container holds, which may be large or a secret."""
    if isinstance(term, Atom):
        return f":{term.name}"
    if term is None or isinstance(term, bool):
        return {None: "nil", True: "true", False: "false"}[term]
    if isinstance(term, int) and abs(term) < 2**64:  # Python refuses to print the very large ones
        return str(term)
    for kind, words in _WORDS.items():
        if isinstance(term, kind):
            return words
    return "something else"


_WORDS: Final[dict[type, str]] = {
    int: "an integer",
    float: "a float",
    str: "a string",
    bytes: "a binary",
    list: "a list",
    tuple: "a tuple",
    dict: "a map",
    Opaque: "a term of a type that is only passed on",
}


def _known(name: str, vocabulary: tuple[str, ...]) -> Atom:
    if name not in vocabulary:
        raise _wrong("atom", "one of the protocol's", f":{name}")
    return Atom(name)
