"""Connects to the engine, and turns its errors into ``RunnerError``.

The module ``endpoint`` finds the engine, and ``connection`` makes the SDK's client for it.
"""

from __future__ import annotations

import errno
import grp
import http.client
import os
import re
import socket
import ssl
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker
import docker.errors
import requests
import urllib3.exceptions
from docker.constants import DEFAULT_DOCKER_API_VERSION
from docker.errors import StreamParseError
from packaging.version import InvalidVersion, Version

from nerves_docker_port import errors, text
from nerves_docker_port.background import Background
from nerves_docker_port.engine import tls
from nerves_docker_port.engine.connection import Client
from nerves_docker_port.engine.endpoint import (
    Endpoint,
    SshAddress,
    TcpAddress,
    UnixAddress,
    find_endpoint,
    without_password,
)

if TYPE_CHECKING:
    from nerves_docker_port.engine.tunnel import Tunnel

LABEL = "nerves-docker-port"
"""The prefix of every label that this package sets. It never changes an object at the engine that has no such label."""

MINIMUM_API = Version("1.26")
"""The API of Docker 17.03, the oldest with mounts, `init` and labels that the stock runner accepts (`>= 17.0.0`)."""

REQUEST_TIMEOUT = 60
"""Seconds that an engine may take to answer a request that does not wait for a container or a transfer."""

LOST_TIMEOUT = 5
"""Seconds that an engine may take for a request of the clean-up after it has stopped answering."""

