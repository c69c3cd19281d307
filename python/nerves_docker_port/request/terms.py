"""Reads single Elixir values in the forms in which a user can write them in a configuration or a variable.

Each function returns ``None`` for a value that it cannot read. The caller then raises the error.
"""

from __future__ import annotations

import re
from decimal import Decimal

from nerves_docker_port.port.wire import Atom, Term


def text(term: Term) -> str | None:
    """Return the text of a string or a charlist. The empty list is the empty charlist."""
    if isinstance(term, str):
        return term
    if isinstance(term, list) and all(type(item) is int and 0 <= item < 0x110000 for item in term):
        return "".join(chr(item) for item in term if type(item) is int)
    return None


def word(term: Term) -> str | None:
    """Return the name of an atom, or a text."""
    return term.name if isinstance(term, Atom) else text(term)


def size(term: Term) -> int | None:
    """Return a number of bytes. Units are powers of 1024, as in Docker and in Nerves' runner for Apple containers."""
    if type(term) is int:
        return term if 0 <= term < 2**62 else None
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", text(term) or "", re.IGNORECASE | re.ASCII)
    if match is None:
        return None
    count = int(Decimal(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))
    return count if count < 2**62 else None


def pairs(term: Term) -> list[tuple[str, Term]] | None:
    """Return the names and values of a map, a keyword list, or a list of ``{name, value}``."""
    items = list(term.items()) if isinstance(term, dict) else term
    if not isinstance(items, list):
        return None
    found = []
    for item in items:
        name = word(item[0]) if isinstance(item, tuple) and len(item) == 2 else None
        if name is None or not isinstance(item, tuple):
            return None
        found.append((name, item[1]))
    return found


def inspect(term: Term) -> str:
    """Return a term as Elixir writes it, cut to 100 characters."""
    written = _elixir(term)
    return written if len(written) <= 100 else written[:97] + "..."


def _elixir(term: Term) -> str:
    match term:
        case Atom(name):
            return f":{name}" if re.fullmatch(r"[A-Za-z_][\w@]*[?!]?", name) else f':"{name}"'
        case None | True | False:
            return {None: "nil", True: "true", False: "false"}[term]
        case str():
            return '"' + term.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
        case list() if term and text(term) is not None:
            return f"~c{_elixir(text(term))}"
        case list() if all(isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], Atom) for item in term):
            return "[" + ", ".join(f"{item[0].name}: {_elixir(item[1])}" for item in term) + "]"  # type: ignore[index,union-attr]
        case list():
            return "[" + ", ".join(map(_elixir, term)) + "]"
        case tuple():
            return "{" + ", ".join(map(_elixir, term)) + "}"
        case dict():
            return "%{" + ", ".join(f"{_elixir(key)} => {_elixir(value)}" for key, value in term.items()) + "}"
        case int() | float():
            return str(term) if isinstance(term, float) or abs(term) < 2**64 else "a very large integer"
        case _:
            return "something else"
