"""The arguments of `mix nerves_docker_port.volumes`: which build volumes, and whether to remove them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nerves_docker_port import errors
from nerves_docker_port.port.wire import Atom, Term


@dataclass(frozen=True)
class VolumesRequest:
    """The arguments of ``:volumes`` that are not about a package (docs/protocol.md)."""

    everybody: bool = False
    """Whether the volumes of all packages are wanted, and not only those of the request's package."""
    remove: bool = False
    yes: bool = False
    """Whether volumes are removed without a question."""
    names: tuple[str, ...] = ()
    """The volumes to remove. Without names, the volumes whose packages are gone are removed."""


def from_args(args: Mapping[Term, Term]) -> VolumesRequest:
    """Return the request that ``args`` describe. A missing argument counts as false.

    Raises ``RunnerError`` with the code ``:bad_request``.
    """
    names = args.get(Atom("volumes"), [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise errors.bad_request("`volumes` of the request is not a list of names")
    everybody, remove, yes = (args.get(Atom(key)) is True for key in ("all", "prune", "yes"))
    return VolumesRequest(everybody, remove, yes, tuple(str(name) for name in names))
