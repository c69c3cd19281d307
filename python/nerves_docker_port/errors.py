"""Every error that a user can meet, with its code, its message and its remedy.

No other module has the text of an error. Each function here returns the error or the warning for the situation that its
docstring describes. Other modules raise the error where they understand the failure. The session sends it over the
port, and the shim shows it once, as one ``Mix.Error``.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Final, TypeAlias

Facts: TypeAlias = Mapping[str, str | tuple[str, ...] | None]
"""The cause of a failed build: its ``title``, and the fields of ``record.cause.Cause``."""


class Code(str, Enum):
    """The stable codes of ``{:error, %{code: ...}}``. docs/protocol.md says when each is used."""

    ENGINE_UNREACHABLE = "engine_unreachable"
    ENGINE_PERMISSION = "engine_permission"
    ENGINE_TOO_OLD = "engine_too_old"
    ENGINE_TOO_NEW = "engine_too_new"
    IMAGE_UNAVAILABLE = "image_unavailable"
    IMAGE_BUILD_FAILED = "image_build_failed"
    VOLUME_BUSY = "volume_busy"
    STEP_FAILED = "step_failed"
    OUT_OF_MEMORY = "out_of_memory"
    DISK_FULL = "disk_full"
    NO_NETWORK = "no_network"
    NO_BUILD_TREE = "no_build_tree"
    ARTIFACT_MISSING = "artifact_missing"
    CANCELLED = "cancelled"
    BAD_REQUEST = "bad_request"
    PROTOCOL_MISMATCH = "protocol_mismatch"
    INTERNAL = "internal"


class RunnerError(Exception):
    """An error with a text for the user who runs Mix.

    ``message`` is a complete text. ``hint`` is the remedy, ``log`` is the path of a log with more information, and
    ``cause`` is the cause that was found in the log, for a program. Each of these three can be ``None``.
    """

    cause: Facts | None = None

    def __init__(self, code: Code, message: str, *, hint: str | None = None, log: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.log = log


class NotSeenError(RunnerError):
    """The engine cannot see the directories of this machine. It can work with copies of them (workspace/copied.py)."""


def engine_unreachable(endpoint: str, origin: str, reason: str) -> RunnerError:
    """No engine answers at ``endpoint``, which comes from ``origin`` (a variable or a context)."""
    return _no_engine(
        endpoint,
        origin,
        reason,
        "Start the engine (Linux: `sudo systemctl start docker`; otherwise start Docker Desktop or your podman "
        "machine; if it runs already, restart it), or point DOCKER_HOST or `docker context use` at one that runs. "
        "`docker version` tests it.",
    )


def _no_engine(endpoint: str, origin: str, reason: str, hint: str) -> RunnerError:
    return RunnerError(
        Code.ENGINE_UNREACHABLE,
        "Nerves Docker build_runner is unable to connect to docker daemon\n\n"
        f"No engine answers at {endpoint} ({origin}): {reason}",
        hint=hint,
    )


_LOCAL_AGAIN = (
    "`unset DOCKER_HOST DOCKER_CONTEXT DOCKER_TLS_VERIFY DOCKER_TLS` and `docker context use default` go back to "
    "this machine's own engine."
)


def engine_host_unknown(endpoint: str, origin: str, host: str, reason: str) -> RunnerError:
    """The name of the engine's ``host`` has no address."""
    return _no_engine(
        endpoint,
        origin,
        reason,
        f"Check the name {host}, and whether this machine is in the network that knows it: `ping {host}` must find an "
        f"address. A `Host` of ~/.ssh/config is known to ssh only: ssh://{host}. {_LOCAL_AGAIN}",
    )


def engine_port_unreachable(endpoint: str, origin: str, host: str, port: int, reason: str) -> RunnerError:
    """Nothing can be reached at the engine's host and port."""
    return _no_engine(
        endpoint,
        origin,
        reason,
        f"Check on {host} that the engine runs and listens on port {port} (it does so only if `--host` of dockerd says "
        "so), and that no firewall is between. An engine on another machine can be reached without such a port, too: "
        f"DOCKER_HOST=ssh://USER@HOST. {_LOCAL_AGAIN}",
    )


def not_an_engine(endpoint: str, origin: str, reason: str) -> RunnerError:
    """What answers at ``endpoint`` does not answer as an engine."""
    return _no_engine(
        endpoint,
        origin,
        reason,
        "Check the address, its port and its path: another program may answer there. If it is the engine, "
        f"{_ENGINE_LOG}. `docker version` tests the address. {_LOCAL_AGAIN}",
    )


def engine_redirects(endpoint: str, origin: str, target: str) -> RunnerError:
    """What answers at ``endpoint`` redirects the request to ``target``. The API of an engine has no redirects."""
    return _no_engine(
        endpoint,
        origin,
        f"what answers there is not a Docker engine; it redirects to {target}",
        "If the engine is at that address, name it as tcp://HOST:PORT (for https: with DOCKER_TLS_VERIFY=1). If it is "
        f"a page to log in, another program answers there, or the network wants a login. {_LOCAL_AGAIN}",
    )


def _proxy(endpoint: str, origin: str, host: str, reason: str, more: str = "") -> RunnerError:
    return _no_engine(
        endpoint,
        origin,
        reason,
        f"{more}If this machine reaches the engine without the proxy, exclude its host from the proxy: "
        f'`export NO_PROXY="$NO_PROXY,{host}"`.',
    )


def proxy_refused(endpoint: str, origin: str, host: str, reason: str, *, wants_login: bool) -> RunnerError:
    """The HTTP proxy answered that it does not pass a request on to the engine at ``host``."""
    login = "The proxy wants a login: write its variable as http://USER:PASSWORD@HOST:PORT. " if wants_login else ""
    return _proxy(endpoint, origin, host, f"the proxy refuses the connection: {reason}", login)


def proxy_failed(endpoint: str, origin: str, host: str, reason: str) -> RunnerError:
    """There is no connection to the HTTP proxy, or it breaks before the proxy has passed on a request."""
    return _proxy(
        endpoint,
        origin,
        host,
        f"no connection through the proxy: {reason}",
        "Check that the address of the proxy is right, and that it runs. ",
    )


def engine_permission(endpoint: str, origin: str, group: str | None) -> RunnerError:
    """The engine's socket exists, but this user may not open it. Members of ``group`` may, if that is not ``None``."""
    return RunnerError(
        Code.ENGINE_PERMISSION,
        f"Permission denied: the engine's socket {endpoint} ({origin}) may not be opened by this user.",
        hint=f"Add yourself to the socket's group (`sudo usermod -aG {group or 'docker'} $USER`), then log out and in "
        "again; or use a rootless engine.",
    )


def engine_lost(endpoint: str, doing: str, reason: str) -> RunnerError:
    """The engine answered before, but does not answer any more."""
    return RunnerError(
        Code.ENGINE_UNREACHABLE,
        f"The engine at {endpoint} stopped answering {doing}: {reason}",
        hint="See whether the engine was stopped or restarted, then run the command again: the build continues where "
        f"it was. If it happens again, {_ENGINE_LOG}.",
    )


def engine_too_old(found: str, needed: str) -> RunnerError:
    """The engine's API version is lower than the version that the flows need."""
    return RunnerError(
        Code.ENGINE_TOO_OLD,
        f"The engine speaks API version {found}; {needed} or later is needed.",
        hint="Update the engine: Docker 20.10 or Podman 3.4 and later are new enough.",
    )


def engine_too_new(version: str, oldest: str, ours: str) -> RunnerError:
    """The oldest API version of the engine is newer than the newest version that this package knows."""
    return RunnerError(
        Code.ENGINE_TOO_NEW,
        f"The engine {version} speaks API version {oldest} and later; this version of nerves_docker_port knows the API "
        f"up to version {ours}.",
        hint="Update the build runner (`mix deps.update nerves_docker_port`). Until there is a newer one, let the "
        f'engine accept the older API: `"min-api-version": "{ours}"` in /etc/docker/daemon.json (or the variable '
        "DOCKER_MIN_API_VERSION of dockerd), then restart it.",
    )


def api_version_unusable(given: str, oldest: str, newest: str) -> RunnerError:
    """``DOCKER_API_VERSION`` is a version that the engine or this helper does not have."""
    return RunnerError(
        Code.ENGINE_UNREACHABLE,
        f"DOCKER_API_VERSION asks for API version {given}; with this engine it can be {oldest} to {newest}.",
        hint="Unset it (`unset DOCKER_API_VERSION`): then the newest version that both sides know is used.",
    )


def engine_forbidden(endpoint: str, doing: str, reason: str, *, wants_login: bool = False) -> RunnerError:
    """The engine, or a proxy in front of it, forbids a request (status 403), or wants a login (status 401)."""
    login = (
        "It wants a login. Put that into the docker CLI's config.json: "
        '`"HttpHeaders": {"Authorization": "Basic ..."}`, '
        "with what `printf %s USER:PASSWORD | base64` prints, or with the token that it wants (`Bearer ...`). "
    )
    return RunnerError(
        Code.ENGINE_PERMISSION,
        f"The engine at {endpoint} forbids a request {doing}: {reason}",
        hint=(login if wants_login else "")
        + "A proxy before the engine's socket, or an authorization plug-in of the engine, allows some requests only. "
        "The build runner needs version, info, ping, containers (with attach, exec, archive, start, stop, kill, wait, "
        "rename), images, build, volumes, networks and system/df, and POST, PUT and DELETE for them. With "
        "docker-socket-proxy: CONTAINERS=1 IMAGES=1 BUILD=1 VOLUMES=1 NETWORKS=1 EXEC=1 INFO=1 SYSTEM=1 POST=1. Or "
        "point DOCKER_HOST at the engine itself.",
    )


