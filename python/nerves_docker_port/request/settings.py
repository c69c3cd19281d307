"""The user's settings: ``build_runner_config`` of the package, and the ``NERVES_DOCKER_*`` variables.

They are validated once and then frozen. docs/configuration.md describes all of them. If Nerves 1.15's runner for Apple
containers has the same option, the name and the meaning are the same here. The other keys of that runner are accepted
and ignored, because the same package may be built by both runners. This module uses neither the engine nor the file
system.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Final, Literal, TypeAlias, TypeVar, get_args

from nerves_docker_port import errors
from nerves_docker_port.port.wire import Atom, Term
from nerves_docker_port.request import host_config, remote_cache, terms
from nerves_docker_port.request.remote_cache import RemoteCache

Ssh: TypeAlias = Literal["dir", "agent"]
Pull: TypeAlias = Literal["missing", "always", "never"]
CreateImage: TypeAlias = Literal["ask", "always", "never"]
WorkspaceKind: TypeAlias = Literal["auto", "mounted", "copied"]

CONFIG: Final = "build_runner_config"
PREFIX: Final = "NERVES_DOCKER_"

SETTINGS: Final = (
    "env",
    "pass_env",
    "mounts",
    "ccache",
    "cpus",
    "memory",
    "swap",
    "network",
    "dns",
    "extra_hosts",
    "ssh",
    "pull",
    "create_image",
    "workspace",
    "patience",
    "record_dir",
)
"""The keys that have a variable."""

CCACHE_PARTS: Final = ("dir", "remote", "read_only", "max_size")
"""The parts of the setting ``ccache``. Each has a variable of its own. The part ``password`` has only a variable."""

KEYS: Final = ("docker", *SETTINGS, "host_config")
"""All keys of the configuration. ``docker`` is read in request.py."""

IGNORED: Final = ("container", "volume_size")
"""The keys of Nerves' runner for Apple containers that have no meaning for a Docker engine."""

RUNNER_VARIABLES: Final = ("UID", "GID", "HOME", "NERVES_BR_DL_DIR", "SSH_AUTH_SOCK")
"""The variables in the container that the runner sets itself."""

OWN_TARGETS: Final = (
    "/nerves-docker-port",
    "/nerves/build",
    "/nerves/dl",
    "/nerves/ssh",
    "/nerves/ssh-agent.sock",
    "/nerves/env/platform",
    "/home/nerves/project",
    "/home/nerves/.ssh",
    "/home/nerves/.buildroot-ccache",
)
"""The paths that the runner itself uses in a container of any generation, except the path of the package."""

SYSTEM_TARGETS: Final = (
    "/proc",
    "/sys/fs/cgroup",
    "/dev/null",
    "/dev/pts",
    "/bin/bash",
    "/usr/bin/env",
    "/etc/passwd",
    "/etc/group",
)
"""The paths without which no build can run. The engine refuses a mount at some of them. scripts/become_caller.sh writes
to others, so with a mount there it would write to the host's file."""

LIBRARIES: Final = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
"""The directories that every program needs. Something may be mounted below them."""

LXCFS: Final = ("cpuinfo", "diskstats", "loadavg", "meminfo", "slabinfo", "stat", "swaps", "uptime")
"""The files in /proc at which runc allows a mount, because LXCFS has such files (libcontainer/rootfs_linux.go)."""

MINIMUM_MEMORY: Final = 6 * 1024 * 1024
"""Bytes. The engine refuses a smaller limit ("Minimum memory limit allowed is 6MB")."""

_VARIABLE_EXAMPLES: Final = {
    "env": "FORCE_COLOR=1,LANG=C",
    "pass_env": "GITHUB_TOKEN,HTTP_PROXY",
    "mounts": "/home/me/patches:/patches:ro",
    "dns": "10.0.0.1,10.0.0.2",
    "ccache_dir": "true",
    "ccache_remote": "redis://cache.example.com",
    "ccache_read_only": "true",
    "ccache_max_size": "20G",
    "extra_hosts": "mirror:10.0.0.2,engine:host-gateway",
    "record_dir": "/tmp/record",
}