_KEEPALIVE = (("TCP_KEEPIDLE", 15), ("TCP_KEEPALIVE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
"""The seconds without data before the kernel probes a connection, the seconds between two probes, and how many may be
lost (tcp(7)). ``TCP_KEEPALIVE`` is the name of the first option on macOS."""

PROBE_INTERVAL = 30
"""Seconds without an event of a transfer after which the helper asks the engine whether it still answers."""

_LOGIN = 401
FORBIDDEN = (_LOGIN, 403)
"""The HTTP statuses with which a proxy in front of the engine, or its authorization plug-in, forbids a request."""

_PROXY_LOGIN = 407
_BAD_GATEWAY = (502, 503, 504)
"""The HTTP statuses of a proxy that cannot connect to the engine (RFC 9110, 15.6)."""

# The message of Python's http.client if a proxy refuses to connect with the engine for TLS.
_TUNNEL_REFUSED = re.compile(r"Tunnel connection failed: (.*)", re.DOTALL)

_HUNG_UP = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError, http.client.RemoteDisconnected)

_PAGE_LIMIT = 500
"""How many characters of an error page are shown."""


@dataclass(frozen=True)
class Capabilities:
    """The properties of the engine that the flows need."""

    engine_version: str
    api_version: str
    architecture: str
    rootless: bool
    """Whether the engine runs without root. A file from a container's uid 0 then belongs to the engine's user."""
    cpus: int = 0
    memory: int = 0
    """The bytes of memory. This and ``cpus`` are 0 if the engine does not say them."""
    name: str = ""
    """The name of the engine's host."""
    system: str = ""
    """The engine's operating system. It distinguishes Docker Desktop from an engine on the machine itself."""
    kernel: str = ""
    """The release of the engine's kernel, as in uname(2)."""
    maps_users: bool = False
    """Whether containers have other user ids than the host (`dockerd --userns-remap`). A file that they write to a
    mounted directory then belongs to a uid that the host does not know."""
    limits_memory: bool = True
    limits_cpus: bool = True
    limits_swap: bool = True
    """Whether the engine applies such a limit. Some engines (rootless, without cgroups of their own) ignore it."""


class Engine:
    """A connected engine. ``api`` is the SDK's low-level client, which several threads can use together."""

    def __init__(
        self, endpoint: Endpoint, api: docker.APIClient, version: Mapping[str, Any], tunnel: Tunnel | None = None
    ) -> None:
        """``version`` is the engine's answer to the request for its version. ``tunnel`` is the connection over ssh."""
        self.endpoint = endpoint
        self.api = api
        self._version = version
        self._tunnel = tunnel
        self._lost = False
        self._info: Background[Mapping[str, Any]] | None = None

    def ask_capabilities(self) -> None:
        """Send the request that ``capabilities`` needs in a thread, because the engine answers it slowly."""
        self._info = Background(self.api.info)

    @cached_property
    def capabilities(self) -> Capabilities:
        """The properties of the engine. They are requested once and only if they are needed. Raises ``RunnerError``."""
        with self.failures("while it was asked about itself"):
            info: Mapping[str, Any] = {}
            if self._info is not None:
                # An error can be ignored here, because the request is sent again, which raises its error.
                with suppress(Exception):
                    info = self._info.result()
            info = info or self.api.info()
        security = [str(option) for option in info.get("SecurityOptions") or []]
        # Docker and Podman have "name=rootless" in this list. Podman before 4.6 only has the field "Rootless".
        rootless = any("name=rootless" in option for option in security) or info.get("Rootless") is True
        # Podman always claims to have all limits. A rootless Podman with cgroups of version 1 has none
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
        """Whether the engine is Podman, which has the same API."""
        return any("podman" in str(part.get("Name", "")).lower() for part in self._version.get("Components") or [])

    @property
    def platform(self) -> str | None:
        """The platform of images (``linux/amd64``) that the user has set, or ``None``."""
        return self.endpoint.platform

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings for the user about parts of the docker CLI's configuration that cannot be understood."""
        return self.endpoint.config.warnings

    def proxy_environment(self, given: Iterable[str] = ()) -> dict[str, str]:
        """Return the proxy variables that ``docker run`` would give a container, except those with a name in ``given``.

        They come from ``proxies`` in ``config.json`` (https://docs.docker.com/engine/cli/proxy/).
        """
        return self.endpoint.config.proxy_environment(self.endpoint.url, given)

    @classmethod
    def connect(cls, environ: Mapping[str, str]) -> Engine:
        """Find the engine, connect to it, and check that there is a version of the API that both sides know.

        Raises ``RunnerError`` with the code ``:engine_unreachable``, ``:engine_permission``, ``:engine_too_old`` or
        ``:engine_too_new``.
        """
        endpoint = find_endpoint(environ)
        try:
            return cls._connect_to(endpoint, environ)
        except errors.RunnerError as error:
            # A part of config.json that cannot be understood may be the reason why this endpoint was chosen.
            error.message = "\n".join([error.message, *endpoint.config.warnings])
            raise

    @classmethod
    def _connect_to(cls, endpoint: Endpoint, environ: Mapping[str, str]) -> Engine:
        if not isinstance(endpoint.address, SshAddress):
            return cls._connect(endpoint, None)
        # This is imported only here, because most engines are not reached over ssh.
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
        """The version of the API that is used with this engine."""
        return str(self.api.api_version)

    def now(self) -> float:
        """Return the time of the engine's own clock in seconds since 1970. Raises the SDK's errors."""
        told = text.parse_time(str(self.api.info().get("SystemTime") or ""))
        return time.time() if told is None else told / 10**9

    def wait_forever(self, response: requests.Response) -> None:
        """Remove the timeout from reading the body of ``response``, because a build can be silent for hours.

        The kernel probes the connection, so a connection that is dead still raises an error.
        """
        connection: Any = self.api._get_raw_response_socket(response)  # type: ignore[attr-defined]  # noqa: SLF001
        self.api._disable_socket_timeout(connection)  # type: ignore[attr-defined]  # noqa: SLF001
        plain = getattr(connection, "_sock", connection)
        if isinstance(plain, socket.socket) and plain.family != socket.AF_UNIX:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, seconds in _KEEPALIVE:
                # macOS has other names for some options.
                if hasattr(socket, option):
                    plain.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), seconds)

    def has_answered(self) -> None:
        """Note that the engine answers again after an error."""
        self._lost = False

    def networks(self) -> list[str]:
        """Return the names of the engine's networks."""
        with self.failures("while it listed its networks"):
            return sorted(str(network["Name"]) for network in self.api.networks())

    @contextmanager
    def failures(self, doing: str) -> Iterator[None]:
        """Turn the errors of requests to the engine in the body into ``RunnerError``.

        ``doing`` says what the engine was asked for. It completes the sentence "The engine stopped answering ...".
        """
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
        """Suppress the errors of requests to the engine in the body, which removes something at the end of a flow.

        The error of the flow itself matters more. The next command removes the rest by its label. If the engine was
        lost before, a request has a short timeout.
        """
        if self._lost:
            self.api.timeout = LOST_TIMEOUT
        with suppress(errors.RunnerError), self.failures("while it cleaned up"):
            yield

    def close(self) -> None:
        """Close the connections, and end ssh if the engine is reached over ssh."""
        self.api.close()
        if self._tunnel is not None:
            self._tunnel.close()

    def cli_environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return an environment in which the docker CLI reaches this engine, over the same ssh if there is one."""
        if self._tunnel is None:
            return dict(environ)
        others = {name: value for name, value in environ.items() if name != "DOCKER_CONTEXT"}
        return {**others, "DOCKER_HOST": f"unix://{self._tunnel.socket_path}"}

    def url(self, path: str) -> str:
        """Return the URL of an API call, for requests without the SDK's methods. ``path`` must begin with a slash."""
        return f"{self.api.base_url}/v{self.api.api_version}{path}"


