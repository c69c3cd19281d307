"""The SDK's client, connected where an endpoint says: it reads neither the environment nor ``config.json`` itself.

Knows the insides of the SDK and of requests that this takes; not where the endpoint comes from.
"""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

import docker
import requests
import urllib3
from docker.auth import AuthConfig
from docker.constants import DEFAULT_MAX_POOL_SIZE, DEFAULT_USER_AGENT
from docker.transport import UnixHTTPAdapter
from docker.transport.unixconn import UnixHTTPConnection, UnixHTTPConnectionPool
from docker.utils.proxy import ProxyConfig
from requests.adapters import HTTPAdapter

from nerves_docker_port.engine import tls
from nerves_docker_port.engine.endpoint import Endpoint, TcpAddress


class Client(docker.APIClient):
    """The SDK's low-level client for one endpoint.

    ``docker.APIClient.__init__`` is not called: it finds and reads ``config.json`` by rules of its own and fails where
    that holds anything unexpected. What it sets up (docker/api/client.py) is set up here from finished values.
    """

    def __init__(self, endpoint: Endpoint, socket_path: str | None, timeout: int) -> None:
        """For the Unix socket at ``socket_path``, or, with ``None``, the endpoint's host and port.

        ``timeout`` is in seconds, for each request. Raises ``RunnerError`` where the files for TLS are unusable.
        """
        requests.Session.__init__(self)
        self.tls_context: tls.Context | None = None
        # No proxies, no certificates and no passwords (~/.netrc) but those of the endpoint.
        self.trust_env = False
        self.timeout = timeout
        # Any version that the SDK takes: the real one is set when the engine has said what it speaks.
        self._version = "1.26"
        self._general_configs: dict[str, Any] = {}
        self._proxy_configs = ProxyConfig()
        self._auth_configs = AuthConfig({})
        self.credstore_env = None
        self.headers.update({"User-Agent": DEFAULT_USER_AGENT, **endpoint.headers})
        if socket_path is not None:
            self._mount_socket(socket_path)
        else:
            assert isinstance(endpoint.address, TcpAddress)
            self._mount_tcp(endpoint, endpoint.address)

    def _mount_socket(self, path: str) -> None:
        adapter = _SocketAdapter(f"http+unix://{path}", self.timeout, max_pool_size=DEFAULT_MAX_POOL_SIZE)
        # The adapter would put a slash before a relative path; the abstract namespace's names begin with a NUL. Not by
        # `Path`, which would take a slash off the end: the path of a socket has none, and the CLI does not find it.
        if path.startswith("@"):
            adapter.socket_path = f"\0{path[1:]}"
        else:
            adapter.socket_path = path if path.startswith("/") else f"{Path.cwd()}/{path}"
        self._custom_adapter = adapter
        self.mount("http+docker://", adapter)
        self.base_url = "http+docker://localhost"

    def _mount_tcp(self, endpoint: Endpoint, address: TcpAddress) -> None:
        scheme = "http" if endpoint.tls is None else "https"
        if endpoint.tls is not None:
            self.tls_context = tls.context(endpoint.tls)
            self.mount("https://", _TlsAdapter(self.tls_context))
            if not endpoint.tls.verify:
                # The person has asked for it; a warning for every request would be on the terminal.
                urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        if endpoint.proxy is not None:
            self.proxies = {scheme: endpoint.proxy}
        # The zone of an IPv6 address is written with %25 in a URL (RFC 6874).
        host = f"[{address.host.replace('%', '%25')}]" if ":" in address.host else address.host
        self.base_url = f"{scheme}://{host}:{address.port}{address.path}"

    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002
        """No engine sends us elsewhere; what does is no engine, and gets no request of ours to pass on."""
        return None


class _SocketAdapter(UnixHTTPAdapter):
    """The SDK's adapter, but with one pool of connections, and a connection that fails is closed at once.

    The SDK has a pool for each URL, so hardly any connection is used twice: behind ssh each one costs a round trip. It
    leaves the socket of a failed one to the garbage collector; whoever tries again for a minute would pile them up.
    """

    def get_connection(self, url: Any, proxies: Any = None) -> Any:  # noqa: ARG002  # one socket, without a proxy
        with self.pools.lock:
            pool = self.pools.get(self.socket_path)
            if pool is None:
                pool = _SocketPool(url, self.socket_path, self.timeout, maxsize=self.max_pool_size)
                self.pools[self.socket_path] = pool
            return pool


class _SocketPool(UnixHTTPConnectionPool):
    timeout: Any

    def _new_conn(self) -> Any:
        return _SocketConnection(self.base_url, self.socket_path, self.timeout)


class _SocketConnection(UnixHTTPConnection):
    def connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(self.timeout)
            connection.connect(self.unix_socket)
        except BaseException:
            connection.close()
            raise
        self.sock = connection


class _TlsAdapter(HTTPAdapter):
    """Connections that are secured by one context, and by nothing of what requests would add to it."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__(pool_maxsize=DEFAULT_MAX_POOL_SIZE)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, ssl_context=self._context)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        return super().proxy_manager_for(*args, **kwargs, ssl_context=self._context)

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> Any:
        """Where to connect; requests would add its own idea of certificates."""
        host, _certificates = super().build_connection_pool_key_attributes(request, verify, cert)
        return dict(host), {}

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """The context has everything; requests would load its own certificates into it."""
