"""The SDK's client for an endpoint. It reads neither the environment nor ``config.json`` itself.

This module uses the internals of the SDK and of requests. It must not know where the endpoint comes from.
"""

from __future__ import annotations

import base64
import errno
import os
import socket
import ssl
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

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

    ``docker.APIClient.__init__`` is not called, because it reads ``config.json`` by its own rules and fails if the file
    has unexpected content. This class sets the same attributes (docker/api/client.py) from values that were validated.
    """

    def __init__(self, endpoint: Endpoint, socket_path: str | None, timeout: int) -> None:
        """Make a client for the Unix socket ``socket_path``, or for the endpoint's host and port if that is ``None``.

        ``timeout`` is in seconds, for each request. Raises ``RunnerError`` if the files for TLS are unusable.
        """
        requests.Session.__init__(self)
        self.redirected_to: str | None = None
        """The address that the last answer pointed to, if it was a redirect."""
        self.tls_context: tls.Context | None = None
        # Only the endpoint decides about proxies, certificates and passwords; ~/.netrc and the environment do not.
        self.trust_env = False
        self.timeout = timeout
        # Any version that the SDK accepts. The real version is set after the engine has said which ones it has.
        self._version = "1.26"
        self._general_configs: dict[str, Any] = {}
        self._proxy_configs = ProxyConfig()
        self._auth_configs = AuthConfig({})
        self.credstore_env = None
        # Go's HTTP client sends the text of a header as UTF-8, Python's would send it as ISO 8859-1.
        headers = {name: value.encode("utf-8", "surrogateescape") for name, value in endpoint.headers.items()}
        self.headers.update({"User-Agent": DEFAULT_USER_AGENT, **headers})
        if socket_path is not None:
            self._mount_socket(socket_path)
        else:
            assert isinstance(endpoint.address, TcpAddress)
            self._mount_tcp(endpoint, endpoint.address)

    def _mount_socket(self, path: str) -> None:
        adapter = _SocketAdapter(f"http+unix://{path}", self.timeout, max_pool_size=DEFAULT_MAX_POOL_SIZE)
        # The adapter would put a slash before a relative path. A name in the abstract namespace begins with a NUL.
        # Otherwise the path is not changed: made absolute, it can be longer than the system's limit, and `Path` would
        # remove a slash at the end, with which the CLI does not find the socket.
        adapter.socket_path = f"\0{path[1:]}" if path.startswith("@") else path
        self._custom_adapter = adapter
        self.mount("http+docker://", adapter)
        self.base_url = "http+docker://localhost"

    def _mount_tcp(self, endpoint: Endpoint, address: TcpAddress) -> None:
        scheme = "http" if endpoint.tls is None else "https"
        if endpoint.tls is not None:
            self.tls_context = tls.context(endpoint.tls)
            if not endpoint.tls.verify:
                # The user has asked for no verification. Otherwise each request would print a warning on the terminal.
                urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        context: ssl.SSLContext | None = self.tls_context
        if endpoint.proxy is not None:
            self.proxies = {scheme: endpoint.proxy}
            if context is None and endpoint.proxy.lower().startswith("https:"):
                context = ssl.create_default_context()
        self.mount(f"{scheme}://", _TcpAdapter(context))
        # The zone of an IPv6 address is written with %25 in a URL (RFC 6874).
        host = f"[{address.host.replace('%', '%25')}]" if ":" in address.host else address.host
        self.base_url = f"{scheme}://{host}:{address.port}{address.path}"

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Return ``None``, so that no redirect is followed. An engine never redirects a request."""
        self.redirected_to = super().get_redirect_target(resp)
        return None


class _SocketAdapter(UnixHTTPAdapter):
    """The SDK's adapter, but with one pool of connections, and with the socket of a failed connection closed at once.

    The SDK has a pool for each URL, so it uses hardly any connection twice, and behind ssh each new one takes a round
    trip. It leaves the socket of a failed connection to the garbage collector, so a minute of retries would leave many
    open sockets.
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

    def _put_conn(self, conn: Any) -> None:
        # The pool hands out first the connection that came back last. If that one is closed, a new connection would be
        # made although others are open.
        if conn is None or conn.sock is not None:
            super()._put_conn(conn)


class _SocketConnection(UnixHTTPConnection):
    def connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(self.timeout)
            connection.connect(self.unix_socket)
        except BaseException as error:
            connection.close()
            if isinstance(error, OSError) and error.errno == errno.EPROTOTYPE:
                # The socket is one for datagrams. urllib3 would go on after this error.
                raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED)) from error
            raise
        self.sock = connection


class _TcpAdapter(HTTPAdapter):
    """Makes connections that only the given context secures, without the certificates that requests would add.

    It sends a proxy the user name and password of its URL, also if one of them is empty, as Go's HTTP client does.
    """

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
        super().__init__(pool_maxsize=DEFAULT_MAX_POOL_SIZE)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, ssl_context=self._context)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        # A proxy with an https:// URL is checked with the same context as the engine. Go's HTTP client does this, too.
        return super().proxy_manager_for(*args, **kwargs, ssl_context=self._context, proxy_ssl_context=self._context)

    def proxy_headers(self, proxy: str) -> dict[str, str]:
        """Return the headers for the proxy with this URL."""
        account, at, _host = urlsplit(proxy).netloc.rpartition("@")
        name, _colon, password = account.partition(":")
        both = unquote_to_bytes(name) + b":" + unquote_to_bytes(password)
        return {"Proxy-Authorization": f"Basic {base64.b64encode(both).decode()}"} if at else {}

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> Any:
        """Return the host to connect to, without the options for certificates that requests would add.

        urllib3 reads the zone of an IPv6 address only if the address is in brackets.
        """
        host, _certificates = super().build_connection_pool_key_attributes(request, verify, cert)
        name = host["host"]
        return {**host, "host": f"[{name}]" if name and ":" in name else name}, {}

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Do nothing. The context is complete, and requests would load its own certificates into it."""
