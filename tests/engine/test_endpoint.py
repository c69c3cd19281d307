"""Finding and asking the engine as the docker CLI does: each case is given to the CLI, too; both must do the same.

No engine is needed: the environments point at small listeners that write down who connected, with what TLS. What counts
is who was reached, or that nobody was. The CLI is the one of the tests' world (Debian 12: 20.10). The cases hold for
28.2, which is the reference, as well; where the two differ, 28.2's answer stands in tests/unit/test_endpoint.py.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine import credentials
from nerves_docker_port.engine.client import Engine
from nerves_docker_port.errors import RunnerError
from nerves_docker_port.image.build import build
from nerves_docker_port.image.context import Context
from nerves_docker_port.image.pull import pull
from nerves_docker_port.record.log import BuildLog
from support.listeners import Asked, Authority, Listeners, Post, closed_port

CLI_TIMEOUT = 60
"""Seconds; only ends a hang."""


@dataclass
class World:
    """Listeners, certificates, and one person's home directory."""

    listeners: Listeners
    home: Path
    names: dict[str, Any]
    """What a case may name in braces: the listeners' sockets and ports, and directories of certificates."""
    cli: str
    cwd: Path | None = None
    """Where both are asked; ``None`` is the home directory."""

    @property
    def config(self) -> Path:
        """The CLI's configuration directory."""
        return self.home / ".docker"

    def fill(self, text: str) -> str:
        """A case's text with the names in braces replaced."""
        return re.sub(r"\{(\w+)\}", lambda match: str(self.names[match[1]]), text)

    def environ(self, variables: dict[str, str]) -> dict[str, str]:
        """What a process has that knows only this home directory and these variables."""
        filled = {name: self.fill(value) for name, value in variables.items()}
        return {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(self.home), **filled}

    def write_config(self, content: object) -> None:
        """Make ``config.json``; text stands as it is."""
        text = content if isinstance(content, str) else json.dumps(content)
        (self.config / "config.json").write_text(self.fill(text) if "{unix}" in text else text)

    def add_context(self, name: str, meta: object, files: dict[str, str] | None = None) -> None:
        """Store a context; ``files`` are those for TLS, by name, with the path to copy each from."""
        identifier = hashlib.sha256(name.encode()).hexdigest()
        directory = self.config / "contexts" / "meta" / identifier
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "meta.json").write_text(self.fill(meta if isinstance(meta, str) else json.dumps(meta)))
        if files is not None:
            stored = self.config / "contexts" / "tls" / identifier / "docker"
            stored.mkdir(parents=True)
            for file, source in files.items():
                (stored / file).write_bytes(Path(self.fill(source)).read_bytes())

    def both(self, variables: dict[str, str]) -> tuple[Reached, Reached]:
        """Where the CLI and where we arrive in an environment."""
        return self.by_cli(variables), self.by_us(variables)

    def by_cli(self, variables: dict[str, str]) -> Reached:
        """Where `docker version` arrives."""
        before = len(self.listeners.asked)
        ended = subprocess.run(
            [self.cli, "version"],
            env=self.environ(variables),
            cwd=self.cwd or self.home,
            capture_output=True,
            text=True,
            timeout=CLI_TIMEOUT,
        )
        aimed_at = re.search(r"Cannot connect to the Docker daemon at (\S+)\. Is", ended.stderr)
        return Reached(self.listeners.since(before), aimed_at[1] if aimed_at else None, ended.stderr)

    def by_us(self, variables: dict[str, str]) -> Reached:
        """Where ``Engine.connect`` arrives."""
        before = len(self.listeners.asked)
        aimed_at, said = None, ""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.cwd or self.home)
            try:
                engine = Engine.connect(self.environ(variables))
            except RunnerError as error:
                said = error.message
                match = re.search(r"No engine answers at (\S+) \(", error.message)
                aimed_at = match[1] if match else None
            else:
                said = "\n".join(engine.warnings)
                engine.close()
        return Reached(self.listeners.since(before), aimed_at, said)


@dataclass(frozen=True)
class Reached:
    """Who was asked, or at what address somebody was looked for in vain."""

    asked: list[Asked]
    aimed_at: str | None
    said: str


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Listeners, dict[str, Any]]]:
    """The listeners and the certificates; making them takes a second."""
    with tempfile.TemporaryDirectory(prefix="ndp-") as name:
        root = Path(name)
        authority, stranger = Authority(root / "authority"), Authority(root / "stranger", "stranger")
        server = authority.issue(root / "server", "server", names="DNS:localhost,IP:127.0.0.1")
        elsewhere = authority.issue(root / "elsewhere", "elsewhere", names="DNS:elsewhere.example")
        names: dict[str, Any] = {
            "certificates": authority.issue(root / "client", "client"),
            "strange": stranger.issue(root / "strange", "strange"),
            "nothing": root / "nothing",
            "socket": root,
            "closed": closed_port(),
        }
        (root / "nothing").mkdir()
        with Listeners(root) as listeners:
            names["unix"] = listeners.unix("e.sock")
            names["spaced"] = listeners.unix("a b.sock")
            names["percent"] = listeners.unix("a%20b.sock")
            names["plain"] = listeners.tcp("plain")
            names["proxy"] = listeners.tcp("proxy")
            names["tls"] = listeners.tcp("tls", authority.server(server))
            names["strict"] = listeners.tcp("strict", authority.server(server, wants_certificate=True))
            names["six"] = listeners.tcp("six", address="::1")
            names["misnamed"] = listeners.tcp("misnamed", authority.server(elsewhere))
            yield listeners, names


@pytest.fixture
def world(shared: tuple[Listeners, dict[str, Any]], tmp_path: Path) -> World:
    """A home directory of its own for each test."""
    listeners, names = shared
    (tmp_path / ".docker").mkdir()
    cli = shutil.which("docker")
    assert cli is not None, "the docker CLI is missing: it is what these tests compare with (Debian: docker.io)"
    return World(listeners, tmp_path, {**names, "home": tmp_path}, cli)


def same(world: World, variables: dict[str, str]) -> Reached:
    """Both do the same; what we did."""
    theirs, ours = world.both(variables)
    both = f"the CLI: {theirs}\nwe: {ours}"
    assert ours.asked == theirs.asked, both
    # The CLI does not always name the address at which nobody answered.
    assert theirs.aimed_at in (None, ours.aimed_at), both
    return ours