PATIENCE: Final = (10, 24 * 60 * 60)
"""The smallest and the largest patience in seconds. With less, a host that is only busy would count as dead."""

_YES: Final = ("true", "yes", "on", "1")
_NO: Final = ("false", "no", "off", "none", "0")

T = TypeVar("T")
D = TypeVar("D")


@dataclass(frozen=True)
class HostMount:
    """A path of the host that is mounted at ``target`` in every container of a step."""

    source: Path
    target: str
    read_only: bool

    def is_below(self, other: HostMount) -> bool:
        """Return whether this target is the target of ``other`` or below it."""
        return _is_within(self.target, other.target)


@dataclass(frozen=True)
class Settings:
    """The validated settings. The defaults are what the stock runner does."""

    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The variables of every step, with those of ``pass_env``. Their values can be secrets, so they are never shown."""
    mounts: tuple[HostMount, ...] = ()
    ccache: Path | None = None
    """The host's directory for Buildroot's ccache."""
    remote_cache: RemoteCache | None = None
    """The compile cache that a team shares."""
    ccache_max_size: int | None = None
    """The bytes of the largest cache, or ``None`` for ccache's default."""
    cpus: Decimal | None = None
    memory: int | None = None
    """The bytes of memory, or ``None`` for all memory of the engine."""
    swap: int | None = None
    """The bytes of swap in addition to ``memory``, 0 for no swap, or ``None`` for the engine's default."""
    network: str | None = None
    """The name of a network at the engine, ``none`` or ``host``; ``None`` is the engine's default."""
    ssh: Ssh | None = "dir"
    ssh_agent: Path | None = None
    """The ssh agent's socket on the host (``SSH_AUTH_SOCK``) if ``ssh`` is "agent"."""
    pull: Pull = "missing"
    create_image: CreateImage = "ask"
    workspace: WorkspaceKind = "auto"
    """Whether containers use the host's directories or copies of them. With "auto" the helper decides it."""
    patience: int = 60
    """The seconds after which a build ends if no heartbeat arrives."""
    record_dir: Path | None = None
    """The directory for the logs, and for copies of the journal and the report. With ``None`` the logs are in Mix's
    working directory."""
    host_config: Mapping[str, object] = field(default_factory=dict)
    """Fields of the container's ``HostConfig`` as plain JSON values, with those of ``dns`` and ``extra_hosts``. Fields
    that the runner sets itself are not among them."""


def keys(term: Term) -> dict[str, Term]:
    """Return ``build_runner_config`` as a dictionary of known keys.

    If a key occurs twice, the first value counts. A value ``nil`` is left out. Raises ``RunnerError`` with the code
    ``:bad_request``.
    """
    if term is None:
        return {}
    pairs = list(term.items()) if isinstance(term, dict) else term
    found: dict[str, Term] = {}
    if not isinstance(pairs, list):
        raise errors.bad_request(f"{CONFIG}: a keyword list is wanted, given was {terms.inspect(term)}")
    for pair in pairs:
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], Atom)):
            raise errors.bad_request(f"{CONFIG}: a keyword list is wanted, and {terms.inspect(pair)} is no part of one")
        name = pair[0].name
        allowed = (*KEYS, *IGNORED)
        if name not in allowed:
            raise errors.unknown_setting(
                f"{name}:", CONFIG, [f"{key}:" for key in allowed], errors.nearest(name, allowed), ":"
            )
        if pair[1] is not None:
            found.setdefault(name, pair[1])
    return found


