"""What Mix asks for, validated at the edge: defaults, Elixir's ways to write text, and bad input that names its key."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from nerves_docker_port.errors import Code, RunnerError
from nerves_docker_port.port import wire
from nerves_docker_port.port.wire import Atom, Opaque, Term
from nerves_docker_port.request.request import NEW, OLD, Platform, Request, container_path, from_args
from support.requests import arguments, keyword, package_struct

PACKAGES = Path(__file__).parent.parent / "conformance" / "packages"
ROOT = Path("/home/dev")
TAG = "build_runner_config: [docker: {dockerfile, tag}]"


def read(**changes: Any) -> Request:
    return from_args(arguments(ROOT, **changes), {})


def refused(args: dict[Term, Term]) -> RunnerError:
    with pytest.raises(RunnerError) as caught:
        from_args(args, {})
    assert caught.value.code is Code.BAD_REQUEST
    return caught.value


def with_config(**config: Term) -> dict[Term, Term]:
    """Return arguments whose package has these keys in its ``nerves_package``."""
    return arguments(ROOT) | {Atom("package"): package_struct("my_system", ROOT / "my_system", keyword(**config))}


def recorded(name: str) -> Request:
    """Return the request for a package that was recorded from real Nerves."""
    struct = wire.decode((PACKAGES / f"{name}.etf").read_bytes())
    return from_args(arguments(ROOT) | {Atom("package"): struct}, {})


def test_a_plain_request_is_parsed() -> None:
    request = read(make_args=["source", "all"], cwd=Path("/somewhere"))
    assert (request.package.app, request.package.version) == ("my_system", "0.1.0")
    assert request.package.path == ROOT / "my_system"
    assert request.package.defconfig == "nerves_defconfig"
    assert (request.platform.app, request.platform.path) == ("nerves_system_br", ROOT / "platform")
    assert request.make_args == ("source", "all")
    assert request.cwd == Path("/somewhere")
    assert request.home == ROOT / "home"
    assert request.names.file == "my_system-portable-0.1.0-ABCDEF0.tar.gz"
    assert request.names.download_path == ROOT / "dl" / request.names.file
    assert (request.uid, request.gid) == (os.getuid(), os.getgid())
    assert (request.term, request.interactive) == ("xterm-256color", False)


def test_missing_keys_have_their_defaults() -> None:
    args = arguments(ROOT)
    for key in ("opts", "env", "terminal", "toolchain"):
        del args[Atom(key)]
    request = from_args(args, {})
    assert request.make_args == ()
    assert request.term == "xterm-256color"
    assert not request.interactive


@pytest.mark.parametrize(("given", "expected"), [("", "xterm-256color"), ("dumb", "dumb")])
def test_the_terminal_type_is_the_callers_or_a_default(given: str, expected: str) -> None:
    assert read(env={"TERM": given}).term == expected


def test_a_request_is_interactive_only_if_a_person_can_answer() -> None:
    assert read(interactive=True).interactive


def test_a_package_without_a_configured_image_uses_the_platforms_image() -> None:
    image = read(platform_version="1.34.0").image
    assert image.tag == "ghcr.io/nerves-project/nerves_system_br:1.34.0"
    assert image.dockerfile == ROOT / "platform/support/docker/nerves_system_br/Dockerfile"


def test_a_relative_dockerfile_is_relative_to_the_package() -> None:
    image = read(image="me/mine:1", dockerfile="docker/Dockerfile.build", cwd=Path("/elsewhere")).image
    assert image.tag == "me/mine:1"
    assert image.dockerfile == ROOT / "my_system/docker/Dockerfile.build"


def test_an_absolute_dockerfile_path_is_not_changed() -> None:
    assert read(image="mine", dockerfile="/opt/Dockerfile").image.dockerfile == Path("/opt/Dockerfile")


def test_every_text_may_be_a_charlist_or_chardata() -> None:
    args = with_config(
        platform_config=keyword(defconfig=[*b"nerves_", "def", [*b"config"]]),
        build_runner_config=[
            (Atom("docker"), ([*b"Dockerfile"], [*"méin:1".encode("latin-1").replace(b"\xe9", b"e")]))
        ],
    )
    args[Atom("opts")] = keyword(make_args=[[*b"all"], "V=1", [0x20AC]])
    args[Atom("cwd")] = [*b"/w"]
    request = from_args(args, {})
    assert request.package.defconfig == "nerves_defconfig"
    assert request.image.dockerfile == ROOT / "my_system/Dockerfile"
    assert request.image.tag == "mein:1"
    assert request.make_args == ("all", "V=1", "€")
    assert request.cwd == Path("/w")


def test_the_first_of_two_equal_keys_counts_as_in_elixir() -> None:
    request = from_args(arguments(ROOT) | {Atom("opts"): keyword(make_args=["a"]) + keyword(make_args=["b"])}, {})
    assert request.make_args == ("a",)


@pytest.mark.parametrize(
    ("name", "app", "defconfig", "tag"),
    [
        ("custom_system", "my_system", "nerves_defconfig", "my_system_br:1.34.0"),
        ("charlists_and_erlang_types", "my_system", "nerves_defconfig", "my_system_br:1.34.0"),
        ("container_config", "my_system", "nerves_defconfig", "acme/my_system:0.1.0"),
        ("no_runner_config", "my_system", "nerves_defconfig", "ghcr.io/nerves-project/nerves_system_br:1.34.0"),
        (
            "official_system_x86_64",
            "nerves_system_x86_64",
            "nerves_defconfig",
            "ghcr.io/nerves-project/nerves_system_br:1.34.0",
        ),
        ("unicode_and_spaces", "mon_système", "nerves_defconfig", "my_system_br:1.34.0"),
    ],
)
def test_recorded_packages_of_nerves_are_parsed(name: str, app: str, defconfig: str, tag: str) -> None:
    request = recorded(name)
    assert (request.package.app, request.package.defconfig, request.image.tag) == (app, defconfig, tag)


def test_no_token_of_an_artifact_site_is_in_the_request() -> None:
    assert "ghp_notARealToken" not in repr(recorded("private_sites"))


def test_a_recorded_platform_is_parsed() -> None:
    struct = wire.decode((PACKAGES / "platform.etf").read_bytes())
    platform = from_args(arguments(ROOT) | {Atom("platform"): struct}, {}).platform
    assert platform == Platform("nerves_system_br", Path("/home/dev/my_system/deps/nerves_system_br"), "1.34.0")
    assert platform.generation() is NEW


@pytest.mark.parametrize(
    ("version", "generation"),
    [
        ("1.27.9", OLD),
        ("1.28.0-rc.1", OLD),
        ("1.28.0", NEW),
        ("1.100.0", NEW),
        ("2.0.0-dev", NEW),
        ("", None),
        ("x", None),
    ],
)
def test_the_platforms_version_decides_the_generation(version: str, generation: object) -> None:
    assert Platform("nerves_system_br", ROOT, version).generation() is generation


def test_the_error_for_a_system_without_a_platform_says_what_to_add() -> None:
    error = refused(arguments(ROOT) | {Atom("platform"): None})
    assert ":system_platform" in error.message
    assert "nerves_system_br" in (error.hint or "")


def test_the_error_for_a_package_without_a_defconfig_says_what_to_add() -> None:
    for config in (keyword(), keyword(platform_config=[]), keyword(platform_config=Atom("x"))):
        error = refused(with_config(**{key.name: value for key, value in config}))  # type: ignore[union-attr,str-unpack,misc]
        assert "`platform_config: [defconfig: ...]`" in error.message
        assert "my_system" in error.message
        assert 'defconfig: "nerves_defconfig"' in (error.hint or "")


WRONG: list[Term] = [
    None,
    1,
    1.5,
    Atom("text"),
    (1, 2),
    {},
    Opaque(b"j"),
    b"\xff",
    [-1],
    [2**70],
    [0xD800],
    ["a", Atom("b")],
    "a\0b",
]


@pytest.mark.parametrize("key", ["cwd", "home"])
@pytest.mark.parametrize("value", [*WRONG, "", "relative/path"])
def test_an_invalid_path_is_refused_with_its_key(key: str, value: Term) -> None:
    assert f"`{key}`" in refused(arguments(ROOT) | {Atom(key): value}).message


@pytest.mark.parametrize("key", ["artifact", "extension", "download_path", "download_dir", "build_path", "cache_path"])
@pytest.mark.parametrize("value", WRONG)
def test_a_name_that_is_not_text_is_refused_with_its_key(key: str, value: Term) -> None:
    args = arguments(ROOT)
    names = args[Atom("names")]
    assert isinstance(names, dict)
    assert key in refused(args | {Atom("names"): names | {Atom(key): value}}).message


@pytest.mark.parametrize("key", ["package", "platform", "names", "env"])
@pytest.mark.parametrize("value", ["text", 1, []])
def test_a_value_that_is_not_a_map_is_refused_with_its_key(key: str, value: Term) -> None:
    assert f"`{key}`" in refused(arguments(ROOT) | {Atom(key): value}).message


@pytest.mark.parametrize("of", ["package", "platform"])
@pytest.mark.parametrize(("key", "value"), [("app", "my_system"), ("app", None), ("path", "x"), ("path", None)])
def test_a_struct_with_a_wrong_field_is_refused_with_its_key(of: str, key: str, value: Term) -> None:
    args = arguments(ROOT)
    struct = args[Atom(of)]
    assert isinstance(struct, dict)
    assert f"`{key}`" in refused(args | {Atom(of): struct | {Atom(key): value}}).message


@pytest.mark.parametrize("value", WRONG[1:])
def test_a_version_that_is_not_text_is_refused(value: Term) -> None:
    args = arguments(ROOT)
    for of in ("package", "platform"):
        struct = args[Atom(of)]
        assert isinstance(struct, dict)
        assert "version" in refused(args | {Atom(of): struct | {Atom("version"): value}}).message


def test_a_config_that_is_not_a_keyword_list_is_refused_with_its_key() -> None:
    struct = package_struct("my_system", ROOT, {})  # type: ignore[arg-type]
    assert "`config`" in refused(arguments(ROOT) | {Atom("package"): struct}).message


@pytest.mark.parametrize("value", WRONG[1:])
def test_a_defconfig_that_is_not_text_is_refused_with_its_key(value: Term) -> None:
    assert "platform_config: [defconfig: ...]" in refused(with_config(platform_config=keyword(defconfig=value))).message


@pytest.mark.parametrize("value", WRONG[1:])
def test_a_terminal_type_that_is_not_text_is_refused_with_its_name(value: Term) -> None:
    assert "TERM" in refused(arguments(ROOT) | {Atom("env"): {"TERM": value}}).message


@pytest.mark.parametrize("value", ["Dockerfile", [], ("Dockerfile",), ("Dockerfile", "tag", "x"), Atom("docker")])
def test_an_image_that_is_not_a_pair_is_refused_with_its_key_and_an_example(value: Term) -> None:
    error = refused(
        with_config(platform_config=keyword(defconfig="d"), build_runner_config=keyword(docker=value)),
    )
    assert "build_runner_config: [docker: ...]" in error.message
    assert 'docker: {"Dockerfile", "my_system:0.1.0"}' in (error.hint or "")


@pytest.mark.parametrize("value", [*WRONG, "", "-t", " mine", "mi ne", "mine\n"])
def test_an_invalid_tag_is_refused_with_its_key(value: Term) -> None:
    docker = keyword(docker=("Dockerfile", value))
    assert TAG in refused(with_config(platform_config=keyword(defconfig="d"), build_runner_config=docker)).message


@pytest.mark.parametrize("value", WRONG)
def test_a_dockerfile_that_is_not_text_is_refused_with_its_key(value: Term) -> None:
    docker = keyword(docker=(value, "mine:1"))
    assert TAG in refused(with_config(platform_config=keyword(defconfig="d"), build_runner_config=docker)).message


@pytest.mark.parametrize(
    "value", ["all", [*b"all"], Atom("all"), {}, [Atom("all")], [1.5], ["a\0"], [["a", Atom("b")]]]
)
def test_make_args_that_are_not_a_list_of_strings_are_refused_with_their_key(value: Term) -> None:
    assert "make_args" in refused(arguments(ROOT) | {Atom("opts"): keyword(make_args=value)}).message


@pytest.mark.parametrize("value", ["all", {Atom("make_args"): ["all"]}, Atom("all"), 1])
def test_opts_that_are_not_a_keyword_list_are_refused(value: Term) -> None:
    assert "build_runner_opts" in refused(arguments(ROOT) | {Atom("opts"): value}).message


def test_empty_arguments_are_refused() -> None:
    assert "`package`" in refused({}).message


@pytest.mark.parametrize(
    ("parts", "joined"),
    [
        (("/nerves/env", "app"), "/nerves/env/app"),
        (("/nerves/env/app", "configs/x_defconfig"), "/nerves/env/app/configs/x_defconfig"),
        (("/nerves/env/app", "./x//y/"), "/nerves/env/app/x/y"),
        (("/nerves/env/app", "/x"), "/nerves/env/app/x"),
    ],
)
def test_paths_in_the_container_are_joined_as_elixir_joins_them(parts: tuple[str, ...], joined: str) -> None:
    assert container_path(*parts) == joined


def test_a_variable_that_is_not_utf8_is_named_and_not_left_out() -> None:
    args = arguments(ROOT)
    args[Atom("env")] = {"TERM": "xterm", "NERVES_DOCKER_MOUNTS": b"/home/\xfc:/there"}
    assert "NERVES_DOCKER_MOUNTS is not text in UTF-8" in refused(args).message
    args[Atom("env")] = {b"NERVES_DOCKER_\xfc": "1"}
    assert "NERVES_DOCKER_\ufffd is not text in UTF-8" in refused(args).message
