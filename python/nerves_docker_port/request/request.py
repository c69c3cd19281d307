"""A validated, frozen request: package, platform, names, paths and settings.

The ``args`` of a request are plain values (docs/protocol.md). A key that is missing or wrong raises ``:bad_request``,
which names the key. This module uses neither the engine nor the file system.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from packaging.version import InvalidVersion, Version

from nerves_docker_port import errors
from nerves_docker_port.port.wire import Atom, Term
from nerves_docker_port.request import image_name
from nerves_docker_port.request import settings as settings_module
from nerves_docker_port.request.settings import Settings

NEW_GENERATION = Version("1.28.0")
"""The first version of nerves_system_br whose image works as user `nerves` in /home/nerves/project.

Source: `lib/nerves/artifact/build_runners/docker.ex` of Nerves.
"""


@dataclass(frozen=True)
class Package:
    """The Nerves package to build: a system or a toolchain."""

    app: str
    path: Path
    version: str
    defconfig: str
    """A path relative to ``path``."""


@dataclass(frozen=True)
class Platform:
    """The platform: the package that can build systems, which is nerves_system_br."""

    app: str
    path: Path
    version: str

    def generation(self) -> Generation | None:
        """Return the generation of this platform's image, or ``None`` if the version cannot be parsed."""
        try:
            return NEW if Version(self.version) >= NEW_GENERATION else OLD
        except InvalidVersion:
            return None


@dataclass(frozen=True)
class Generation:
    """The properties that differ between images of nerves_system_br up to 1.27 and images from 1.28.0 on."""

    workdir: str
    """The build directory in the container."""
    entrypoint_makes_user: bool
    """Whether the image's entrypoint creates a user from the variables `UID` and `GID`, and switches to that user."""


OLD = Generation("/nerves/build", entrypoint_makes_user=True)
NEW = Generation("/home/nerves/project", entrypoint_makes_user=False)


@dataclass(frozen=True)
class Names:
    """The names and paths that Nerves chooses. All paths are absolute paths on the host."""

    artifact: str
    extension: str
    """The extension with its dot, such as ``.tar.gz``."""
    download_path: Path
    """The path of the artifact in ``download_dir``."""
    download_dir: Path
    build_path: Path
    cache_path: Path

    @property
    def file(self) -> str:
        """The artifact's file name."""
        return self.artifact + self.extension


@dataclass(frozen=True)
class ImageConfig:
    """The configured image: its tag, and the Dockerfile that it can be built from."""

    tag: str
    dockerfile: Path
    """An absolute path. The file need not exist."""


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
    shows_status: bool
    """Whether the peer can show the status of a build."""
    uid: int
    gid: int
    settings: Settings = field(default_factory=Settings)

    @property
    def log_dir(self) -> Path:
        """The directory of the logs, which is ``record_dir`` or, as in the stock runner, Mix's working directory."""
        return self.settings.record_dir or self.cwd


