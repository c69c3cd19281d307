"""Finding and connecting the engine, and saying in our own words what went wrong with it.

Only this module and ``image``, ``volume`` and ``container`` import the docker SDK; nothing above them sees its types.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import docker
import docker.errors
import requests
import urllib3.exceptions
from docker.constants import DEFAULT_DOCKER_API_VERSION
from docker.context import ContextAPI
from docker.tls import TLSConfig
from docker.utils import kwargs_from_env
from packaging.version import InvalidVersion, Version

from nerves_docker_port import errors

LABEL = "nerves-docker-port"
"""Prefix of every label that we set; nothing at the engine without it is ever touched."""

MINIMUM_API = Version("1.26")
"""Docker 17.03, the oldest that the stock runner accepts (`>= 17.0.0`) and that knows mounts, `init` and labels."""

REQUEST_TIMEOUT = 60
"""Seconds that an engine may take to answer a request that does not wait for a container or a transfer."""


@dataclass(frozen=True)
class Endpoint:
    """Where the engine is, and what said so."""

    url: str
    origin: str
    tls: TLSConfig | None = None


@dataclass(frozen=True)
class Capabilities:
    """What the flows must know of the engine beyond its address."""

    engine_version: str
    api_version: str
    architecture: str
    rootless: bool
    """Its root is the person who runs it: what a container's uid 0 writes belongs to that person."""


def find_endpoint(environ: Mapping[str, str]) -> Endpoint:
    """The engine that the docker CLI would use: ``DOCKER_HOST``, else the context, else the default socket.

    The order is that of the CLI ("DOCKER_HOST overrides the context",
    https://docs.docker.com/engine/manage-resources/contexts/). A context that does not exist is an error, where the SDK
    would quietly take the default socket.
    """
    if environ.get("DOCKER_HOST"):
        try:
            found = kwargs_from_env(dict(environ))
        except docker.errors.DockerException as error:
            raise errors.endpoint_invalid(environ["DOCKER_HOST"], "DOCKER_HOST", str(error)) from error
        return Endpoint(found["base_url"], "DOCKER_HOST", found.get("tls"))
    name = environ.get("DOCKER_CONTEXT")
    origin = "DOCKER_CONTEXT" if name else "current docker context"
    try:
        context = ContextAPI.get_context(name or None)
    except (docker.errors.DockerException, OSError, ValueError, KeyError) as error:
        raise errors.context_missing(name or "current", f"{origin}: {error}") from error
    if context is None:
        raise errors.context_missing(name or _current_context_name(), origin)
    if context.Name == "default" or not context.Host:
        return Endpoint("unix:///var/run/docker.sock", "default")
    return Endpoint(context.Host, f'{origin} "{context.Name}"', context.TLSConfig)


def _current_context_name() -> str:
    from docker.context.config import get_current_context_name

    return str(get_current_context_name())


