"""TLS with an engine that does not come about: which file it is, what does not fit, and what to do."""

from __future__ import annotations

import os
import shutil
import socketserver
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nerves_docker_port.engine.client import Engine
from nerves_docker_port.errors import Code, RunnerError
from support.listeners import Authority, Listeners


class World:
    """A TLS engine that wants client certificates, one that does not, one with another name, and a plain one."""

    def __init__(self, root: Path, listeners: Listeners) -> None:
        self.authority, self.stranger = Authority(root / "authority"), Authority(root / "stranger", "stranger")
        names = "DNS:localhost,IP:127.0.0.1"
        server = self.authority.issue(root / "server", "server", names=names)
        elsewhere = self.authority.issue(root / "elsewhere", "elsewhere", names="DNS:elsewhere.example")
        nameless = self.authority.issue(root / "nameless", "localhost")
        expired = self.authority.issue(root / "expired", "expired", names=names, days=-1)
        self.client = self.authority.issue(root / "client", "client")
        self.strange = self.stranger.issue(root / "strange", "strange")
        self.tls = listeners.tcp("tls", self.authority.server(server))
        self.strict = listeners.tcp("strict", self.authority.server(server, wants_certificate=True))
        self.elsewhere = listeners.tcp("elsewhere", self.authority.server(elsewhere))
        self.nameless = listeners.tcp("nameless", self.authority.server(nameless))
        self.expired = listeners.tcp("expired", self.authority.server(expired))
        self.plain = listeners.tcp("plain")


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """The listeners of all tests here."""
    with tempfile.TemporaryDirectory(prefix="ndp-") as name, Listeners(Path(name)) as listeners:
        yield World(Path(name), listeners)


def variables(port: int, files: Path, host: str = "127.0.0.1") -> dict[str, str]:
    return {
        "HOME": "/nonexistent",
        "DOCKER_HOST": f"tcp://{host}:{port}",
        "DOCKER_TLS_VERIFY": "1",
        "DOCKER_CERT_PATH": str(files),
    }


def refused(environ: dict[str, str]) -> RunnerError:
    with pytest.raises(RunnerError) as caught:
        Engine.connect(environ)
    assert caught.value.code is Code.ENGINE_UNREACHABLE
    assert "Permission denied" not in caught.value.message
    assert "usermod" not in (caught.value.hint or "")
    return caught.value


def test_the_certificates_of_the_environment_are_all_that_counts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(variable, str(world.strange / "ca.pem"))
    engine = Engine.connect(variables(world.strict, world.client))
    assert engine.api.ping()
    engine.close()
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(world.client / "ca.pem"))
    assert "is not signed by" in refused(variables(world.tls, world.strange)).message


def test_the_wrong_authority_is_named_with_its_file(world: World) -> None:
    error = refused(variables(world.tls, world.strange))
    assert f"the engine's certificate is not signed by the authority in {world.strange}/ca.pem" in error.message
    assert "DOCKER_CERT_PATH" in (error.hint or "")


@pytest.mark.parametrize(("port", "host"), [("elsewhere", "127.0.0.1"), ("elsewhere", "localhost")])
def test_the_wrong_name_is_named(world: World, port: str, host: str) -> None:
    error = refused(variables(getattr(world, port), world.client, host))
    assert f"the engine's certificate is not made for the host {host}." in error.message
    assert f"subjectAltName={'DNS' if host == 'localhost' else 'IP'}:{host}" in (error.hint or "")
    assert f"`openssl s_client -connect {host}:{getattr(world, port)} </dev/null" in (error.hint or "")


def test_a_common_name_is_no_name(world: World) -> None:
    error = refused(variables(world.nameless, world.client, "localhost"))
    assert "the engine's certificate is not made for the host localhost." in error.message