def _api_version(endpoint: Endpoint, version: Mapping[str, Any]) -> str:
    """Return the newest API version that both sides know, or the one in ``DOCKER_API_VERSION``, as the CLI does.

    ``version`` is the engine's answer to the request for its version. Raises ``RunnerError``.
    """
    try:
        newest = Version(str(version["ApiVersion"]))
        oldest = Version(str(version.get("MinAPIVersion") or MINIMUM_API))
    except (KeyError, TypeError, AttributeError, InvalidVersion) as error:
        raise errors.not_an_engine(endpoint.url, endpoint.origin, errors.NOT_AN_ENGINE) from error
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
    return f"{wanted.major}.{wanted.minor}"


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def hang_up(response: requests.Response) -> None:
    """End the body of this answer for the thread that reads it. That thread still gets the bytes that have arrived."""
    # The body may already have ended.
    with suppress(ValueError, RuntimeError, OSError):
        response.raw.shutdown()


def labels(**values: str) -> dict[str, str]:
    """Return labels with the prefix: ``labels(step="make")`` is ``{"nerves-docker-port.step": "make"}``."""
    return {f"{LABEL}.{name}": value for name, value in values.items()}


def label(things: Mapping[str, Any] | None, name: str) -> str | None:
    """Return the value of this package's label ``name`` in the labels of an object, or ``None``."""
    value = (things or {}).get(f"{LABEL}.{name}")
    return None if value is None else str(value)


def _connect_error(endpoint: Endpoint, api: Client, error: Exception) -> errors.RunnerError:
    """Return the error for a first request that failed with ``error``."""
    url, origin, address = endpoint.url, endpoint.origin, endpoint.address
    refusal, status = _refusal(error), _status(error)
    if isinstance(address, TcpAddress) and endpoint.proxy is not None:
        failed = _proxy_error(endpoint, address, api, error)
        if failed is not None:
            return failed
    if api.tls_context is not None:
        failed = tls.failure(endpoint, api.tls_context, _causes(error))
        if failed is not None:
            return failed
    cause = _os_error(error)
    if cause is not None and cause.errno in (errno.EACCES, errno.EPERM) and not isinstance(address, TcpAddress):
        group = _group_of(address.path) if isinstance(address, UnixAddress) else None
        return errors.engine_permission(url, origin, group)
    if refusal is not None and "HTTP request" in refusal and "HTTPS" in refusal:
        # Go: "Client sent an HTTP request to an HTTPS server."; nginx: "The plain HTTP request was sent to HTTPS port".
        return errors.tls_wanted(url, origin)
    if refusal is not None and status in FORBIDDEN:
        return errors.engine_forbidden(url, "to say what it is", refusal, wants_login=status == _LOGIN)
    if refusal is not None:
        return errors.not_an_engine(url, origin, refusal)
    if api.redirected_to:
        return errors.engine_redirects(url, origin, api.redirected_to)
    if isinstance(error, requests.JSONDecodeError) or _is_not_http(error):
        if isinstance(address, TcpAddress) and any(_is_tls(cause) for cause in _causes(error)):
            return errors.tls_wanted(url, origin)
        return errors.not_an_engine(url, origin, errors.NOT_AN_ENGINE)
    reason = _reason(error)
    if not isinstance(address, TcpAddress):
        return errors.engine_unreachable(url, origin, reason)
    if any(isinstance(cause, _HUNG_UP) for cause in _causes(error)):
        if endpoint.tls is None:
            return errors.tls_perhaps_wanted(url, origin, address.host, address.port, reason)
        return errors.tls_failed(url, origin, address.peer, reason)
    if isinstance(cause, socket.gaierror):
        return errors.engine_host_unknown(url, origin, address.host, reason)
    return errors.engine_port_unreachable(url, origin, address.host, address.port, reason)