def context_missing(name: str, origin: str) -> RunnerError:
    """The docker context ``name`` does not exist."""
    return RunnerError(
        Code.ENGINE_UNREACHABLE,
        f'The docker context "{name}" ({origin}) does not exist.',
        hint="`docker context ls` lists those that do; `docker context use default` goes back to the local engine.",
    )


def context_unusable(name: str, origin: str, path: str, reason: str) -> RunnerError:
    """The file of a docker context cannot be read, or has a wrong content."""
    return RunnerError(
        Code.ENGINE_UNREACHABLE,
        f'The docker context "{name}" ({origin}) cannot be used: {path}: {reason}',
        hint=f"Make it anew: `docker context rm -f {name}`, then `docker context create {name} --docker host=...`; or "
        "go back to the local engine with `docker context use default`.",
    )


def endpoint_invalid(endpoint: str, origin: str, reason: str) -> RunnerError:
    """The endpoint's URL cannot be used."""
    return RunnerError(
        Code.ENGINE_UNREACHABLE,
        f"{endpoint} ({origin}) is not an engine endpoint that can be used: {reason}",
        hint="Write it as unix:///path/to/docker.sock, tcp://HOST:PORT or ssh://USER@HOST.",
    )


def socket_path_too_long(path: str, origin: str, limit: int) -> RunnerError:
    """The path of a Unix socket is longer than the ``limit`` of the operating system, which is in bytes."""
    return RunnerError(
        Code.ENGINE_UNREACHABLE,
        f"The path of the engine's socket ({origin}) is too long: this system allows {limit} bytes, and {path} has "
        f"{len(path.encode())}.",
        hint=f"Make a short link to it and use that: `ln -s {path} /tmp/docker.sock`, then "
        "DOCKER_HOST=unix:///tmp/docker.sock.",
    )


def proxy_unusable(variable: str, proxy: str, host: str) -> RunnerError:
    """The proxy for a TCP endpoint is not an HTTP proxy."""
    return RunnerError(
        Code.ENGINE_UNREACHABLE,
        f"{variable} names the proxy {proxy} for the engine at {host}; only HTTP proxies can be used.",
        hint=f"Except the engine's host from it: `export NO_PROXY={host}`; or name an HTTP proxy (http://HOST:PORT).",
    )


def proxy_invalid(variable: str, proxy: str) -> RunnerError:
    """The URL of the proxy for a TCP endpoint is wrong. ``proxy`` is the URL without user name and password."""
    return RunnerError(
        Code.ENGINE_UNREACHABLE,
        f"{variable} names the proxy {proxy}, which is no URL that can be used.",
        hint="Write it as http://HOST:PORT or http://USER:PASSWORD@HOST:PORT. In the user name and the password, write "
        "special characters percent-encoded: a blank as %20, @ as %40, : as %3A, / as %2F, # as %23, % as %25.",
    )


def custom_headers_invalid(pair: str) -> RunnerError:
    """``DOCKER_CUSTOM_HEADERS`` contains a ``pair`` that is not a header."""
    return RunnerError(
        Code.ENGINE_UNREACHABLE,
        f"DOCKER_CUSTOM_HEADERS wants NAME=VALUE, separated by commas; given was {pair!r}.",
        hint='For example: DOCKER_CUSTOM_HEADERS="X-Team=firmware". Without it, the headers of config.json are sent.',
    )


# --- TLS -----------------------------------------------------------------------------------------------------------


def tls_file(path: str, origin: str, reason: str) -> RunnerError:
    """A file for TLS is missing, cannot be read, or has a wrong content. ``origin`` is what turns TLS on."""
    return RunnerError(
        Code.ENGINE_UNREACHABLE,
        f"TLS with the engine ({origin}) needs the file {path}: {reason}",
        hint="DOCKER_CERT_PATH names the directory with ca.pem, cert.pem and key.pem (without it: ~/.docker); a "
        "context has its own copies (`docker context inspect`). The key must be readable for you and have no "
        "passphrase. For an engine without TLS, unset DOCKER_TLS_VERIFY and DOCKER_TLS.",
    )


def _tls(endpoint: str, origin: str, reason: str, hint: str) -> RunnerError:
    return RunnerError(
        Code.ENGINE_UNREACHABLE, f"No TLS connection to the engine at {endpoint} ({origin}): {reason}", hint=hint
    )


def tls_unknown_authority(endpoint: str, origin: str, authority: str | None, reason: str) -> RunnerError:
    """The engine's certificate is not signed by an authority in the file ``authority``, or of the system (``None``)."""
    known = "an authority that this system knows" if authority is None else f"the authority in {authority}"
    return _tls(
        endpoint,
        origin,
        f"the engine's certificate is not signed by {known} ({reason}).",
        "Take the ca.pem that belongs to this engine, and put it into the directory that DOCKER_CERT_PATH names (for a "
        "context: `docker context update NAME --docker host=...,ca=...,cert=...,key=...`). Or it is another engine "
        "than you mean.",
    )


def tls_wrong_name(endpoint: str, origin: str, host: str, peer: str) -> RunnerError:
    """The engine's certificate is for other hosts than the host in the endpoint. ``peer`` is ``HOST:PORT``."""
    kind = "IP" if ":" in host or host.replace(".", "").isdecimal() else "DNS"
    return _tls(
        endpoint,
        origin,
        f"the engine's certificate is not made for the host {host}.",
        f"Use a host name or an address that is in the certificate (`openssl s_client -connect {peer} </dev/null | "
        f"openssl x509 -noout -ext subjectAltName`), or make one with subjectAltName={kind}:{host}. The common name "
        "does not count.",
    )


def tls_too_old(endpoint: str, origin: str) -> RunnerError:
    """The engine, or what answers in its place, knows no version of TLS that this machine's OpenSSL accepts."""
    return _tls(
        endpoint,
        origin,
        "there is no version of TLS that the engine and this machine have in common.",
        "Update the engine, or the proxy in front of it: it must know TLS 1.2 or later.",
    )


def tls_wrong_time(endpoint: str, origin: str, what: str) -> RunnerError:
    """The engine's certificate has expired or is not valid yet. ``what`` is the verb of the sentence that says so."""
    return _tls(
        endpoint,
        origin,
        f"the engine's certificate {what}.",
        "See whether this machine's clock is right (`date`); if it is, the engine needs a new certificate.",
    )


def tls_refused(endpoint: str, origin: str, certificate: str | None, reason: str) -> RunnerError:
    """The engine refuses the client certificate in the file ``certificate``, or a client without one (``None``)."""
    shown = f"the certificate {certificate}" if certificate is not None else "a connection without a certificate"
    return _tls(
        endpoint,
        origin,
        f"the engine does not accept {shown} ({reason}).",
        "The engine wants a client certificate that its own authority has signed: cert.pem and key.pem in the "
        "directory that DOCKER_CERT_PATH names (both have to be there), signed by the --tlscacert of dockerd.",
    )


def tls_not_spoken(endpoint: str, origin: str, asked_by: str) -> RunnerError:
    """The helper used TLS, but the server does not."""
    return _tls(
        endpoint,
        origin,
        f"what answers there does not speak TLS, which {asked_by} asks for.",
        "Use the engine's TLS port (2376 by custom), or, for an engine without TLS, unset DOCKER_TLS_VERIFY and "
        "DOCKER_TLS.",
    )


def tls_wanted(endpoint: str, origin: str) -> RunnerError:
    """The helper used plain HTTP, but the server wants TLS."""
    return _tls(
        endpoint,
        origin,
        "what answers there speaks TLS, and plain HTTP was sent.",
        "Set DOCKER_TLS_VERIFY=1, and DOCKER_CERT_PATH to the directory with ca.pem, cert.pem and key.pem. "
        "DOCKER_CERT_PATH alone does not turn TLS on. A context needs the files, too (`docker context update NAME "
        "--docker host=...,ca=...,cert=...,key=...`).",
    )


def tls_perhaps_wanted(endpoint: str, origin: str, host: str, port: int, reason: str) -> RunnerError:
    """The server closed the connection after plain HTTP. Some servers that want TLS do that."""
    failed = engine_port_unreachable(endpoint, origin, host, port, reason)
    failed.hint = (
        "What answers there may speak TLS: then set DOCKER_TLS_VERIFY=1, and DOCKER_CERT_PATH to the directory with "
        f"ca.pem, cert.pem and key.pem. Otherwise: {failed.hint}"
    )
    return failed


def tls_failed(endpoint: str, origin: str, peer: str, reason: str) -> RunnerError:
    """The TLS handshake with ``peer`` (``HOST:PORT``) failed for a ``reason`` without an error of its own."""
    return _tls(
        endpoint,
        origin,
        reason,
        f"`openssl s_client -connect {peer} -CAfile ca.pem -cert cert.pem -key key.pem`, with the files in the "
        "directory that DOCKER_CERT_PATH names, tells more.",
    )


# --- ssh -----------------------------------------------------------------------------------------------------------

SSH_NO_SHELL = "the far side runs no commands for this user"
"""The reason for ``ssh_failed`` if ssh logs in, but the command does not run."""

