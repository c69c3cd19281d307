"""Connecting the engine, and saying in our own words what went wrong with it.

Where the engine is, ``endpoint`` says; the SDK's client for it is made by ``connection``.
"""

from __future__ import annotations

import errno
import http.client
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import docker
import docker.errors
import requests
import urllib3.exceptions
from docker.constants import DEFAULT_DOCKER_API_VERSION
from docker.errors import StreamParseError
from packaging.version import InvalidVersion, Version

from nerves_docker_port import errors, text
from nerves_docker_port.engine import tls
from nerves_docker_port.engine.connection import Client
from nerves_docker_port.engine.endpoint import Endpoint, SshAddress, TcpAddress, UnixAddress, find_endpoint

if TYPE_CHECKING:
    from nerves_docker_port.engine.tunnel import Tunnel

LABEL = "nerves-docker-port"
"""Prefix of every label that we set; nothing at the engine without it is ever touched."""

MINIMUM_API = Version("1.26")
"""Docker 17.03, the oldest that the stock runner accepts (`>= 17.0.0`) and that knows mounts, `init` and labels."""

REQUEST_TIMEOUT = 60
"""Seconds that an engine may take to answer a request that does not wait for a container or a transfer."""

LOST_TIMEOUT = 5
"""Seconds that an engine which has stopped answering is given for the clean-up. It may have come back."""

