"""Finding and connecting the engine, and saying in our own words what went wrong with it.

Only this module and ``image``, ``volume`` and ``container`` import the docker SDK; nothing above them sees its types.
"""

from __future__ import annotations

import errno
import http.client
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import docker
import docker.errors
import requests
import urllib3.exceptions
from docker.constants import DEFAULT_DOCKER_API_VERSION
from docker.context import ContextAPI
from docker.errors import StreamParseError
from docker.tls import TLSConfig
from docker.utils import kwargs_from_env
from packaging.version import InvalidVersion, Version

from nerves_docker_port import errors, text

LABEL = "nerves-docker-port"
"""Prefix of every label that we set; nothing at the engine without it is ever touched."""

MINIMUM_API = Version("1.26")
"""Docker 17.03, the oldest that the stock runner accepts (`>= 17.0.0`) and that knows mounts, `init` and labels."""

REQUEST_TIMEOUT = 60
"""Seconds that an engine may take to answer a request that does not wait for a container or a transfer."""

LOST_TIMEOUT = 5
"""Seconds that an engine which has stopped answering is given for the clean-up. It may have come back."""

PROBE_INTERVAL = 30
"""Seconds of silence in a container's output or a transfer after which the engine is asked whether it still works. A
build may be silent for as long as it likes; an engine may not."""


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
    cpus: int = 0
    memory: int = 0
    """Bytes. This and ``cpus`` are 0 where the engine does not say."""
    name: str = ""
    """Of the engine's host."""
    system: str = ""
    """The operating system that it runs on: tells Docker Desktop from an engine of the machine itself."""
    limits_memory: bool = True
    limits_cpus: bool = True
    limits_swap: bool = True
    """Whether it applies such limits. One that does not (rootless, without cgroups of its own) ignores them."""


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

    def __init__(self, endpoint: Endpoint, api: docker.APIClient, version: Mapping[str, Any]) -> None:
        """``version`` is what the engine answered when it was asked for that."""
        self.endpoint = endpoint
        self.api = api
        self._version = version
        self._lost = False

    @cached_property
    def capabilities(self) -> Capabilities:
        """What the engine says of itself: asked once, where it is needed, for it takes longer than most answers.

        Raises ``RunnerError``.
        """
        with self.failures("while it was asked about itself"):
            info = self.api.info()
        security = [str(option) for option in info.get("SecurityOptions") or []]
        return Capabilities(
            engine_version=str(self._version.get("Version", "unknown")),
            api_version=str(self._version["ApiVersion"]),
            architecture=str(self._version.get("Arch", "")),
            # `docker info` and Podman alike list "name=rootless" there.
            rootless=any("name=rootless" in option for option in security),
            cpus=_count(info.get("NCPU")),
            memory=_count(info.get("MemTotal")),
            name=str(info.get("Name") or ""),
            system=str(info.get("OperatingSystem") or ""),
            limits_memory=info.get("MemoryLimit") is not False,
            limits_cpus=info.get("CpuCfsQuota") is not False,
            limits_swap=info.get("SwapLimit") is not False,
        )

    @classmethod
    def connect(cls, environ: Mapping[str, str]) -> Engine:
        """Find the engine, connect, and check that it is new enough.

        Raises ``RunnerError`` ``:engine_unreachable``, ``:engine_permission`` or ``:engine_too_old``.
        """
        endpoint = find_endpoint(environ)
        failures = (docker.errors.DockerException, requests.RequestException, OSError, ValueError, KeyError, TypeError)
        try:
            api = docker.APIClient(
                base_url=endpoint.url,
                tls=endpoint.tls or False,
                # Any version: the real one is set below, from the same answer that says what the engine is.
                version="1.26",
                timeout=REQUEST_TIMEOUT,
                use_ssh_client=endpoint.url.startswith("ssh://"),
            )
        except failures as error:
            raise _connect_error(endpoint, error) from error
        try:
            try:
                version = api.version(api_version=False)
            except failures as error:
                raise _connect_error(endpoint, error) from error
            return cls._met(endpoint, api, version)
        except BaseException:
            api.close()
            raise

    @classmethod
    def _met(cls, endpoint: Endpoint, api: docker.APIClient, version: Mapping[str, Any]) -> Engine:
        """The engine that answered ``version`` when it was asked for that."""
        try:
            spoken = Version(str(version["ApiVersion"]))
        except (KeyError, TypeError, InvalidVersion) as error:
            raise errors.engine_unreachable(endpoint.url, endpoint.origin, errors.NOT_AN_ENGINE) from error
        if spoken < MINIMUM_API:
            raise errors.engine_too_old(str(spoken), str(MINIMUM_API))
        newest = Version(DEFAULT_DOCKER_API_VERSION)
        api._version = str(min(spoken, newest))  # type: ignore[attr-defined]  # noqa: SLF001  # the SDK has no other way without a second request
        return cls(endpoint, api, version)

    @property
    def api_version(self) -> str:
        """The version of the API that is spoken with this engine."""
        return str(self.api.api_version)

    def now(self) -> float:
        """The time by the engine's own clock, in seconds since 1970. Raises what the SDK raises."""
        told = text.parse_time(str(self.api.info().get("SystemTime") or ""))
        return time.time() if told is None else told / 10**9

    def wait_forever(self, response: requests.Response) -> None:
        """Let whoever reads the body of this answer wait for as long as it takes."""
        self.api._disable_socket_timeout(self.api._get_raw_response_socket(response))  # type: ignore[attr-defined]  # noqa: SLF001

    def has_answered(self) -> None:
        """The engine answers again after it did not."""
        self._lost = False

    def networks(self) -> list[str]:
        """The names of the networks that a container can be put into."""
        with self.failures("while it listed its networks"):
            return sorted(str(network["Name"]) for network in self.api.networks())

    @contextmanager
    def failures(self, doing: str) -> Iterator[None]:
        """Give what goes wrong with the engine in the body our words; ``doing`` completes "The engine ... "."""
        try:
            yield
        except (docker.errors.APIError, KeyError, TypeError) as error:
            refusal = _refusal(error)
            if refusal is None:
                raise
            raise errors.engine_refused(doing, refusal) from error
        except (
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            docker.errors.DockerException,
            StreamParseError,
            ConnectionError,
            TimeoutError,
        ) as error:
            self._lost = True
            raise errors.engine_lost(self.endpoint.url, doing, _reason(error)) from error

    @contextmanager
    def cleaning_up(self) -> Iterator[None]:
        """For the end of a flow: what fails in the body is left to the next command, which removes it by its label.

        What the flow itself failed at is what matters then. An engine that is lost is not waited for as long again.
        """
        if self._lost:
            self.api.timeout = LOST_TIMEOUT
        with suppress(errors.RunnerError), self.failures("while it cleaned up"):
            yield

    def close(self) -> None:
        """Give the connections back."""
        self.api.close()

    def url(self, path: str) -> str:
        """The URL of an API call that the SDK does not offer as we need it. ``path`` begins with a slash."""
        return f"{self.api.base_url}/v{self.api.api_version}{path}"


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def hang_up(response: requests.Response) -> None:
    """Make whoever reads this answer in another thread see its end. What has arrived is still read."""
    # It may have ended in this moment.
    with suppress(ValueError, RuntimeError, OSError):
        response.raw.shutdown()


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
    if isinstance(error, requests.JSONDecodeError) or _is_not_http(error):
        return errors.engine_unreachable(endpoint.url, endpoint.origin, errors.NOT_AN_ENGINE)
    refusal = _refusal(error)
    if refusal is not None:
        return errors.engine_unreachable(endpoint.url, endpoint.origin, refusal)
    if isinstance(error, (requests.RequestException, KeyError, TypeError)) or cause is not None:
        return errors.engine_unreachable(endpoint.url, endpoint.origin, _reason(error))
    return errors.endpoint_invalid(endpoint.url, endpoint.origin, str(error))