class Engine:
    """A connected engine. ``api`` is the SDK's low-level client; it is safe to use from several threads."""

    def __init__(self, endpoint: Endpoint, api: docker.APIClient, capabilities: Capabilities) -> None:
        self.endpoint = endpoint
        self.api = api
        self.capabilities = capabilities

    @classmethod
    def connect(cls, environ: Mapping[str, str]) -> Engine:
        """Find the engine, connect, and check that it is new enough.

        Raises ``RunnerError`` ``:engine_unreachable``, ``:engine_permission`` or ``:engine_too_old``.
        """
        endpoint = find_endpoint(environ)
        try:
            api = docker.APIClient(
                base_url=endpoint.url,
                tls=endpoint.tls or False,
                # Any version: the real one is set below, from the same answer that says what the engine is.
                version="1.26",
                timeout=REQUEST_TIMEOUT,
                use_ssh_client=endpoint.url.startswith("ssh://"),
            )
            version = api.version(api_version=False)
        except (docker.errors.DockerException, requests.RequestException, OSError, ValueError) as error:
            raise _connect_error(endpoint, error) from error
        try:
            spoken = Version(str(version["ApiVersion"]))
        except (KeyError, InvalidVersion) as error:
            raise errors.engine_unreachable(
                endpoint.url, endpoint.origin, "what answers there is not a Docker engine"
            ) from error
        if spoken < MINIMUM_API:
            raise errors.engine_too_old(str(spoken), str(MINIMUM_API))
        newest = Version(DEFAULT_DOCKER_API_VERSION)
        api._version = str(min(spoken, newest))  # type: ignore[attr-defined]  # noqa: SLF001  # the SDK has no other way without a second request
        engine = cls(
            endpoint,
            api,
            Capabilities(
                engine_version=str(version.get("Version", "unknown")),
                api_version=str(spoken),
                architecture=str(version.get("Arch", "")),
                rootless=False,
            ),
        )
        with engine.failures("while it was asked about itself"):
            info = api.info()
        security = [str(option) for option in info.get("SecurityOptions") or []]
        engine.capabilities = Capabilities(
            engine_version=engine.capabilities.engine_version,
            api_version=engine.capabilities.api_version,
            architecture=engine.capabilities.architecture,
            # `docker info` and Podman alike list "name=rootless" there.
            rootless=any("name=rootless" in option for option in security),
        )
        return engine

    @contextmanager
    def failures(self, doing: str) -> Iterator[None]:
        """Give what goes wrong with the engine in the body our words; ``doing`` completes "The engine ... "."""
        try:
            yield
        except docker.errors.APIError as error:
            raise errors.engine_refused(doing, str(error.explanation or error)) from error
        except (
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            docker.errors.DockerException,
            ConnectionError,
            TimeoutError,
        ) as error:
            raise errors.engine_lost(self.endpoint.url, doing, _reason(error)) from error

    def close(self) -> None:
        """Give the connections back."""
        self.api.close()

    def url(self, path: str) -> str:
        """The URL of an API call that the SDK does not offer as we need it. ``path`` begins with a slash."""
        return f"{self.api.base_url}/v{self.api.api_version}{path}"


def labels(**values: str) -> dict[str, str]:
    """Labels of ours from plain names: ``labels(step="make")`` is ``{"nerves-docker-port.step": "make"}``."""
    return {f"{LABEL}.{name}": value for name, value in values.items()}


def label(things: Mapping[str, Any] | None, name: str) -> str | None:
    """The value of our label ``name`` among an object's labels."""
    value = (things or {}).get(f"{LABEL}.{name}")
    return None if value is None else str(value)


def _connect_error(endpoint: Endpoint, error: Exception) -> errors.RunnerError:
    cause = _os_error(error)
    if cause is not None and cause.errno in (errno.EACCES, errno.EPERM):
        return errors.engine_permission(endpoint.url, endpoint.origin)
    if isinstance(error, (docker.errors.APIError, requests.RequestException)) or cause is not None:
        return errors.engine_unreachable(endpoint.url, endpoint.origin, _reason(error))
    return errors.endpoint_invalid(endpoint.url, endpoint.origin, str(error))


def _reason(error: BaseException) -> str:
    """What lies under the wrapping of requests and urllib3, in the operating system's words where it has some."""
    cause = _os_error(error)
    if cause is not None and cause.errno is not None:
        return os.strerror(cause.errno)
    if isinstance(error, requests.Timeout):
        return "it did not answer in time"
    return str(error)


def _os_error(error: BaseException) -> OSError | None:
    """The operating system's own error that ``error`` wraps: requests hides it in ``args`` and ``__context__``."""
    pending: list[object] = [error]
    seen: set[int] = set()
    while pending:
        current = pending.pop(0)
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        # requests' own exceptions are IOErrors, too, but have no errno.
        if isinstance(current, OSError) and isinstance(current.errno, int):
            return current
        pending += [*current.args, getattr(current, "reason", None), current.__cause__, current.__context__]
    return None
