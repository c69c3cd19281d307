"""A compile cache that a team shares, which is a remote storage of ccache. This module parses its address.

ccache's manual describes the addresses and their attributes (https://ccache.dev/manual/4.7.5.html, "Remote storage
backends"). The ccache of Buildroot (host-ccache) and of Debian has Redis and HTTP, both without TLS.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, unquote, urlsplit

ALLOWED: Final = "redis://HOST[:PORT][/DATABASE] or http://HOST[:PORT][/PATH]"
"""The possible forms of an address, for messages."""

_PORTS: Final = {"redis": 6379, "http": 80}

_TIMEOUTS: Final = {"connect-timeout": "250", "operation-timeout": "500"}
"""Milliseconds. ccache's defaults are 100 and 10,000, so a store that hangs would cost ten seconds per compilation."""

_SECRET: Final = ("bearer-token", "header")
"""The attributes that can contain a secret."""


class AddressError(ValueError):
    """The address cannot be used. The text says what is allowed, completes "... is wanted", and contains no secret."""


@dataclass(frozen=True)
class RemoteCache:
    """A remote storage of ccache's."""

    address: str
    """The address for messages, without user, password and attributes."""
    host: str
    port: int
    storage: str = field(repr=False)
    """The value of ccache's ``remote_storage``, with the password."""
    question: bytes = field(repr=False)
    """The request that is sent to the store to find out whether it can be used, with the password."""
    answers: int
    """The number of lines of the answer to check."""
    good: str
    """A POSIX extended regular expression that matches each of these lines if the store can be used."""


def parse(text: str, *, password: str | None, may_have_secrets: bool, read_only: bool) -> RemoteCache:
    """Return the remote cache at the address ``text``. Raises ``AddressError``.

    ``password`` has priority over a password in the address. If an HTTP address has no user, it is a bearer token.
    """
    address, *given = text.strip().split("|")
    # A list, because `header` may be there more than once.
    attributes = [(name, value) for name, _, value in (item.partition("=") for item in given)]
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise AddressError(ALLOWED) from error
    scheme, host = parts.scheme, parts.hostname
    if scheme not in _PORTS or not host or parts.query or parts.fragment or re.search(r"[\s\x00-\x1f]", text.strip()):
        raise AddressError(ALLOWED)
    if "@" in parts.path or not all(re.fullmatch("@?[a-z-]+", name) for name, _ in attributes):
        # With such a character in it, a part of the password would be parsed as the host, and the host is shown.
        raise AddressError(f"{ALLOWED}, with each / | ? and # of a password written as %2F %7C %3F and %23")
    user, secret = unquote(parts.username or ""), parts.password and unquote(parts.password)
    if scheme == "redis" and user and parts.password is None and password is None:
        # For Redis, ccache also accepts the form `redis://PASSWORD@HOST`.
        user, secret = "", user
    if not may_have_secrets and (secret or any(name.lstrip("@") in _SECRET for name, _ in attributes)):
        raise AddressError(
            "an address without a password or token, because a configuration is no place for it: set the variable "
            "NERVES_DOCKER_CCACHE_PASSWORD"
        )
    secret = secret if password is None else password
    if scheme == "http" and user and not secret:
        raise AddressError("an address without a user, or the user's password in NERVES_DOCKER_CCACHE_PASSWORD")
    if scheme == "redis" and not re.fullmatch(r"(/[0-9]*)?", parts.path):
        raise AddressError(f"{ALLOWED}, the database being a number")
    if scheme == "http" and secret and not user:
        attributes = [*_without(attributes, "bearer-token"), ("bearer-token", _quoted(secret))]
        secret = None
    if secret and ":" in secret and not user:
        # ccache would treat the text before the colon as a user. Redis 6 uses the user `default` if there is none.
        user = "default"
    if read_only:
        attributes = [*_without(attributes, "read-only"), ("read-only", "true")]
    names = [name for name, _ in attributes]
    attributes = [*((name, value) for name, value in _TIMEOUTS.items() if name not in names), *attributes]
    bare = f"[{host}]" if ":" in host else host
    place = bare if port is None else f"{bare}:{port}"
    where = f"{place}{parts.path}"
    login = "".join(f"{_quoted(word)}{mark}" for word, mark in ((user, ":"), (secret, "@")) if word)
    words = [f"{name}={value}" if value else name for name, value in attributes]
    ask = _ask_redis if scheme == "redis" else _ask_http
    question, answers, good = ask(place, parts.path, user, secret, attributes)
    return RemoteCache(
        address=f"{scheme}://{where}",
        host=host,
        port=_PORTS[scheme] if port is None else port,
        storage="|".join([f"{scheme}://{login}{where}", *words]),
        question=question,
        answers=answers,
        good=good,
    )


def _without(attributes: Iterable[tuple[str, str]], unwanted: str) -> list[tuple[str, str]]:
    return [(name, value) for name, value in attributes if name != unwanted]


def _quoted(text: str) -> str:
    """Return a text quoted for an address. Blanks, ``|`` and ``$`` also have a meaning in ccache's configuration."""
    return quote(text, safe="")


_Attributes = Iterable[tuple[str, str]]
_Question = tuple[bytes, int, str]


def _ask_redis(_place: str, path: str, user: str, password: str | None, _attributes: _Attributes) -> _Question:
    # A command is an array of bulk strings, and an error begins with `-`
    # (https://redis.io/docs/latest/develop/reference/protocol-spec/).
    commands = [["PING"]]
    if path.strip("/"):
        commands.insert(0, ["SELECT", path.strip("/")])
    if password:
        commands.insert(0, ["AUTH", *([user] if user else []), password])
    return b"".join(map(_resp, commands)), len(commands), r"^\+"


def _resp(words: list[str]) -> bytes:
    packed = [b"$%d\r\n%b\r\n" % (len(word.encode()), word.encode()) for word in words]
    return b"*%d\r\n%b" % (len(words), b"".join(packed))


def _ask_http(place: str, path: str, user: str, password: str | None, attributes: _Attributes) -> _Question:
    # No compilation result has this key, so a store that can be used answers that it does not exist.
    lines = [f"GET {path.rstrip('/')}/00/nerves-docker-port HTTP/1.1", f"Host: {place}", "Connection: close"]
    if password:
        lines.append("Authorization: Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())
    for name, value in attributes:
        if name.lstrip("@") == "bearer-token":
            lines.append(f"Authorization: Bearer {unquote(value)}")
        elif name.lstrip("@") == "header":
            header, _, text = unquote(value).partition("=")
            lines.append(f"{header}: {text}")
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode(), 1, r"^HTTP/[0-9.]+ (2[0-9][0-9]|404)"
