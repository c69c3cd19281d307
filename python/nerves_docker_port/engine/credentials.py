"""Reads registry credentials as the docker CLI does: ``auths``, ``credsStore`` and ``credHelpers`` of ``config.json``.

The rules are those of the CLI (docker/cli, cli/config/configfile/file.go and cli/config/credentials). Each registry is
read separately, so that an error for one registry does not affect the others. A credential helper that fails raises an
error of its own, so that the caller can go on without credentials.
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
"""Seconds that a credential helper may take. A helper that asks for a passphrase needs some of them."""

DOCKER_HUB = "docker.io"

_HUB_KEY = "https://index.docker.io/v1/"
"""The name under which the CLI and the engine keep the credentials of Docker Hub (docker-py #1683)."""

_TOKEN = "<token>"  # not a password, but the user name which says that the secret is an identity token

T = TypeVar("T")


class BrokenError(Exception):
    """The credentials cannot be read. The exception's text is the reason."""


@dataclass(frozen=True)
class AllCredentials:
    """The credentials of all registries."""

    credentials: Mapping[str, Mapping[str, str]]
    """The credentials of each registry."""
    problems: tuple[str, ...]
    """The errors, each with the name of the registry or of the credential helper."""


def for_registry(engine: Engine, registry: str, cancellation: Cancellation) -> Mapping[str, str] | None:
    """Return the credentials for the host ``registry`` (Docker Hub: ``docker.io``), or ``None``.

    Raises ``BrokenError`` if they cannot be read.
    """
    config = engine.endpoint.config
    key = _HUB_KEY if registry in (DOCKER_HUB, "index.docker.io") else registry
    helper = config.credential_helpers.get(key, _default_store(config))
    return _read(helper, config, key, cancellation) or None


def for_all(engine: Engine, cancellation: Cancellation) -> AllCredentials:
    """Return the credentials for every registry, because a build of an image can use any of them."""
    config = engine.endpoint.config
    store = _default_store(config)
    helpers = dict.fromkeys(config.auths, "")
    problems = []
    if store:
        try:
            helpers = dict.fromkeys(_ask_helper(store, lambda helper: dict(helper.list()), cancellation), store)
        except BrokenError as error:
            problems.append(str(error))
    found = {}
    for registry, helper in {**helpers, **config.credential_helpers}.items():
        try:
            credentials = _read(helper, config, registry, cancellation)
        except BrokenError as error:
            problems.append(f"{registry}: {error}")
            continue
        if credentials:
            found[registry] = credentials
    return AllCredentials(found, tuple(problems))


def header(credentials: Mapping[str, Any]) -> str:
    """Return the value of the engine's header ``X-Registry-Auth`` or ``X-Registry-Config``."""
    return base64.urlsafe_b64encode(json.dumps(dict(credentials)).encode()).decode()


def _read(helper: str, config: ConfigFile, key: str, cancellation: Cancellation) -> Mapping[str, str]:
    """Return a registry's credentials from ``helper``, or from the file if ``helper`` is empty.

    Return an empty mapping if there are none. Raises ``BrokenError``.
    """
    from_file = _read_file(config, key)
    if not helper:
        return from_file
    try:
        return _read_helper(helper, from_file, key, cancellation)
    except BrokenError:
        # The CLI also uses the file if the helper fails.
        if not from_file:
            raise
        return from_file


def _read_helper(helper: str, from_file: Mapping[str, str], key: str, cancellation: Cancellation) -> Mapping[str, str]:
    """Return a registry's credentials from ``helper``. Raises ``BrokenError``."""
    # The file's own user name, password and identity token do not count beside a helper.
    others = {name: value for name, value in from_file.items() if name not in ("username", "password", "identitytoken")}
    try:
        answer = _ask_helper(helper, lambda store: store.get(key), cancellation)
        name, secret = answer["Username"], answer["Secret"]
    except CredentialsNotFound:
        return others
    except (LookupError, TypeError) as error:
        raise BrokenError(_WRONG_ANSWER) from error
    if not isinstance(name, str) or not isinstance(secret, str):
        raise BrokenError(_WRONG_ANSWER)
    from_helper = {"identitytoken": secret} if name == _TOKEN else {"username": name, "password": secret}
    return {**others, **from_helper, "serveraddress": key}


def _read_file(config: ConfigFile, key: str) -> Mapping[str, str]:
    # Old versions of Docker wrote a URL instead of the host.
    name = key if key in config.auths else next((each for each in config.auths if _host(each) == key), None)
    found = config.auths[name] if name is not None else {}
    return {**found, "serveraddress": name} if name is not None and found else {}


def _host(name: str) -> str:
    return name.partition("://")[2].partition("/")[0] if "://" in name else name.partition("/")[0]


def _default_store(config: ConfigFile) -> str:
    """Return the credential helper for registries without a helper of their own, or an empty string for the file.

    If no credentials are configured at all, the CLI uses the platform's own store if its helper is installed
    (docker/cli, cli/config/credentials/default_store*.go).
    """
    if config.credentials_store or config.credential_helpers or config.auths:
        return config.credentials_store
    if sys.platform == "darwin":
        store = "osxkeychain"
    else:
        store = "pass" if shutil.which("pass") else "secretservice"
    return store if shutil.which(f"docker-credential-{store}") else ""


_WRONG_ANSWER = "the helper's answer makes no sense"


def _ask_helper(helper: str, question: Callable[[Store], T], cancellation: Cancellation) -> T:
    """Return the credential helper's answer. Raises ``BrokenError``, and ``CredentialsNotFound`` if it has none."""
    program = f"docker-credential-{helper}"
    # This is checked here because the SDK would print a warning on the terminal.
    if shutil.which(program) is None:
        raise BrokenError(f"{program} not installed or not available in PATH")
    try:
        return transfer.within(HELPER_TIMEOUT, lambda: question(Store(helper)), cancellation)
    except CredentialsNotFound:
        raise
    except StoreError as error:
        # The SDK's message has the output of the helper in quotes, with a newline.
        raise BrokenError(str(error).replace("\n", " ").replace(' ".', '".').strip()) from error
    except (ValueError, LookupError, TypeError) as error:
        raise BrokenError(_WRONG_ANSWER) from error
    except OSError as error:
        raise BrokenError(f"{program}: {error}") from error
