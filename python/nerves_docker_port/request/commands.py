"""The arguments of `mix nerves_docker_port.run` and `mix nerves_docker_port.copy` that are not about the package."""

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
    """Whether the command runs on the user's terminal."""


def command_from_args(args: Mapping[Term, Term]) -> CommandRequest:
    """Return the command that ``args`` describe. Raises ``RunnerError`` with the code ``:bad_request``."""
    words = args.get(Atom("command"))
    if not isinstance(words, list) or not words:
        raise errors.bad_request("`command` of the request is not a list of words")
    request = CommandRequest(tuple(_path(word, "command") for word in words), args.get(Atom("at_terminal")) is True)
    if request.at_terminal and any("\udc80" <= character <= "\udcff" for word in request.words for character in word):
        raise errors.words_not_utf8()
    return request


def copy_from_args(args: Mapping[Term, Term]) -> tuple[str, str]:
    """Return the path in the build directory and the target on the host.

    Raises ``RunnerError`` with the code ``:bad_request``.
    """
    source, target = (_path(args.get(Atom(key)), key) for key in ("source", "target"))
    if not target.startswith("/"):
        raise errors.bad_request("`target` of the request is not an absolute path")
    return source, target


def _path(term: Term, key: str) -> str:
    """Return a text in the form in which Python writes a path. A path or a word can have bytes that are not UTF-8."""
    text = os.fsdecode(term) if isinstance(term, bytes) else term
    if not isinstance(text, str) or "\0" in text:
        raise errors.bad_request(f"`{key}` of the request holds something else than text")
    return text