_KEEPALIVE = (("TCP_KEEPIDLE", 15), ("TCP_KEEPALIVE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
"""Seconds of silence before the kernel probes a connection, seconds between two probes, and how many may be lost
(tcp(7); ``TCP_KEEPALIVE`` is macOS's name of the first)."""

PROBE_INTERVAL = 30
"""Seconds of silence in a container's output or a transfer after which the engine is asked whether it still works. A
build may be silent for as long as it likes; an engine may not."""

FORBIDDEN = (401, 403)
"""Statuses by which a proxy before the engine, or an authorization plug-in of it, forbids a request."""

_HUNG_UP = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError, http.client.RemoteDisconnected)

_PAGE_LIMIT = 500
"""Characters of an error page that are shown."""


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
    kernel: str = ""
    """The release of its kernel, as uname(2) has it."""
    maps_users: bool = False
    """Its containers have other user ids than the host (`dockerd --userns-remap`), so what they write on a mounted
    directory belongs to nobody whom the host knows."""
    limits_memory: bool = True
    limits_cpus: bool = True
    limits_swap: bool = True
    """Whether it applies such limits. One that does not (rootless, without cgroups of its own) ignores them."""


class Engine:
    """A connected engine. ``api`` is the SDK's low-level client; it is safe to use from several threads."""

    def __init__(
        self, endpoint: Endpoint, api: docker.APIClient, version: Mapping[str, Any], tunnel: Tunnel | None = None
    ) -> None:
        """``version`` is what the engine answered when it was asked for that; ``tunnel`` leads to one behind ssh."""
        self.endpoint = endpoint
        self.api = api
        self._version = version
        self._tunnel = tunnel
        self._lost = False
        self._info: Mapping[str, Any] | None = None
        self._asking: threading.Thread | None = None

    def ask_capabilities(self) -> None:
        """Ask what ``capabilities`` needs, beside what is asked next: the engine takes longer for it than for most."""
        self._asking = threading.Thread(target=self._ask, name="capabilities", daemon=True)
        self._asking.start()

    def _ask(self) -> None:
        # What goes wrong here is found out by whoever asks for the capabilities, because it is asked again then.
        with suppress(Exception):
            self._info = self.api.info()

    @cached_property
    def capabilities(self) -> Capabilities:
        """What the engine says of itself: asked once, where it is needed, for it takes longer than most answers.

        Raises ``RunnerError``.
        """
        with self.failures("while it was asked about itself"):
            if self._asking is not None:
                self._asking.join()
            info = self._info or self.api.info()
        security = [str(option) for option in info.get("SecurityOptions") or []]
        # Docker and Podman list "name=rootless" there; Podman before 4.6 says only "Rootless".
        rootless = any("name=rootless" in option for option in security) or info.get("Rootless") is True
        # Podman says of all limits that it has them. Without root it has none where cgroups are of version 1
        # (podman-run(1): "not supported on cgroups V1 rootless systems").
        limits = not (self.is_podman and rootless and str(info.get("CgroupVersion")) == "1")
        return Capabilities(
            engine_version=str(self._version.get("Version", "unknown")),
            api_version=str(self._version["ApiVersion"]),
            architecture=str(self._version.get("Arch", "")),
            rootless=rootless,
            maps_users=any("name=userns" in option for option in security),
            cpus=_count(info.get("NCPU")),
            memory=_count(info.get("MemTotal")),
            name=str(info.get("Name") or ""),
            system=str(info.get("OperatingSystem") or ""),
            kernel=str(info.get("KernelVersion") or ""),
            limits_memory=limits and info.get("MemoryLimit") is not False,
            limits_cpus=limits and info.get("CpuCfsQuota") is not False,
            limits_swap=limits and info.get("SwapLimit") is not False,
        )

    @property
    def is_podman(self) -> bool:
        """Whether it is Podman, which speaks the same API."""
        return any("podman" in str(part.get("Name", "")).lower() for part in self._version.get("Components") or [])

    @property
    def platform(self) -> str | None:
        """What images are pulled, built and run for (``linux/amd64``) if the person has said so."""
        return self.endpoint.platform

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was not understood on the way to the engine, for the person."""
        return self.endpoint.config.warnings

    def proxy_environment(self, given: Iterable[str] = ()) -> dict[str, str]:
        """The proxy variables that ``docker run`` would give a container, without those whose names are ``given``.

        They come from ``proxies`` in ``config.json``: https://docs.docker.com/engine/cli/proxy/.
        """
        return self.endpoint.config.proxy_environment(self.endpoint.url, given)

    @classmethod
    def connect(cls, environ: Mapping[str, str]) -> Engine:
        """Find the engine, connect, and check that both sides know one version of the API.

        Raises ``RunnerError`` ``:engine_unreachable``, ``:engine_permission``, ``:engine_too_old`` or
        ``:engine_too_new``.
        """
        endpoint = find_endpoint(environ)
        if not isinstance(endpoint.address, SshAddress):
            return cls._connect(endpoint, None)
        # Imported where it is needed, because most engines are not reached in this way.
        from nerves_docker_port.engine.tunnel import Tunnel

        tunnel = Tunnel(endpoint, environ)
        try:
            return cls._connect(endpoint, tunnel)
        except BaseException:
            tunnel.close()
            raise

    @classmethod
    def _connect(cls, endpoint: Endpoint, tunnel: Tunnel | None) -> Engine:
        socket_path = endpoint.address.path if isinstance(endpoint.address, UnixAddress) else None
        api = Client(endpoint, tunnel.socket_path if tunnel is not None else socket_path, REQUEST_TIMEOUT)
        failures = (docker.errors.DockerException, requests.RequestException, OSError, ValueError, KeyError, TypeError)
        try:
            try:
                version = api.version(api_version=False)
            except failures as error:
                raise _connect_error(endpoint, api, error) from error
            api._version = _api_version(endpoint, version)  # noqa: SLF001  # the SDK has no other way without a second request
        except BaseException:
            api.close()
            raise
        return cls(endpoint, api, version, tunnel)

    @property
    def api_version(self) -> str:
        """The version of the API that is spoken with this engine."""
        return str(self.api.api_version)

    def now(self) -> float:
        """The time by the engine's own clock, in seconds since 1970. Raises what the SDK raises."""
        told = text.parse_time(str(self.api.info().get("SystemTime") or ""))
        return time.time() if told is None else told / 10**9

    def wait_forever(self, response: requests.Response) -> None:
        """Let whoever reads the body of this answer wait for as long as it takes.

        A build may be silent for hours. A connection that died on its way is still noticed, by the kernel's probes.
        """
        connection: Any = self.api._get_raw_response_socket(response)  # type: ignore[attr-defined]  # noqa: SLF001
        self.api._disable_socket_timeout(connection)  # type: ignore[attr-defined]  # noqa: SLF001
        plain = getattr(connection, "_sock", connection)
        if isinstance(plain, socket.socket) and plain.family != socket.AF_UNIX:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, seconds in _KEEPALIVE:
                # macOS has other names for some of them.
                if hasattr(socket, option):
                    plain.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), seconds)

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
            if _status(error) in FORBIDDEN:
                raise errors.engine_forbidden(self.endpoint.url, doing, refusal) from error
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
            trouble = self._tunnel.trouble if self._tunnel is not None else None
            raise errors.engine_lost(self.endpoint.url, doing, trouble or _reason(error)) from error

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
        """Give the connections back; ends ssh where the engine is behind that."""
        self.api.close()
        if self._tunnel is not None:
            self._tunnel.close()

    def cli_environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """An environment in which the docker CLI reaches this engine, too: through our ssh where there is one."""
        if self._tunnel is None:
            return dict(environ)
        others = {name: value for name, value in environ.items() if name != "DOCKER_CONTEXT"}
        return {**others, "DOCKER_HOST": f"unix://{self._tunnel.socket_path}"}

    def url(self, path: str) -> str:
        """The URL of an API call that the SDK does not offer as we need it. ``path`` begins with a slash."""
        return f"{self.api.base_url}/v{self.api.api_version}{path}"