def parse(
    config: Mapping[str, Term],
    variables: Mapping[str, str],
    environ: Mapping[str, str],
    *,
    app: str,
    package: Path,
    home: Path,
    download_dir: Path,
) -> Settings:
    """Return the settings in ``config`` (the result of ``keys``), with priority for the request's ``variables``.

    ``environ`` is the helper's own environment, which has the variables of ``pass_env`` and the ssh agent. A relative
    path is relative to ``package``, and ``~`` means ``home``. Raises ``RunnerError`` with the code ``:bad_request``.
    """
    given = {
        **{key: _Given(key, value) for key, value in config.items()},
        **_overrides(variables),
    }
    given = {**_ccache_parts(given.pop("ccache", None)), **given}

    def read(key: str, parser: Callable[[_Given], T], default: D) -> T | D:
        return parser(given[key]) if key in given else default

    def path(text: str) -> Path:
        if text == "~" or text.startswith("~/"):
            return home / text[2:]
        # The path is normalised, as by Elixir's `Path.expand/1`.
        return Path(posixpath.normpath(package / text))

    passed = {name: environ[name] for name in read("pass_env", _names, ()) if name in environ}
    ssh: Ssh | None = read("ssh", _ssh, "dir")
    return Settings(
        # A value in `env` has priority over the value of the same variable in the environment.
        env={**passed, **read("env", _env, {})},
        mounts=read("mounts", lambda value: _mounts(value, path, f"/nerves/env/{app}"), ()),
        ccache=read("ccache_dir", lambda value: _ccache(value, path, download_dir.parent / "ccache"), None),
        remote_cache=read("ccache_remote", lambda value: _remote_cache(value, given), None),
        ccache_max_size=read("ccache_max_size", _max_size, None),
        cpus=read("cpus", _cpus, None),
        memory=read("memory", _memory, None),
        swap=read("swap", _swap, None),
        network=read("network", _network, None),
        ssh=ssh,
        ssh_agent=_agent(environ, given["ssh"]) if ssh == "agent" else None,
        pull=read("pull", lambda value: _one_of(value, get_args(Pull)), "missing"),
        create_image=read("create_image", lambda value: _one_of(value, get_args(CreateImage)), "ask"),
        workspace=read("workspace", lambda value: _one_of(value, get_args(WorkspaceKind)), "auto"),
        patience=read("patience", _patience, 60),
        record_dir=read("record_dir", lambda value: path(_directory(value)), None),
        host_config={
            **read("host_config", lambda value: _host_config(value, f"/nerves/env/{app}"), {}),
            # `dns` and `extra_hosts` have priority over the same fields in `host_config`.
            **read("dns", _dns, {}),
            **read("extra_hosts", _extra_hosts, {}),
        },
    )


@dataclass(frozen=True)
class _Given:
    """The unchecked value of a setting, and whether it comes from a variable or from the configuration."""

    key: str
    value: Term
    is_variable: bool = False
    within: str = ""
    """The key of the configuration that contains this setting, or an empty string."""

    @property
    def where(self) -> str:
        """The name of the key or the variable, for messages."""
        return f"The variable {self._variable}" if self.is_variable else f"{CONFIG}: [{self._path}: ...]"

    def wrong(self, allowed: str, *, example: str, given: str | None = None) -> errors.RunnerError:
        """Return the error for a wrong value.

        ``allowed`` says which values are possible. ``example`` is a value for the configuration. ``given`` is the wrong
        part of the value, if it is not the whole value.
        """
        if self.is_variable:
            example = f"{self._variable}={_VARIABLE_EXAMPLES.get(self.key) or example.strip(':').strip(chr(34))}"
        else:
            example = f"{self._path}: {example}" + ("]" if self.within else "")
        return errors.wrong_setting(self.where, given or terms.inspect(self.value), allowed, example)

    @property
    def _variable(self) -> str:
        return PREFIX + self.key.upper()

    @property
    def _path(self) -> str:
        return f"{self.within}: [{self.key.removeprefix(f'{self.within}_')}" if self.within else self.key


