"""Registry credentials as the docker CLI keeps them: ``auths``, ``credsStore`` and ``credHelpers`` of ``config.json``.

Each registry by itself, by the CLI's rules (docker/cli, cli/config/configfile/file.go and cli/config/credentials): what
is broken for one registry takes nothing from the others. A helper that fails is told apart, so that the caller can go
on without credentials.
"""

from __future__ import annotations

import base64
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from docker.credentials import CredentialsNotFound, Store, StoreError

from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine import transfer
from nerves_docker_port.engine.client import Engine
from nerves_docker_port.engine.config_file import ConfigFile

HELPER_TIMEOUT = 60
"""Seconds that a credential helper has: time enough to type a passphrase, where it has somebody to ask."""

DOCKER_HUB = "docker.io"

_HUB_KEY = "https://index.docker.io/v1/"
"""Under this name Docker Hub's credentials are kept and looked up, by the CLI as by the engine (docker-py #1683)."""

_TOKEN = "<token>"  # not a password, but the user name that says that what is kept is an identity token

T = TypeVar("T")


class BrokenError(Exception):
    """The credentials could not be read; the text says why."""


@dataclass(frozen=True)
class Kept:
    """What is kept for every registry."""

    credentials: Mapping[str, Mapping[str, str]]
    problems: tuple[str, ...]
    """What could not be read; each names the registry or the helper."""


def for_registry(engine: Engine, registry: str, cancellation: Cancellation) -> Mapping[str, str] | None:
    """What is kept for the host ``registry`` (Docker Hub: ``docker.io``), or ``None``. Raises ``BrokenError``."""
    config = engine.endpoint.config
    key = _HUB_KEY if registry in (DOCKER_HUB, "index.docker.io") else registry
    helper = config.credential_helpers.get(key, _default_store(config))
    return _from(helper, config, key, cancellation) or None


def for_all(engine: Engine, cancellation: Cancellation) -> Kept:
    """What is kept for every registry: a build may use any of them."""
    config = engine.endpoint.config
    store = _default_store(config)
    helpers = dict.fromkeys(config.auths, "")
    problems = []
    if store:
        try:
            helpers = dict.fromkeys(_ask(store, lambda kept: dict(kept.list()), cancellation), store)
        except BrokenError as error:
            problems.append(str(error))
    found = {}
    for registry, helper in {**helpers, **config.credential_helpers}.items():
        try:
            credentials = _from(helper, config, registry, cancellation)
        except BrokenError as error:
            problems.append(f"{registry}: {error}")
            continue
        if credentials:
            found[registry] = credentials
    return Kept(found, tuple(problems))


def header(credentials: Mapping[str, Any]) -> str:
    """The value of the engine's ``X-Registry-Auth`` or ``X-Registry-Config`` header."""
    return base64.urlsafe_b64encode(json.dumps(dict(credentials)).encode()).decode()


def _from(helper: str, config: ConfigFile, key: str, cancellation: Cancellation) -> Mapping[str, str]:
    """What a helper, or with an empty name the file, has for a registry; nothing where it has nothing."""
    kept = _in_file(config, key)
    if not helper:
        return kept
    try:
        answer = _ask(helper, lambda store: store.get(key), cancellation)
        name, secret = str(answer["Username"]), str(answer["Secret"])
    except CredentialsNotFound:
        return {}
    except (LookupError, TypeError) as error:
        raise BrokenError(_NONSENSE) from error
    what = {"identitytoken": secret} if name == _TOKEN else {"username": name, "password": secret}
    return {**kept, **what, "serveraddress": key}


def _in_file(config: ConfigFile, key: str) -> Mapping[str, str]:
    # Old versions of Docker wrote URLs.
    written = key if key in config.auths else next((each for each in config.auths if _host(each) == key), None)
    kept = config.auths[written] if written is not None else {}
    return {**kept, "serveraddress": written} if written is not None and kept else {}


def _host(written: str) -> str:
    return written.partition("://")[2].partition("/")[0] if "://" in written else written.partition("/")[0]


def _default_store(config: ConfigFile) -> str:
    """The helper for all that has none of its own; empty for the file.

    Where nothing at all is configured, the CLI takes the platform's own store if its helper is installed
    (docker/cli, cli/config/credentials/default_store*.go).
    """
    if config.credentials_store or config.credential_helpers or config.auths:
        return config.credentials_store
    if sys.platform == "darwin":
        store = "osxkeychain"
    else:
        store = "pass" if shutil.which("pass") else "secretservice"
    return store if shutil.which(f"docker-credential-{store}") else ""


_NONSENSE = "the helper's answer makes no sense"


def _ask(helper: str, question: Callable[[Store], T], cancellation: Cancellation) -> T:
    """The helper's answer. Raises ``BrokenError``, and ``CredentialsNotFound`` where it has none."""
    program = f"docker-credential-{helper}"
    # The SDK would put a warning of the library's on the terminal.
    if shutil.which(program) is None:
        raise BrokenError(f"{program} not installed or not available in PATH")
    try:
        return transfer.within(HELPER_TIMEOUT, lambda: question(Store(helper)), cancellation)
    except CredentialsNotFound:
        raise
    except StoreError as error:
        # What the helper printed is quoted, with its newline.
        raise BrokenError(str(error).replace("\n", " ").replace(' ".', '".').strip()) from error
    except (ValueError, LookupError, TypeError) as error:
        raise BrokenError(_NONSENSE) from error
    except OSError as error:
        raise BrokenError(f"{program}: {error}") from error