_SSH_HINTS = (
    (
        SSH_NO_SHELL,
        (
            "`ssh {host} true` must end without an error. Give that user a login shell there (`chsh`), take away a "
            "`ForceCommand` of its sshd_config or a `command=` of the authorized_keys, or log in as another user: "
            "ssh://USER@HOST."
        ),
    ),
    (
        r"bad configuration option|terminating, \d+ bad",
        "Correct that line of the configuration of ssh. `ssh -G {host}` tests it.",
    ),
    (
        r"bad permissions|unprotected private key",
        "Make the key readable for you alone: `chmod 600` and the path of the key.",
    ),
    (
        r"unable to negotiate",
        (
            "One of the two sides is too old for the other. Update it, or allow in ~/.ssh/config what the far side "
            "offers (`HostKeyAlgorithms`, `KexAlgorithms`, `Ciphers`, each with a + before the name)."
        ),
    ),
    (
        r"host key verification failed|host identification has changed|no .* host key is known",
        (
            "Log in once by hand, `ssh {host}`, and compare the key that it shows with the far side's. If ssh says "
            "that the key has changed, find out why before you remove the old one from ~/.ssh/known_hosts."
        ),
    ),
    (
        r"permission denied|too many authentication failures|no supported authentication",
        (
            "`ssh -o BatchMode=yes {host} true` must work without a question: put your key into the agent "
            "(`ssh-add`), or name it in ~/.ssh/config (IdentityFile), and see that the far side has its public half. "
            "Passwords cannot be asked for."
        ),
    ),
    (
        r"could not resolve|name or service|nodename",
        "Check the host's name: it is a name of DNS, or a `Host` of your ~/.ssh/config.",
    ),
    (
        r"connection refused|timed out|no route to host|network is unreachable|did not answer",
        (
            "See whether the host is up, whether its ssh server runs, and on which port (ssh://HOST:PORT, or `Port` in "
            "~/.ssh/config)."
        ),
    ),
    (
        r"kex_exchange_identification|connection closed|connection reset",
        (
            "Check the port: another program may answer there. If a `ProxyJump` or `ProxyCommand` of ~/.ssh/config "
            "leads there, test that host or command alone. Else the log of the ssh server there tells why "
            "(`sudo journalctl -u ssh`, `-u sshd`)."
        ),
    ),
)


def ssh_missing(endpoint: str, origin: str) -> RunnerError:
    """The endpoint is reached over ssh, but ssh is not installed."""
    return RunnerError(
        Code.ENGINE_UNREACHABLE,
        f"The engine at {endpoint} ({origin}) is reached through ssh, which is not installed here.",
        hint="Install OpenSSH's client (Debian, Ubuntu: `sudo apt install openssh-client`).",
    )


def ssh_failed(endpoint: str, origin: str, host: str, words: str) -> RunnerError:
    """ssh could not connect to ``host`` (as it is typed after `ssh`). ``words`` are the messages of ssh."""
    import re

    hint = next(
        (hint for pattern, hint in _SSH_HINTS if re.search(pattern, words, re.IGNORECASE)),
        "`ssh -v {host}` tells more.",
    )
    return RunnerError(
        Code.ENGINE_UNREACHABLE,
        f"No ssh connection to the engine at {endpoint} ({origin}): {words}",
        hint=hint.replace("{host}", host),
    )


def ssh_no_socket(endpoint: str, origin: str, host: str, looked_at: Iterable[str]) -> RunnerError:
    """ssh connects, but there is no socket of an engine on the far side."""
    return RunnerError(
        Code.ENGINE_UNREACHABLE,
        f"ssh reaches the host of {endpoint} ({origin}), but there is no engine's socket there: {', '.join(looked_at)}",
        hint=f"Start the engine there (`ssh -t {host} sudo systemctl start docker`), or name its socket in the URL: "
        "ssh://HOST/path/to/docker.sock.",
    )


def ssh_socket_forbidden(endpoint: str, origin: str, host: str, user: str, path: str) -> RunnerError:
    """There is a socket of an engine on the far side, but its ``user`` may not open it."""
    return RunnerError(
        Code.ENGINE_PERMISSION,
        f"Permission denied: ssh reaches the host of {endpoint} ({origin}), but the user {user} may not open the "
        f"engine's socket {path} there.",
        hint=f"Add that user to the socket's group there (`ssh -t {host} sudo usermod -aG docker {user}`), or log in "
        "as another one: ssh://USER@HOST.",
    )


def ssh_no_engine(endpoint: str, origin: str, host: str, path: str, words: str) -> RunnerError:
    """The user may open the socket on the far side, but no engine answers over ssh.

    ``words`` are the messages of ssh, if there are any.
    """
    said = f": {words}" if words else "."
    return RunnerError(
        Code.ENGINE_UNREACHABLE,
        f"ssh reaches the host of {endpoint} ({origin}), but no engine answers at {path} there{said}",
        hint=f"Either no engine listens at that socket (`ssh -t {host} sudo systemctl status docker`), or the ssh "
        "server there forbids to forward sockets: then set `AllowStreamLocalForwarding yes` in its sshd_config, or "
        "install the docker CLI there, through which connections go where they cannot be forwarded.",
    )


NO_ANSWER = "it did not answer in time"
HUNG_UP = "it closed the connection without an answer"
ANSWER_CUT = "its answer broke off"
NOT_HTTP = "it does not answer as an HTTP proxy does"
NOT_AN_ENGINE = "what answers there is not a Docker engine"
"""The reasons for ``engine_unreachable`` and ``engine_lost`` for which the operating system has no message."""


_ENGINE_LOG = (
    "the engine's own log tells more (Docker on Linux: `sudo journalctl -u docker`; rootless: "
    "`journalctl --user -u docker`; Podman: `journalctl -u podman`; Docker Desktop: Troubleshoot, Get support)"
)

DIRECTORY_NOT_SEEN = (
    "The engine does not see the directories of this machine as you do. Share the directory with it (Docker Desktop: "
    "Settings, Resources, File sharing; Colima: `mounts` in `colima start --edit`; Podman: "
    "`podman machine init --volume`), or move the project to where it sees it: your home directory, as a rule. An "
    "engine that is a snap sees nothing else. If Mix runs in a container itself, mount the project there at the path "
    "that it has on the engine's host. `mix nerves_docker_port.doctor` tries every directory of the project."
)
"""The remedy if the engine has another directory than the host at a path, or none."""

_NOT_MOUNTABLE = (
    "Podman cannot mount a path with a comma, a double quote or a line break in it. Rename the directory, or leave "
    "`workspace: :mounted` out: then the build works on copies."
)

_SELINUX = (
    "SELinux keeps containers from the directory. Let them have it: `sudo chcon -Rt container_file_t DIRECTORY` for "
    "each directory that the message names, or move the project below your home directory if it is in a directory of "
    "the system. `sudo ausearch -m avc -ts recent` shows what was denied."
)

# The messages of engines and their runtimes (runc, crun), in their order of precedence. Each entry has the words of the
# message, the code and the remedy.
_REFUSALS: tuple[tuple[str, Code, str], ...] = (
    (r"selinux|relabel|lsetxattr|label .* not allowed", Code.ENGINE_PERMISSION, _SELINUX),
    (
        # Docker Desktop: "Mounts denied: The path ... is not shared from the host and is not known to Docker."
        r"mounts? denied|not shared from|not known to docker|(directory|file|drive) sharing|drive has not been shared",
        Code.ENGINE_PERMISSION,
        DIRECTORY_NOT_SEEN,
    ),
    (
        # Podman turns the mounts of a request into the CSV text of `podman run --mount`, without quotes, and parses
        # that text again: "fill out specgen: b/dl: invalid mount option".
        r"fill out specgen: .*(invalid mount option|incorrect mount format|parse error on line|bare \\?\"|extraneous)",
        Code.BAD_REQUEST,
        _NOT_MOUNTABLE,
    ),
    (
        # Docker: "invalid mount config for type "bind": bind source path does not exist: ..."; "error while creating
        # mount source path '...': mkdir ...: read-only file system". Podman: "statfs ...: no such file or directory".
        (
            r"bind source path does not exist|creat(e|ing) mount source path|source path .* does not exist"
            r"|(statfs|lstat|stat'ing file) .*no such file"
        ),
        Code.ENGINE_PERMISSION,
        DIRECTORY_NOT_SEEN,
    ),
    (
        # runc: "error mounting "/..." to rootfs at "/tmp": ... not a directory: unknown: Are you trying to mount a
        # directory onto a file (or vice-versa)?". The same at a target of the runner itself means that the engine has
        # another file there than the host.
        (
            r"(to rootfs at |mount [\"'`]?/[^\"'`]*[\"'`]? to )[\"'`]?(?!/nerves/|/home/nerves/)/.*"
            r"(not a directory|is a directory|file exists|read-only file system|cannot be mounted|symbolic links)"
        ),
        Code.BAD_REQUEST,
        (
            "Choose another target in `build_runner_config: [mounts: ...]`, for example below /mnt. A directory can be "
            "mounted only where the image has a directory or nothing, and a file only where it has a file or nothing."
        ),
    ),
    (
        # runc: "error mounting "/..." to rootfs at "/...": ... no such file or directory". crun: "mount `/...` to ...".
        r"mount(ing)? [\"'`]?/.*(no such file or directory|not a directory)",
        Code.ENGINE_PERMISSION,
        DIRECTORY_NOT_SEEN,
    ),
    (
        r"((statfs|lstat|stat'ing file) |mount(ing)? [\"'`]?/).*(permission denied|operation not permitted)",
        Code.ENGINE_PERMISSION,
        (
            "The engine may not open the directory. A rootless engine opens only what you may open yourself, and all "
            "directories above it have to let you through (`namei -l DIRECTORY` shows them). It does not see a file "
            "system that is mounted for you alone (sshfs, for example). If the engine has SELinux, "
            "`sudo ausearch -m avc -ts recent` shows what was denied."
        ),
    ),
    (
        r"authorization denied by plugin|denied by policy",
        Code.ENGINE_PERMISSION,
        "An authorization plug-in of the engine forbids this. Ask whoever runs the engine to allow it.",
    ),
    (
        r"could not select device driver|unresolvable cdi devices",
        Code.BAD_REQUEST,
        (
            "The engine has no driver for what `DeviceRequests` in `build_runner_config: [host_config: ...]` wants. "
            "Leave it out (Buildroot needs none), or install the driver at the engine."
        ),
    ),
    (
        r"(unknown|invalid) runtime|default runtime .* not found",
        Code.BAD_REQUEST,
        (
            "`Runtime` in `build_runner_config: [host_config: ...]` names a runtime that the engine does not have. "
            "`docker info` lists those that it has."
        ),
    ),
    (
        # Podman: "netavark: nftables error: unable to execute nft: No such file or directory (os error 2)".
        r"unable to execute (nft|iptables)|\b(nft|iptables)[\"']?: (executable file )?(no such file|not found)",
        Code.INTERNAL,
        (
            "The engine's host lacks the program for its firewall rules. Install it there, in the package `nftables` "
            'or `iptables`, as the message says. `build_runner_config: [network: "host"]` does without it.'
        ),
    ),
    (
        r"exec: .*(no such file|not found)|executable file .* not found",
        Code.IMAGE_UNAVAILABLE,
        (
            "A program that a build needs is not in the image. Check the tag in `build_runner_config: [docker: "
            "{dockerfile, tag}]`: the image has to be made like Nerves' own, with bash, GNU tools and util-linux."
        ),
    ),
    (
        r"iptables|nftables|programming external connectivity",
        Code.INTERNAL,
        (
            "Something has removed the engine's firewall rules. Restarting it makes them again "
            "(`sudo systemctl restart docker`), and ends the containers that run there. "
            '`build_runner_config: [network: "host"]` does without them.'
        ),
    ),
    (
        r"cgroup",
        Code.INTERNAL,
        (
            "The engine cannot set up a container's limits. Leave out `cpus`, `memory` and `swap`, if you have set "
            f"them. Otherwise {_ENGINE_LOG}."
        ),
    ),
)