def test_an_expired_certificate_is_called_expired(world: World) -> None:
    error = refused(variables(world.expired, world.client))
    assert "the engine's certificate has expired." in error.message


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """A port where everybody is told the same, whatever they said."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            self.request.sendall(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()


BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n400 Bad Request"


@pytest.mark.parametrize("answer", [BAD_REQUEST, b"SSH-2.0-OpenSSH_9.2p1\r\n", b""], ids=["http", "ssh", "nothing"])
def test_tls_to_what_does_not_speak_it(world: World, answer: bytes) -> None:
    with answering(answer) as port:
        error = refused(variables(port, world.client))
    assert "what answers there does not speak TLS, which DOCKER_TLS_VERIFY asks for." in error.message
    assert "unset DOCKER_TLS_VERIFY" in (error.hint or "")


GO = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
NGINX_PAGE = b"<html><body><center>The plain HTTP request was sent to HTTPS port</center></body></html>"
NGINX = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n" + NGINX_PAGE
ALERT = b"\x15\x03\x01\x00\x02\x02\x46"


@pytest.mark.parametrize("answer", [GO, NGINX, ALERT], ids=["go", "nginx", "alert"])
def test_plain_http_to_what_wants_tls(world: World, answer: bytes) -> None:
    with answering(answer) as port:
        # The certificates alone do not turn TLS on.
        error = refused({**variables(port, world.client), "DOCKER_TLS_VERIFY": ""})
    assert "what answers there speaks TLS, and plain HTTP was sent." in error.message
    assert "DOCKER_TLS_VERIFY=1" in (error.hint or "")


def test_a_version_of_tls_that_is_too_old_is_no_refused_certificate(world: World) -> None:
    with answering(ALERT) as port:
        error = refused(variables(port, world.client))
    assert "there is no version of TLS that the engine and this machine have in common." in error.message
    assert "TLS 1.2 or later" in (error.hint or "")


def test_without_a_host_the_variable_that_leads_to_tls_is_named(world: World) -> None:
    error = refused({**variables(1, world.client), "DOCKER_HOST": ""})
    assert "at tcp://localhost:2376 (DOCKER_TLS_VERIFY)" in error.message


def test_plain_http_to_what_hangs_up_mentions_tls(world: World) -> None:
    error = refused({"DOCKER_HOST": f"tcp://127.0.0.1:{world.tls}", "HOME": "/nonexistent"})
    assert "may speak TLS: then set DOCKER_TLS_VERIFY=1" in (error.hint or "")


def test_an_engine_that_wants_a_certificate_says_so(world: World, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes((world.client / "ca.pem").read_bytes())
    error = refused(variables(world.strict, tmp_path))
    assert "No TLS connection to the engine" in error.message
    assert "certificate" in error.message
    assert "cert.pem and key.pem" in (error.hint or "")


def test_a_certificate_that_the_engine_does_not_accept_is_named(world: World, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes((world.client / "ca.pem").read_bytes())
    for file in ("cert.pem", "key.pem"):
        (tmp_path / file).write_bytes((world.strange / file).read_bytes())
    error = refused(variables(world.strict, tmp_path))
    assert f"the engine does not accept the certificate {tmp_path}/cert.pem" in error.message


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("ca.pem", b"", "it holds no certificate"),
        ("ca.pem", b"nonsense", "it holds no certificate"),
        ("cert.pem", b"nonsense", "it holds no certificate that can be used"),
        ("key.pem", b"nonsense", "it holds no private key that can be used"),
        ("key.pem", None, "it is not the key of "),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_named(
    world: World, tmp_path: Path, file: str, content: bytes | None, reason: str
) -> None:
    for each in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / each).write_bytes((world.client / each).read_bytes())
    (tmp_path / file).write_bytes((world.strange / file).read_bytes() if content is None else content)
    error = refused(variables(world.strict, tmp_path))
    assert error.message.startswith(
        f"TLS with the engine (DOCKER_TLS_VERIFY) needs the file {tmp_path}/{file}: {reason}"
    )


@pytest.mark.parametrize("form", [["-traditional"], []], ids=["rfc1423", "pkcs8"])
def test_a_key_with_a_passphrase_is_named_and_nobody_is_asked_for_it(
    world: World, tmp_path: Path, form: list[str]
) -> None:
    for each in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / each).write_bytes((world.client / each).read_bytes())
    subprocess.run(
        ["openssl", "rsa", "-aes128", "-passout", "pass:secret", *form, "-in", "key.pem", "-out", "key.pem"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    error = refused(variables(world.strict, tmp_path))
    assert f"needs the file {tmp_path}/key.pem: it is encrypted with a passphrase" in error.message


def test_a_key_that_only_others_may_read_is_named(world: World, tmp_path: Path) -> None:
    script = """
import os, sys
from nerves_docker_port.engine.client import Engine
from nerves_docker_port.errors import RunnerError
os.setgid(65534); os.setuid(65534)
try:
    Engine.connect(dict(os.environ))
except RunnerError as error:
    print(error.message)
"""
    directory = Path(tempfile.mkdtemp(prefix="ndp-"))
    directory.chmod(0o755)
    for each in ("ca.pem", "cert.pem", "key.pem"):
        (directory / each).write_bytes((world.client / each).read_bytes())
        (directory / each).chmod(0o600 if each == "key.pem" else 0o644)
    ended = subprocess.run(
        [sys.executable, "-c", script],
        env={**variables(world.strict, directory), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    shutil.rmtree(directory)
    wanted = f"TLS with the engine (DOCKER_TLS_VERIFY) needs the file {directory}/key.pem: Permission denied\n"
    assert ended.stdout == wanted, ended.stderr