def reached(where: Reached) -> str:
    """The listener's name, or ``nobody``."""
    return where.asked[0].listener if where.asked else "nobody"


# --- DOCKER_HOST ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "where"),
    [
        ("unix://{unix}", "e.sock"),
        ("  unix://{unix} ", "e.sock"),
        ("unix://e.sock", "nobody"),
        ("unix://{spaced}", "a b.sock"),
        ("unix://{percent}", "a%20b.sock"),
        ("unix://{socket}/none.sock", "nobody"),
        ("unix://{socket}//e.sock", "e.sock"),
        ("unix://{unix}/", "nobody"),
        ("unix://a://b", "nobody"),
        ("unix:{unix}", "nobody"),
        ("unix:relative", "nobody"),
        ("tcp://127.0.0.1:{plain}", "plain"),
        ("127.0.0.1:{plain}", "plain"),
        ("localhost:{plain}", "plain"),
        (":{plain}", "plain"),
        ("tcp://:{plain}", "plain"),
        ("tcp://localhost:{plain}/base", "plain"),
        ("tcp://localhost:{plain}/base/", "plain"),
        ("tcp://localhost:{plain}/a%20b", "plain"),
        ("tcp://localhost:{plain}/a//b/./c/../d", "plain"),
        ("tcp://%31%32%37.0.0.1:{plain}", "nobody"),
        ("tcp://user:secret@127.0.0.1:{plain}", "plain"),
        ("tcp://a b@127.0.0.1:{plain}", "nobody"),
        ("fd://user@127.0.0.1:{plain}", "nobody"),
        ("tcp://127.0.0.1:{plain}?query=x", "plain"),
        ("tcp://[::1]:{six}", "six"),
        ("tcp://[::1%25lo]:{six}", "nobody"),
        ("tcp://127.0.0.1:{closed}", "nobody"),
        ("tcp://", "nobody"),
        ("localhost", "nobody"),
        ("tcp://[::1]:", "nobody"),
        ("::1", "nobody"),
        ("tcp://[::1]", "nobody"),
        ("tcp://127.0.0.1:port", "nobody"),
        ("tcp://127.0.0.1:-1", "nobody"),
        ("tcp://127.0.0.1:70000", "nobody"),
        ("tcp://local host:{plain}", "nobody"),
        ("tcp://127.0.0.1:{plain}/%zz", "nobody"),
        ("tcp://tcp://127.0.0.1:{plain}", "plain"),
        ("http://127.0.0.1:{plain}", "nobody"),
        ("https://127.0.0.1:{tls}", "nobody"),
        ("TCP://127.0.0.1:{plain}", "nobody"),
        ("nonsense://127.0.0.1:{plain}", "nobody"),
        ("npipe:////./pipe/docker_engine", "nobody"),
        ("ssh://", "nobody"),
        ("ssh://user:secret@localhost", "nobody"),
        ("ssh://localhost?x", "nobody"),
        ("ssh://localhost#x", "nobody"),
    ],
)
def test_docker_host_leads_where_it_leads_the_cli(world: World, host: str, where: str) -> None:
    found = same(world, {"DOCKER_HOST": host})
    assert reached(found) == world.fill(where)


def test_a_relative_socket_may_lie_deep(world: World) -> None:
    """Only its own path counts for the system's limit."""
    deep = world.home / ("d" * 120)
    deep.mkdir()
    (deep / "e.sock").symlink_to(world.fill("{unix}"))
    assert reached(same(replace(world, cwd=deep), {"DOCKER_HOST": "unix://e.sock"})) == "e.sock"


@pytest.mark.parametrize("given", ["", "   "])
def test_an_empty_docker_host_is_the_default_socket(world: World, given: str) -> None:
    theirs, ours = world.both({"DOCKER_HOST": given})
    # The tests' world may have an engine there.
    assert ours.aimed_at in (None, "unix:///var/run/docker.sock")
    assert theirs.aimed_at == ours.aimed_at


# --- TLS by variables ----------------------------------------------------------------------------------------------

HTTPS = {"DOCKER_HOST": "tcp://127.0.0.1:{tls}", "DOCKER_CERT_PATH": "{certificates}", "DOCKER_TLS_VERIFY": "1"}


