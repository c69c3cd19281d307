"""Small servers that answer as an engine does and record the requests, so that a test sees where a client connects."""

from __future__ import annotations

import base64
import json
import re
import socket
import socketserver
import ssl
import subprocess
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from integration.host import apt_install

if TYPE_CHECKING:
    from typing_extensions import Self

VERSION = {
    "Version": "20.10.24",
    "ApiVersion": "1.41",
    "MinAPIVersion": "1.12",
    "Os": "linux",
    "Arch": "amd64",
    "GitCommit": "x",
    "GoVersion": "x",
    "KernelVersion": "x",
    "BuildTime": "x",
}


@dataclass(frozen=True)
class Asked:
    """One request that a listener has received."""

    listener: str
    prefix: str
    """The part of the path before the path of the API."""
    certificate: str | None = None
    """The common name of the client's certificate, or ``None`` if the client sent none."""
    headers: dict[str, str] = field(default_factory=dict, compare=False)
    api_version: str | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Post:
    """One POST request that a listener has received."""

    path: str
    """The path without the API version."""
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    def coded(self, header: str) -> Any:
        """Return the JSON value of a header that is in Base64, such as the header with registry credentials."""
        return json.loads(base64.urlsafe_b64decode(self.headers[header]))


class Listeners:
    """Listeners, each with a name, and the requests that they have received."""

    def __init__(self, directory: Path) -> None:
        """Make no listener yet. Unix sockets are made in ``directory``, whose path must be short."""
        self.directory = directory
        self.asked: list[Asked] = []
        self.posts: list[Post] = []
        self._servers: list[socketserver.BaseServer] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def unix(self, name: str) -> str:
        """Start a listener on a Unix socket with that name, and return its path."""
        path = self.directory / name
        self._serve(_UnixServer(str(path), _handler(name, self)))
        return str(path)

    def tcp(self, name: str, tls: ssl.SSLContext | None = None, address: str = "127.0.0.1") -> int:
        """Start a listener on a free port, and return the port."""
        kind = _TcpServer6 if ":" in address else _TcpServer
        server = kind((address, 0), _handler(name, self, tls))
        self._serve(server)
        return int(server.server_address[1])

    def since(self, number: int) -> list[Asked]:
        """Return the requests after the first ``number`` ones, equal requests only once."""
        return list(dict.fromkeys(self.asked[number:]))

    def _serve(self, server: socketserver.BaseServer) -> None:
        self._servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()


class _UnixServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


class _TcpServer(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing, because some tests have clients that do not finish the handshake."""


class _TcpServer6(_TcpServer):
    address_family = socket.AF_INET6


def _handler(
    name: str, listeners: Listeners, tls: ssl.SSLContext | None = None
) -> type[socketserver.StreamRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def setup(self) -> None:
            if tls is not None:
                self.request = tls.wrap_socket(self.request, server_side=True)
            super().setup()

        def finish(self) -> None:
            super().finish()
            # The server only closes the plain socket, so the TLS socket is closed here.
            if tls is not None:
                self.request.close()

        def _answer(self) -> None:
            match = re.fullmatch(r"(.*?)(?:/v([\d.]+))?/(_ping|version)", self.path)
            prefix, version = (match[1], match[2]) if match else (f"{self.command} {self.path}", None)
            listeners.asked.append(Asked(name, prefix, _common_name(self.request), dict(self.headers), version))
            body = b"OK" if self.path.endswith("_ping") else json.dumps(VERSION).encode()
            status = 502 if self.command == "CONNECT" else 200
            self.send_response(status)
            self.send_header("Api-Version", str(VERSION["ApiVersion"]))
            self.send_header("Ostype", "linux")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_POST(self) -> None:
            parts = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            path = re.sub(r"^/v[\d.]+", "", parts.path)
            listeners.posts.append(Post(path, query, dict(self.headers), self._body()))
            body = b'{"Id": "x", "status": "done", "stream": "Successfully built 0123456789ab\\n"}\n'
            self.send_response(201 if path == "/containers/create" else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        do_GET = do_HEAD = do_CONNECT = _answer  # noqa: N815

        def log_message(self, *_arguments: object) -> None:
            """Print nothing."""

    return Handler


def _common_name(connection: object) -> str | None:
    if not isinstance(connection, ssl.SSLSocket):
        return None
    for part in (connection.getpeercert() or {}).get("subject", ()):
        for pair in part:
            if pair[0] == "commonName":
                return str(pair[1])
    return None


class Authority:
    """A certificate authority, made with openssl. Its files have the names that Docker uses."""

    def __init__(self, directory: Path, name: str = "authority") -> None:
        """Make ``ca.pem`` in ``directory``."""
        apt_install(["openssl"], "the tests make certificates")
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.certificate = directory / "ca.pem"
        self._openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "ca-key.pem")
        self._openssl("req", "-x509", "-new", "-key", "ca-key.pem", "-subj", f"/CN={name}", "-days", "30", *_into("ca"))

    def issue(self, directory: Path, name: str, *, names: str = "", days: int = 30) -> Path:
        """Make ``ca.pem``, ``cert.pem`` and ``key.pem`` in ``directory``. ``names`` is the ``subjectAltName``."""
        directory.mkdir(parents=True, exist_ok=True)
        key, request, certificate = (directory / file for file in ("key.pem", "request.pem", "cert.pem"))
        self._openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", str(key))
        self._openssl("req", "-new", "-key", str(key), "-subj", f"/CN={name}", "-out", str(request))
        extensions = directory / "extensions"
        extensions.write_text(f"subjectAltName={names}\n" if names else "basicConstraints=CA:FALSE\n")
        self._openssl(
            *("x509", "-req", "-in", str(request), "-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial"),
            *("-days", str(days), "-extfile", str(extensions), "-out", str(certificate)),
        )
        (directory / "ca.pem").write_bytes(self.certificate.read_bytes())
        for file in (request, extensions):
            file.unlink()
        return directory

    def server(self, files: Path, *, wants_certificate: bool = False) -> ssl.SSLContext:
        """Return the context of a server with the certificate in ``files``. It takes this authority's certificates."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files / "cert.pem", files / "key.pem")
        context.load_verify_locations(self.certificate)
        context.verify_mode = ssl.CERT_REQUIRED if wants_certificate else ssl.CERT_OPTIONAL
        return context

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.directory, check=True, capture_output=True)


def _into(name: str) -> tuple[str, str]:
    return "-out", f"{name}.pem"


def closed_port() -> int:
    """Return a port of the loopback interface on which nobody listens."""
    with suppress(OSError), socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
    raise AssertionError("no port is free")
