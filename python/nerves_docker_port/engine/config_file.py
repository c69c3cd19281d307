"""Reads the docker CLI's configuration, ``config.json``, as the CLI reads it. An error in it never stops a build.

The CLI decodes the file with Go's ``encoding/json`` (docker/cli, cli/config/configfile/file.go), which differs from
Python's ``json``. It ignores the case of names. It treats ``null`` like a missing key. It ignores the text after the
first value. A value of the wrong type is ignored without an effect on other values. This module does the same. For each
value that it cannot understand, it makes a warning with the name of the key.
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
"""The variables of a container, and their keys in ``proxies`` (docker/cli, ``ConfigFile.ParseProxyConfig``)."""

_KEYS = ("currentContext", "auths", "credsStore", "credHelpers", "proxies", "HttpHeaders", "aliases")
_ACCOUNT = ("username", "password", "auth", "email", "identitytoken", "registrytoken")

# The name of a header is a token of RFC 9110 (5.6.2). Its value must not contain a control character (5.5).
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")


@dataclass(frozen=True)
class ConfigFile:
    """The content of ``config.json`` that this package uses. Every value has its declared type."""

    directory: Path
    """The CLI's configuration directory, which also contains the contexts and the default certificates."""
    current_context: str = ""
    auths: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """For each registry ``username``, ``password``, ``identitytoken``, ``registrytoken`` and ``email``, if known."""
    credentials_store: str = ""
    credential_helpers: Mapping[str, str] = field(default_factory=dict)
    """For each registry the suffix of its ``docker-credential-...``. An empty suffix means the file itself."""
    proxies: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    http_headers: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    content: Mapping[str, Any] = field(default_factory=dict)
    """The whole content of the file, unchanged, so that a copy can be made."""
    warnings: tuple[str, ...] = ()
    """The warnings for the user about values that cannot be understood."""

    @property
    def path(self) -> Path:
        """The path of the file, for messages. The file may not exist."""
        return self.directory / "config.json"

    def proxy_environment(self, engine: str, given: Iterable[str] = ()) -> dict[str, str]:
        """Return the proxy variables of a container, or the build arguments of an image, for the engine at ``engine``.

        ``engine`` is the endpoint in the form of the CLI (``unix:///var/run/docker.sock``). An entry for it has
        priority over the entry ``default``. The names in ``given`` are left out. Each variable comes in upper and lower
        case, as in ``docker run`` (https://docs.docker.com/engine/cli/proxy/, docker/cli
        ``ConfigFile.ParseProxyConfig``).
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
    """Return the content of ``config.json`` in the CLI's configuration directory. A missing file counts as empty."""
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
    """Return the value of a text that is exactly one JSON value, by Go's rules. Raises ``ValueError``."""
    value, end = _decode(text)
    if text[end:].strip(" \t\r\n"):
        raise ValueError("something follows the JSON value")
    return value


class _Object(dict[str, Any]):
    """A JSON object that also has its fields as pairs, because a name can occur several times."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


def field_of(value: Mapping[str, Any], name: str) -> Any:
    """Return a field of a JSON object by Go's rule: the last one that is not ``null``, with the name in any case.

    If the name occurs twice, two objects are merged into one, and a ``null`` discards an object before it. A number or
    a list replaces only a value of its own type.
    """
    found: Any = None
    for key, item in value.pairs if isinstance(value, _Object) else value.items():
        if key.lower() != name.lower():
            continue
        if item is None:
            found = None if isinstance(found, dict) else found
        elif isinstance(found, dict) and isinstance(item, dict):
            found = {**found, **item}
        elif found is None or isinstance(item, (str, dict, type(found))):
            found = item
    return found


def whole_text(text: str) -> str:
    """Return a JSON string by Go's rule: a lone surrogate becomes the replacement character."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def is_header(name: str, value: str) -> bool:
    """Return whether the name and the value can be sent as an HTTP header."""
    return bool(_HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value))


def _first_value(text: str) -> Any:
    if not text.strip(" \t\r\n"):
        return None
    return _decode(text)[0]


def _decode(text: str) -> tuple[Any, int]:
    def constant(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    # A number with thousands of digits would be an error in Python, but not in Go. So numbers are read as floats, which
    # is enough because no number is used.
    decoder = json.JSONDecoder(parse_constant=constant, parse_int=float, object_pairs_hook=_Object)
    start = len(text) - len(text.lstrip(" \t\r\n"))
    return decoder.raw_decode(text, start)


class _Reader:
    """Reads values, and keeps a warning for each value of the wrong type."""

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
        """Return the named fields of an object, without those that are absent or ``null``."""
        if value is not None and not isinstance(value, dict):
            self.warn(where, "is not an object")
        if not isinstance(value, dict):
            return {}
        found = {name: field_of(value, name) for name in names}
        return {name: item for name, item in found.items() if item is not None}

    def each(self, key: str, value: Any, read: Callable[[str, Any], Any]) -> dict[str, Any]:
        """Return an object whose keys are chosen by the user, with each value read by ``read``."""
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
    """Return the user name and the password in ``auth``, which is Base64 with a colon between them."""
    try:
        text = base64.b64decode(re.sub(r"[\r\n]", "", coded), validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        raise ValueError("is not Base64") from None
    username, colon, password = text.partition(":")
    if not colon or not username:
        raise ValueError("does not hold a user name and a password")
    return username, password.strip("\0")