def _api_version(endpoint: Endpoint, version: Mapping[str, Any]) -> str:
    """The API version to speak with an engine that answered ``version``: the newest that both sides know.

    With ``DOCKER_API_VERSION`` it is that one, as for the CLI.
    """
    try:
        newest = Version(str(version["ApiVersion"]))
        oldest = Version(str(version.get("MinAPIVersion") or MINIMUM_API))
    except (KeyError, TypeError, AttributeError, InvalidVersion) as error:
        raise errors.engine_unreachable(endpoint.url, endpoint.origin, errors.NOT_AN_ENGINE) from error
    ours = Version(DEFAULT_DOCKER_API_VERSION)
    if newest < MINIMUM_API:
        raise errors.engine_too_old(str(newest), str(MINIMUM_API))
    if oldest > ours:
        raise errors.engine_too_new(str(version.get("Version", "unknown")), str(oldest), str(ours))
    if endpoint.api_version is None:
        return str(min(newest, ours))
    try:
        wanted = Version(endpoint.api_version)
    except InvalidVersion:
        wanted = None
    lowest = max(oldest, MINIMUM_API)
    if wanted is None or not lowest <= wanted <= newest:
        raise errors.api_version_unusable(endpoint.api_version, str(lowest), str(newest))
    return str(wanted)


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


def _connect_error(endpoint: Endpoint, api: Client, error: Exception) -> errors.RunnerError:
    url, origin, address = endpoint.url, endpoint.origin, endpoint.address
    if api.tls_context is not None:
        failed = tls.failure(endpoint, api.tls_context, _causes(error))
        if failed is not None:
            return failed
    cause = _os_error(error)
    if cause is not None and cause.errno in (errno.EACCES, errno.EPERM) and not isinstance(address, TcpAddress):
        return errors.engine_permission(url, origin)
    refusal, status = _refusal(error), _status(error)
    if refusal is not None and "HTTP request" in refusal and "HTTPS" in refusal:
        # Go: "Client sent an HTTP request to an HTTPS server."; nginx: "The plain HTTP request was sent to HTTPS port".
        return errors.tls_wanted(url, origin)
    if refusal is not None and status in FORBIDDEN:
        return errors.engine_forbidden(url, "to say what it is", refusal)
    if refusal is not None:
        return errors.engine_unreachable(url, origin, refusal)
    if isinstance(error, requests.JSONDecodeError) or _is_not_http(error):
        if isinstance(address, TcpAddress) and any(_is_tls(cause) for cause in _causes(error)):
            return errors.tls_wanted(url, origin)
        return errors.engine_unreachable(url, origin, errors.NOT_AN_ENGINE)
    reason = _reason(error)
    if isinstance(address, TcpAddress) and any(isinstance(cause, _HUNG_UP) for cause in _causes(error)):
        if endpoint.tls is None:
            return errors.tls_perhaps_wanted(url, origin, reason)
        return errors.tls_failed(url, origin, reason)
    return errors.engine_unreachable(url, origin, reason)


def _is_tls(error: BaseException) -> bool:
    """Whether what came instead of HTTP was a TLS alert (RFC 8446, 5.1: type 21, version 3.x)."""
    return isinstance(error, http.client.BadStatusLine) and str(error).startswith("\x15\x03")


def _status(error: Exception) -> int | None:
    """The HTTP status of an engine's answer, if this is an answer."""
    for cause in (error, error.__context__):
        response = getattr(cause, "response", None)
        if isinstance(response, requests.Response):
            return response.status_code
    return None


def _refusal(error: Exception) -> str | None:
    """What an engine that answered with an error said, or ``None`` if this is no such answer."""
    if isinstance(error, docker.errors.APIError):
        return plain(str(error.explanation or error))
    # The SDK stumbles over a JSON error without a "message", while it wraps the HTTP error that came with it.
    refused = error.__context__
    if isinstance(error, (KeyError, TypeError)) and isinstance(refused, requests.HTTPError):
        return plain(refused.response.text.strip() or str(refused))
    return None


def plain(text: str) -> str:
    """The words of an error page: a proxy before the engine answers in HTML."""
    if not re.match(r"\s*<(!doctype|html|head|body|h\d|center)", text, re.IGNORECASE):
        return text
    text = re.sub(r"<(script|style|title)\b.*?</\1>|<!--.*?-->|<[^>]*>", " ", text, flags=re.IGNORECASE | re.DOTALL)
    import html

    return " ".join(html.unescape(text).split())[:_PAGE_LIMIT]


def _reason(error: BaseException) -> str:
    """What lies under the wrapping of requests and urllib3, in the operating system's words where it has some."""
    cause = _os_error(error)
    if isinstance(cause, socket.gaierror):
        return str(cause.strerror)
    if cause is not None and cause.errno is not None:
        return os.strerror(cause.errno)
    under = list(_causes(error))
    secured = next((cause for cause in under if isinstance(cause, ssl.SSLError)), None)
    if secured is not None:
        return errors.HUNG_UP if isinstance(secured, ssl.SSLEOFError) else secured.reason or str(secured)
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
        # requests' own exceptions are IOErrors, too, but have no errno; that of an SSLError is a number of OpenSSL's.
        if isinstance(cause, OSError) and isinstance(cause.errno, int) and not isinstance(cause, ssl.SSLError):
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