def from_args(args: Mapping[Term, Term], environ: Mapping[str, str] | None = None) -> Request:
    """Return the request that ``args`` describe.

    The uid and the gid are those of this process, because the helper runs as the person who runs Mix. The values of
    the variables that the configuration names come from ``environ`` (default: this process's environment).
    Raises ``RunnerError`` with the code ``:bad_request``.
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
        term=_to_text(env.get("TERM"), "TERM", default="") or "xterm-256color",
        interactive=is_interactive(args),
        shows_status=_of_terminal(args, "status"),
        uid=os.getuid(),
        gid=os.getgid(),
        settings=settings_module.parse(
            config,
            _variables(env),
            os.environ if environ is None else environ,
            app=package.app,
            package=package.path,
            home=home,
            download_dir=names.download_dir,
        ),
    )


def _variables(env: Mapping[Term, Term]) -> dict[str, str]:
    """Return the variables that the shim has sent. Raises ``RunnerError`` if one is not UTF-8. It arrives as bytes."""
    found = {}
    for name, value in env.items():
        if not isinstance(name, str) or not isinstance(value, str):
            shown = name.decode(errors="replace") if isinstance(name, bytes) else str(name)
            raise errors.bad_request(f"The variable {shown} is not text in UTF-8.", hint="Set it anew, or unset it.")
        found[name] = value
    return found


def is_interactive(args: Mapping[Term, Term]) -> bool:
    """Return whether the user can answer questions at the terminal."""
    return _of_terminal(args, "interactive")


def _of_terminal(args: Mapping[Term, Term], name: str) -> bool:
    terminal = _get(args, "terminal")
    return isinstance(terminal, dict) and terminal.get(Atom(name)) is True


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
        version=_to_text(struct.get(Atom("version")), f"version of {app}", default=""),
        defconfig=_to_text(defconfig, "platform_config: [defconfig: ...]"),
    )


def _platform(term: Term) -> Platform:
    if not isinstance(term, dict):
        raise errors.bad_request("`platform` of the request is not a map")
    return Platform(
        app=_name(term, "app"),
        path=_path(term, "path"),
        version=_to_text(term.get(Atom("version")), "the platform's version", default=""),
    )


def _names(term: Mapping[Term, Term]) -> Names:
    return Names(
        artifact=_to_text(_get(term, "artifact"), "names.artifact"),
        extension=_to_text(_get(term, "extension"), "names.extension"),
        download_path=_path(term, "download_path"),
        download_dir=_path(term, "download_dir"),
        build_path=_path(term, "build_path"),
        cache_path=_path(term, "cache_path"),
    )


def _image(config: Mapping[str, Term], package: Package, platform: Platform) -> ImageConfig:
    """Return the configured image, or the platform's own image if none is configured.

    The platform's own image is the one of ``default_docker_config/0`` in Nerves' Docker build runner.
    """
    docker = config.get("docker")
    if docker is None:
        directory = platform.path / "support" / "docker" / platform.app
        tag = f"ghcr.io/nerves-project/{platform.app}:{platform.version}"
        return ImageConfig(_checked("The platform's image", tag), directory / "Dockerfile")
    if not isinstance(docker, tuple) or len(docker) != 2:
        raise errors.bad_request(
            "build_runner_config: [docker: ...] wants a pair of a Dockerfile and a tag.",
            hint='For example: `build_runner_config: [docker: {"Dockerfile", "my_system:0.1.0"}]`.',
        )
    dockerfile = Path(_to_text(docker[0], "build_runner_config: [docker: {dockerfile, tag}]: the Dockerfile"))
    tag = _to_text(docker[1], "build_runner_config: [docker: {dockerfile, tag}]: the tag")
    return ImageConfig(_checked("build_runner_config: [docker: {dockerfile, tag}]", tag), package.path / dockerfile)


def _checked(where: str, tag: str) -> str:
    try:
        image_name.parse(tag)
    except ValueError as error:
        raise errors.image_name_unusable(where, tag, str(error)) from error
    return tag


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
    return tuple(_to_text(item, what) for item in value)


def container_path(*parts: str) -> str:
    """Join the parts of a path in the container, and normalise it as Elixir's ``Path.join/2`` does."""
    # posixpath.join would drop all parts before a part that begins with a slash.
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
    """Return the first value of ``key`` in a keyword list, or ``None``, as Elixir's ``Keyword.get/2`` does."""
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
    path = Path(_to_text(_get(mapping, key), f"`{key}` of the request"))
    if not path.is_absolute():
        raise errors.bad_request(f"`{key}` of the request is not an absolute path: {path}")
    return path


def _to_text(term: Term, what: str, *, default: str | None = None) -> str:
    """Return text that Elixir code may write as a string, a charlist, or chardata (both of them, nested)."""
    if term is None and default is not None:
        return default
    try:
        text = _chardata(term)
        # A charlist may contain a surrogate, which is not a character and cannot be encoded.
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
