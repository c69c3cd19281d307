"""An engine that cannot be reached: each error says the real cause, and its remedy is one that helps against it."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nerves_docker_port.engine.client import Engine
from nerves_docker_port.errors import Code, RunnerError
from support.listeners import closed_port

FAR = "tcp://192.0.2.1:2375"
"""An address of TEST-NET-1 (RFC 5737): nobody is there, but a proxy is asked for it."""
PAGE = "<html><head><title>x</title></head><body><h1>Denied</h1></body></html>"


class Answering(socketserver.ThreadingTCPServer):
    """Sends the same bytes to everyone who has sent something, and hangs up. ``address`` is its host and port."""

    daemon_threads = True
    answer = b""

    def __init__(self) -> None:
        class Handler(socketserver.BaseRequestHandler):
            server: Answering

            def handle(self) -> None:
                self.request.recv(1 << 16)
                self.request.sendall(self.server.answer)

        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server_address[1]}"

    def says(self, status: str, body: str = PAGE, *headers: str) -> None:
        """Answer with HTTP."""
        head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
        self.answer = ("\r\n".join(head) + f"\r\n\r\n{body}").encode()


@pytest.fixture
def server() -> Iterator[Answering]:
    with Answering() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home directory with the context ``far``, which is an engine with TLS at another machine."""
    identifier = hashlib.sha256(b"far").hexdigest()
    directory = tmp_path / ".docker" / "contexts" / "meta" / identifier
    directory.mkdir(parents=True)
    endpoint = {"Host": FAR, "SkipTLSVerify": True}
    (directory / "meta.json").write_text(json.dumps({"Name": "far", "Endpoints": {"docker": endpoint}}))
    return tmp_path


def refused(home: Path, **variables: str) -> RunnerError:
    with pytest.raises(RunnerError) as caught:
        Engine.connect({"HOME": str(home), "PATH": os.environ["PATH"], **variables})
    return caught.value


@pytest.mark.parametrize(
    ("status", "said", "remedy"),
    [
        ("407 Proxy Authentication Required", "the proxy refuses the connection: ", "http://USER:PASSWORD@HOST:PORT"),
        ("403 Forbidden", "the proxy refuses the connection: ", "without the proxy"),
        ("502 Bad Gateway", "the proxy refuses the connection: ", "without the proxy"),
        ("503 Service Unavailable", "the proxy refuses the connection: ", "without the proxy"),
        ("504 Gateway Timeout", "the proxy refuses the connection: ", "without the proxy"),
    ],
)
@pytest.mark.parametrize("secure", [False, True])
def test_a_proxy_that_refuses_is_named(
    server: Answering, home: Path, status: str, said: str, remedy: str, secure: bool
) -> None:
    server.says(status)
    where = {"DOCKER_CONTEXT": "far", "HTTPS_PROXY": f"http://me:secret@{server.address}"}
    error = refused(
        home, **where if secure else {"DOCKER_HOST": FAR, "HTTP_PROXY": f"http://me:secret@{server.address}"}
    )
    assert error.code == Code.ENGINE_UNREACHABLE
    assert error.message.endswith(f"{said}{status if secure else 'Denied'}")
    assert "secret" not in error.message
    assert remedy in (error.hint or "")
    assert 'export NO_PROXY="$NO_PROXY,192.0.2.1"' in (error.hint or "")


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "Connection refused"),
        (b"", "it closed the connection without an answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "it does not answer as an HTTP proxy does"),
    ],
)
def test_a_proxy_that_does_not_connect_is_named(
    server: Answering, home: Path, answer: bytes | None, said: str, secure: bool
) -> None:
    server.answer = answer or b""
    proxy = f"http://{server.address}" if answer is not None else f"http://127.0.0.1:{closed_port()}"
    where = {"DOCKER_CONTEXT": "far", "HTTPS_PROXY": proxy} if secure else {"DOCKER_HOST": FAR, "HTTP_PROXY": proxy}
    error = refused(home, **where)
    assert error.message.endswith(f"no connection through the proxy: {said}")
    assert 'export NO_PROXY="$NO_PROXY,192.0.2.1"' in (error.hint or "")


@pytest.mark.parametrize("name", ["a..b", "*", "a_b", "x" * 70, "\u00fc" * 60])
def test_the_password_of_a_proxy_with_an_odd_name_is_not_shown(home: Path, name: str) -> None:
    error = refused(home, DOCKER_HOST=FAR, HTTP_PROXY=f"http://me:secret@{name}.invalid:3128")
    assert "secret" not in error.message
    assert 'export NO_PROXY="$NO_PROXY,192.0.2.1"' in (error.hint or "")


def test_an_engine_that_refuses_behind_a_proxy_speaks_for_itself(server: Answering, home: Path) -> None:
    server.says("500 Internal Server Error", '{"message": "the engine\'s own trouble"}')
    error = refused(home, DOCKER_HOST=FAR, HTTP_PROXY=f"http://{server.address}")
    assert error.message.endswith("the engine's own trouble")
    assert "NO_PROXY" not in (error.hint or "")


def test_a_redirect_is_told_with_its_target(server: Answering, home: Path) -> None:
    server.says("302 Found", PAGE, "Location: https://portal.example/login")
    error = refused(home, DOCKER_HOST=f"tcp://{server.address}")
    assert error.message.endswith("is not a Docker engine; it redirects to https://portal.example/login")
    assert "DOCKER_TLS_VERIFY=1" in (error.hint or "")


def test_a_login_that_is_wanted_is_told_with_the_place_for_it(server: Answering, home: Path) -> None:
    server.says("401 Unauthorized")
    error = refused(home, DOCKER_HOST=f"tcp://{server.address}")
    assert error.code == Code.ENGINE_PERMISSION
    assert error.message.endswith(": Denied")
    assert (error.hint or "").startswith("It wants a login.")
    assert '"HttpHeaders": {"Authorization"' in (error.hint or "")


@pytest.mark.parametrize("body", [PAGE, "", "null", "{}", '{"ApiVersion": ""}'])
def test_another_program_at_the_address_is_told(server: Answering, home: Path, body: str) -> None:
    server.says("200 OK", body)
    error = refused(home, DOCKER_HOST=f"tcp://{server.address}")
    assert error.message.endswith("what answers there is not a Docker engine")
    assert "another program may answer there" in (error.hint or "")
    assert "systemctl start" not in (error.hint or "")


def test_a_host_without_an_address_is_no_stopped_engine(home: Path) -> None:
    error = refused(home, DOCKER_HOST="tcp://nowhere.invalid:2375")
    assert "Check the name nowhere.invalid" in (error.hint or "")
    assert "systemctl start" not in (error.hint or "")


def test_a_port_where_nobody_listens_is_named_with_its_host(home: Path) -> None:
    port = closed_port()
    error = refused(home, DOCKER_HOST=f"tcp://127.0.0.1:{port}")
    assert error.message.endswith("(DOCKER_HOST): Connection refused")
    assert f"Check on 127.0.0.1 that the engine runs and listens on port {port}" in (error.hint or "")
    assert "unset DOCKER_HOST" in (error.hint or "")


def test_a_socket_for_datagrams_is_no_engine(home: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(str(home / "log"))
        error = refused(home, DOCKER_HOST=f"unix://{home}/log")
    assert error.code == Code.ENGINE_UNREACHABLE
    assert error.message.endswith("(DOCKER_HOST): Connection refused")
