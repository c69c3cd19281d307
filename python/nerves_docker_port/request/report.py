"""The arguments of `mix nerves_docker_port.report`: which build, and in which form."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nerves_docker_port import errors
from nerves_docker_port.port.wire import Atom, Term


@dataclass(frozen=True)
class ReportRequest:
    """The arguments of ``:report``, and of the command ``report``."""

    where: Path
    """A journal, a directory of journals, or a directory that contains such directories: a package's directory, or one
    in its ``.nerves``."""
    build: str = ""
    """The id of a build or the beginning of the id. It is empty for the latest build."""
    html: Path | None = None
    """The path of the page to write, or ``None`` for no page."""
    as_json: bool = False
    only_list: bool = False


def from_args(args: Mapping[Term, Term]) -> ReportRequest:
    """Return the request that ``args`` describe (docs/protocol.md).

    Raises ``RunnerError`` with the code ``:bad_request``.
    """
    cwd, where = _text(args, "cwd") or ".", _text(args, "where")
    names = args.get(Atom("names"))
    if not where and isinstance(names, dict):
        # The build paths of the package's other versions are in the same directory.
        where = posixpath.dirname(_text(names, "build_path"))
    html = _text(args, "html")
    as_json, only_list = (args.get(Atom(key)) is True for key in ("json", "list"))
    return ReportRequest(Path(cwd, where), _text(args, "build"), Path(cwd, html) if html else None, as_json, only_list)


def _text(args: Mapping[Term, Term], key: str) -> str:
    value = args.get(Atom(key))
    if value is not None and not isinstance(value, str):
        raise errors.bad_request(f"`{key}` of the request is not a text")
    return value or ""
