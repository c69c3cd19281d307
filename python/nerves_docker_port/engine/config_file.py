"""The docker CLI's configuration, ``config.json``: read as the CLI reads it, and never in the way of a build.

The CLI decodes the file with Go's ``encoding/json`` (docker/cli, cli/config/configfile/file.go). That differs from
Python's ``json``: names are matched in any case, ``null`` is as if the key were not there, what stands behind the first
value is not looked at, and a value of the wrong kind loses that value alone. All of this is done here, too. What cannot
be understood becomes a warning that names the key.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PROXIES = {
    "HTTP_PROXY": "httpProxy",
    "HTTPS_PROXY": "httpsProxy",
    "NO_PROXY": "noProxy",
    "FTP_PROXY": "ftpProxy",
    "ALL_PROXY": "allProxy",
}
"""The variables that a container gets, and their keys in ``proxies`` (docker/cli, ``ConfigFile.ParseProxyConfig``)."""

_KEYS = ("currentContext", "auths", "credsStore", "credHelpers", "proxies", "HttpHeaders", "aliases")
_ACCOUNT = ("username", "password", "auth", "email", "identitytoken", "registrytoken")

# A header's name is a token of RFC 9110 (5.6.2); its value must not end the header.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


@dataclass(frozen=True)
class ConfigFile:
    """What ``config.json`` says, as far as we use it. Every value has the type that it is declared with."""

    directory: Path
    """The CLI's configuration directory; contexts and default certificates are in it, too."""
    current_context: str = ""
    auths: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """What is kept for each registry: ``username``, ``password``, ``identitytoken``, ``registrytoken``, ``email``."""
    credentials_store: str = ""
    credential_helpers: Mapping[str, str] = field(default_factory=dict)
    """A registry and the suffix of its ``docker-credential-...``; an empty suffix means the file itself."""
    proxies: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    http_headers: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    content: Mapping[str, Any] = field(default_factory=dict)
    """All of it as it was found, to make a copy of."""
    warnings: tuple[str, ...] = ()
    """What could not be understood, for the person."""

    @property
    def path(self) -> Path:
        """The file itself, for messages; it need not exist."""
        return self.directory / "config.json"

    def proxy_environment(self, engine: str, given: Iterable[str] = ()) -> dict[str, str]:
        """The proxy variables of a container, or the build arguments of an image, for the engine at that endpoint.

        ``engine`` is the endpoint as the CLI writes it (``unix:///var/run/docker.sock``); an entry for it goes before
        the entry ``default``. Names that are ``given`` already stay as they are. Each variable comes in upper and in
        lower case, as from ``docker run``
        (https://docs.docker.com/engine/cli/proxy/, docker/cli ``ConfigFile.ParseProxyConfig``).
        """
        taken = set(given)
        proxies = self.proxies.get(engine, self.proxies.get("default", {}))
        found = {}
        for variable, key in _PROXIES.items():
            for name in (variable, variable.lower()):
                if proxies.get(key) and name not in taken:
                    found[name] = proxies[key]
        return found


def load(directory: Path) -> ConfigFile:
    """Read ``config.json`` in the CLI's configuration directory. No file is an empty one."""
    path = directory / "config.json"
    try:
        text = path.read_bytes().decode("utf-8", "replace")
    except (FileNotFoundError, NotADirectoryError):
        return ConfigFile(directory)
    except OSError as error:
        return ConfigFile(directory, warnings=(f"{path} cannot be read and is ignored: {error.strerror}.",))
    reader = _Reader(path)
    try:
        content = _first_value(text)
    except (ValueError, RecursionError) as error:
        reader.warn("", f"is not JSON ({error})")
        content = None
    keys = reader.fields("", content, _KEYS)
    return ConfigFile(
        directory,
        current_context=reader.text('"currentContext"', keys.get("currentContext")),
        auths=reader.each("auths", keys.get("auths"), reader.account),
        credentials_store=reader.text('"credsStore"', keys.get("credsStore")),
        credential_helpers=reader.each("credHelpers", keys.get("credHelpers"), reader.text),
        proxies=reader.each("proxies", keys.get("proxies"), reader.proxies),
        http_headers=reader.headers(keys.get("HttpHeaders")),
        aliases=reader.each("aliases", keys.get("aliases"), reader.text),
        content=content if isinstance(content, dict) else {},
        warnings=tuple(reader.warnings),
    )


