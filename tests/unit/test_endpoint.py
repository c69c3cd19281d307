"""Finding the engine, where no CLI is needed to say what is right; tests/engine/test_endpoint.py asks the CLI."""

from __future__ import annotations

import hashlib
import json
import pwd
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from unittest.mock import Mock

import pytest

from nerves_docker_port.engine import endpoint
from nerves_docker_port.engine.endpoint import Endpoint, SshAddress, TcpAddress, UnixAddress
from nerves_docker_port.errors import Code, RunnerError

HELPER_EX = Path(__file__).parents[2] / "elixir_shim" / "lib" / "nerves_docker_port" / "helper.ex"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home directory with an empty configuration of the CLI."""
    (tmp_path / ".docker").mkdir()
    return tmp_path


def find(home: Path, **variables: str) -> Endpoint:
    return endpoint.find_endpoint({"HOME": str(home), **variables})


def refused(home: Path, **variables: str) -> RunnerError:
    with pytest.raises(RunnerError) as caught:
        find(home, **variables)
    assert caught.value.code is Code.ENGINE_UNREACHABLE
    assert caught.value.hint
    return caught.value


def add_context(home: Path, name: str, host: str, files: Mapping[str, str] | None = None) -> None:
    identifier = hashlib.sha256(name.encode()).hexdigest()
    meta = home / ".docker" / "contexts" / "meta" / identifier
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text(json.dumps({"Name": name, "Endpoints": {"docker": {"Host": host}}}))
    if files is not None:
        stored = home / ".docker" / "contexts" / "tls" / identifier / "docker"
        stored.mkdir(parents=True)
        for file, text in files.items():
            (stored / file).write_text(text)


def test_both_languages_know_the_same_variables() -> None:
    match = re.search(r"@engine_variables ~w\(([^)]*)\)", HELPER_EX.read_text())
    assert match is not None
    assert match[1].split() == list(endpoint.VARIABLES)


def test_nothing_set_is_the_default_socket(home: Path) -> None:
    found = find(home)
    assert (found.url, found.origin, found.context) == ("unix:///var/run/docker.sock", "default", "default")
    assert found.address == UnixAddress("/var/run/docker.sock")
    assert (found.tls, found.proxy, found.api_version, found.platform) == (None, None, None, None)


@pytest.mark.parametrize("variables", [{}, {"HOME": ""}])
def test_without_home_the_home_directory_is_the_account_s(
    home: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    monkeypatch.setattr(pwd, "getpwuid", lambda _uid: Mock(pw_dir=str(home)))
    assert endpoint.config_directory(variables) == home / ".docker"


@pytest.mark.parametrize("variables", [{}, {"HOME": ""}])
def test_a_user_without_account_and_home_has_the_default_socket(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    monkeypatch.setattr(pwd, "getpwuid", Mock(side_effect=KeyError))
    assert endpoint.find_endpoint(variables).url == "unix:///var/run/docker.sock"


def test_an_empty_docker_host_does_not_hide_a_context(home: Path) -> None:
    add_context(home, "here", "unix:///here.sock")
    found = find(home, DOCKER_HOST="", DOCKER_CONTEXT="here")
    assert (found.url, found.origin, found.context) == ("unix:///here.sock", 'DOCKER_CONTEXT "here"', "here")


def test_a_context_with_a_socket_and_certificates_speaks_no_tls(home: Path) -> None:
    add_context(home, "here", "unix:///here.sock", {"ca.pem": "x"})
    assert find(home, DOCKER_CONTEXT="here").tls is None


def test_a_directory_is_no_certificate_of_a_context(home: Path) -> None:
    add_context(home, "here", "unix:///here.sock", {})
    identifier = hashlib.sha256(b"here").hexdigest()
    (home / ".docker" / "contexts" / "tls" / identifier / "docker" / "ca.pem").mkdir()
    assert find(home, DOCKER_CONTEXT="here").address == UnixAddress("/here.sock")


def test_a_context_without_a_host_is_the_default_socket(home: Path) -> None:
    add_context(home, "here", "")
    assert find(home, DOCKER_CONTEXT="here").address == UnixAddress("/var/run/docker.sock")


@pytest.mark.parametrize(("host", "secure", "port"), [("tcp://far", False, 80), ("tcp://far", True, 443)])
def test_a_context_without_a_port_means_that_of_http(home: Path, host: str, secure: bool, port: int) -> None:
    add_context(home, "here", host, {"ca.pem": "x"} if secure else None)
    assert find(home, DOCKER_CONTEXT="here").address == TcpAddress("far", port)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("ssh://host", SshAddress("host")),
        ("ssh://me@host", SshAddress("host", "me")),
        ("ssh://me@host:2222", SshAddress("host", "me", "2222")),
        ("ssh://host/run/user/1000/docker.sock", SshAddress("host", path="/run/user/1000/docker.sock")),
        ("ssh://me@host:2222/a%20b.sock", SshAddress("host", "me", "2222", "/a b.sock")),
        ("ssh://host/", SshAddress("host")),
        ("ssh://host/a.sock?#", SshAddress("host", path="/a.sock")),
        ("ssh://[::1]:22", SshAddress("::1", port="22")),
        ("ssh://[fe80::1%25eth0]", SshAddress("fe80::1%eth0")),
    ],
)
def test_an_ssh_url_has_a_user_a_host_a_port_and_a_socket(home: Path, url: str, address: SshAddress) -> None:
    assert find(home, DOCKER_HOST=url).address == address
    add_context(home, "far", url)
    assert find(home, DOCKER_CONTEXT="far").address == address


@pytest.mark.parametrize(
    "url",
    ["ssh://", "ssh://me:secret@host", "ssh://host?x", "ssh://host#x", "ssh://-oProxyCommand=x", "ssh://-l@host"],
)
def test_an_ssh_url_that_cannot_be_used_is_refused(home: Path, url: str) -> None:
    error = refused(home, DOCKER_HOST=url)
    assert f"{url} (DOCKER_HOST) is not an engine endpoint that can be used: " in error.message


def test_a_socket_whose_path_is_too_long_names_the_limit(home: Path) -> None:
    limit = 107 if sys.platform == "linux" else 103
    longest = "/" + "x" * (limit - 1)
    assert find(home, DOCKER_HOST=f"unix://{longest}").address == UnixAddress(longest)
    for path in (longest + "y", "/" + "é" * (limit // 2) + "xx"):
        error = refused(home, DOCKER_HOST=f"unix://{path}")
        assert f"too long: this system allows {limit} bytes, and {path} has {len(path.encode())}" in error.message
        assert f"ln -s {path} /tmp/docker.sock" in (error.hint or "")
    add_context(home, "here", f"unix://{longest}y")
    assert "too long" in refused(home, DOCKER_CONTEXT="here").message


@pytest.mark.parametrize("file", ["ca.pem", "cert.pem", "key.pem"])
def test_a_certificate_that_cannot_be_read_is_named(home: Path, file: str) -> None:
    # A directory: root may read everything else.
    for each in {"ca.pem", "cert.pem", "key.pem"} - {file}:
        (home / ".docker" / each).write_text("x")
    (home / ".docker" / file).mkdir()
    error = refused(home, DOCKER_HOST="tcp://far:2376", DOCKER_TLS_VERIFY="1")
    assert (
        error.message == f"TLS with the engine (DOCKER_TLS_VERIFY) needs the file {home}/.docker/{file}: Is a directory"
    )
    assert "DOCKER_CERT_PATH" in (error.hint or "")


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1080", "socks5h://me:secret@proxy", "ftp://proxy"])
def test_a_proxy_that_does_not_speak_http_is_refused(home: Path, proxy: str) -> None:
    error = refused(home, DOCKER_HOST="tcp://192.0.2.1:2375", HTTP_PROXY=proxy)
    assert error.message.startswith("HTTP_PROXY names the proxy ")
    assert "secret" not in error.message
    assert "export NO_PROXY=192.0.2.1" in (error.hint or "")


@pytest.mark.parametrize("password", ["secret x", "secret#x", "secret%", "secret?", "secret/@"])
def test_a_proxy_that_is_no_url_is_refused_without_its_password(home: Path, password: str) -> None:
    error = refused(home, DOCKER_HOST="tcp://192.0.2.1:2375", HTTP_PROXY=f"http://me:{password}@proxy:3128")
    assert error.message.startswith("HTTP_PROXY names the proxy http://proxy:3128, which is no URL that can be used.")
    assert "secret" not in error.message
    assert "percent-encoded" in (error.hint or "")


@pytest.mark.parametrize("scheme", ["http://", ""])
def test_a_proxy_whose_port_is_none_is_refused_without_its_password(home: Path, scheme: str) -> None:
    error = refused(home, DOCKER_HOST="tcp://192.0.2.1:2375", HTTP_PROXY=f"{scheme}me:secret@proxy:99999")
    assert error.message == "HTTP_PROXY names the proxy http://proxy:99999, which is no URL that can be used."


@pytest.mark.parametrize(
    ("host", "excepted", "used"),
    [
        ("192.0.2.1", "", True),
        ("192.0.2.1", "192.0.2.1", False),
        ("192.0.2.1", "192.0.2.0/24", False),
        ("192.0.2.1", "192.0.2.0/255.255.255.0", True),
        ("192.0.2.1", "::ffff:192.0.2.0/120", False),
        ("192.0.2.1", "::ffff:192.0.3.0/120", True),
        ("192.0.2.1", "::/0", True),
        ("192.0.2.1", "192.0.2.1:2375", False),
        ("192.0.2.1", "192.0.2.1:2376", True),
        ("192.0.2.1", "10.0.0.0/8, 192.0.2.1", False),
        ("192.0.2.1", "*", False),
        ("192.0.2.1", "0.2.1", True),
        ("engine.example", "example", False),
        ("engine.example", "EXAMPLE", False),
        ("engine.example", ".example", False),
        ("engine.example", "*.example", False),
        ("engine.example", "engine.example:2375", False),
        ("engine.example", ".engine.example", True),
        ("engine.example", "ample", True),
        ("engine.example", "192.0.2.0/24", True),
        ("[2001:db8::1]", "2001:db8::/32", False),
        ("[2001:db8::1]", "[2001:db8::1]:2375", False),
        ("[2001:db8::1]", "2001:db8::2", True),
        ("127.0.0.1", "", False),
        ("127.1.2.3", "", False),
        ("[::1]", "", False),
        ("[::ffff:127.0.0.1]", "", False),
        ("localhost", "", False),
        ("localhost.example", "", True),
    ],
)
def test_no_proxy_is_read_as_go_reads_it(home: Path, host: str, excepted: str, used: bool) -> None:
    variables = {"DOCKER_HOST": f"tcp://{host}:2375", "HTTP_PROXY": "http://me:secret@proxy:3128"}
    for name in ("NO_PROXY", "no_proxy"):
        found = find(home, **variables, **{name: excepted})
        assert found.proxy == ("http://me:secret@proxy:3128" if used else None)
        assert ("through the proxy http://proxy:3128 of HTTP_PROXY" in found.origin) == used


def test_all_proxy_is_nothing_to_go(home: Path) -> None:
    found = find(home, DOCKER_HOST="tcp://192.0.2.1:2375", ALL_PROXY="http://proxy", all_proxy="socks5://proxy")
    assert found.proxy is None


def test_headers_can_be_replaced_by_the_environment(home: Path) -> None:
    (home / ".docker" / "config.json").write_text('{"HttpHeaders": {"X-One": "1", "X-Two": "2", "A B": "3"}}')
    found = find(home)
    assert found.headers == {"X-One": "1", "X-Two": "2"}
    assert '"HttpHeaders": "A B"' in found.config.warnings[0]
    given = 'X-Three=3, X-Four = é€,"X-Five=a,b",user-agent=me'
    assert find(home, DOCKER_CUSTOM_HEADERS=given).headers == {"X-Three": "3", "X-Four": "é€", "X-Five": "a,b"}
    # The first line counts, as for the CLI; and what the HTTP client decides itself is not to be given.
    for given in ("A=1\nB=2", "\nA=1\r\n", "A=1,Content-Length=5,host=x,Transfer-Encoding=chunked"):
        assert find(home, DOCKER_CUSTOM_HEADERS=given).headers == {"A": "1"}
    for wrong in ("novalue", "=x", "A B=c", "A=\x01", "\n", " ", "A=" + "x" * 200_000):
        assert "DOCKER_CUSTOM_HEADERS wants NAME=VALUE" in refused(home, DOCKER_CUSTOM_HEADERS=wrong).message


def test_proxies_of_the_configuration_are_for_containers(home: Path) -> None:
    proxies = {
        "default": {"httpProxy": "http://p:1", "noProxy": "a,b", "ftpProxy": "", "allProxy": None},
        "tcp://far:2375": {"HTTPSPROXY": "http://p:2"},
    }
    (home / ".docker" / "config.json").write_text(json.dumps({"proxies": proxies}))
    config = find(home).config
    here = {"HTTP_PROXY": "http://p:1", "http_proxy": "http://p:1", "NO_PROXY": "a,b", "no_proxy": "a,b"}
    assert config.proxy_environment("unix:///var/run/docker.sock") == here
    assert config.proxy_environment("unix:///var/run/docker.sock", ["HTTP_PROXY", "no_proxy"]) == {
        "http_proxy": "http://p:1",
        "NO_PROXY": "a,b",
    }
    assert config.proxy_environment("tcp://far:2375") == {"HTTPS_PROXY": "http://p:2", "https_proxy": "http://p:2"}


def test_the_platform_and_the_api_version_are_taken_from_the_environment(home: Path) -> None:
    found = find(home, DOCKER_DEFAULT_PLATFORM="linux/amd64", DOCKER_API_VERSION="v1.40")
    assert (found.platform, found.api_version) == ("linux/amd64", "1.40")
    found = find(home, DOCKER_DEFAULT_PLATFORM="", DOCKER_API_VERSION="")
    assert (found.platform, found.api_version) == (None, None)
