"""What `mix nerves_docker_port.run` and `mix nerves_docker_port.copy` ask for, beside the package."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from nerves_docker_port import errors
from nerves_docker_port.port.wire import Atom, Term


@dataclass(frozen=True)
class CommandRequest:
    """A command for the build directory (docs/protocol.md, ``:run``)."""

    words: tuple[str, ...]
    at_terminal: bool
    """Whether it gets the person's terminal."""


def command_from_args(args: Mapping[Term, Term]) -> CommandRequest:
    """The command that ``args`` describe. Raises ``RunnerError`` ``:bad_request``."""
    words = args.get(Atom("command"))
    if not isinstance(words, list) or not words:
        raise errors.bad_request("`command` of the request is not a list of words")
    request = CommandRequest(tuple(_path(word, "command") for word in words), args.get(Atom("at_terminal")) is True)
    if request.at_terminal and any("\udc80" <= character <= "\udcff" for word in request.words for character in word):
        raise errors.words_not_utf8()
    return request


def copy_from_args(args: Mapping[Term, Term]) -> tuple[str, str]:
    """The path in the build directory and the place on the host. Raises ``RunnerError`` ``:bad_request``."""
    source, target = (_path(args.get(Atom(key)), key) for key in ("source", "target"))
    if not target.startswith("/"):
        raise errors.bad_request("`target` of the request is not an absolute path")
    return source, target


def _path(term: Term, key: str) -> str:
    """A text, or bytes that are not UTF-8, as Python writes a path. Words of a command may hold any bytes, too."""
    text = os.fsdecode(term) if isinstance(term, bytes) else term
    if not isinstance(text, str) or "\0" in text:
        raise errors.bad_request(f"`{key}` of the request holds something else than text")
    return text