def _refusal(error: Exception) -> str | None:
    """What an engine that answered with an error said, or ``None`` if this is no such answer."""
    if isinstance(error, docker.errors.APIError):
        return str(error.explanation or error)
    # The SDK stumbles over a JSON error without a "message", while it wraps the HTTP error that came with it.
    refused = error.__context__
    if isinstance(error, (KeyError, TypeError)) and isinstance(refused, requests.HTTPError):
        return refused.response.text.strip() or str(refused)
    return None


def _reason(error: BaseException) -> str:
    """What lies under the wrapping of requests and urllib3, in the operating system's words where it has some."""
    cause = _os_error(error)
    if cause is not None and cause.errno is not None:
        return os.strerror(cause.errno)
    under = list(_causes(error))
    # While a body is read, requests reports urllib3's timeout as a ConnectionError.
    if any(isinstance(cause, (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)) for cause in under):
        return errors.NO_ANSWER
    if any(isinstance(cause, http.client.RemoteDisconnected) for cause in under):
        return errors.HUNG_UP
    broken = (http.client.HTTPException, urllib3.exceptions.ProtocolError, requests.JSONDecodeError, StreamParseError)
    if any(isinstance(cause, broken) for cause in under):
        return errors.ANSWER_CUT
    return str(error)


def _is_not_http(error: BaseException) -> bool:
    return any(
        isinstance(cause, http.client.BadStatusLine) and not isinstance(cause, http.client.RemoteDisconnected)
        for cause in _causes(error)
    )


def _os_error(error: BaseException) -> OSError | None:
    """The operating system's own error that ``error`` wraps."""
    for cause in _causes(error):
        # requests' own exceptions are IOErrors, too, but have no errno.
        if isinstance(cause, OSError) and isinstance(cause.errno, int):
            return cause
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """``error`` and all that it wraps: requests and urllib3 hide it in ``args``, ``reason`` and ``__context__``."""
    pending: list[object] = [error]
    seen: set[int] = set()
    while pending:
        current = pending.pop(0)
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        pending += [*current.args, getattr(current, "reason", None), current.__cause__, current.__context__]