def _overrides(variables: Mapping[str, str]) -> dict[str, _Given]:
    """Return the settings that come from variables. An empty variable counts as not set."""
    parts = [f"ccache_{part}" for part in (*CCACHE_PARTS, "password")]
    allowed = {PREFIX + key.upper(): key for key in (*SETTINGS, *parts)}
    found = {}
    for name, value in variables.items():
        if not name.startswith(PREFIX):
            continue
        if name in allowed:
            if value.strip():
                found[allowed[name]] = _Given(allowed[name], value, is_variable=True)
            continue
        # NERVES_DOCKER_PORT_* is for the helper itself (NERVES_DOCKER_PORT_COMMAND). If the rest of the name is that of
        # a setting, the user has made a mistake.
        about_helper = name.startswith(f"{PREFIX}PORT_")
        meant = name.replace(f"{PREFIX}PORT_", PREFIX, 1)
        if not about_helper or meant in allowed:
            raise errors.unknown_setting(name, "the environment", allowed, errors.nearest(meant, allowed))
    return found


def _env(given: _Given) -> dict[str, str]:
    example = '[FORCE_COLOR: "1"]'
    found: dict[str, str] = {}
    for name, value in _pairs(given, example):
        _check_name(given, name, example)
        # The error does not show the value, because it can be a secret.
        if isinstance(value, bool) or not isinstance(value, str | int | float | Atom | list):
            raise given.wrong(
                "a text or a number for each variable", example=example, given=f"another value for {name}"
            )
        text = terms.word(value) if isinstance(value, Atom | list | str) else str(value)
        if text is None or "\0" in text:
            raise given.wrong(
                "a text or a number for each variable", example=example, given=f"another value for {name}"
            )
        found.setdefault(name, text)
    return found


def _pairs(given: _Given, example: str) -> Iterable[tuple[str, Term]]:
    allowed = "a name and a value for each variable"
    text = terms.text(given.value)
    if text is not None and given.value != []:
        for item in _split(text):
            name, equals, text_value = item.partition("=")
            if not equals:
                # The error does not show the text, because it can be the rest of a secret with a comma.
                raise given.wrong(allowed, example=example, given="something without =")
            yield name.strip(), text_value
        return
    pairs = terms.pairs(given.value)
    if pairs is None:
        raise given.wrong(allowed, example=example, given="something else")
    yield from pairs


def _names(given: _Given) -> tuple[str, ...]:
    example = '["GITHUB_TOKEN"]'
    allowed = "a list of the names of variables"
    names = _list(given, allowed, example)
    found = []
    for item in names:
        name = terms.word(item)
        if name is None:
            raise given.wrong(allowed, example=example)
        _check_name(given, name, example)
        found.append(name)
    return tuple(found)


def _check_name(given: _Given, name: str, example: str) -> None:
    if not name or re.search(r"[=\0\s]", name):
        raise given.wrong("names of variables without = or blanks", example=example, given=f"{name!r}")
    if name in RUNNER_VARIABLES:
        raise given.wrong(
            f"any variable but those that the runner sets itself ({', '.join(RUNNER_VARIABLES)})",
            example=example,
            given=name,
        )


def _mounts(given: _Given, path: Callable[[str], Path], package_target: str) -> tuple[HostMount, ...]:
    example = '[{"../patches", "/patches", :ro}]'
    allowed = "a list of {source, target} or {source, target, :ro}"
    if given.is_variable:
        allowed = "SOURCE:TARGET or SOURCE:TARGET:ro, separated by commas or newlines"
    found: list[HostMount] = []
    for item in _list(given, allowed, example):
        text = terms.text(item)
        parts: Sequence[Term] = text.split(":") if text is not None else item if isinstance(item, tuple) else ()
        words = [terms.word(part) for part in parts]
        if len(words) not in (2, 3) or not all(words) or (len(words) == 3 and words[2] not in ("ro", "rw")):
            raise given.wrong(allowed, example=example, given=terms.inspect(item))
        source, target = str(words[0]), str(words[1])
        if not target.startswith("/") or "\0" in source + target:
            raise given.wrong("an absolute path as the target", example=example, given=terms.inspect(item))
        # `normpath` does not change two leading slashes, so they are replaced by one.
        target = "/" + posixpath.normpath(target).lstrip("/")
        own = _own_target(target, package_target)
        if own is not None:
            raise given.wrong(
                f"another target: the container has something of its own at {own}",
                example=example,
                given=terms.inspect(item),
            )
        if any(mount.target == target for mount in found):
            raise given.wrong("one mount for each target", example=example, given=f"another one at {target}")
        found.append(HostMount(path(source), target, read_only=len(words) == 3 and words[2] == "ro"))
    return tuple(found)