def strict_json(text: str) -> Any:
    """The value of a text that is one JSON value and nothing else, by Go's rules. Raises ``ValueError``."""
    value, end = _decode(text)
    if text[end:].strip(" \t\r\n"):
        raise ValueError("something follows the JSON value")
    return value


class _Object(dict[str, Any]):
    """A JSON object that also knows its fields one by one: a name may stand in it several times."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__()
        self.pairs = pairs
        for name, value in pairs:
            if value is not None or name not in self:
                self[name] = value


def field_of(value: Mapping[str, Any], name: str) -> Any:
    """A field of a JSON object by Go's rule: its name in any case, the last one that is not ``null``.

    Where a name stands there twice, two objects become one; and a number or a list takes the place of nothing else.
    """
    found: Any = None
    for key, item in value.pairs if isinstance(value, _Object) else value.items():
        if key.lower() != name.lower() or item is None:
            continue
        if isinstance(found, dict) and isinstance(item, dict):
            found = {**found, **item}
        elif found is None or isinstance(item, (str, dict, type(found))):
            found = item
    return found


def whole_text(text: str) -> str:
    """A JSON string by Go's rule: half a surrogate pair is the replacement character."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def is_header(name: str, value: str) -> bool:
    """Whether both can be sent as an HTTP header."""
    return bool(_HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value))


def _first_value(text: str) -> Any:
    if not text.strip(" \t\r\n"):
        return None
    return _decode(text)[0]


def _decode(text: str) -> tuple[Any, int]:
    def constant(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    # No number is of use to us, and one of thousands of digits is an error of Python's, but not of Go's.
    decoder = json.JSONDecoder(parse_constant=constant, parse_int=float, object_pairs_hook=_Object)
    start = len(text) - len(text.lstrip(" \t\r\n"))
    return decoder.raw_decode(text, start)


class _Reader:
    """Takes what is of the right kind, and keeps a warning for each thing that is not."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.warnings: list[str] = []

    def warn(self, where: str, what: str) -> None:
        place = f"{where} in {self._path}" if where else str(self._path)
        self.warnings.append(f"{place} {what}; it is ignored.")

    def text(self, where: str, value: Any) -> str:
        if value is not None and not isinstance(value, str):
            self.warn(where, "is not a string")
        return whole_text(value) if isinstance(value, str) else ""

    def fields(self, where: str, value: Any, names: Iterable[str]) -> dict[str, Any]:
        """The named fields of an object; without those that are absent or ``null``."""
        if value is not None and not isinstance(value, dict):
            self.warn(where, "is not an object")
        if not isinstance(value, dict):
            return {}
        found = {name: field_of(value, name) for name in names}
        return {name: item for name, item in found.items() if item is not None}

    def each(self, key: str, value: Any, read: Callable[[str, Any], Any]) -> dict[str, Any]:
        """An object whose keys are names of the person's, each with a value of one kind."""
        if value is not None and not isinstance(value, dict):
            self.warn(f'"{key}"', "is not an object")
        if not isinstance(value, dict):
            return {}
        return {name: read(f'"{key}": "{name}"', item) for name, item in value.items()}

    def proxies(self, where: str, value: Any) -> dict[str, str]:
        found = self.fields(where, value, _PROXIES.values())
        return {key: self.text(f'{where}: "{key}"', item) for key, item in found.items()}

    def account(self, where: str, value: Any) -> dict[str, str]:
        found = {key: self.text(f'{where}: "{key}"', item) for key, item in self.fields(where, value, _ACCOUNT).items()}
        coded = found.pop("auth", "")
        if coded:
            try:
                found["username"], found["password"] = _decode_auth(coded)
            except ValueError as error:
                self.warn(f'{where}: "auth"', str(error))
        return {key: item for key, item in found.items() if item}

    def headers(self, value: Any) -> dict[str, str]:
        found = {}
        for name, text in self.each("HttpHeaders", value, self.text).items():
            if is_header(name, text):
                found[name] = text
            else:
                self.warn(f'"HttpHeaders": "{name}"', "cannot be sent as a header")
        return found


def _decode_auth(coded: str) -> tuple[str, str]:
    """User name and password of ``auth``: both in Base64, with a colon between them."""
    try:
        text = base64.b64decode(re.sub(r"[\r\n]", "", coded), validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        raise ValueError("is not Base64") from None
    username, colon, password = text.partition(":")
    if not colon or not username:
        raise ValueError("does not hold a user name and a password")
    return username, password.strip("\0")
