"""Finds the engine by the rules of the docker CLI, in the environment, the docker contexts and the configuration.

Each rule of the CLI has a function. They are in the order in which they apply:

1. ``DOCKER_HOST``, else ``DOCKER_CONTEXT``, else ``currentContext`` of ``config.json``, else the default socket
   (https://docs.docker.com/engine/manage-resources/contexts/).
2. TLS: for ``DOCKER_HOST`` and the default socket, ``DOCKER_TLS_VERIFY``, ``DOCKER_TLS`` and ``DOCKER_CERT_PATH``
   (https://docs.docker.com/engine/security/protect-access/); for a context, the files that are stored with it.
3. For TCP, the proxy that Go's HTTP client uses (https://pkg.go.dev/golang.org/x/net/http/httpproxy).
4. ``DOCKER_API_VERSION``, ``DOCKER_CUSTOM_HEADERS``, ``DOCKER_DEFAULT_PLATFORM``
   (https://docs.docker.com/reference/cli/docker/#environment-variables).

The reference is the CLI 28.2, with which ``tests/engine/test_endpoint.py`` compares this module. This module makes no
connection.
"""

from __future__ import annotations

import csv
import hashlib
import io
import ipaddress
import os
import posixpath
import pwd
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from nerves_docker_port import errors
from nerves_docker_port.engine import config_file
from nerves_docker_port.engine.config_file import ConfigFile