def _own_target(target: str, package_target: str) -> str | None:
    """Return the path in the container that conflicts with a mount at ``target``, or ``None``.

    Two paths conflict if one of them contains the other, because one mount would hide the other.
    """
    if target in LIBRARIES:
        return target
    if target in [f"/proc/{name}" for name in LXCFS]:
        return None
    for own in (*OWN_TARGETS, *SYSTEM_TARGETS, package_target):
        if _is_within(own, target) or _is_within(target, own):
            return own
    return None


def _is_within(path: str, directory: str) -> bool:
    return directory == "/" or path == directory or path.startswith(directory + "/")


def _ccache_parts(given: _Given | None) -> dict[str, _Given]:
    """Return the parts of ``ccache``. A value that is not a keyword list is the part ``dir``."""
    if given is None:
        return {}
    pairs = terms.pairs(given.value) if isinstance(given.value, list | dict) and given.value else None
    if pairs is None:
        return {"ccache_dir": given}
    found: dict[str, _Given] = {}
    for name, value in pairs:
        if name not in CCACHE_PARTS:
            near = errors.nearest(name, CCACHE_PARTS)
            raise errors.unknown_setting(f"{name}:", given.where, [f"{part}:" for part in CCACHE_PARTS], near, ":")
        if value is not None:
            found.setdefault(f"ccache_{name}", _Given(f"ccache_{name}", value, within="ccache"))
    return found


def _remote_cache(given: _Given, settings: Mapping[str, _Given]) -> RemoteCache | None:
    if given.value is False or terms.word(given.value) in _NO:
        return None
    example = '"redis://cache.example.com"'
    text, password = terms.text(given.value), settings.get("ccache_password")
    if not text:
        raise given.wrong(remote_cache.ALLOWED, example=example)
    try:
        return remote_cache.parse(
            text,
            password=None if password is None else str(password.value).strip("\r\n"),
            may_have_secrets=given.is_variable,
            read_only="ccache_read_only" in settings and _yes_or_no(settings["ccache_read_only"]),
        )
    except remote_cache.AddressError as error:
        # The error does not show the address, because it can contain a password.
        raise given.wrong(str(error), example=example, given="another address") from error


def _yes_or_no(given: _Given) -> bool:
    word = terms.word(given.value) or ""
    if given.value is True or word in _YES:
        return True
    if given.value is False or word in _NO:
        return False
    raise given.wrong("true or false", example="true")


def _max_size(given: _Given) -> int:
    size = terms.size(given.value)
    if not size:
        raise given.wrong('a size such as "20G"', example='"20G"')
    return size


def _ccache(given: _Given, path: Callable[[str], Path], default: Path) -> Path | None:
    word = terms.word(given.value) or ""
    if given.value is True or word in _YES:
        return default
    if given.value is False or word in _NO:
        return None
    text = terms.text(given.value)
    if not text or "\0" in text:
        raise given.wrong("true, false, or the path of a directory", example="true")
    if "://" in text:
        # Not shown: it may hold a password.
        allowed = (
            "true, false, or the path of a directory (the address of a store belongs into `ccache: [remote: ...]` or "
            "NERVES_DOCKER_CCACHE_REMOTE)"
        )
        raise given.wrong(allowed, example="true", given="an address")
    return path(text)


def _directory(given: _Given) -> str:
    text = terms.text(given.value)
    if not text or not text.strip() or "\0" in text:
        raise given.wrong("the path of a directory", example='"../record"')
    return text


def _cpus(given: _Given) -> Decimal:
    allowed = "a number of CPUs above 0"
    text = str(given.value) if type(given.value) in (int, float) else terms.text(given.value)
    try:
        number = Decimal((text or "").strip())
    except InvalidOperation as error:
        raise given.wrong(allowed, example="8") from error
    # The engine refuses less than a hundredth of a CPU.
    if not number.is_finite() or number < Decimal("0.01"):
        raise given.wrong(allowed, example="8")
    return number