def engine_refused(doing: str, reason: str) -> RunnerError:
    """The engine answered with an error. Its message decides about the code and the remedy."""
    import re

    if says_disk_full(reason):
        return disk_full(f"The engine ran out of disk space {doing}: {reason}")
    code, hint = Code.INTERNAL, f"Run the command again. If it fails again, {_ENGINE_LOG}."
    for pattern, named, remedy in _REFUSALS:
        if re.search(pattern, reason, re.IGNORECASE | re.DOTALL):
            code, hint = named, remedy
            break
    kind = NotSeenError if hint in (DIRECTORY_NOT_SEEN, _NOT_MOUNTABLE) else RunnerError
    return kind(code, f"The engine reported an error {doing}: {reason}", hint=hint)


def other_directory(path: str) -> RunnerError:
    """The engine has a directory at ``path``, but it is not the host's directory."""
    return NotSeenError(
        Code.ENGINE_PERMISSION,
        f"The engine sees another directory at {path} than you do.",
        hint=f"{DIRECTORY_NOT_SEEN} Or let it work on copies: leave `workspace: :mounted` out.",
    )


def not_elsewhere(setting: str, why: str, remedy: str) -> RunnerError:
    """A ``setting`` is not possible in the copied workspace. ``why`` is the reason."""
    return RunnerError(
        Code.BAD_REQUEST,
        f"`{setting}` cannot be had on an engine that does not see the directories of this machine and works on "
        f"copies: {why}",
        hint=remedy,
    )


def read_write_mount(source: str, target: str) -> RunnerError:
    """A mount is writable, which is not possible in the copied workspace."""
    return not_elsewhere(
        f"mounts: {source} at {target}",
        "what the build writes there would not come back.",
        f'Mount it read-only, which is copied: `mounts: [{{"{source}", "{target}", :ro}}]`. What a build is to write '
        "back belongs in the package's directory.",
    )


def ssh_agent_elsewhere() -> RunnerError:
    """The setting ``ssh`` is ``:agent``, which is not possible in the copied workspace."""
    return not_elsewhere(
        "ssh: :agent",
        "the agent's socket is on this machine.",
        "Use `ssh: :dir`: the keys in ~/.ssh are copied into the build's container and go with it. Or `ssh: false`.",
    )


def ccache_elsewhere(path: str) -> RunnerError:
    """The setting ``ccache`` is a directory of the host, which is not possible in the copied workspace."""
    return not_elsewhere(
        f"ccache: {path}",
        "the directory is on this machine.",
        "Use `ccache: true`: the cache is then a volume at the engine, which all systems that are built there share.",
    )


def not_readable(path: str, reason: str) -> RunnerError:
    """A file of the package or the platform that is to be copied to the engine cannot be read."""
    return RunnerError(
        Code.BAD_REQUEST,
        f"{path} cannot be read, and the build needs a copy of it: {reason}",
        hint="Make it readable for the user who runs Mix, or move it out of the directory.",
    )


def both_changed(path: str, beside: str) -> str:
    """A warning: a file was changed on the host and in the build. ``beside`` is the path of the build's version."""
    return (
        f"{path} was changed by the build or in the shell, and on this machine meanwhile. The one here was kept; the "
        f"other one is {beside}. Compare them, and remove the one that you do not need."
    )


def replaced_in_build(path: str, beside: str) -> str:
    """A warning: in the build, a directory has replaced a file or a link, or the other way round."""
    return (
        f"The build or the shell has replaced {path} by something of another kind, such as a file by a directory. The "
        f"one here was kept; the other one is {beside}. Compare them, and remove the one that you do not need."
    )


def differs_in_case(path: str, beside: str) -> str:
    """A warning: the build has made a file whose name is that of another one on a file system that ignores case."""
    return (
        f"The build has made {path}, but the file system here does not distinguish it from another file, whose name "
        f"differs in upper and lower case only. The build's file is {beside}. Give one of them another name, or keep "
        "the package on a file system that is case-sensitive."
    )


def not_brought_back(name: str, reason: str) -> str:
    """A warning: a file of the build cannot be brought to the host."""
    return f"The build has made {name!r}, which was not brought to the package's directory: {reason}."


_NAMED = 10
"""The number of names that one warning has at most."""


def deleted_in_build(names: Sequence[str], package: str) -> str:
    """A warning: files were removed in the container, but not on the host."""
    removed = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    return (
        f"The build has removed {removed} in its copy of {package}. Here they were kept; remove them yourself if they "
        "are to go. Until then, the next build has them again."
    )


def package_not_writable(path: str, reason: str) -> RunnerError:
    """A file in the package's directory cannot be written with what the build has changed."""
    return RunnerError(
        Code.BAD_REQUEST,
        f"{path} was changed by the build or in the shell, and cannot be written here: {reason}",
        hint="Make it and its directory writable for the user who runs Mix, and run the command again.",
    )


NOT_OFFERED = "the container could not read or pack it; the messages of its programs are above or in the log."
"""The reason for `changes_stay` if a program in the container has failed (scripts/changes.sh)."""


def changes_stay(reason: str) -> str:
    """A warning: changes in the container could not be fetched now."""
    return (
        f"What was changed in the package's directory could not be brought back yet: {reason.rstrip('.')}. It is kept "
        "at the engine, and the next command brings it."
    )


def directory_not_writable(reason: str) -> str:
    """The remedy if a container can read a directory of the host, but cannot write to it because of ``reason``."""
    if "permission denied" in reason.lower():
        return f"See that it is yours (`ls -ld DIRECTORY`). If the engine has SELinux: {_SELINUX}"
    return "See that it is neither full nor read-only."


def says_disk_full(text: str) -> bool:
    """Return whether a message of an engine, a registry client or a build says that a disk is full (ENOSPC)."""
    return "no space left on device" in text.lower()


_NO_NETWORK = (
    "temporary failure in name resolution",
    "could not resolve host",
    "unable to resolve host address",
    "network is unreachable",
    "no route to host",
)
"""Messages of resolvers, wget, curl, git and ssh (strerror of EAI_AGAIN, ENETUNREACH, EHOSTUNREACH; host.c of wget)."""


def says_no_network(text: str) -> bool:
    """Return whether the output of a build says that it could not reach the network."""
    return any(phrase in text.lower() for phrase in _NO_NETWORK)


def no_network(failed: RunnerError) -> RunnerError:
    """A step failed because the container could not reach the network. ``failed`` is the step's error."""
    return RunnerError(
        Code.NO_NETWORK,
        failed.message,
        hint="The container has no way to the network. See whether this host has one, whether a VPN or a firewall "
        "keeps the engine's containers from it, and what DNS servers they have (`cat /etc/resolv.conf` in "
        '`mix nerves.system.shell`). `build_runner_config: [dns: ["..."]]` gives them others, and '
        '`build_runner_config: [network: "host"]` lets them share the host\'s network.',
        log=failed.log,
    )


def disk_full(message: str, log: str | None = None) -> RunnerError:
    """A disk of the engine or of the host is full. ``message`` says which."""
    return RunnerError(
        Code.DISK_FULL,
        message,
        hint="Free some space, then run the command again: the build continues where it was. `docker system df` shows "
        "what the engine holds; build volumes go with `mix nerves.clean`.",
        log=log,
    )


