"""What `mix nerves_docker_port.volumes` asks for: which build volumes, and what is to become of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nerves_docker_port import errors
from nerves_docker_port.port.wire import Atom, Term


@dataclass(frozen=True)
class VolumesRequest:
    """The arguments of ``:volumes`` that are not about a package (docs/protocol.md)."""

    everybody: bool = False
    """Those of all packages, not only those of the request's."""
    remove: bool = False
    yes: bool = False
    """Remove without asking."""
    names: tuple[str, ...] = ()
    """The volumes to remove. If there are none, those whose packages are gone."""


def from_args(args: Mapping[Term, Term]) -> VolumesRequest:
    """The request that ``args`` describe; what is absent counts as no. Raises ``RunnerError`` ``:bad_request``."""
    names = args.get(Atom("volumes"), [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise errors.bad_request("`volumes` of the request is not a list of names")
    everybody, remove, yes = (args.get(Atom(key)) is True for key in ("all", "prune", "yes"))
    return VolumesRequest(everybody, remove, yes, tuple(str(name) for name in names))