def _proxy_error(endpoint: Endpoint, address: TcpAddress, api: Client, error: Exception) -> errors.RunnerError | None:
    """Return the error for a first request that the HTTP proxy did not pass on to the engine, or ``None``."""
    where = endpoint.url, endpoint.origin, address.host
    causes = list(_causes(error))
    for cause in causes:
        refused = _TUNNEL_REFUSED.fullmatch(str(cause))
        if refused is not None:
            return errors.proxy_refused(*where, refused[1], wants_login=refused[1].startswith(str(_PROXY_LOGIN)))
    status, refusal = _status(error), _refusal(error)
    if refusal is not None:
        passed_on = status not in (*FORBIDDEN, _PROXY_LOGIN, *_BAD_GATEWAY)
        return None if passed_on else errors.proxy_refused(*where, refusal, wants_login=status == _PROXY_LOGIN)
    if any(isinstance(cause, requests.JSONDecodeError) for cause in causes):
        return None
    # A failure of TLS is one of the engine's, except in the handshake with a proxy that has an https:// URL.
    with_engine = any(isinstance(cause, ssl.SSLError) for cause in causes) or (
        api.tls_context is not None and api.tls_context.has_shaken_hands
    )
    if with_engine and endpoint.tls and not any(isinstance(cause, urllib3.exceptions.ProxyError) for cause in causes):
        return None
    # A message of urllib3 can contain the URL of the proxy.
    reason = errors.NOT_HTTP if _is_not_http(error) else without_password(_reason(error))
    return errors.proxy_failed(*where, reason)


def _group_of(path: str) -> str | None:
    """Return the name of the group whose members may use the socket ``path``, or ``None`` if there is none."""
    try:
        found = Path(path).stat()
        return grp.getgrgid(found.st_gid).gr_name if found.st_mode & stat.S_IWGRP and found.st_gid else None
    except (OSError, KeyError):
        return None


def _is_tls(error: BaseException) -> bool:
    """Return whether the answer was a TLS alert instead of HTTP (RFC 8446, 5.1: type 21, version 3.x)."""
    return isinstance(error, http.client.BadStatusLine) and str(error).startswith("\x15\x03")


def _status(error: Exception) -> int | None:
    """Return the HTTP status of the engine's answer, or ``None`` if ``error`` is not an answer."""
    for cause in (error, error.__context__):
        response = getattr(cause, "response", None)
        if isinstance(response, requests.Response):
            return response.status_code
    return None


def _refusal(error: Exception) -> str | None:
    """Return the message of the engine's answer, or ``None`` if ``error`` is not an answer."""
    if isinstance(error, docker.errors.APIError):
        return plain(str(error.explanation or error))
    # If the JSON of an error has no "message", the SDK fails with another exception while it handles the HTTP error.
    refused = error.__context__
    if isinstance(error, (KeyError, TypeError)) and isinstance(refused, requests.HTTPError):
        return plain(refused.response.text.strip() or str(refused))
    return None


def plain(text: str) -> str:
    """Return ``text`` without the HTML, because a proxy in front of the engine can answer with an HTML page."""
    if not re.match(r"\s*<(!doctype|html|head|body|h\d|center)", text, re.IGNORECASE):
        return text
    text = re.sub(r"<(script|style|title)\b.*?</\1>|<!--.*?-->|<[^>]*>", " ", text, flags=re.IGNORECASE | re.DOTALL)
    import html

    return " ".join(html.unescape(text).split())[:_PAGE_LIMIT]


def _reason(error: BaseException) -> str:
    """Return the reason inside the exceptions of requests and urllib3, if possible in the operating system's words."""
    cause = _os_error(error)
    if isinstance(cause, socket.gaierror):
        return str(cause.strerror)
    if cause is not None and cause.errno is not None:
        return os.strerror(cause.errno)
    under = list(_causes(error))
    secured = next((cause for cause in under if isinstance(cause, ssl.SSLError)), None)
    if secured is not None:
        if isinstance(secured, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted ({secured.verify_message})"
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
    """Return the operating system's error inside ``error``, or ``None`` if there is none."""
    for cause in _causes(error):
        # The exceptions of requests are OSErrors without an errno. The errno of an SSLError is a number of OpenSSL.
        if isinstance(cause, OSError) and isinstance(cause.errno, int) and not isinstance(cause, ssl.SSLError):
            return cause
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield ``error`` and all exceptions in its ``args``, ``reason``, ``__cause__`` and ``__context__``."""
    pending: list[object] = [error]
    seen: set[int] = set()
    while pending:
        current = pending.pop(0)
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        pending += [*current.args, getattr(current, "reason", None), current.__cause__, current.__context__]