def image_unavailable(image: str, reason: str, dockerfile: str | None, *, pulled: bool = True) -> RunnerError:
    """``image`` is not at the engine, and it could not be pulled (``pulled``) or must not be pulled.

    ``reason`` says why. ``dockerfile`` is the path of the file from which the image can be built, if that exists.
    """
    hints = [] if dockerfile is not None and not pulled else [_pull_hint(image, reason)]
    if dockerfile is not None:
        hints.append(
            f"Its Dockerfile is {dockerfile}. Build it with:\n\n    {docker_build_command(dockerfile, image)}\n\n"
            "or let the build runner do it: `build_runner_config: [create_image: :always]`, or "
            "NERVES_DOCKER_CREATE_IMAGE=always in the environment."
        )
    tried = "could not be pulled" if pulled else "is not pulled"
    return RunnerError(
        Code.IMAGE_UNAVAILABLE,
        f"Unable to use Nerves Docker build_runner without image\n\n{image} is not at the engine and {tried}: {reason}",
        hint="\n\n".join(hints),
    )


_TAG_HINT = "Check the tag in `build_runner_config: [docker: {dockerfile, tag}]`"
_FROM_HINT = "Check the name after FROM in the Dockerfile"

_REGISTRY_UNREACHABLE = (
    r"dial|lookup|no such host|refused|unreachable|timeout|deadline|proxyconnect|name resolution|i/o timeout"
)

# The messages of the engine and of registries, in their order of precedence, because a refusal often also contains the
# tag. In a remedy, CHECK is replaced by the place where the image is named, and LOGIN by the command that logs in.
_PULL_HINTS = (
    (
        r"toomanyrequests|rate limit|\b429\b",
        "The registry limits how much may be pulled; `LOGIN` raises the limit, and so does waiting.",
    ),
    (
        r"no match(ing manifest| for platform)|does not match the specified platform",
        "The image is not made for this engine's architecture: take one that is, or build it for this one.",
    ),
    (
        r"unknown operating system or architecture|invalid platform|invalid component",
        "DOCKER_DEFAULT_PLATFORM names a platform that the engine does not know; it is written as linux/amd64.",
    ),
    (
        r"unauthorized|denied|basic auth|authentication|insufficient_scope|\b40[13]\b",
        "If it is private, log in first: `LOGIN`. CHECK, too: of what is not there many say so.",
    ),
    (r"pull: :never", "Pull it yourself (`docker pull`), or allow it: `build_runner_config: [pull: :missing]`."),
    (r"manifest unknown|not found|name unknown", "CHECK: the registry does not have it."),
    (
        r"invalid reference|invalid repository|must be lowercase|failed to parse stage name",
        "CHECK: a name is written in lower case, as REGISTRY/NAME:TAG.",
    ),
    (
        r"gave HTTP response to HTTPS|certificate|x509",
        "The engine does not trust the registry: see `insecure-registries` and certificates in Docker's manual.",
    ),
    (
        r"EOF|nothing has arrived|connection reset|broken pipe",
        "The registry broke off. Try again: layers that are whole are not pulled a second time.",
    ),
    (
        _REGISTRY_UNREACHABLE,
        "It is the engine that must reach the registry: check its network and proxy (`docker info`). CHECK.",
    ),
)


def _login(image: str) -> str:
    """Return the command that logs in at the registry of ``image``, which is Docker Hub if the name has no registry."""
    first, slash, _rest = image.partition("/")
    return (
        f"docker login {first}" if slash and ("." in first or ":" in first or first == "localhost") else "docker login"
    )


def _pull_hint(image: str, reason: str, check: str = _TAG_HINT) -> str:
    import re

    for pattern, hint in _PULL_HINTS:
        if re.search(pattern, reason, re.IGNORECASE):
            return hint.replace("CHECK", check).replace("LOGIN", _login(image))
    return f"{check} and the network, then try again."


def image_not_renewed(image: str, reason: str) -> RunnerError:
    """With ``pull: :always``, ``image`` could not be pulled. The engine has an older one."""
    return RunnerError(
        Code.IMAGE_UNAVAILABLE,
        f"{image} could not be pulled: {reason}",
        hint=f"{_pull_hint(image, reason)}\n\nThe engine has an older {image}. `build_runner_config: [pull: :missing]` "
        "or NERVES_DOCKER_PULL=missing in the environment, uses it.",
    )


def image_build_failed(
    image: str,
    dockerfile: str,
    step: str | None,
    reason: str,
    last_lines: str,
    log: str,
    *,
    said: str = "",
    buildkit_only: str | None = None,
) -> RunnerError:
    """``image`` could not be built. ``step`` is the step of the Dockerfile that failed, if one began.

    ``said`` is the end of the build's output. ``buildkit_only`` is ``None`` if the image was built with BuildKit. If
    not, it is the part of the Dockerfile that only BuildKit knows, or an empty string if there is none.
    """
    where = f"`{step}` failed" if step is not None else "It did not come to its first step"
    message = (
        f"The Nerves Docker build_runner could not create the image {image} from {dockerfile}.\n\n"
        f"{where}: {reason}\n\n-----\n{last_lines}\n-----\n\nSee {log}.\n"
    )
    if says_disk_full(reason) or says_disk_full(last_lines):
        return disk_full(message, log)
    code, hint = _image_build_remedy(step or "", reason, f"{said}\n{last_lines}", buildkit_only)
    return RunnerError(code, message, hint=hint, log=log)


def _image_build_remedy(step: str, reason: str, said: str, buildkit_only: str | None) -> tuple[Code, str]:
    import re

    def says(pattern: str, text: str = reason) -> bool:
        return re.search(pattern, text, re.IGNORECASE) is not None

    failed = Code.IMAGE_BUILD_FAILED
    # The builder only gives the exit status of a command. The reason is in the output of the command.
    if says(r"returned a non-zero code|did not complete successfully"):
        if says_no_network(said) or says(_COMMAND_NO_NETWORK, said):
            return Code.NO_NETWORK, _IMAGE_NEEDS_NETWORK
        if buildkit_only is not None and says(_BUILDKIT_VARIABLE, step):
            return failed, _needs_buildkit("only there the variable for the platform has a value")
        return failed, f"Correct the Dockerfile, then {_STEPS_ARE_KEPT}"
    if buildkit_only is not None:
        is_misread = says("parse error") and says("here-document|syntax=", buildkit_only)
        if is_misread or says(_BUILDKIT_REFUSAL):
            return failed, _needs_buildkit(buildkit_only)
    if says(r"docker/dockerfile:|docker/dockerfile-upstream"):
        return failed, (
            "BuildKit could not fetch what the Dockerfile's line `# syntax=` names. Where the Dockerfile needs nothing "
            f"that is newer than the engine, remove that line. {_pull_hint('docker/dockerfile', reason, _FROM_HINT)}"
        )
    if says(r"\bFROM\b|--from=", step) or says(_REGISTRY_REFUSAL):
        # The step is `FROM --platform=... NAME` or `COPY --from=NAME`. If no step began, BuildKit's message begins with
        # the name.
        base = re.search(r"\bFROM (?:--\S+ +)*(\S+)|--from=(\S+)", step) or re.search(r"^(\S+?/\S+): ", reason)
        name = next(filter(None, base.groups()), "") if base is not None else ""
        return failed, f"The base image could not be had. {_pull_hint(name, reason, _FROM_HINT)}"
    if says(_REGISTRY_UNREACHABLE):
        return failed, (
            "It is the engine that must reach what the Dockerfile names: check its network and proxy (`docker info`), "
            f"then {_STEPS_ARE_KEPT}"
        )
    return failed, f"Correct the Dockerfile, then {_STEPS_ARE_KEPT}"


_STEPS_ARE_KEPT = "run the command again: the steps before the failed one are kept."

_IMAGE_NEEDS_NETWORK = (
    "The step found no way to the network. Give the engine's containers one: a DNS server that they reach "
    '(`{"dns": ["..."]}` in /etc/docker/daemon.json, then `sudo systemctl restart docker`), or a proxy '
    '(`{"proxies": {"default": {"httpProxy": "...", "httpsProxy": "..."}}}` in ~/.docker/config.json). Then '
    f"{_STEPS_ARE_KEPT}"
)


_COMMAND_NO_NETWORK = (
    r"temporary failure resolving|temporary error \(try again later\)|name or service not known|EAI_AGAIN|ENOTFOUND"
    r"|no such host|dial tcp|connection timed out|failed to establish a new connection|could not connect to"
    r"|failed to connect to|couldn't resolve host|bad address '|check internet connection|nxdomain|failed_connect"
    r"|407 from proxy|407 +proxy authentication"
)
"""The messages of apt, apk, pip, npm, Go, curl, dnf, BusyBox's wget and Mix, in addition to those of a build."""

_BUILDKIT_VARIABLE = r"\$\{?(TARGET|BUILD)(PLATFORM|OS|ARCH|VARIANT)\b"

_BUILDKIT_REFUSAL = (
    r"requires BuildKit|failed to parse platform|unknown flag: "
    r"(mount|link|chmod|checksum|exclude|parents|keep-git-dir|unpack|network|security|device|start-interval)"
)
"""The messages of the engine's own builder about BuildKit's syntax (moby, builder/dockerfile)."""

_REGISTRY_REFUSAL = (
    r"pull access denied|toomanyrequests|manifest (for .*)?(unknown|not found)|no match for platform"
    r"|failed to resolve (source metadata|reference)|failed to (authorize|parse stage name)|invalid from flag value"
)