def _memory(given: _Given) -> int | None:
    allowed = 'a size such as "24G" or "512M", :host, or a number of bytes (6 MB at least)'
    if terms.word(given.value) == "host":
        return None
    size = terms.size(given.value)
    if size is None or size < MINIMUM_MEMORY:
        raise given.wrong(allowed, example='"24G"')
    return size


def _swap(given: _Given) -> int:
    # For the runner for Apple containers, the empty text also means no swap.
    if given.value is False or (given.value != [] and terms.word(given.value) in ("none", "")):
        return 0
    size = terms.size(given.value)
    if size is None:
        raise given.wrong('a size such as "16G", or "0" or "none" for no swap', example='"16G"')
    return size


def _network(given: _Given) -> str:
    name = "none" if given.value is False else terms.word(given.value)
    # This is the engine's rule for names. It excludes `container:NAME`, which would use another container's network.
    if name is None or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise given.wrong('"none", "host", or the name of a network at the engine', example='"host"')
    return name


def _dns(given: _Given) -> dict[str, object]:
    allowed = "IP addresses of DNS servers"
    example = '["10.0.0.1"]'
    items = [given.value] if isinstance(given.value, tuple) else _list(given, allowed, example)
    try:
        return {"Dns": host_config.addresses(items)}
    except host_config.WrongError as error:
        raise given.wrong(error.wanted, example=example, given=terms.inspect(error.given)) from error


def _extra_hosts(given: _Given) -> dict[str, object]:
    allowed = "a list of HOST:ADDRESS, the address being an IP address or host-gateway"
    example = '["mirror:10.0.0.2"]'
    items = given.value.items() if isinstance(given.value, dict) else _list(given, allowed, example)
    try:
        return {"ExtraHosts": host_config.hosts(items)}
    except host_config.WrongError as error:
        raise given.wrong(error.wanted, example=example, given=terms.inspect(error.given)) from error


def _host_config(given: _Given, package_target: str) -> dict[str, object]:
    return host_config.read(given.value, given.where, lambda target: _own_target(target, package_target))


def _patience(given: _Given) -> int:
    least, most = PATIENCE
    text = str(given.value) if type(given.value) is int else terms.text(given.value)
    if text is None or not re.fullmatch(r"\s*[0-9]{1,9}\s*", text) or not least <= int(text) <= most:
        raise given.wrong(f"a whole number of seconds, {least} or more and at most {most}", example="60")
    return int(text)


def _ssh(given: _Given) -> Ssh | None:
    if given.value is False or terms.word(given.value) in _NO:
        return None
    return _one_of(given, get_args(Ssh), "false")


def _agent(environ: Mapping[str, str], given: _Given) -> Path:
    socket = environ.get("SSH_AUTH_SOCK", "")
    if not socket:
        raise errors.ssh_agent(f"{given.where} wants the ssh agent, but SSH_AUTH_SOCK is not set.")
    return Path(socket).absolute()


def _one_of(given: _Given, allowed: Sequence[T], *more: str) -> T:
    word = terms.word(given.value)
    for choice in allowed:
        if word == choice:
            return choice
    mark = "" if given.is_variable else ":"
    choices = [*(f"{mark}{choice}" for choice in allowed), *more]
    near = errors.nearest(word or "", [str(choice) for choice in allowed])
    raise given.wrong(" or ".join(choices), example=f":{near or allowed[0]}")


def _list(given: _Given, allowed: str, example: str) -> list[Term]:
    text = terms.text(given.value)
    if text is not None and given.value != []:
        return list(_split(text))
    if not isinstance(given.value, list):
        raise given.wrong(allowed, example=example)
    return given.value


def _split(text: str) -> list[str]:
    """Return the items of a text. If it has several lines, each line is an item, which can contain commas.

    Otherwise commas separate the items.
    """
    items = text.splitlines() if "\n" in text else text.split(",")
    return [item.strip() for item in items if item.strip()]