VARIABLES = (
    *("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "HOME"),
    *("DOCKER_TLS_VERIFY", "DOCKER_TLS", "DOCKER_CERT_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"),
    *("DOCKER_API_VERSION", "DOCKER_CUSTOM_HEADERS", "DOCKER_DEFAULT_PLATFORM"),
    *("DOCKER_BUILDKIT", "BUILDX_BUILDER", "SSH_AUTH_SOCK"),
)
"""Every variable that decides which engine is used, how the helper connects to it, and which options requests have.

A build shell is opened with the values with which it was prepared. A parked helper serves a second request only if none
of the variables has changed. ``NervesDockerPort.Helper`` has the same list; ``tests/unit/test_endpoint.py`` compares
the two lists.
"""

_Ip = ipaddress.IPv4Address | ipaddress.IPv6Address

DEFAULT_SOCKET = "/var/run/docker.sock"

_DEFAULT_CONTEXT = "default"
_DEFAULT_PORT = "2375"
_TLS_PORT = "2376"
_LAST_PORT = 65535

# The length of the longest path of a socket. With its NUL, it must fit into the 108 bytes of `sockaddr_un` on Linux
# (unix(7)), or 104 bytes on macOS (unix(4)).
SOCKET_PATH_LIMIT = 107 if os.uname().sysname == "Linux" else 103


@dataclass(frozen=True)
class UnixAddress:
    """A Unix socket. A path that begins with ``@`` is a name in Linux's abstract namespace, as for the CLI."""

    path: str


@dataclass(frozen=True)
class TcpAddress:
    """A host and port with HTTP, or HTTPS if the endpoint has TLS. ``path`` precedes the path of a request."""

    host: str
    port: int
    path: str = ""

    @property
    def peer(self) -> str:
        """Host and port as programs take them in one argument."""
        return _join_host_port(self.host, str(self.port))


@dataclass(frozen=True)
class SshAddress:
    """An engine that is reached over ssh. OpenSSH's configuration decides about an empty ``user`` or ``port``.

    ``path`` is the engine's socket on that host.
    """

    host: str
    user: str = ""
    port: str = ""
    path: str = ""


@dataclass(frozen=True)
class Tls:
    """The files for TLS. Each file that is not ``None`` exists and can be read."""

    verify: bool
    """Whether the engine's certificate is checked."""
    authority: Path | None = None
    """``ca.pem``, the authorities for the engine's certificate. Without it, the system's authorities are used."""
    certificate: Path | None = None
    key: Path | None = None
    """``cert.pem`` and ``key.pem``, by which the engine identifies this client. Both are set, or none."""
    origin: str = ""
    """The variable or context that turns TLS on, for messages."""


@dataclass(frozen=True)
class Endpoint:
    """The address of the engine and all options of the connection to it."""

    url: str
    """The address in the form of the CLI, for messages and for ``proxies`` of ``config.json``."""
    origin: str
    """The variable or context that the address comes from, for messages."""
    address: UnixAddress | TcpAddress | SshAddress
    config: ConfigFile
    context: str = _DEFAULT_CONTEXT
    """The docker context. ``docker build`` uses the builder with this name."""
    tls: Tls | None = None
    proxy: str | None = None
    """The URL of the HTTP proxy in front of the engine."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """The additional headers of every request."""
    api_version: str | None = None
    """The API version in ``DOCKER_API_VERSION``, or ``None`` for the newest that both sides know."""
    platform: str | None = None
    """The platform of images in ``DOCKER_DEFAULT_PLATFORM``, such as ``linux/amd64``."""


def find_endpoint(environ: Mapping[str, str]) -> Endpoint:
    """Return the endpoint that the docker CLI would use with this environment.

    Raises ``RunnerError`` with the code ``:engine_unreachable`` if the CLI would fail, too.
    """
    config = config_file.load(config_directory(environ))
    name = context_name(environ, config)
    if name == _DEFAULT_CONTEXT:
        url, origin, tls = _default_endpoint(environ, config.directory)
    else:
        source = "DOCKER_CONTEXT" if environ.get("DOCKER_CONTEXT") else "current docker context"
        origin = f'{source} "{name}"'
        url, tls = _context_endpoint(config.directory / "contexts", name, source)
    try:
        address = _address(url, secure=tls is not None)
    except ValueError as error:
        raise errors.endpoint_invalid(url, origin, str(error)) from error
    proxy = None
    if isinstance(address, UnixAddress):
        if len(os.fsencode(address.path)) > SOCKET_PATH_LIMIT:
            raise errors.socket_path_too_long(address.path, origin, SOCKET_PATH_LIMIT)
        # The CLI uses TLS only over TCP. But it always reads the files for TLS, so their errors were raised above.
        tls = None
    elif isinstance(address, SshAddress):
        tls = None
    else:
        variable, proxy = _proxy(environ, address, secure=tls is not None)
        if proxy is not None:
            origin = f"{origin}, through the proxy {without_password(proxy)} of {variable}"
    return Endpoint(
        url=url,
        origin=origin,
        address=address,
        config=config,
        context=name,
        tls=tls,
        proxy=proxy,
        headers=_headers(environ, config),
        api_version=(environ.get("DOCKER_API_VERSION") or "").removeprefix("v") or None,
        platform=environ.get("DOCKER_DEFAULT_PLATFORM") or None,
    )


def config_directory(environ: Mapping[str, str]) -> Path:
    """Return the CLI's configuration directory, which is ``DOCKER_CONFIG`` if that is set, else ``~/.docker``.

    Without ``HOME``, the home directory is that of the user's account. If the user has no account, as in many
    containers, there is no home directory, and the path is relative (docker/docker, pkg/homedir ``Get``).
    """
    if environ.get("DOCKER_CONFIG"):
        return Path(environ["DOCKER_CONFIG"])
    home = environ.get("HOME", "")
    if not home:
        with suppress(KeyError):
            home = pwd.getpwuid(os.getuid()).pw_dir
    return Path(home) / ".docker"


def context_name(environ: Mapping[str, str], config: ConfigFile) -> str:
    """Return the name of the context to use (docker/cli, ``resolveContextName``).

    The name ``default`` means that the environment decides, and no stored context.
    """
    if environ.get("DOCKER_HOST"):
        return _DEFAULT_CONTEXT
    return environ.get("DOCKER_CONTEXT") or config.current_context or _DEFAULT_CONTEXT


# --- DOCKER_HOST ---------------------------------------------------------------------------------------------------


def _default_endpoint(environ: Mapping[str, str], directory: Path) -> tuple[str, str, Tls | None]:
    """Return URL, origin and TLS without a context (docker/cli, ``resolveDefaultDockerEndpoint``)."""
    given = environ.get("DOCKER_HOST", "")
    tls = _environment_tls(environ, directory)
    host = given.strip()
    if not host:
        if tls is not None:
            return f"tcp://localhost:{_TLS_PORT}", tls.origin, tls
        return f"unix://{DEFAULT_SOCKET}", "DOCKER_HOST" if given else "default", tls
    try:
        return _normalise_host(host), "DOCKER_HOST", tls
    except ValueError as error:
        raise errors.endpoint_invalid(given, "DOCKER_HOST", str(error)) from error


def _normalise_host(host: str) -> str:
    """Return ``DOCKER_HOST`` with all its parts, by the rules of docker/cli, opts/hosts.go. Raises ``ValueError``."""
    scheme, separator, rest = host.partition("://")
    if not separator:
        # An address without a scheme, such as `localhost:2375`, means TCP.
        scheme, rest = "tcp", host
    if scheme in ("unix", "npipe"):
        if "://" in rest:
            raise ValueError(f"{rest} is no path")
        return f"{scheme}://{rest or DEFAULT_SOCKET}"
    if scheme in ("ssh", "fd"):
        return host
    if scheme != "tcp":
        raise ValueError(f"{scheme}:// is not known")
    return _normalise_tcp(rest)


def _normalise_tcp(rest: str) -> str:
    rest = rest.removeprefix("tcp://")
    if not rest:
        return f"tcp://localhost:{_DEFAULT_PORT}"
    if "://" in rest:
        raise ValueError(f"{rest} is no host")
    if rest.endswith("]:"):
        rest += _DEFAULT_PORT
    host, path = _parse_url(f"tcp://{rest}")
    both = _split_host_port(host) or _split_host_port(_join_host_port(host, _DEFAULT_PORT))
    if both is None:
        raise ValueError(f"{host} is no host with a port")
    return f"tcp://{_join_host_port(both[0] or 'localhost', both[1] or _DEFAULT_PORT)}{path}"


def _environment_tls(environ: Mapping[str, str], directory: Path) -> Tls | None:
    """Return the files for TLS by the variables in the environment (docker/cli, cli/flags/options.go).

    ``DOCKER_TLS_VERIFY`` and ``DOCKER_TLS`` turn TLS on with any value. Only with ``DOCKER_TLS_VERIFY`` the engine's
    certificate is checked. ``DOCKER_CERT_PATH`` alone has no effect. Without it, the files are those in the CLI's
    configuration directory.
    """
    verify = bool(environ.get("DOCKER_TLS_VERIFY"))
    if not verify and not environ.get("DOCKER_TLS"):
        return None
    origin = "DOCKER_TLS_VERIFY" if verify else "DOCKER_TLS"
    files = Path(environ.get("DOCKER_CERT_PATH") or directory)
    certificate, key = (None if _is_missing(path) else path for path in (files / "cert.pem", files / "key.pem"))
    for path in (files / "ca.pem", certificate, key):
        if path is not None:
            _check_readable(path, origin)
    return Tls(verify, files / "ca.pem", *_complete_pair(certificate, key), origin)


# --- contexts ------------------------------------------------------------------------------------------------------


def _context_endpoint(store: Path, name: str, source: str) -> tuple[str, Tls | None]:
    """Return URL and TLS of a stored context (docker/cli, cli/context/store and cli/context/docker/load.go)."""
    directory = hashlib.sha256(name.encode()).hexdigest()
    path = store / "meta" / directory / "meta.json"
    try:
        text = path.read_bytes().decode("utf-8", "replace")
    except FileNotFoundError as error:
        raise errors.context_missing(name, source) from error
    except OSError as error:
        raise errors.context_unusable(name, source, str(path), str(error.strerror)) from error
    try:
        host, skip_verification = _docker_endpoint(text)
    except (ValueError, RecursionError) as error:
        raise errors.context_unusable(name, source, str(path), str(error)) from error
    tls = _context_tls(store / "tls" / directory / "docker", f'{source} "{name}"', verify=not skip_verification)
    return host or f"unix://{DEFAULT_SOCKET}", tls


def _docker_endpoint(text: str) -> tuple[str, bool]:
    """Return ``Host`` and ``SkipTLSVerify`` of a context's ``meta.json``. Raises ``ValueError``."""
    content = _object(config_file.strict_json(text), "it")
    if not isinstance(config_file.field_of(content, "Name") or "", str):
        raise ValueError('"Name" is not a string')  # noqa: TRY004  # as in `_object`
    _object(config_file.field_of(content, "Metadata"), '"Metadata"')
    endpoints = _object(config_file.field_of(content, "Endpoints"), '"Endpoints"')
    for name, each in endpoints.items():
        _object(each, f'the endpoint "{name}"')
    found = endpoints.get("docker")
    if found is None:
        raise ValueError('it has no endpoint "docker"')
    host, skip = config_file.field_of(found, "Host"), config_file.field_of(found, "SkipTLSVerify")
    if host is not None and not isinstance(host, str):
        raise ValueError('"Host" is not a string')
    if skip is not None and not isinstance(skip, bool):
        raise ValueError('"SkipTLSVerify" is neither true nor false')
    return config_file.whole_text(host or ""), bool(skip)


def _object(value: Any, what: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{what} is not an object")  # noqa: TRY004  # what the file holds is wrong, not our types
    return value


def _context_tls(files: Path, origin: str, *, verify: bool) -> Tls | None:
    """Return TLS with the files that exist. A directory without any file also turns TLS on, as for the CLI."""
    try:
        with os.scandir(files) as entries:
            names = {entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)}
    except (FileNotFoundError, NotADirectoryError):
        return None if verify else Tls(verify, origin=origin)
    except OSError as error:
        raise errors.tls_file(str(files), origin, str(error.strerror)) from error
    present = {name: files / name if name in names else None for name in ("ca.pem", "cert.pem", "key.pem")}
    for path in present.values():
        if path is not None:
            _check_readable(path, origin)
    return Tls(verify, present["ca.pem"], *_complete_pair(present["cert.pem"], present["key.pem"]), origin)


def _complete_pair(certificate: Path | None, key: Path | None) -> tuple[Path | None, Path | None]:
    """Return both files, or two ``None`` if one is missing. The CLI uses a certificate only together with its key."""
    return (certificate, key) if certificate is not None and key is not None else (None, None)


def _is_missing(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return True
    except OSError:
        # The file cannot be examined. `_check_readable` raises the error with the reason.
        return False
    return False


def _check_readable(path: Path, origin: str) -> None:
    try:
        path.read_bytes()
    except OSError as error:
        raise errors.tls_file(str(path), origin, str(error.strerror)) from error


# --- the address ---------------------------------------------------------------------------------------------------


def _address(url: str, *, secure: bool) -> UnixAddress | TcpAddress | SshAddress:
    """Return the address of a URL (docker/docker, ``client.ParseHostURL``). Raises ``ValueError``.

    A URL from ``DOCKER_HOST`` already has a port (``_normalise_host``). The host of a context is used as it is. Without
    a port it means the port of HTTP or HTTPS.
    """
    host, path = _parse_url(url)
    scheme, separator, rest = url.partition("://")
    if not separator or not rest:
        raise ValueError("an address looks like unix:///path/to/docker.sock or tcp://HOST:PORT")
    if scheme == "ssh":
        return _ssh_address(url)
    if scheme == "unix":
        return UnixAddress(rest)
    if scheme == "npipe":
        raise ValueError("named pipes are there on Windows only")
    if scheme != "tcp":
        # The CLI looks for a host with the whole rest as its name.
        if "@" in rest or "/" in rest:
            raise ValueError(f"{rest} is no host")
        host, path = rest, ""
    name, port = _split_host_port(host) or (host.strip("[]"), "")
    number = int(port or (443 if secure else 80))
    if not name:
        name = "localhost"
    if not 0 < number <= _LAST_PORT:
        raise ValueError(f"{number} is no port")
    return TcpAddress(name, number, posixpath.normpath(f"/{path.lstrip('/')}").rstrip("/") if path else "")


def _ssh_address(url: str) -> SshAddress:
    """Return the parts of ``ssh://[USER@]HOST[:PORT][/SOCKET]`` (docker/cli, cli/connhelper/ssh).

    Raises ``ValueError``.
    """
    rest, _hash, fragment = url.removeprefix("ssh://").partition("#")
    rest, _question, query = rest.partition("?")
    if fragment:
        raise ValueError("a fragment (#) has no meaning there")
    if query:
        raise ValueError("a query (?) has no meaning there")
    authority, slash, path = rest.partition("/")
    account, _at, host = authority.rpartition("@")
    user, colon, _password = account.partition(":")
    if colon:
        raise ValueError("a password in the URL is not supported; use a key or an agent")
    port = ""
    if host.startswith("["):
        host, _bracket, port = host[1:].partition("]")
        port = port.removeprefix(":")
    elif ":" in host:
        host, _colon, port = host.rpartition(":")
    host = unquote(host)
    if not host:
        raise ValueError("it names no host")
    if host.startswith("-") or unquote(user).startswith("-"):
        raise ValueError("a host or a user that begins with a hyphen would be an option of ssh")
    return SshAddress(host, unquote(user), port, unquote(slash + path) if path else "")


# The characters that Go's net/url allows in a host without percent-encoding (net/url, shouldEscape for encodeHost).
_HOST = re.compile(r"[^\x00-\x20#/?@\\^`{|}\x7f]*")
# The characters that Go's net/url allows before the `@` (net/url, validUserinfo).
_ACCOUNT = re.compile(r"[A-Za-z0-9._:~!$&'()*+,;=%@-]*")
_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
# In a host, the only ASCII character that may be percent-encoded is the percent sign itself (net/url, unescape).
_HOST_ESCAPE = re.compile(r"%(?!25|[89A-Fa-f][0-9A-Fa-f])")


def _parse_url(url: str) -> tuple[str, str]:
    """Return the host (with its port) and the path of a URL. Raises ``ValueError`` if Go's ``url.Parse`` would fail."""
    if re.search(r"[\x00-\x1f\x7f]", url):
        raise ValueError("there is a control character in it")
    _scheme, _separator, rest = url.partition("://")
    rest, _hash, fragment = rest.partition("#")
    rest = rest.partition("?")[0]
    authority, slash, path = rest.partition("/")
    account, _at, host = authority.rpartition("@")
    if not _ACCOUNT.fullmatch(account):
        raise ValueError("before the @ is a character that has to be percent-encoded")
    for part in (authority, path, fragment):
        if _ESCAPE.search(part):
            raise ValueError("a % is not followed by two hexadecimal digits")
    if not _HOST.fullmatch(host) or _HOST_ESCAPE.search(host):
        raise ValueError(f"{host} cannot be a host")
    if host.startswith("["):
        if "]" not in host:
            raise ValueError("a ] is missing")
        port = host.rpartition("]")[2]
    else:
        port = host[host.rindex(":") :] if ":" in host else ""
    if not re.fullmatch(r"(:\d*)?", port, re.ASCII):
        raise ValueError(f"{port.removeprefix(':')} is no port")
    return unquote(host), unquote(slash + path)


def _split_host_port(text: str) -> tuple[str, str] | None:
    """Return host and port as Go's ``net.SplitHostPort`` splits them, or ``None`` if it would fail."""
    match = re.fullmatch(r"\[([^\[\]]*)\]:([^:\[\]]*)|([^:\[\]]*):([^:\[\]]*)", text)
    if match is None:
        return None
    return (match[1], match[2]) if match[1] is not None else (match[3], match[4])


def _join_host_port(host: str, port: str) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# --- proxies -------------------------------------------------------------------------------------------------------


def _proxy(environ: Mapping[str, str], address: TcpAddress, *, secure: bool) -> tuple[str, str | None]:
    """Return the variable that names the proxy for an address, and the proxy's URL or ``None``.

    The rules are those of Go's ``http.ProxyFromEnvironment``. ``HTTPS_PROXY`` is for TLS, and ``HTTP_PROXY`` otherwise.
    The upper-case name has priority over the lower-case name. ``ALL_PROXY`` is never used, and a loopback address never
    has a proxy. Raises ``RunnerError`` for a proxy that is not HTTP, because the HTTP client of this package has no
    SOCKS, although Go has it.
    """
    variable = "HTTPS_PROXY" if secure else "HTTP_PROXY"
    proxy = environ.get(variable) or environ.get(variable.lower()) or ""
    excepted = environ.get("NO_PROXY") or environ.get("no_proxy") or ""
    if not proxy or not _needs_proxy(address.host, str(address.port), excepted):
        return variable, None
    is_url = bool(re.match(r"[A-Za-z][A-Za-z0-9+.-]*://[^/]", proxy))
    url = proxy if is_url else f"http://{proxy}"
    try:
        host, _path = _parse_url(url)
    except ValueError as error:
        if is_url:
            raise errors.proxy_invalid(variable, without_password(url)) from error
        # Go ignores what is no URL.
        return variable, None
    port = (_split_host_port(host) or ("", ""))[1]
    if not host or int(port or 0) > _LAST_PORT:
        raise errors.proxy_invalid(variable, without_password(url))
    # Without a host, a port is one of this machine's.
    url = re.sub(r"^(https?://(?:[^/@]*@)?)(?=:\d)", r"\1localhost", url, flags=re.IGNORECASE)
    if not re.match(r"https?://", url, re.IGNORECASE):
        raise errors.proxy_unusable(variable, without_password(url), address.host)
    return variable, url


def _needs_proxy(host: str, port: str, excepted: str) -> bool:
    """Return whether the proxy is used for a host, by ``NO_PROXY`` (golang.org/x/net/http/httpproxy, ``useProxy``)."""
    ip = _ip(host)
    if host == "localhost" or (ip is not None and ip.is_loopback):
        return False
    host = host.strip().lower()
    return not any(_matches(entry.strip().lower(), host, port, ip) for entry in excepted.split(","))


def _matches(entry: str, host: str, port: str, ip: _Ip | None) -> bool:
    """Return whether an entry of ``NO_PROXY`` matches the host.

    The entry is ``*``, a network, or an address or a domain with or without a port.
    """
    if entry == "*":
        return True
    if "/" in entry:
        try:
            network = ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
        mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
        if mapped is not None:
            network = ipaddress.ip_network(f"{mapped}/{network.prefixlen - 96}")
        # After the slash, Python also accepts a netmask, but Go only accepts a length.
        return entry.rpartition("/")[2].isdecimal() and ip is not None and ip in network
    name, wanted_port = _split_host_port(entry) or (entry, "")
    if not name or (wanted_port and wanted_port != port):
        return False
    named = _ip(name)
    if named is not None or ip is not None:
        return named is not None and named == ip
    name = name.removeprefix("*") if name.startswith("*.") else name
    if name.startswith("."):
        return host.endswith(name)
    return host == name or host.endswith(f".{name}")


def _ip(text: str) -> _Ip | None:
    try:
        ip = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return mapped or ip


def without_password(url: str) -> str:
    """Return a URL, or a text that has one, without user name and password."""
    # A password may have any character if the URL is wrong. So the last `@` counts.
    return re.sub(r"//.*@", "//", url)


# --- headers -------------------------------------------------------------------------------------------------------


_OWN_HEADERS = ("host", "user-agent", "content-length", "transfer-encoding", "trailer")
"""What Go's HTTP client decides itself, whatever headers it is given (net/http, ``reqWriteExcludeHeader``)."""


def _headers(environ: Mapping[str, str], config: ConfigFile) -> dict[str, str]:
    """Return the headers of ``DOCKER_CUSTOM_HEADERS``, or else those of ``config.json``."""
    given = environ.get("DOCKER_CUSTOM_HEADERS", "")
    headers = _custom_headers(given) if given else config.http_headers
    # Blanks around a value do not belong to it (RFC 9110, 5.5).
    return {name: value.strip(" \t") for name, value in headers.items() if name.lower() not in _OWN_HEADERS}


def _custom_headers(given: str) -> dict[str, str]:
    """``NAME=VALUE`` pairs, written as the first record of a CSV file, as the CLI reads them."""
    try:
        pairs = next(filter(None, csv.reader(io.StringIO(given, newline=""))), [given])
    except csv.Error as error:
        raise errors.custom_headers_invalid(given) from error
    headers = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not config_file.is_header(name.strip(), value):
            raise errors.custom_headers_invalid(pair)
        headers[name.strip()] = value
    return headers