def _needs_buildkit(what: str) -> str:
    because = f" ({what})" if what else ""
    return (
        f"The Dockerfile needs BuildKit{because}. Images are built with it where the docker CLI has its buildx plug-in "
        "(and DOCKER_BUILDKIT=0 is not set). Install that, then run the command again:\n\n"
        "  Debian, Ubuntu        sudo apt-get install docker-buildx\n"
        "  Docker's own packages sudo apt-get install docker-ce-cli docker-buildx-plugin\n"
        "  macOS                 brew install docker docker-buildx && mkdir -p ~/.docker/cli-plugins && "
        'ln -sf "$(brew --prefix)/bin/docker-buildx" ~/.docker/cli-plugins/'
    )


def ignore_file_wrong(file: str, reason: str) -> RunnerError:
    """A line of ``.dockerignore`` is not a pattern."""
    return RunnerError(
        Code.IMAGE_BUILD_FAILED,
        f"{file} cannot be used: {reason}",
        hint="Correct that line. A `[` needs its `]`, and a backslash or a `!` needs something after it. Between the "
        "parts of a path is a `/`: a backslash gives the character after it another meaning.",
    )


def buildx_missing() -> RunnerError:
    """The user wants BuildKit, but there is no docker CLI with buildx."""
    return RunnerError(
        Code.IMAGE_BUILD_FAILED,
        "BuildKit is asked for (DOCKER_BUILDKIT, or `docker buildx install`), but there is no `docker buildx` here.",
        hint="Install Docker's buildx plug-in (Debian, Ubuntu: `sudo apt install docker-buildx`; Homebrew: "
        "`brew install docker-buildx`), or unset DOCKER_BUILDKIT: then the engine's own builder is used.",
    )


def buildkit_unclear(given: str) -> RunnerError:
    """``DOCKER_BUILDKIT`` is neither true nor false."""
    return RunnerError(
        Code.BAD_REQUEST,
        f"DOCKER_BUILDKIT wants a boolean value; given was {given!r}.",
        hint="DOCKER_BUILDKIT=1 builds with BuildKit, DOCKER_BUILDKIT=0 with the engine's own builder. Unset, BuildKit "
        "is used where `docker buildx` is installed.",
    )


def context_unreadable(context: str, reason: str) -> RunnerError:
    """The Dockerfile, or a file of its directory that it uses, cannot be read."""
    return RunnerError(
        Code.IMAGE_BUILD_FAILED,
        f"The image's Dockerfile or its context {context} cannot be read: {reason}",
        hint="Make it readable for the user who runs Mix, or name in .dockerignore what the image does not need.",
    )


def image_of_other_platform(image: str, platform: str, engine: str, last_lines: str, log: str) -> RunnerError:
    """A step did not start because ``image`` is for another kind of processor than the ``engine`` has."""
    return RunnerError(
        Code.IMAGE_UNAVAILABLE,
        f"The image {image} is made for {platform}, and the engine is on {engine}: its programs do not run there.\n\n"
        f"-----\n{last_lines}\n-----\n\nSee {log}.\n",
        hint=f"Take an image for {engine}: remove this one (`docker image rm {image}`) and pull a tag that is made for "
        f"{engine}, or build it here.",
        log=log,
    )


def docker_build_command(dockerfile: str, image: str) -> str:
    """Return the command that builds ``image`` from ``dockerfile``. It can be pasted into a shell."""
    import shlex
    from pathlib import PurePath

    return shlex.join(["docker", "build", "--tag", image, "--file", dockerfile, str(PurePath(dockerfile).parent)])


def volume_busy(volume: str, container: str, step: str, since: str, remedy: str) -> RunnerError:
    """Another container uses ``volume``. ``remedy`` is the command that ends that container."""
    return RunnerError(
        Code.VOLUME_BUSY,
        f"The build volume {volume} is in use by the container {container} ({step}, {since}).",
        hint=f"Wait for it to end, or end it with `{remedy}`.",
    )


def no_such_volume(volume: str) -> RunnerError:
    """The volume to remove does not exist at the engine, or is not a build volume."""
    return RunnerError(
        Code.BAD_REQUEST,
        f"There is no build volume {volume} at the engine. Nothing was removed.",
        hint="`mix nerves_docker_port.volumes --all` lists those that there are.",
    )


def volume_of_another_runner(volume: str) -> RunnerError:
    """The volume to remove was not made by this runner."""
    return RunnerError(
        Code.BAD_REQUEST,
        f"The volume {volume} was not made by this runner, so this runner does not remove it. Nothing was removed.",
        hint=f"If nobody needs it, `docker volume rm {volume}` removes it.",
    )


def volume_of_another_package(volume: str, package: str, path: str) -> RunnerError:
    """The volume to remove belongs to another package than the project, and ``--all`` is not given."""
    return RunnerError(
        Code.BAD_REQUEST,
        f"The build volume {volume} belongs to another package, {package} in {path}. Nothing was removed.",
        hint=f"If nobody needs it, `mix nerves_docker_port.volumes --all --prune {volume}` removes it.",
    )


def no_package_of_volumes() -> RunnerError:
    """``volumes`` runs outside of a Nerves project and without ``--all``."""
    return RunnerError(
        Code.BAD_REQUEST,
        "There is no Nerves system here whose build volumes could be listed or removed.",
        hint="Run this task in the directory of a system, or of a project with MIX_TARGET set; or add `--all` for the "
        "build volumes of all packages.",
    )


def step_failed(
    step: str,
    status: int,
    last_lines: str,
    log: str,
    *,
    cause: str = "",
    doing: str = "building",
    hint: str | None = None,
) -> RunnerError:
    """The command of a step ended with ``status``.

    ``last_lines`` are the last lines of the log. ``cause`` is the text about the cause that was found in the log.
    """
    return RunnerError(
        Code.STEP_FAILED,
        f"The Nerves Docker build_runner encountered an error while {doing}:\n\n"
        f"{_paragraph(cause)}`{step}` ended with exit status {status}.\n\n-----\n{last_lines}\n-----\n\nSee {log}.\n",
        hint=hint,
        log=log,
    )


def _paragraph(text: str) -> str:
    return f"{text}\n\n" if text else ""


def out_of_memory(step: str, status: int, last_lines: str, log: str, *, cause: str = "") -> RunnerError:
    """A step or one of its processes was killed because memory ran out. ``cause`` is the text from the log about it."""
    return RunnerError(
        Code.OUT_OF_MEMORY,
        f"The Nerves Docker build_runner ran out of memory:\n\n{_paragraph(cause)}`{step}` ended with exit status "
        f"{status} after a process in it was killed because memory ran out.\n\n"
        f"-----\n{last_lines}\n-----\n\nSee {log}.\n",
        hint="Give the engine more memory or swap (Docker Desktop: Settings, Resources), or run fewer jobs at once "
        '(`build_runner_opts: [make_args: ["PARALLEL_JOBS=2"]]`), then run the command again: the build continues '
        "where it was.",
        log=log,
    )


def killed_hint(*, memory_is_known: bool) -> str:
    """Return the hint of ``step_failed`` if a process of the step got the signal KILL.

    Without ``memory_is_known``, nobody knows whether the kernel has killed it because memory ran out.
    """
    somebody = (
        "see who or what ends processes there (`kill -9`, `docker kill`, earlyoom, systemd-oomd, a time limit of the "
        "CI)"
    )
    if memory_is_known:
        return (
            "A process was killed (signal 9), and the kernel did not do it for want of memory: "
            f"{somebody}, then run the command again: the build continues where it was."
        )
    return (
        "A process was killed (signal 9). This engine does not tell whether memory ran out. If it did, give the engine "
        'more memory or swap, or run fewer jobs at once (`build_runner_opts: [make_args: ["PARALLEL_JOBS=2"]]`). If it '
        f"did not, {somebody}. Then run the command again: the build continues where it was."
    )


def container_gone(container: str) -> RunnerError:
    """A container was removed while it ran, so its exit status is not known."""
    return RunnerError(
        Code.STEP_FAILED,
        f"The container {container} was removed by somebody else before it had ended.",
        hint="See what removes containers at this engine (`docker rm -f`, a clean-up job), then run the command again: "
        "the build continues where it was.",
    )


def session_expired(patience: int) -> RunnerError:
    """The container has ended by itself, because it got no heartbeat from this process for ``patience`` seconds."""
    return RunnerError(
        Code.ENGINE_UNREACHABLE,
        f"The build was ended because the engine could not be reached for more than {patience} seconds.",
        hint="Run the command again: the build continues where it was. `build_runner_config: [patience: SECONDS]`, or "
        "NERVES_DOCKER_PATIENCE in the environment, lets a build wait longer.",
    )


def container_name_taken(container: str) -> RunnerError:
    """A container cannot be made, because there is one with its name that the engine does not remove."""
    return RunnerError(
        Code.VOLUME_BUSY,
        f"There is a container called {container} already, and it stays.",
        hint=f"Remove it with `docker rm -f {container}`, then run the command again.",
    )


def no_build_tree(package: str, cache: str, last_lines: str | None = None, log: str | None = None) -> RunnerError:
    """``archive`` was requested, but nothing was built. ``cache`` is the path of the artifact in Nerves' cache."""
    ending = "" if last_lines is None else f"\n\n-----\n{last_lines}\n-----\n\nSee {log}.\n"
    return RunnerError(
        Code.NO_BUILD_TREE,
        f"There is no build tree of {package} at this engine.{ending}",
        hint=f"Nerves has an artifact of it in {cache} and so does not build it. To build it here, "
        f"run `mix nerves.clean {package}`, then this command again.",
        log=log,
    )


def artifact_missing(path: str, reason: str, log: str | None) -> RunnerError:
    """The step that packs the system succeeded, but the artifact does not exist or is not complete."""
    return RunnerError(
        Code.ARTIFACT_MISSING,
        f"`make system` ended well, but the artifact {path} is not usable: {reason}",
        hint="Run the command again; if it stays so, the platform's Makefile does not pack the system.",
        log=log,
    )


