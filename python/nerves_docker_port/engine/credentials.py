"""Registry credentials as Docker keeps them: ``config.json`` with ``auths``, ``credsStore`` and ``credHelpers``.

Found with the SDK, which knows the file's place and its formats, but lets one stale helper fail every pull, public ones
included. Here a helper that fails is told apart, so that the caller can go on without credentials.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import Any

import docker.errors
from docker import auth
from docker.credentials.errors import StoreError
from docker.utils import config, parse_repository_tag

from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine import transfer
from nerves_docker_port.engine.client import Engine

HELPER_TIMEOUT = 60
"""Seconds that a credential helper has: time enough to type a passphrase, where it has somebody to ask."""


class BrokenError(Exception):
    """The credentials could not be read; the text says why."""


def registry_of(tag: str) -> str:
    """The registry's host of an image's tag, ``docker.io`` where it names none. Raises ``ValueError``."""
    try:
        host, _name = auth.resolve_repository_name(parse_repository_tag(tag)[0])
    except docker.errors.DockerException as error:
        raise ValueError(str(error)) from error
    return str(host)


def for_registry(engine: Engine, registry: str, cancellation: Cancellation) -> Mapping[str, Any] | None:
    """What Docker has kept for ``registry``, or ``None``. Raises ``BrokenError``."""
    found: Mapping[str, Any] | None = _ask(engine, lambda kept: kept.resolve_authconfig(registry), cancellation)
    return found or None


def for_all(engine: Engine, cancellation: Cancellation) -> Mapping[str, Any]:
    """What Docker has kept for every registry: a build may use any of them. Raises ``BrokenError``."""
    found: Mapping[str, Any] = _ask(engine, lambda kept: kept.get_all_credentials(), cancellation)
    found = {registry: entry for registry, entry in found.items() if entry}
    if auth.INDEX_NAME in found:
        # The engine looks Docker Hub's up under its old address only (docker-py #1683).
        found.setdefault(auth.INDEX_URL, found[auth.INDEX_NAME])
    return found


def header(credentials: Mapping[str, Any]) -> str:
    """The value of the engine's ``X-Registry-Auth`` or ``X-Registry-Config`` header."""
    return auth.encode_header(dict(credentials)).decode()


def config_file() -> str:
    """Where the credentials are kept, for messages."""
    return str(config.find_config_file() or "~/.docker/config.json")


def _ask(engine: Engine, question: Any, cancellation: Cancellation) -> Any:
    kept: auth.AuthConfig = engine.api._auth_configs  # type: ignore[attr-defined]  # noqa: SLF001

    def ask() -> Any:
        with warnings.catch_warnings():
            # A helper that is not installed is a warning of the SDK's on standard error, and then an exception.
            warnings.simplefilter("ignore")
            return question(kept)

    try:
        return transfer.within(HELPER_TIMEOUT, ask, cancellation)
    except (docker.errors.DockerException, StoreError, OSError, ValueError, LookupError, TypeError) as error:
        raise BrokenError(_words(error)) from error


def _words(error: Exception) -> str:
    """The SDK says `Credentials store error: StoreError('...')`; a helper's answer may be no JSON at all."""
    if isinstance(error, (json.JSONDecodeError, LookupError, TypeError)):
        return "the helper's answer makes no sense"
    wrapped = error.__cause__ if isinstance(error, docker.errors.DockerException) else None
    # What the helper printed is quoted, with its newline.
    return str(wrapped or error).replace("\n", " ").replace(' ".', '".').strip()