@pytest.mark.parametrize(
    ("variables", "where"),
    [
        (HTTPS, "tls"),
        ({**HTTPS, "DOCKER_HOST": "tcp://localhost:{strict}"}, "strict"),
        ({**HTTPS, "DOCKER_TLS_VERIFY": "0"}, "tls"),
        ({**HTTPS, "REQUESTS_CA_BUNDLE": "{strange}/ca.pem", "CURL_CA_BUNDLE": "{strange}/ca.pem"}, "tls"),
        ({**HTTPS, "DOCKER_TLS_VERIFY": "", "DOCKER_TLS": "1"}, "tls"),
        ({**HTTPS, "DOCKER_TLS_VERIFY": ""}, "nobody"),
        ({**HTTPS, "DOCKER_CERT_PATH": "{strange}"}, "nobody"),
        ({**HTTPS, "DOCKER_CERT_PATH": "{nothing}"}, "nobody"),
        ({**HTTPS, "DOCKER_CERT_PATH": "{home}/missing"}, "nobody"),
        ({**HTTPS, "DOCKER_CERT_PATH": ""}, "nobody"),
        ({**HTTPS, "DOCKER_HOST": "tcp://127.0.0.1:{misnamed}"}, "nobody"),
        (
            {**HTTPS, "DOCKER_HOST": "tcp://127.0.0.1:{misnamed}", "DOCKER_TLS_VERIFY": "", "DOCKER_TLS": "1"},
            "misnamed",
        ),
        ({**HTTPS, "DOCKER_HOST": "tcp://127.0.0.1:{plain}"}, "nobody"),
        ({"DOCKER_HOST": "tcp://127.0.0.1:{plain}", "DOCKER_CERT_PATH": "{certificates}"}, "plain"),
        ({"DOCKER_HOST": "tcp://127.0.0.1:{tls}"}, "nobody"),
        ({"DOCKER_HOST": "tcp://127.0.0.1:{strict}", "DOCKER_TLS": "1", "DOCKER_CERT_PATH": "{nothing}"}, "nobody"),
        ({"DOCKER_HOST": "unix://{unix}", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "{nothing}"}, "nobody"),
        ({"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "{certificates}"}, "nobody"),
    ],
)
def test_tls_is_spoken_where_the_cli_speaks_it(world: World, variables: dict[str, str], where: str) -> None:
    assert reached(same(world, variables)) == where


def test_certificates_in_the_configuration_directory_are_the_default(world: World) -> None:
    for file in ("ca.pem", "cert.pem", "key.pem"):
        shutil.copy(world.names["certificates"] / file, world.config / file)
    found = same(world, {"DOCKER_HOST": "tcp://127.0.0.1:{strict}", "DOCKER_TLS_VERIFY": "1"})
    assert found.asked == [Asked("strict", "", "client")]


@pytest.mark.parametrize(
    ("missing", "where"),
    [("cert.pem", "tls"), ("key.pem", "tls"), ("ca.pem", "nobody")],
)
def test_a_missing_file_is_missing_for_both(world: World, missing: str, where: str) -> None:
    for file in {"ca.pem", "cert.pem", "key.pem"} - {missing}:
        shutil.copy(world.names["certificates"] / file, world.config / file)
    found = same(world, {"DOCKER_HOST": "tcp://127.0.0.1:{tls}", "DOCKER_TLS_VERIFY": "1"})
    assert reached(found) == where
    assert all(asked.certificate is None for asked in found.asked)


@pytest.mark.parametrize("file", ["ca.pem", "cert.pem", "key.pem"])
@pytest.mark.parametrize(
    "content", ["", "nonsense\n", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_file_that_holds_something_else_is_refused_by_both(world: World, file: str, content: str) -> None:
    for each in ("ca.pem", "cert.pem", "key.pem"):
        shutil.copy(world.names["certificates"] / each, world.config / each)
    (world.config / file).write_text(content)
    found = same(world, {"DOCKER_HOST": "tcp://127.0.0.1:{tls}", "DOCKER_TLS_VERIFY": "1"})
    assert reached(found) == "nobody"
    assert file in found.said


BROKEN = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    "content",
    [
        "{broken}{good}",
        "{good}{broken}",
        "-----BEGIN CERTIFICATE-----\n{good}",
        "{good}{good}",
        "a comment: \u00fc\n{good}\n",
    ],
)
def test_a_certificate_that_cannot_be_read_takes_nothing_from_the_others(world: World, content: str) -> None:
    for each in ("ca.pem", "cert.pem", "key.pem"):
        shutil.copy(world.names["certificates"] / each, world.config / each)
    good = (world.config / "ca.pem").read_text()
    (world.config / "ca.pem").write_text(content.format(good=good, broken=BROKEN))
    assert reached(same(world, {"DOCKER_HOST": "tcp://127.0.0.1:{tls}", "DOCKER_TLS_VERIFY": "1"})) == "tls"


# --- proxies -------------------------------------------------------------------------------------------------------

# Addresses of TEST-NET-1 (RFC 5737): nobody is there, but a proxy is asked for them.
FAR = {"DOCKER_HOST": "tcp://192.0.2.1:2375", "HTTP_PROXY": "http://127.0.0.1:{proxy}"}
FAR_TLS = {
    "DOCKER_HOST": "tcp://192.0.2.1:2376",
    "HTTPS_PROXY": "http://127.0.0.1:{proxy}",
    "DOCKER_TLS_VERIFY": "1",
    "DOCKER_CERT_PATH": "{certificates}",
}
NEAR = {"DOCKER_HOST": "tcp://127.0.0.1:{plain}", "HTTP_PROXY": "http://127.0.0.1:{proxy}"}


@pytest.mark.parametrize(
    ("variables", "where"),
    [
        (FAR, "proxy"),
        ({**FAR, "HTTP_PROXY": "127.0.0.1:{proxy}"}, "proxy"),
        ({**FAR, "HTTP_PROXY": "http://me:secret@127.0.0.1:{proxy}/"}, "proxy"),
        ({**FAR, "HTTP_PROXY": "http://me@127.0.0.1:{proxy}"}, "proxy"),
        ({**FAR, "HTTP_PROXY": "http://:secret@127.0.0.1:{proxy}"}, "proxy"),
        ({**FAR, "HTTP_PROXY": "http://m%40e:%C3%A4%3A@127.0.0.1:{proxy}"}, "proxy"),
        ({**FAR_TLS, "HTTPS_PROXY": "http://me:%C3%A4@127.0.0.1:{proxy}"}, "proxy"),
        ({**FAR, "HTTP_PROXY": "http://:{proxy}"}, "proxy"),
        ({**FAR, "HTTP_PROXY": ":{proxy}"}, "proxy"),
        ({**FAR, "HTTP_PROXY": "", "http_proxy": "http://127.0.0.1:{proxy}"}, "proxy"),
        ({**FAR, "NO_PROXY": "192.0.2.2,example.org,192.0.3.0/24,192.0.2.1:2376"}, "proxy"),
        ({**FAR, "DOCKER_HOST": "tcp://engine.example:2375"}, "proxy"),
        ({**FAR, "DOCKER_HOST": "tcp://engine.example:2375", "NO_PROXY": "ample,engine.exam,.engine.example"}, "proxy"),
        ({**FAR, "HTTP_PROXY": "http://me:a b@127.0.0.1:{proxy}"}, "nobody"),
        ({**FAR, "HTTP_PROXY": "http://me:a#b@127.0.0.1:{proxy}"}, "nobody"),
        ({**NEAR, "DOCKER_HOST": "tcp://LOCALHOST:{plain}", "HTTP_PROXY": " http://127.0.0.1:{proxy}"}, "plain"),
        ({**NEAR, "DOCKER_HOST": "tcp://LOCALHOST:{plain}", "HTTP_PROXY": "%zz"}, "plain"),
        ({**FAR, "HTTP_PROXY": "https://127.0.0.1:{tls}"}, "nobody"),
        ({**FAR_TLS, "HTTPS_PROXY": "https://127.0.0.1:{strict}"}, "strict"),
        ({**FAR_TLS, "HTTPS_PROXY": "https://127.0.0.1:{misnamed}"}, "nobody"),
        (FAR_TLS, "proxy"),
        (NEAR, "plain"),
        ({**NEAR, "DOCKER_HOST": "tcp://localhost:{plain}"}, "plain"),
        ({**NEAR, "HTTP_PROXY": "socks5://127.0.0.1:{proxy}"}, "plain"),
        ({**NEAR, "HTTP_PROXY": "", "HTTPS_PROXY": "http://127.0.0.1:{proxy}"}, "plain"),
        ({**NEAR, "DOCKER_HOST": "unix://{unix}"}, "e.sock"),
        ({**HTTPS, "HTTPS_PROXY": "http://127.0.0.1:{proxy}"}, "tls"),
    ],
)
def test_a_proxy_is_used_where_the_cli_uses_it(world: World, variables: dict[str, str], where: str) -> None:
    before = len(world.listeners.asked)
    assert reached(same(world, variables)) == where
    # A proxy gets the same user name and password from both.
    assert len({asked.headers.get("Proxy-Authorization") for asked in world.listeners.asked[before:]}) <= 1


# --- API version and headers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["1.30", "1.41", "v1.40", "1.41.0", "1.041"])
def test_the_api_version_can_be_set(world: World, given: str) -> None:
    variables = {"DOCKER_HOST": "unix://{unix}", "DOCKER_API_VERSION": given}
    theirs = world.by_cli(variables)
    engine = Engine.connect(world.environ(variables))
    assert {asked.api_version for asked in world.listeners.asked[-1:]} <= {None}
    engine.api.get(engine.url("/version"))
    engine.close()
    # The version is sent in the form that engines know, for example `1.41` for the user's `1.41.0`.
    assert world.listeners.asked[-1].api_version == re.sub(r"^v|\.0$|(?<=\.)0+", "", given)
    assert theirs.asked


def test_headers_of_the_configuration_are_sent(world: World) -> None:
    world.write_config({"HttpHeaders": {"X-Team": "ü€", "User-Agent": "mine"}})
    for find in (world.by_cli, world.by_us):
        before = len(world.listeners.asked)
        find({"DOCKER_HOST": "unix://{unix}"})
        sent = world.listeners.asked[before].headers
        assert sent["X-Team"].encode("latin-1").decode() == "ü€"
        assert sent["User-Agent"] != "mine"


# --- contexts ------------------------------------------------------------------------------------------------------


def docker_endpoint(host: object, **more: object) -> dict[str, object]:
    return {"Name": "here", "Metadata": {}, "Endpoints": {"docker": {"Host": host, **more}}}


ALL = {file: f"{{certificates}}/{file}" for file in ("ca.pem", "cert.pem", "key.pem")}


@pytest.mark.parametrize(
    ("meta", "files", "where"),
    [
        (docker_endpoint("unix://{unix}"), None, "e.sock"),
        (docker_endpoint("tcp://127.0.0.1:{plain}", SkipTLSVerify=False), None, "plain"),
        (docker_endpoint("tcp://127.0.0.1:{plain}/base"), None, "plain"),
        (docker_endpoint("http://127.0.0.1:{plain}"), None, "plain"),
        (docker_endpoint("tcp://[::1]:{six}"), None, "six"),
        (docker_endpoint("tcp://[::1%251]:{six}"), None, "six"),
        (docker_endpoint("tcp://[::1%lo]:{six}"), None, "nobody"),
        (docker_endpoint("tcp://127.0.0.1:{tls}"), ALL, "tls"),
        (docker_endpoint("tcp://127.0.0.1:{strict}"), ALL, "strict"),
        (docker_endpoint("tcp://127.0.0.1:{tls}", SkipTLSVerify=True), None, "tls"),
        (docker_endpoint("tcp://127.0.0.1:{misnamed}", SkipTLSVerify=True), ALL, "misnamed"),
        (docker_endpoint("tcp://127.0.0.1:{misnamed}"), ALL, "nobody"),
        (docker_endpoint("tcp://127.0.0.1:{tls}"), None, "nobody"),
        (docker_endpoint("tcp://127.0.0.1:{tls}"), {"ca.pem": "{certificates}/ca.pem"}, "tls"),
        (docker_endpoint("tcp://127.0.0.1:{strict}"), {"ca.pem": "{certificates}/ca.pem"}, "nobody"),
        (docker_endpoint("tcp://127.0.0.1:{strict}"), {k: v for k, v in ALL.items() if k != "key.pem"}, "nobody"),
        (docker_endpoint("tcp://127.0.0.1:{tls}"), {"ca.pem": "{strange}/ca.pem"}, "nobody"),
        (docker_endpoint("tcp://127.0.0.1:{tls}"), {}, "nobody"),
        (docker_endpoint("tcp://127.0.0.1:{plain}"), ALL, "nobody"),
        (docker_endpoint("http://127.0.0.1:{plain}/base"), None, "nobody"),
        (docker_endpoint("http://me@127.0.0.1:{plain}"), None, "nobody"),
        (docker_endpoint("127.0.0.1:{plain}"), None, "nobody"),
        (docker_endpoint("nonsense"), None, "nobody"),
        (docker_endpoint(5), None, "nobody"),
        (docker_endpoint("unix://{unix}", SkipTLSVerify="no"), None, "nobody"),
        ({"Name": "here", "Endpoints": {}}, None, "nobody"),
        ({"Name": "here", "Endpoints": {"docker": None}}, None, "nobody"),
        (
            {"Name": "here", "Endpoints": {"kubernetes": {"Host": "x"}, "docker": {"host": "unix://{unix}"}}},
            None,
            "e.sock",
        ),
        ({"name": "other", "endpoints": {"docker": {"Host": "unix://{unix}"}}}, None, "e.sock"),
        (
            {"Name": "here", "Metadata": {"Description": "mine"}, "Endpoints": {"docker": {"Host": "unix://{unix}"}}},
            None,
            "e.sock",
        ),
        ({**docker_endpoint("unix://{unix}"), "Name": 5}, None, "nobody"),
        ({**docker_endpoint("unix://{unix}"), "Metadata": "text"}, None, "nobody"),
        ({**docker_endpoint("unix://{unix}"), "Metadata": None}, None, "e.sock"),
        ({"Endpoints": {"other": 5, "docker": {"Host": "unix://{unix}"}}}, None, "nobody"),
        ({"Endpoints": {"other": None, "docker": {"Host": "unix://{unix}"}}}, None, "e.sock"),
        ("", None, "nobody"),
        ("[]", None, "nobody"),
        ('{"Endpoints": {"docker": {"Host": "unix://{unix}"}}, "Endpoints": {"kubernetes": {}}}', None, "e.sock"),
        ('{"Name": "here", "Endpoints": {"docker": {"Host": "unix://{unix}"}}} more', None, "nobody"),
    ],
)
def test_a_context_leads_where_it_leads_the_cli(
    world: World, meta: object, files: dict[str, str] | None, where: str
) -> None:
    world.add_context("here", meta, files)
    # Without a config.json, by the variable; with one, as the current context.
    assert reached(same(world, {"DOCKER_CONTEXT": "here"})) == where
    world.write_config({"currentContext": "here"})
    assert reached(same(world, {})) == where


@pytest.mark.parametrize("name", ["here", "a b", "../here", "ü", "Here", "x" * 300])
def test_a_context_may_have_any_name(world: World, name: str) -> None:
    world.add_context(name, docker_endpoint("unix://{unix}"))
    assert reached(same(world, {"DOCKER_CONTEXT": name})) == "e.sock"


def test_the_order_is_docker_host_docker_context_current_context(world: World) -> None:
    world.add_context("one", docker_endpoint("unix://{unix}"))
    world.add_context("two", docker_endpoint("tcp://127.0.0.1:{plain}"))
    world.write_config({"currentContext": "one"})
    assert reached(same(world, {})) == "e.sock"
    assert reached(same(world, {"DOCKER_CONTEXT": "two"})) == "plain"
    host = {"DOCKER_HOST": "unix://{spaced}", "DOCKER_CONTEXT": "two"}
    assert reached(same(world, host)) == "a b.sock"
    # `default` is no context, but the environment without one.
    theirs, ours = world.both({"DOCKER_CONTEXT": "default"})
    assert ours.aimed_at in (None, "unix:///var/run/docker.sock")
    assert theirs.aimed_at == ours.aimed_at


def test_a_context_does_not_listen_to_the_variables_for_tls(world: World) -> None:
    world.add_context("here", docker_endpoint("tcp://127.0.0.1:{plain}"))
    variables = {"DOCKER_CONTEXT": "here", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "{certificates}"}
    assert reached(same(world, variables)) == "plain"


def test_docker_config_is_the_only_place_that_is_looked_at(world: World) -> None:
    world.add_context("here", docker_endpoint("unix://{unix}"))
    world.write_config({"currentContext": "here"})
    other = world.home / "other"
    other.mkdir()
    theirs, ours = world.both({"DOCKER_CONFIG": str(other)})
    assert not theirs.asked
    assert not ours.asked
    assert theirs.aimed_at == ours.aimed_at
    shutil.copytree(world.config / "contexts", other / "contexts")
    assert reached(same(world, {"DOCKER_CONFIG": str(other), "DOCKER_CONTEXT": "here"})) == "e.sock"
    assert reached(same(world, {"DOCKER_CONFIG": "other", "DOCKER_CONTEXT": "here"})) == "e.sock"


def test_a_context_that_is_missing_is_refused_by_both(world: World) -> None:
    found = same(world, {"DOCKER_CONTEXT": "nowhere"})
    assert reached(found) == "nobody"
    assert 'The docker context "nowhere" (DOCKER_CONTEXT) does not exist' in found.said


# --- config.json ---------------------------------------------------------------------------------------------------

HERE = '"currentContext": "here"'


@pytest.mark.parametrize(
    ("content", "warned_of"),
    [
        (f"{{{HERE}}}", ""),
        (f'{{{HERE}, "auths": {{"https://index.docker.io/v1/": {{"auth": ""}}}}}}', ""),
        (f'{{{HERE}, "auths": {{"https://index.docker.io/v1/": {{}}}}}}', ""),
        (f'{{{HERE}, "auths": {{"reg": null}}}}', ""),
        (f'{{{HERE}, "auths": {{"reg": {{"auth": null}}}}}}', ""),
        (f'{{{HERE}, "auths": {{"reg": {{"username": "u", "password": "p"}}}}}}', ""),
        (f'{{{HERE}, "auths": {{"reg": {{"auth": "!!!"}}}}}}', '"auths": "reg": "auth"'),
        (f'{{{HERE}, "auths": {{"reg": {{"auth": "dXNlcg=="}}}}}}', '"auths": "reg": "auth"'),
        (f'{{{HERE}, "auths": {{"reg": {{"auth": 5}}}}}}', '"auths": "reg": "auth"'),
        (f'{{{HERE}, "auths": {{"reg": "text"}}}}', '"auths": "reg"'),
        (f'{{{HERE}, "auths": {{"reg": []}}}}', '"auths": "reg"'),
        (f'{{{HERE}, "auths": []}}', '"auths"'),
        (f'{{{HERE}, "auths": null}}', ""),
        (f'{{{HERE}, "auths": "none"}}', '"auths"'),
        (f'{{{HERE}, "auths": {{"": {{"auth": "dTpw"}}}}}}', ""),
        (f'{{{HERE}, "credsStore": null}}', ""),
        (f'{{{HERE}, "credsStore": 5}}', '"credsStore"'),
        (f'{{{HERE}, "credsStore": "not-installed"}}', ""),
        (f'{{{HERE}, "credHelpers": null}}', ""),
        (f'{{{HERE}, "credHelpers": []}}', '"credHelpers"'),
        (f'{{{HERE}, "credHelpers": {{"reg": 5}}}}', '"credHelpers": "reg"'),
        (f'{{{HERE}, "credHelpers": {{"reg": null}}}}', ""),
        (f'{{{HERE}, "proxies": null}}', ""),
        (f'{{{HERE}, "proxies": {{"default": null}}}}', ""),
        (f'{{{HERE}, "proxies": {{"default": {{}}}}}}', ""),
        (f'{{{HERE}, "proxies": {{"default": {{"httpProxy": null}}}}}}', ""),
        (f'{{{HERE}, "proxies": {{"default": {{"httpProxy": 5}}}}}}', '"proxies": "default": "httpProxy"'),
        (f'{{{HERE}, "proxies": {{"default": {{"noProxy": ["a", "b"]}}}}}}', '"proxies": "default": "noProxy"'),
        (f'{{{HERE}, "proxies": {{"default": "http://proxy"}}}}', '"proxies": "default"'),
        (f'{{{HERE}, "proxies": []}}', '"proxies"'),
        (f'{{{HERE}, "HttpHeaders": null}}', ""),
        (f'{{{HERE}, "HttpHeaders": "X: y"}}', '"HttpHeaders"'),
        (f'{{{HERE}, "HttpHeaders": {{"X-Y": 5}}}}', '"HttpHeaders": "X-Y"'),
        (f'{{{HERE}, "HttpHeaders": {{"X-Y": " a\\t", "Content-Length": "5"}}}}', ""),
        (f'{{{HERE}, "plugins": null, "unknown": {{"deep": [1, 2.5, true]}}}}', ""),
        (f'{{{HERE}, "big": {"9" * 5000}}}', ""),
        (f"{{{HERE}}} what follows is not looked at", ""),
        (f"\n\t {{{HERE}}}\n", ""),
        ('{"CurrentContext": "here", "AUTHS": {}}', ""),
        (f'{{{HERE}, "currentContext": null}}', ""),
        ('{"currentContext": "elsewhere", "currentContext": "here"}', ""),
        (f'{{{HERE}, "x": "\\ud800"}}', ""),
        (f'{{{HERE}, "currentContext": 5}}', ""),
        (f'{{"currentContext": [], {HERE}}}', ""),
        (f'{{{HERE}, "auths": {{"reg": {{"auth": "!!!"}}}}, "auths": {{}}}}', '"auths": "reg": "auth"'),
        (f'{{"auths": {{"reg": {{"auth": "!!!"}}}}, {HERE}, "AUTHS": {{"reg": {{}}}}}}', ""),
    ],
)  # fmt: skip
def test_whatever_config_json_holds_the_context_in_it_counts(world: World, content: str, warned_of: str) -> None:
    world.add_context("here", docker_endpoint("unix://{unix}"))
    world.write_config(content)
    found = same(world, {})
    assert reached(found) == "e.sock"
    if warned_of:
        assert f"{warned_of} in {world.config}/config.json " in found.said
    else:
        assert found.said == ""


@pytest.mark.parametrize(
    ("content", "warned_of"),
    [
        ("", ""),
        ("  \n", ""),
        ("null", ""),
        ("{}", ""),
        ("[]", "is not an object"),
        ('"text"', "is not an object"),
        ("5", "is not an object"),
        (f"{{{HERE},}}", "is not JSON"),
        (f"{{{HERE}", "is not JSON"),
        (f"\ufeff{{{HERE}}}", "is not JSON"),
        (f'{{"x": NaN, {HERE}}}', "is not JSON"),
        (f"{{{HERE.replace(chr(34), chr(39))}}}", "is not JSON"),
        ("// a comment\n{}", "is not JSON"),
        ('{"currentContext": 5}', '"currentContext"'),
        ('{"currentContext": ["here"]}', '"currentContext"'),
        ('{"currentContext": null}', ""),
        ('{"currentContext": ""}', ""),
        ('{"currentContext": "default"}', ""),
        ("[" * 5000 + "]" * 5000, ""),
    ],
)  # fmt: skip
def test_a_configuration_that_says_nothing_is_the_default_socket(world: World, content: str, warned_of: str) -> None:
    world.add_context("here", docker_endpoint("unix://{unix}"))
    world.write_config(content)
    theirs, ours = world.both({})
    assert not theirs.asked
    assert not ours.asked
    assert theirs.aimed_at == ours.aimed_at
    # What was not understood is told, because it may be the reason why nobody was reached.
    assert warned_of in ours.said
    # DOCKER_HOST works all the same, and what was not understood is told.
    engine = Engine.connect(world.environ({"DOCKER_HOST": "unix://{unix}"}))
    engine.close()
    if warned_of:
        assert warned_of in "\n".join(engine.warnings)


def test_a_configuration_that_cannot_be_read_is_told_of(world: World) -> None:
    (world.config / "config.json").mkdir()
    found = same(world, {"DOCKER_HOST": "unix://{unix}"})
    assert reached(found) == "e.sock"
    assert f"{world.config}/config.json cannot be read and is ignored: Is a directory." in found.said
    with suppress(OSError):
        (world.config / "config.json").rmdir()


# --- what the engine is asked for ----------------------------------------------------------------------------------


def posted_by_cli(world: World, *arguments: str, **variables: str) -> Post:
    """The last POST of a command of the CLI's."""
    before = len(world.listeners.posts)
    ended = subprocess.run(
        [world.cli, *arguments],
        env=world.environ({"DOCKER_HOST": "unix://{unix}", **variables}),
        cwd=world.home,
        capture_output=True,
        text=True,
        timeout=CLI_TIMEOUT,
    )
    assert len(world.listeners.posts) > before, ended.stderr
    return world.listeners.posts[-1]


@contextmanager
def connected(world: World, **variables: str) -> Iterator[Engine]:
    """Our connection to the same engine."""
    environ = world.environ({"DOCKER_HOST": "unix://{unix}", **variables})
    with pytest.MonkeyPatch.context() as patch:
        # Credential helpers are programs, which inherit the environment.
        for name, value in environ.items():
            patch.setenv(name, value)
        engine = Engine.connect(environ)
        try:
            yield engine
        finally:
            engine.close()


def helper(world: World, name: str, script: str) -> str:
    """A credential helper; the PATH that it is on."""
    programs = world.home / "bin"
    programs.mkdir(exist_ok=True)
    program = programs / f"docker-credential-{name}"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return f"{programs}:/usr/local/bin:/usr/bin:/bin"


def basic(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


ANSWERS = """
read server
case "$1 $server" in
    "get reg.example") echo '{"Username": "kept", "Secret": "secret"}' ;;
    "get number.example") echo '{"Username": 5, "Secret": null}' ;;
    "get token.example") echo '{"Username": "<token>", "Secret": "t0ken"}' ;;
    "get "*) echo "credentials not found in native keychain"; exit 1 ;;
esac
"""
UP, KEPT = {"username": "u", "password": "p"}, {"username": "kept", "password": "secret"}
TOKEN = {"registrytoken": "t"}
AUTH = {"auth": basic("u:p")}
IMAGE = "reg.example/x"
HUB = "https://index.docker.io/v1/"


@pytest.mark.parametrize(
    ("config", "image", "sent"),
    [
        ({"auths": {"reg.example": AUTH}}, IMAGE, UP),
        ({"auths": {"reg.example": UP}}, IMAGE, UP),
        ({"auths": {"reg.example": {**AUTH, "username": "old"}}}, IMAGE, UP),
        ({"auths": {"reg.example": {"auth": basic("u:p:q")}}}, IMAGE, {"username": "u", "password": "p:q"}),
        ({"auths": {"reg.example": {"auth": basic("u:")}}}, IMAGE, {"username": "u"}),
        ({"auths": {"https://reg.example/v1/": AUTH}}, IMAGE, UP),
        ({"auths": {"reg.example": AUTH}}, "reg.example:5000/x", {}),
        ({"auths": {"reg.example:5000": AUTH}}, "reg.example:5000/x/y:1", UP),
        ({"auths": {HUB: AUTH}}, "x", UP),
        ({"auths": {HUB: AUTH}}, "docker.io/library/x", UP),
        ({"auths": {"docker.io": AUTH}}, "x", {}),
        ({"auths": {"reg.example": {"identitytoken": "t", "auth": basic("u:p")}}}, IMAGE, {**UP, "identitytoken": "t"}),
        ({"auths": {"reg.example": {"identitytoken": "t"}}}, IMAGE, {"identitytoken": "t"}),
        ({"auths": {"reg.example": {"registrytoken": "t"}}}, IMAGE, {"registrytoken": "t"}),
        ({"auths": {"reg.example": {"auth": ""}}}, IMAGE, {}),
        ({"auths": {"reg.example": None}}, IMAGE, {}),
        ({"credsStore": "works"}, IMAGE, KEPT),
        ({"credsStore": "works"}, "token.example/x", {"identitytoken": "t0ken"}),
        ({"credsStore": "works"}, "other.example/x", {}),
        ({"credsStore": "works", "auths": {"reg.example": {**UP, "identitytoken": "t"}}}, IMAGE, KEPT),
        ({"credsStore": "works", "auths": {"token.example": AUTH}}, "token.example/x", {"identitytoken": "t0ken"}),
        ({"credsStore": "works", "auths": {"other.example": AUTH}}, "other.example/x", {}),
        ({"credsStore": "works", "auths": {"other.example": TOKEN}}, "other.example/x", TOKEN),
        ({"credsStore": "missing", "auths": {"reg.example": AUTH}}, IMAGE, UP),
        ({"credHelpers": {"reg.example": "missing"}, "auths": {"reg.example": AUTH}}, IMAGE, UP),
        ({"credsStore": "missing", "auths": {"reg.example": {}}}, IMAGE, {}),
        ('{"auths": {"reg.example": {"auth": "dTpw"}, "reg.example": null}}', IMAGE, {}),
        ('{"auths": {"reg.example": {"auth": "dTpw"}, "reg.example": {"registrytoken": "t"}}}', IMAGE, TOKEN),
        ('{"auths": {"reg.example": {"auth": "dTpw"}}, "auths": {"other.example": {}}}', IMAGE, UP),
        ('{"auths": {"reg.example": {"auth": "dTpw"}}, "Auths": null}', IMAGE, {}),
        ('{"auths": null, "Auths": {"reg.example": {"auth": "dTpw", "Auth": null}}}', IMAGE, UP),
        ({"credsStore": "works"}, "number.example/x", {}),
        ({"credHelpers": {"reg.example": "works"}}, IMAGE, KEPT),
        ({"credHelpers": {"other.example": "missing"}, "auths": {"reg.example": AUTH}}, IMAGE, UP),
        ({"credHelpers": {"other.example": "missing"}, "credsStore": "works"}, IMAGE, KEPT),
        ({"credHelpers": {"reg.example": ""}, "credsStore": "works", "auths": {"reg.example": AUTH}}, IMAGE, UP),
    ],
)  # fmt: skip
def test_a_pull_is_sent_the_credentials_that_the_cli_sends(
    world: World, config: object, image: str, sent: dict[str, str]
) -> None:
    path = helper(world, "works", ANSWERS)
    world.write_config(config)
    theirs = posted_by_cli(world, "pull", "--quiet", image, PATH=path).coded("X-Registry-Auth")
    assert {key: value for key, value in theirs.items() if key not in ("serveraddress", "auth")} == sent
    with connected(world, PATH=path) as engine:
        assert pull(engine, image, Mock(), Cancellation()) is None
    ours = world.listeners.posts[-1].coded("X-Registry-Auth")
    assert {key: value for key, value in ours.items() if key != "serveraddress"} == sent


def test_a_broken_entry_of_one_registry_takes_nothing_from_the_others(world: World) -> None:
    """The CLI itself takes what it has read so far, in no certain order; Docker's issue docker/cli #1989."""
    path = helper(world, "works", ANSWERS)
    helper(world, "broken", "echo the keychain is locked; exit 1")
    auths = {"broken.example": {"auth": "!!!"}, "reg.example": {"auth": basic("u:p")}, "odd.example": 5}
    helpers = {"locked.example": "broken", "gone.example": "missing", "token.example": "works"}
    world.write_config({"auths": auths, "credHelpers": helpers})
    with connected(world, PATH=path) as engine:
        kept = credentials.for_all(engine, Cancellation())
        assert pull(engine, "reg.example/x", Mock(), Cancellation()) is None
        warnings = "\n".join(engine.warnings)
    assert set(kept.credentials) == {"reg.example", "token.example"}
    assert sorted(problem.partition(":")[0] for problem in kept.problems) == ["gone.example", "locked.example"]
    assert world.listeners.posts[-1].coded("X-Registry-Auth")["username"] == "u"
    assert '"auths": "broken.example": "auth" in ' in warnings
    assert '"auths": "odd.example" in ' in warnings


PROXIES = {
    "default": {"httpProxy": "http://proxy:3128", "httpsProxy": "http://proxy:3129", "noProxy": "local,.example"},
    "tcp://127.0.0.1:2375": {"ftpProxy": "ftp://proxy"},
}


@pytest.mark.parametrize("given", [[], ["HTTP_PROXY=mine"], ["http_proxy=mine", "NO_PROXY="], ["NOT=this"]])
def test_a_container_is_given_the_proxies_that_docker_run_gives_it(world: World, given: list[str]) -> None:
    world.write_config({"proxies": PROXIES})
    options = [word for pair in given for word in ("--env", pair)]
    theirs = json.loads(posted_by_cli(world, "create", *options, "image").body)["Env"]
    with connected(world) as engine:
        added = engine.proxy_environment([pair.partition("=")[0] for pair in given])
    assert sorted([*given, *(f"{name}={value}" for name, value in added.items())]) == sorted(theirs)


@pytest.mark.parametrize(
    "proxies",
    [
        '{"default": {"httpProxy": "p"}}, "proxies": null',
        '{"default": {"httpProxy": "p"}}, "proxies": {"default": {"noProxy": "n"}}',
        '{"default": {"httpProxy": "p", "HTTPPROXY": "q"}, "default": null}',
        '{"default": {"httpProxy": "p", "httpproxy": null, "noProxy": ""}}, "Proxies": {"other": {}}',
    ],
)  # fmt: skip
def test_proxies_that_are_given_twice_are_read_as_by_the_cli(world: World, proxies: str) -> None:
    world.write_config(f'{{"proxies": {proxies}}}')
    theirs = json.loads(posted_by_cli(world, "create", "image").body)["Env"] or []
    with connected(world) as engine:
        added = engine.proxy_environment()
    assert sorted(f"{name}={value}" for name, value in added.items()) == sorted(theirs)


def test_an_entry_for_the_engine_goes_before_the_default_one(world: World) -> None:
    world.write_config({"proxies": {**PROXIES, world.fill("unix://{unix}"): {"ftpProxy": "ftp://proxy"}}})
    theirs = json.loads(posted_by_cli(world, "create", "image").body)["Env"]
    with connected(world) as engine:
        added = engine.proxy_environment()
    assert added == {"FTP_PROXY": "ftp://proxy", "ftp_proxy": "ftp://proxy"}
    assert sorted(f"{name}={value}" for name, value in added.items()) == sorted(theirs)


@pytest.mark.parametrize("platform", ["linux/amd64", "linux/arm64/v8", "amd64", ""])
def test_the_default_platform_is_asked_for(world: World, platform: str) -> None:
    world.write_config(
        {"proxies": PROXIES, "auths": {"reg.example": {"auth": basic("u:p")}, HUB: {"auth": basic("v:q")}}}
    )
    (world.home / "Dockerfile").write_text("FROM scratch\n")
    set_to = {"DOCKER_DEFAULT_PLATFORM": platform, "DOCKER_BUILDKIT": "0"}
    pulled = posted_by_cli(world, "pull", "--quiet", "image:1", **set_to)
    built = posted_by_cli(world, "build", "--quiet", "--tag", "built", ".", **set_to)
    context = Context.find(world.home / "Dockerfile")
    assert context is not None
    with connected(world, **set_to) as engine, BuildLog(world.home / "build.log", lambda _lines: None) as log:
        assert engine.platform == (platform or None)
        assert pull(engine, "image:1", Mock(), Cancellation()) is None
        assert world.listeners.posts[-1].query.get("platform") == pulled.query.get("platform") == (platform or None)
        options: dict[str, Any] = {"log": log, "reporter": Mock(), "cancellation": Cancellation()}
        build(engine, "built", context, {}, environ=world.environ(set_to), **options)
    ours = world.listeners.posts[-1]
    assert ours.path == built.path == "/build"
    assert ours.query.get("platform") == built.query.get("platform") == (platform or None)
    assert json.loads(ours.query["buildargs"]) == json.loads(built.query["buildargs"])
    assert ours.coded("X-Registry-Config") == built.coded("X-Registry-Config")


@pytest.mark.parametrize(
    ("variables", "config", "builder"),
    [
        ({}, {}, "default"),
        ({"DOCKER_HOST": "", "DOCKER_CONTEXT": "here"}, {}, "here"),
        ({"BUILDX_BUILDER": "mine"}, {}, "mine"),
        ({"DOCKER_BUILDKIT": "1"}, {}, "default"),
        ({}, {"aliases": {"builder": "buildx"}}, None),
        ({"DOCKER_BUILDKIT": "0"}, {}, "api"),
        ({"DOCKER_BUILDKIT": "false"}, {"aliases": {"builder": "buildx"}}, "api"),
    ],
)
def test_an_image_is_built_by_the_builder_that_docker_build_takes(
    world: World, variables: dict[str, str], config: dict[str, object], builder: str | None
) -> None:
    """buildx is a stand-in that says with which builder it was called; `docker buildx use` is its own affair."""
    world.add_context("here", docker_endpoint("unix://{unix}"))
    world.write_config(config)
    plugins = world.config / "cli-plugins"
    plugins.mkdir()
    (plugins / "docker-buildx").write_text(BUILDX)
    (plugins / "docker-buildx").chmod(0o755)
    (world.home / "Dockerfile").write_text("FROM scratch\n")
    context = Context.find(world.home / "Dockerfile")
    assert context is not None
    before = len(world.listeners.posts)
    with connected(world, **variables) as engine, BuildLog(world.home / "build.log", lambda _lines: None) as log:
        environ = world.environ({"DOCKER_HOST": "unix://{unix}", **variables, "CALLED": str(world.home / "called")})
        options: dict[str, Any] = {"log": log, "reporter": Mock(), "cancellation": Cancellation()}
        build(engine, "built", context, {}, environ=environ, **options)
    called = world.home / "called"
    if builder == "api":
        assert not called.exists()
        assert world.listeners.posts[before:][-1].path == "/build"
    else:
        assert called.read_text() == f"{builder or 'none'}\n"
        assert world.listeners.posts[before:] == []


BUILDX = """#!/bin/sh
if [ "$1" = docker-cli-plugin-metadata ]; then
    echo '{"SchemaVersion": "0.1.0", "Vendor": "test", "Version": "v0", "ShortDescription": "stand-in"}'
elif [ "$2" = version ]; then
    echo "github.com/docker/buildx v0"
else
    echo "${BUILDX_BUILDER:-none}" > "$CALLED"
fi
"""


def test_buildkit_without_buildx_is_named_as_docker_build_names_it(world: World) -> None:
    programs = world.home / "bin"
    programs.mkdir()
    (programs / "docker").write_text("#!/bin/sh\nexit 1\n")
    (programs / "docker").chmod(0o755)
    (world.home / "Dockerfile").write_text("FROM scratch\n")
    context = Context.find(world.home / "Dockerfile")
    assert context is not None
    with connected(world) as engine, BuildLog(world.home / "build.log", lambda _lines: None) as log:
        options: dict[str, Any] = {"log": log, "reporter": Mock(), "cancellation": Cancellation()}
        for given, told in (("1", "there is no `docker buildx` here"), ("maybe", "wants a boolean value")):
            environ = {"PATH": str(programs), "DOCKER_BUILDKIT": given}
            with pytest.raises(RunnerError, match=told) as caught:
                build(engine, "built", context, {}, environ=environ, **options)
            assert "DOCKER_BUILDKIT" in (caught.value.hint or "")