def shell_died(status: int, *, out_of_memory: bool) -> RunnerError:
    """The container of the build shell was ended from outside, or it ended before the shell began."""
    message = f"Nerves shell exited with status {status}"
    if out_of_memory:
        return RunnerError(
            Code.OUT_OF_MEMORY,
            f"{message}: it was ended because memory ran out.",
            hint="Give the container or the engine more memory, or let fewer jobs run at once (`make -j2`).",
        )
    return RunnerError(
        Code.STEP_FAILED,
        f"{message}: its container was ended from outside, or could not open it.",
        hint="What it printed is above. The build directory is kept; run `mix nerves.system.shell` again.",
    )


def no_terminal() -> RunnerError:
    """``shell`` runs without a terminal."""
    return RunnerError(
        Code.BAD_REQUEST,
        "The build shell needs a terminal at its standard input and output, and there is none.",
        hint="Run the command in a terminal, without pipes or redirections.",
    )


SHELL_CONNECTED_AGAIN = (
    "The connection to the build shell was lost and has been made again. Look before you go on: keys that were typed "
    "just before may not have arrived, and what was printed meanwhile is not shown."
)
"""The message in a build shell after the connection broke and was made again."""

SIZE_NOT_FOLLOWED = (
    "The build shell cannot follow the size of this terminal, because this user may not open the terminal's device. "
    "After you have changed the size, type `stty rows ROWS cols COLUMNS` in the build shell."
)
"""The message in a build shell that will not get a new size of the terminal."""


def no_spec(path: str, reason: str) -> RunnerError:
    """The file for ``shell`` is not, or not any more, the file that ``mix nerves.system.shell`` has made."""
    return RunnerError(
        Code.BAD_REQUEST,
        f"{path} does not say which shell to open: {reason}.",
        hint="Run `mix nerves.system.shell` again; it makes a new one.",
    )


def shell_ended(reason: str) -> RunnerError:
    """The shell was ended before the user left it. ``reason`` says how."""
    return RunnerError(Code.CANCELLED, f"The Nerves shell was ended: {reason}.")


def command_ended(reason: str) -> RunnerError:
    """A command in the build directory was ended from outside. ``reason`` says how."""
    return RunnerError(Code.CANCELLED, f"The command was ended: {reason}.")


def words_not_utf8() -> RunnerError:
    """A command for a terminal contains bytes that are not UTF-8. The engine's API is JSON and cannot express them."""
    return RunnerError(
        Code.BAD_REQUEST,
        "The command has a word that is not UTF-8, which is not possible on a terminal.",
        hint="Without a terminal it is: add `</dev/null` to the line.",
    )


def nobody_reads_output() -> RunnerError:
    """The program that reads the output of a command has ended."""
    return command_ended("the program that read its output has ended")


def cancelled(reason: str) -> RunnerError:
    """The flow was cancelled. ``reason`` says why."""
    return RunnerError(Code.CANCELLED, f"The build was cancelled: {reason}.")


def ccache_not_used(defconfig: str) -> str:
    """A warning: a compile cache is configured, but the defconfig does not turn it on."""
    return (
        f"The compiler cache is configured, but this system does not use it: BR2_CCACHE=y is not in {defconfig}. Add "
        "that line to turn the cache on."
    )


def ccache_no_answer(address: str) -> str:
    """A warning: the team's store cannot be reached from the container."""
    return (
        f"The compile cache {address} does not answer in the container, so this build does without it. See that the "
        "address is right, that the store runs, and that containers reach it (`network` and `extra_hosts` in "
        "build_runner_config)."
    )


def ccache_refused(address: str, answer: str) -> str:
    """A warning: the team's store answers, but with an error."""
    return (
        f"The compile cache {address} refuses this build, which does without it: {answer!r}. A password or token "
        "for it belongs into the variable NERVES_DOCKER_CCACHE_PASSWORD."
    )


def ccache_slow(address: str, milliseconds: int, limit: int) -> str:
    """A warning: the team's store answers too slowly to be useful."""
    return (
        f"The compile cache {address} took {milliseconds} ms to answer, so this build does without it: above {limit} "
        "ms the cache would cost more than it saves. Use a store that is nearer."
    )


def ccache_lost(address: str) -> str:
    """A warning: the team's store answered at first, but stopped during the build."""
    return (
        f"The compile cache {address} stopped answering during the build, which did without it from then on. See "
        "whether the store still runs."
    )


def ccache_failed(address: str, failed: int, compiled: int) -> str:
    """A warning: the team's store answered, but did not serve every compilation."""
    return (
        f"The compile cache {address} failed for {failed} of {compiled} compilations: it was away or slow for a "
        "while, or may not be written. If it may only be read, say so: `read_only: true`."
    )


COMMAND_OUT_OF_MEMORY = (
    "A process of the command was ended for want of memory. Give the container or the engine more memory, or let fewer "
    "jobs run at once (`make -j2`)."
)
"""A warning: memory ran out while a command ran. It is shown in addition to the exit status."""


COMMAND_KILLED = (
    "A process of the command was killed (signal 9), and this engine does not tell whether memory ran out. If it did, "
    "give the container or the engine more memory, or let fewer jobs run at once (`make -j2`)."
)
"""A warning: a command was killed, and the reason is not known. It is shown in addition to the exit status."""


def not_in_build_tree(path: str, workdir: str) -> RunnerError:
    """The path for ``copy`` is not in the build directory."""
    return RunnerError(
        Code.BAD_REQUEST,
        f"{path!r} is no path in the build directory.",
        hint=f"Give a path relative to the build directory ({workdir} in the container), for example `images` or "
        "`build/hello-1.0/config.log`.",
    )


def leads_out_of_build_tree(path: str, target: str, workdir: str) -> RunnerError:
    """The path for ``copy`` contains a symbolic link that leads out of the build directory."""
    return RunnerError(
        Code.BAD_REQUEST,
        f"{path} leads out of the build directory, to {target}: a part of it is a symbolic link.",
        hint=f"Only what lies in {workdir} can be copied. To see the other file, print it: "
        f"`mix nerves_docker_port.run -- cat {shlex.quote(target)}`.",
    )


def nothing_to_copy(name: str) -> RunnerError:
    """The path for ``copy`` is not a file or directory, but for example a device or a named pipe."""
    return RunnerError(
        Code.BAD_REQUEST,
        f"{name} is neither a file, a directory nor a link.",
        hint="Only files, directories and links can be copied.",
    )


def not_there_in_build_tree(path: str, workdir: str, target: str = "") -> RunnerError:
    """The path for ``copy`` does not exist, or it is a symbolic link whose ``target`` does not exist."""
    why = f": it is a symbolic link to {target}, which is not there" if target else ""
    directory = path.rpartition("/")[0] or "."
    return RunnerError(
        Code.BAD_REQUEST,
        f"There is no {path} in the build directory{why}.",
        hint=f"Paths are relative to the build directory, {workdir}. To see what is there: "
        f"`mix nerves_docker_port.run -- ls -la {shlex.quote(directory)}`.",
    )


def no_directory_for_copy(directory: str) -> RunnerError:
    """The directory to which ``copy`` must write does not exist."""
    return RunnerError(
        Code.BAD_REQUEST,
        f"There is no directory {directory} for the copy.",
        hint=f"Make it first: `mkdir -p {shlex.quote(directory)}`.",
    )


def copy_onto_directory(path: str) -> RunnerError:
    """The target of ``copy`` is a directory that is not empty."""
    return RunnerError(
        Code.BAD_REQUEST,
        f"{path} is a directory with files in it, and the copy would mix with them.",
        hint="Move or remove it first, or give another name for the copy.",
    )


def copy_onto_file(path: str) -> RunnerError:
    """The target of ``copy`` is a file, but its source is a directory."""
    return RunnerError(
        Code.BAD_REQUEST,
        f"{path} is a file, and a directory is to be copied.",
        hint="Move or remove it first, or give another name for the copy.",
    )


def copy_broke_off(path: str, reason: str) -> RunnerError:
    """The engine did not send the whole file or directory for ``copy``."""
    return RunnerError(
        Code.INTERNAL,
        f"The engine did not hand over the whole of {path}: {reason}.",
        hint="Nothing was written. Run the command again; if it stays so, the engine's own log says why.",
    )


def not_copied(name: str, reason: str) -> str:
    """A warning: ``copy`` left a file out."""
    return f"{name!r} was not copied: {reason}."


def bad_request(message: str, hint: str | None = None) -> RunnerError:
    """The request or the configuration is wrong. ``message`` names the key."""
    return RunnerError(Code.BAD_REQUEST, message, hint=hint)


def unknown_setting(given: str, where: str, allowed: Iterable[str], meant: str | None, after: str = "") -> RunnerError:
    """There is no setting with the key or variable ``given``. ``meant`` is the name that the user probably meant.

    ``after`` is the text that follows a key in a list, such as a colon.
    """
    maybe = "" if meant is None else f" Did you mean `{meant}{after}`?"
    return RunnerError(
        Code.BAD_REQUEST,
        f"`{given}` in {where} is not known.{maybe}",
        hint=f"Known are {', '.join(allowed)}.",
    )


def wrong_setting(where: str, given: str, allowed: str, example: str) -> RunnerError:
    """The value of a setting cannot be used. ``where`` names the key or variable."""
    return RunnerError(
        Code.BAD_REQUEST, f"{where} wants {allowed}; given was {given}.", hint=f"For example: `{example}`."
    )


