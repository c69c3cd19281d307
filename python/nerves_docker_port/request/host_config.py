"""The setting ``host_config``: fields of the container's ``HostConfig`` that have no setting of their own.

The result has plain JSON values that can be merged into the container's ``HostConfig``. The fields are those of the
Engine API 1.57 (https://docs.docker.com/reference/api/engine/version/v1.57/schemas/HostConfig/). Any other field is
refused, because an engine ignores an unknown field, and nobody would notice a spelling mistake.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from nerves_docker_port import errors
from nerves_docker_port.port.wire import Term
from nerves_docker_port.request import terms


class WrongError(ValueError):
    """A field cannot have this value. ``wanted`` says which values it can have; ``given`` is the wrong part."""

    def __init__(self, wanted: str, given: Term) -> None:
        super().__init__(wanted)
        self.wanted = wanted
        self.given = given


def read(term: Term, where: str, own_target: Callable[[str], str | None]) -> dict[str, object]:
    """Return the fields of ``term``, a map or a keyword list, by the engine's names.

    ``where`` is the name of the setting, for errors. ``own_target`` gets an absolute path in the container, and returns
    the path of the runner that conflicts with it, or ``None``.
    A name can be written as in the engine's API (``ShmSize``) or as in Elixir (``shm_size``). An engine also accepts
    ``memory`` for ``Memory`` (Go's encoding/json: "preferring exact matches but also accepting case-insensitive
    matches"), so a field of the runner is refused in every spelling.
    Raises ``RunnerError`` with the code ``:bad_request``.
    """
    pairs = terms.pairs(term)
    if pairs is None:
        raise errors.wrong_setting(where, terms.inspect(term), "a map of names and values", f"host_config: {EXAMPLE}")
    found: dict[str, object] = {}
    for name, value in pairs:
        field = _NAMES.get(_plain(name))
        if field is None:
            raise errors.unknown_setting(name, where, sorted(_READERS), errors.nearest(name, _NAMES.values()))
        if field in errors.HOST_CONFIG_OF_THE_RUNNER:
            raise errors.host_config_refused(field, where)
        if value is None:
            continue
        try:
            read = _READERS[field](value)
            if field == "Tmpfs":
                _check_targets(value, own_target)
        except WrongError as error:
            raise errors.wrong_setting(
                f"{field} in {where}", terms.inspect(error.given), error.wanted, _EXAMPLES.get(field, EXAMPLE)
            ) from error
        found.setdefault(field, read)
    return found


EXAMPLE: Final = '%{"ShmSize" => "2G"}'


def addresses(items: Iterable[Term]) -> list[str]:
    """Return the addresses of DNS servers, given as texts or as Erlang's tuples. Raises ``WrongError``."""
    import ipaddress

    found = []
    for item in items:
        text = _erlang_address(item) if isinstance(item, tuple) else terms.text(item)
        try:
            address = ipaddress.ip_address((text or "").strip())
        except ValueError as error:
            raise WrongError("IP addresses of DNS servers", item) from error
        # The engine refuses an address with a zone (`fe80::1%eth0`).
        if "%" in str(address):
            raise WrongError("IP addresses of DNS servers", item)
        found.append(str(address))
    return found


def hosts(items: Iterable[Term]) -> list[str]:
    """Return entries for ``/etc/hosts`` in the form of ``docker run --add-host``.

    An item is ``NAME:ADDRESS``, ``NAME=ADDRESS`` or ``{name, address}``. The address ``host-gateway`` means the
    engine's own host. Raises ``WrongError``.
    """
    found = []
    for item in items:
        if isinstance(item, tuple) and len(item) == 2:
            name, address = terms.word(item[0]), item[1]
        else:
            text = terms.text(item) or ""
            name, _, address = text.partition("=") if "=" in text else text.partition(":")
        if terms.word(address) == "host-gateway":
            text = "host-gateway"
        else:
            try:
                bare = terms.text(address)
                text = addresses([re.sub(r"^\[(.*)\]$", r"\1", bare.strip()) if bare is not None else address])[0]
            except WrongError:
                text = ""
        if not text or name is None or not re.fullmatch(r"[A-Za-z0-9_.-]+", name.strip()):
            raise WrongError("HOST:ADDRESS, the address being an IP address or host-gateway", item)
        found.append(f"{name.strip()}:{text}")
    return found


def _erlang_address(parts: tuple[Term, ...]) -> str:
    """Return the text of an Erlang address of four or eight numbers (``:inet.ip_address/0``), or an empty string."""
    numbers = [part for part in parts if type(part) is int and 0 <= part < 2**16]
    if len(numbers) != len(parts):
        return ""
    return {4: ".".join(map(str, numbers)), 8: ":".join(f"{number:x}" for number in numbers)}.get(len(parts), "")


def _check_targets(term: Term, own_target: Callable[[str], str | None]) -> None:
    for target, _ in terms.pairs(term) or []:
        if not target.startswith("/"):
            raise WrongError("absolute paths in the container, and mount options for each", target)
        own = own_target("/" + posixpath.normpath(target).lstrip("/"))
        if own is not None:
            raise WrongError(f"another target: the container has something of its own at {own}", target)


# --- readers: each returns a plain JSON value or raises WrongError -------------------------------------------------


def _text(term: Term) -> str:
    text = terms.word(term)
    if text is None or "\0" in text:
        raise WrongError("a text", term)
    return text


def _integer(term: Term) -> int:
    if type(term) is not int or not -(2**63) <= term < 2**63:
        raise WrongError("an integer", term)
    return term


def _bytes(term: Term) -> int:
    size = terms.size(term)
    if size is None:
        raise WrongError('a size such as "2G", or a number of bytes', term)
    return size


def _boolean(term: Term) -> bool:
    if not isinstance(term, bool):
        raise WrongError("true or false", term)
    return term


def _items(term: Term) -> list[Term]:
    # A single text means a list with this text, although a charlist is a list of characters.
    if terms.word(term):
        return [term]
    if not isinstance(term, list):
        raise WrongError("a list", term)
    return term


def _texts(term: Term) -> list[str]:
    return [_text(item) for item in _items(term)]


def _texts_by_name(term: Term) -> dict[str, str]:
    pairs = terms.pairs(term)
    if pairs is None:
        raise WrongError("a map of texts", term)
    # The engine wants the values of sysctls and storage options as texts, even if they are numbers.
    return {name: str(value) if type(value) is int else _text(value) for name, value in pairs}


def _objects(term: Term) -> list[object]:
    found = [_json(item) for item in _items([term] if isinstance(term, dict) else term)]
    if not all(isinstance(item, dict) for item in found):
        raise WrongError("a list of maps", term)
    return found


def _object(term: Term) -> object:
    found = _json(term)
    if not isinstance(found, dict):
        raise WrongError("a map", term)
    return found


def _json(term: Term) -> object:
    """Return any term as JSON. A list of integers counts as a charlist, because no such field is a list of integers."""
    if term is None or isinstance(term, bool | int | float):
        return term
    text = terms.word(term)
    if text is not None and term != []:
        return text
    if isinstance(term, dict) or (isinstance(term, list) and term and all(isinstance(item, tuple) for item in term)):
        pairs = terms.pairs(term)
        if pairs is None:
            raise WrongError("texts or atoms as names", term)
        return {name: _json(value) for name, value in pairs}
    if isinstance(term, list):
        return [_json(item) for item in term]
    raise WrongError("texts, numbers, booleans, lists and maps", term)


_READERS: Final[Mapping[str, Callable[[Term], object]]] = {
    "Annotations": _texts_by_name,
    "BlkioDeviceReadBps": _objects,
    "BlkioDeviceReadIOps": _objects,
    "BlkioDeviceWriteBps": _objects,
    "BlkioDeviceWriteIOps": _objects,
    "BlkioWeight": _integer,
    "BlkioWeightDevice": _objects,
    "CapAdd": _texts,
    "CapDrop": _texts,
    "CgroupParent": _text,
    "CpuRealtimePeriod": _integer,
    "CpuRealtimeRuntime": _integer,
    "CpuShares": _integer,
    "CpusetCpus": _text,
    "CpusetMems": _text,
    "DeviceCgroupRules": _texts,
    "DeviceRequests": _objects,
    "Devices": _objects,
    "Dns": lambda term: addresses([term] if isinstance(term, tuple) else _items(term)),
    "DnsOptions": _texts,
    "DnsSearch": _texts,
    "ExtraHosts": lambda term: hosts(term.items() if isinstance(term, dict) else _items(term)),
    "IpcMode": _text,
    "KernelMemoryTCP": _bytes,
    "Links": _texts,
    "MaskedPaths": _texts,
    "MemoryReservation": _bytes,
    "MemorySwappiness": _integer,
    "OomScoreAdj": _integer,
    "PidsLimit": _integer,
    "PortBindings": _object,
    "Privileged": _boolean,
    "PublishAllPorts": _boolean,
    "ReadonlyPaths": _texts,
    "Runtime": _text,
    "SecurityOpt": _texts,
    "ShmSize": _bytes,
    "StorageOpt": _texts_by_name,
    "Sysctls": _texts_by_name,
    "Tmpfs": _texts_by_name,
    "UTSMode": _text,
    "Ulimits": _objects,
}

_EXAMPLES: Final = {
    "Dns": '%{"Dns" => ["10.0.0.1"]}',
    "ExtraHosts": '%{"ExtraHosts" => ["mirror:10.0.0.2"]}',
    "Tmpfs": '%{"Tmpfs" => %{"/scratch" => "size=4g"}}',
    "Ulimits": '%{"Ulimits" => [%{"Name" => "nofile", "Soft" => 65536, "Hard" => 65536}]}',
}


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


_NAMES: Final = {_plain(field): field for field in (*_READERS, *errors.HOST_CONFIG_OF_THE_RUNNER)}
