"""What Mix asks for, validated once and frozen: package, platform, names, paths, settings.

Takes the ``args`` of a request as plain values (docs/protocol.md) and raises ``:bad_request`` naming the key where
one is missing or wrong. Touches neither the engine nor the file system.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from packaging.version import InvalidVersion, Version

from nerves_docker_port import errors
from nerves_docker_port.port.wire import Atom, Term
from nerves_docker_port.request import settings as settings_module
from nerves_docker_port.request.settings import Settings

NEW_GENERATION = Version("1.28.0")
"""From this nerves_system_br on, the image works as user `nerves` in /home/nerves/project (Nerves' docker.ex)."""


@dataclass(frozen=True)
class Package:
    """A Nerves package: the system or toolchain that is built."""

    app: str
    path: Path
    version: str
    defconfig: str
    """Relative to ``path``."""


@dataclass(frozen=True)
class Platform:
    """The package that knows how to build systems, nerves_system_br."""

    app: str
    path: Path
    version: str

    def generation(self) -> Generation | None:
        """Which kind of image goes with this platform, or ``None`` where its version does not tell."""
        try:
            return NEW if Version(self.version) >= NEW_GENERATION else OLD
        except InvalidVersion:
            return None


@dataclass(frozen=True)
class Generation:
    """What changed between images up to 1.27 and from 1.28.0 on."""

    workdir: str
    entrypoint_makes_user: bool
    """Whether the image's entrypoint makes a user from `UID` and `GID` and switches to it."""


OLD = Generation("/nerves/build", entrypoint_makes_user=True)
NEW = Generation("/home/nerves/project", entrypoint_makes_user=False)


@dataclass(frozen=True)
class Names:
    """The names and paths that Nerves owns."""

    artifact: str
    extension: str
    download_path: Path
    download_dir: Path
    build_path: Path
    cache_path: Path

    @property
    def file(self) -> str:
        """The artifact's file name."""
        return self.artifact + self.extension


@dataclass(frozen=True)
class ImageConfig:
    """The configured image: what it is called, and what it can be built from."""

    tag: str
    dockerfile: Path
    """Absolute. Whether it exists is not known here."""


@dataclass(frozen=True)
class Request:
    """One validated request for a flow."""

    package: Package
    platform: Platform
    image: ImageConfig
    names: Names
    make_args: tuple[str, ...]
    cwd: Path
    home: Path
    term: str
    interactive: bool
    uid: int
    gid: int
    settings: Settings = field(default_factory=Settings)


def from_args(args: Mapping[Term, Term], environ: Mapping[str, str] | None = None) -> Request:
    """The request that ``args`` describe.

    uid and gid are this process's: the helper runs as the person who runs Mix. So is ``environ``, where the variables
    are looked up that the configuration names.
    Raises ``RunnerError`` ``:bad_request``.
    """
    package_struct = _map(args, "package")
    package = _package(package_struct)
    platform_term = _get(args, "platform")
    if platform_term is None:
        raise errors.bad_request(
            "The project has no system platform: no dependency with `nerves_package: [type: :system_platform]`.",
            hint='Add `{:nerves_system_br, "~> 1.34", runtime: false}` to the system\'s deps.',
        )
    platform = _platform(platform_term)
    env = _get(args, "env", {})
    if not isinstance(env, dict):
        raise errors.bad_request("`env` of the request is not a map")
    runner_config = _keyword_value(_keyword(package_struct, "config", "nerves_package"), "build_runner_config")
    config = settings_module.keys(runner_config)
    names = _names(_map(args, "names"))
    home = _path(args, "home")
    return Request(
        package=package,
        platform=platform,
        image=_image(config, package, platform),
        names=names,
        make_args=_make_args(_get(args, "opts", [])),
        cwd=_path(args, "cwd"),
        home=home,
        term=_text(env.get("TERM"), "TERM", default="") or "xterm-256color",
        interactive=is_interactive(args),
        uid=os.getuid(),
        gid=os.getgid(),
        settings=settings_module.parse(
            config,
            {name: value for name, value in env.items() if isinstance(name, str) and isinstance(value, str)},
            os.environ if environ is None else environ,
            app=package.app,
            package=package.path,
            home=home,
            download_dir=names.download_dir,
        ),
    )


def is_interactive(args: Mapping[Term, Term]) -> bool:
    """Whether there is a person to be asked."""
    terminal = _get(args, "terminal")
    return isinstance(terminal, dict) and terminal.get(Atom("interactive")) is True


def _package(struct: Mapping[Term, Term]) -> Package:
    app = _name(struct, "app")
    config = _keyword(struct, "config", "nerves_package")
    platform_config = _keyword_value(config, "platform_config")
    defconfig = None
    if isinstance(platform_config, list):
        defconfig = _keyword_value(platform_config, "defconfig")
    if defconfig is None:
        raise errors.bad_request(
            f"`platform_config: [defconfig: ...]` is missing in the nerves_package of {app}.",
            hint='Name the defconfig: `platform_config: [defconfig: "nerves_defconfig"]`.',
        )
    return Package(
        app=app,
        path=_path(struct, "path"),
        version=_text(struct.get(Atom("version")), f"version of {app}", default=""),
        defconfig=_text(defconfig, "platform_config: [defconfig: ...]"),
    )


def _platform(term: Term) -> Platform:
    if not isinstance(term, dict):
        raise errors.bad_request("`platform` of the request is not a map")
    return Platform(
        app=_name(term, "app"),
        path=_path(term, "path"),
        version=_text(term.get(Atom("version")), "the platform's version", default=""),
    )


def _names(term: Mapping[Term, Term]) -> Names:
    return Names(
        artifact=_text(_get(term, "artifact"), "names.artifact"),
        extension=_text(_get(term, "extension"), "names.extension"),
        download_path=_path(term, "download_path"),
        download_dir=_path(term, "download_dir"),
        build_path=_path(term, "build_path"),
        cache_path=_path(term, "cache_path"),
    )


def _image(config: Mapping[str, Term], package: Package, platform: Platform) -> ImageConfig:
    """The configured image, else the platform's own (Nerves' ``default_docker_config/0``)."""
    docker = config.get("docker")
    if docker is None:
        directory = platform.path / "support" / "docker" / platform.app
        tag = f"ghcr.io/nerves-project/{platform.app}:{platform.version}"
        return ImageConfig(tag, directory / "Dockerfile")
    if not isinstance(docker, tuple) or len(docker) != 2:
        raise errors.bad_request(
            "build_runner_config: [docker: ...] wants a pair of a Dockerfile and a tag.",
            hint='For example: `build_runner_config: [docker: {"Dockerfile", "my_system:0.1.0"}]`.',
        )
    dockerfile = Path(_text(docker[0], "build_runner_config: [docker: {dockerfile, tag}]: the Dockerfile"))
    tag = _text(docker[1], "build_runner_config: [docker: {dockerfile, tag}]: the tag")
    # The tag's grammar is the engine's business; what would leave it empty or be read as an option is ours.
    if not re.match(r"[A-Za-z0-9]", tag) or re.search(r"\s", tag):
        raise errors.bad_request(
            f"build_runner_config: [docker: {{dockerfile, tag}}]: {tag!r} cannot be an image's tag.",
            hint='For example: `build_runner_config: [docker: {"Dockerfile", "my_system:0.1.0"}]`.',
        )
    return ImageConfig(tag, package.path / dockerfile)


def _make_args(opts: Term) -> tuple[str, ...]:
    if opts is not None and not isinstance(opts, list):
        raise errors.bad_request("build_runner_opts wants a keyword list.")
    value = _keyword_value(opts or [], "make_args")
    if value is None:
        return ()
    what = "build_runner_opts: [make_args: ...]"
    if not isinstance(value, list) or (value and all(isinstance(item, int) for item in value)):
        raise errors.bad_request(
            f"{what} wants a list of strings.", hint='For example: `make_args: ["PARALLEL_JOBS=8"]`.'
        )
    return tuple(_text(item, what) for item in value)


def container_path(*parts: str) -> str:
    """A path in the container from its parts, normalised as Elixir's ``Path.join/2`` does."""
    # A part that begins with a slash does not replace those before it, as it would with posixpath.join.
    return posixpath.normpath("/".join(parts))


def _get(mapping: Mapping[Term, Term], key: str, default: Term = None) -> Term:
    return mapping.get(Atom(key), default)


def _map(mapping: Mapping[Term, Term], key: str) -> Mapping[Term, Term]:
    value = _get(mapping, key)
    if not isinstance(value, dict):
        raise errors.bad_request(f"`{key}` of the request is missing or not a map")
    return value


def _keyword(mapping: Mapping[Term, Term], key: str, what: str) -> list[Term]:
    value = _get(mapping, key)
    if not isinstance(value, list):
        raise errors.bad_request(f"`{key}` of {what} is not a keyword list")
    return value


def _keyword_value(keywords: Sequence[Term], key: str) -> Term:
    """The first value of ``key`` in a keyword list, as ``Keyword.get/2`` finds it."""
    wanted = Atom(key)
    for item in keywords:
        if isinstance(item, tuple) and len(item) == 2 and item[0] == wanted:
            return item[1]
    return None


def _name(mapping: Mapping[Term, Term], key: str) -> str:
    value = _get(mapping, key)
    if not isinstance(value, Atom):
        raise errors.bad_request(f"`{key}` of a package in the request is not an atom")
    return value.name


def _path(mapping: Mapping[Term, Term], key: str) -> Path:
    path = Path(_text(_get(mapping, key), f"`{key}` of the request"))
    if not path.is_absolute():
        raise errors.bad_request(f"`{key}` of the request is not an absolute path: {path}")
    return path


def _text(term: Term, what: str, *, default: str | None = None) -> str:
    """Text as Elixir code writes it: a string, a charlist, or both nested as chardata."""
    if term is None and default is not None:
        return default
    try:
        text = _chardata(term)
        # A charlist may hold what is no character: half a surrogate pair.
        text.encode()
    except (ValueError, OverflowError) as error:
        raise errors.bad_request(f"{what}: text is wanted, a string or a charlist") from error
    if "\0" in text:
        raise errors.bad_request(f"{what}: text with a NUL in it cannot be used: {text!r}")
    return text


def _chardata(term: Term) -> str:
    if isinstance(term, str):
        return term
    if isinstance(term, list):
        return "".join(chr(item) if type(item) is int else _chardata(item) for item in term)
    raise ValueError(term)