_ITS_MOUNTS = "It mounts what a build needs, and checks the places; use `mounts: [{source, target}]`."
_ITS_CPUS = "Use `cpus: 4`, which also fits it to what the engine has."
_ITS_PROCESSES = "It has to be able to end all processes of a build together, and to see that they have ended."
_ITS_SESSION = "One container serves one build, and the runner removes it when the build has ended, however it ended."

HOST_CONFIG_OF_THE_RUNNER: Final[Mapping[str, str]] = {
    **dict.fromkeys(("Binds", "Mounts", "VolumesFrom"), _ITS_MOUNTS),
    **dict.fromkeys(("NanoCpus", "CpuQuota", "CpuPeriod", "CpuCount", "CpuPercent"), _ITS_CPUS),
    **dict.fromkeys(("AutoRemove", "RestartPolicy", "ContainerIDFile"), _ITS_SESSION),
    **dict.fromkeys(("Init", "InitPath", "PidMode", "Cgroup"), _ITS_PROCESSES),
    "Memory": 'Use `memory: "24G"`.',
    "MemorySwap": 'Use `swap: "16G"`, which is what comes beside `memory`; MemorySwap is the sum of both.',
    "KernelMemory": 'Engines no longer know it. Use `memory: "24G"`.',
    "NetworkMode": 'Use `network: "host"`.',
    "OomKillDisable": "A process that wants more memory than there is would wait for ever. The runner lets it be "
    "killed, and the error says so.",
    "CgroupnsMode": "It reads in the container's own cgroup whether a process was killed because memory ran out.",
    "LogConfig": "It reads the output as it is written, and keeps all of it in build.log.",
    "ConsoleSize": "The build shell follows the size of your terminal.",
    "ReadonlyRootfs": "It makes the build user in the container's /etc/passwd.",
    "GroupAdd": "The build user has the groups that the image gives it.",
    "UsernsMode": "It finds out how the engine maps user ids, and chooses so that the files are yours.",
    "VolumeDriver": "It makes the build volume itself; every command must find it again.",
    **dict.fromkeys(("Isolation", "IOMaximumIOps", "IOMaximumBandwidth"), "It is for Windows containers only."),
}
"""The fields of a container's ``HostConfig`` that the runner sets itself, with the reason or the setting to use."""


def host_config_refused(field: str, where: str) -> RunnerError:
    """``host_config`` contains a ``field`` that the runner sets itself. ``where`` names the setting."""
    return RunnerError(
        Code.BAD_REQUEST,
        f"`{field}` in {where} cannot be set: the build runner decides it itself.",
        hint=f"Leave `{field}` out. {HOST_CONFIG_OF_THE_RUNNER[field]}",
    )


def no_current_directory() -> RunnerError:
    """The directory that the command was started in was removed meanwhile."""
    return RunnerError(
        Code.BAD_REQUEST, "The current directory is not there any more.", hint="Change into another one (`cd`)."
    )


def image_name_unusable(where: str, name: str, reason: str) -> RunnerError:
    """The name of an image is one that no engine and no registry accepts."""
    lower = name.strip().lower()
    example = lower if reason.endswith("lower case") else "my_system:0.1.0"
    return RunnerError(
        Code.BAD_REQUEST,
        f"{where}: {name!r} cannot be an image's name: {reason}.",
        hint=f'For example: `build_runner_config: [docker: {{"Dockerfile", "{example}"}}]`.',
    )


def mount_source_missing(source: str, target: str) -> RunnerError:
    """The source of a configured mount does not exist."""
    return RunnerError(
        Code.BAD_REQUEST,
        f"build_runner_config: [mounts: ...] wants a path that exists to mount at {target}; given was {source}.",
        hint="Make it, or correct the path: relative ones are the package's.",
    )


def mount_has_no_point(target: str, outer: str, point: str, *, is_file: bool) -> RunnerError:
    """A configured mount is below another one, at ``outer``, and the host has no mount point for it at ``point``."""
    what = "a file" if is_file else "a directory"
    return RunnerError(
        Code.BAD_REQUEST,
        f"build_runner_config: [mounts: ...] has a target {target} below {outer}, but what is mounted at {outer} "
        f"cannot have the mount point for it: there is no such {what.removeprefix('a ')} {point}.",
        hint=f"Make {what} there, or choose another target, which is not below {outer}.",
    )


def platform_missing(path: str) -> RunnerError:
    """The directory of the platform, as Mix knows it, is not there."""
    return RunnerError(
        Code.BAD_REQUEST,
        f"The directory of the platform is not there: {path}",
        hint="`mix deps.get` fetches dependencies anew; one with `path:` in `mix.exs` has to be where that says.",
    )


def network_missing(network: str, networks: Iterable[str]) -> RunnerError:
    """The engine does not have the configured network."""
    names = list(networks)
    meant = nearest(network, names)
    maybe = "" if meant is None else f' Did you mean "{meant}"?'
    return RunnerError(
        Code.BAD_REQUEST,
        f'build_runner_config: [network: ...] wants a network of the engine; given was "{network}".{maybe}',
        hint=f"It has {', '.join(names)}. `docker network create {network}` makes another.",
    )


def ssh_agent(message: str) -> RunnerError:
    """The setting ``ssh`` is ``:agent``, but there is no agent that can be used."""
    return RunnerError(
        Code.BAD_REQUEST,
        message,
        hint="Start one (`eval $(ssh-agent); ssh-add`), or use `ssh: :dir` for the keys in ~/.ssh.",
    )


def no_journal(where: str) -> RunnerError:
    """There is no journal of a build in ``where`` or below it."""
    return RunnerError(
        Code.BAD_REQUEST,
        f"No journal of a build is in {where}.",
        hint="Name the directory of a package that was built with nerves_docker_port, or a directory of journals. A "
        "build writes its journal into the package: .nerves/artifacts/<name>/journal.",
    )


def no_such_build(build: str) -> RunnerError:
    """No build has the id ``build``."""
    return RunnerError(
        Code.BAD_REQUEST, f"No build has an id that begins with {build}.", hint="`--list` shows the ids of all builds."
    )


def log_unreadable(path: str, reason: str) -> RunnerError:
    """The log for ``explain`` cannot be read."""
    return RunnerError(
        Code.BAD_REQUEST,
        f"The log {path} cannot be read: {reason}.",
        hint="Give the path of a build's log: `build.log` is in the directory in which Mix was run.",
    )


def log_not_kept(log: str, directory: str, reason: str) -> RunnerError:
    """A log that comes through a pipe cannot be copied to the directory for temporary files."""
    return RunnerError(
        Code.BAD_REQUEST,
        f"The log {log} comes through a pipe, and it cannot be copied to {directory}: {reason}.",
        hint="Write the log to a file and give the path of that, or name another directory in TMPDIR.",
    )


def log_not_plain(log: str, what: str, command: str) -> RunnerError:
    """The log for ``explain`` is compressed or in another encoding; ``command`` writes it as plain text."""
    return RunnerError(
        Code.BAD_REQUEST,
        f"The log {log} is {what}.",
        hint=f"Give it as plain text: `{command} {shlex.quote(log)} | python -m nerves_docker_port explain -`.",
    )


def not_writable(path: str, what: str, reason: str) -> RunnerError:
    """A directory or file on the host cannot be written."""
    return RunnerError(
        Code.BAD_REQUEST,
        f"{what} {path} cannot be written: {reason}",
        hint="Make it writable for the user who runs Mix, or choose another place.",
    )


def artifact_is_directory(path: str) -> RunnerError:
    """The artifact's path on the host is a directory."""
    return RunnerError(
        Code.BAD_REQUEST,
        f"The artifact cannot be put at {path}, because that is a directory.",
        hint="Move or remove it, then run the command again.",
    )


def output_not_written(reason: str) -> RunnerError:
    """The output of a command cannot be written."""
    return RunnerError(Code.DISK_FULL, f"nerves_docker_port: the standard output cannot be written: {reason}")


def internal(detail: str) -> RunnerError:
    """A Python exception without an error of its own. ``detail`` is the last line of its traceback.

    If a module of the standard library is missing or cannot be loaded, the user's Python is incomplete, and this is not
    a defect of this package. A Python that was built on a machine without a library lacks the module that needs it
    (``lzma``, ``zlib``, ``ssl``).
    """
    import re
    import sys

    missing = re.search(r"No module named '_?(\w+)|import of _?(\w+) halted", detail)
    module = (missing[1] or missing[2]) if missing else None
    broken = re.search(r"ImportError: .*(shared object|Library not loaded|symbol)", detail, re.DOTALL)
    if broken or module in sys.stdlib_module_names:
        version = ".".join(map(str, sys.version_info[:3]))
        what = f"lacks its module `{module}`" if module else "is damaged"
        return RunnerError(
            Code.INTERNAL,
            f"The helper failed with a Python error: {detail}\n\n"
            f"The Python that runs it, {sys.executable} ({version}), {what}.",
            hint="Use a Python that is whole (Debian, Ubuntu: `sudo apt-get install python3`; macOS: "
            f"`brew install python`). pyenv builds one anew with `pyenv install --force {version}`, once the libraries "
            "are there (https://github.com/pyenv/pyenv/wiki#suggested-build-environment).",
        )
    return RunnerError(
        Code.INTERNAL,
        f"The helper failed with a Python error, a defect of its own: {detail}",
        hint="Please report it with the traceback above.",
    )


def nearest(word: str, allowed: Iterable[str]) -> str | None:
    """Return the name in ``allowed`` that the user probably meant by ``word``, or ``None``."""
    import difflib

    return next(iter(difflib.get_close_matches(word, list(allowed), n=1)), None)
