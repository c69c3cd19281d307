"""Finding the engine as the docker CLI does, connecting, and what is said of each way in which that fails."""

from __future__ import annotations

import hashlib
import json
import pwd
import re
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock

import docker.errors
import pytest
import requests

from nerves_docker_port.engine import client as engine_module
from nerves_docker_port.engine.client import Engine, label, labels
from nerves_docker_port.engine.endpoint import find_endpoint
from nerves_docker_port.errors import Code, RunnerError
from support.fake_engine import Exchange, FakeEngine
from support.link import Link


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory whose path leaves room for a socket's name."""
    with tempfile.TemporaryDirectory(prefix="ndp-") as name:
        yield Path(name)


@pytest.fixture
def docker_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The docker CLI's configuration of a person who has none yet."""
    monkeypatch.setattr(pwd, "getpwuid", lambda _uid: Mock(pw_dir=str(tmp_path)))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / ".docker"))
    for variable in ("DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / ".docker").mkdir()
    return tmp_path / ".docker"


def add_context(config: Path, name: str, host: str) -> None:
    directory = config / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
    directory.mkdir(parents=True)
    (directory / "meta.json").write_text(
        json.dumps({"Name": name, "Metadata": {}, "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": False}}})
    )


def refused(environ: dict[str, str]) -> RunnerError:
    with pytest.raises(RunnerError) as caught:
        Engine.connect(environ)
    assert caught.value.hint is not None
    return caught.value


# --- Where the engine is ---------------------------------------------------------------------------------------


def test_without_anything_set_it_is_the_default_socket(docker_config: Path) -> None:
    endpoint = find_endpoint({})
    assert (endpoint.url, endpoint.origin) == ("unix:///var/run/docker.sock", "default")


def test_docker_host_comes_first(docker_config: Path) -> None:
    add_context(docker_config, "other", "unix:///other.sock")
    endpoint = find_endpoint({"DOCKER_HOST": "unix:///mine.sock", "DOCKER_CONTEXT": "other"})
    assert endpoint.url.endswith("/mine.sock")
    assert endpoint.origin == "DOCKER_HOST"


def test_then_the_context_that_the_environment_names(docker_config: Path) -> None:
    add_context(docker_config, "one", "unix:///one.sock")
    add_context(docker_config, "two", "unix:///two.sock")
    (docker_config / "config.json").write_text(json.dumps({"currentContext": "one"}))
    assert find_endpoint({"DOCKER_CONTEXT": "two"}).url == "unix:///two.sock"
    assert find_endpoint({"DOCKER_CONTEXT": "two", "DOCKER_HOST": ""}).origin == 'DOCKER_CONTEXT "two"'


def test_then_the_current_context(docker_config: Path) -> None:
    add_context(docker_config, "one", "unix:///one.sock")
    (docker_config / "config.json").write_text(json.dumps({"currentContext": "one"}))
    endpoint = find_endpoint({})
    assert (endpoint.url, endpoint.origin) == ("unix:///one.sock", 'current docker context "one"')


@pytest.mark.parametrize("environ", [{"DOCKER_CONTEXT": "nowhere"}, {}])
def test_a_context_that_does_not_exist_is_not_the_default_socket(docker_config: Path, environ: dict[str, str]) -> None:
    (docker_config / "config.json").write_text(json.dumps({"currentContext": "nowhere"}))
    with pytest.raises(RunnerError, match=r'The docker context "nowhere" .* does not exist') as caught:
        find_endpoint(environ)
    assert caught.value.code is Code.ENGINE_UNREACHABLE
    assert "docker context ls" in (caught.value.hint or "")


@pytest.mark.parametrize("url", ["nonsense://x", "tcp://", "tcp://host:notaport", "unix:relative"])
def test_an_endpoint_that_cannot_be_used_is_named_with_its_origin(url: str) -> None:
    error = refused({"DOCKER_HOST": url})
    assert error.code is Code.ENGINE_UNREACHABLE
    assert "(DOCKER_HOST)" in error.message


# --- Connecting ------------------------------------------------------------------------------------------------


def test_the_engine_tells_what_it_is(fake: FakeEngine) -> None:
    fake.version = {"Version": "20.10.24", "ApiVersion": "1.41", "Arch": "arm64"}
    engine = Engine.connect({"DOCKER_HOST": fake.host})
    assert engine.capabilities.engine_version == "20.10.24"
    assert engine.capabilities.api_version == "1.41"
    assert engine.capabilities.architecture == "arm64"
    assert not engine.capabilities.rootless
    assert engine.url("/x").endswith("/v1.41/x")
    assert [asked.version for asked in fake.requests("GET", "/info")] == ["1.41"]
    engine.close()


@pytest.mark.parametrize(
    ("info", "rootless", "maps_users"),
    [
        ({"SecurityOptions": ["name=seccomp,profile=default"], "Rootless": True}, True, False),
        ({"SecurityOptions": ["name=seccomp,profile=default", "name=userns"]}, False, True),
    ],
    ids=["Podman before 4.6", "userns-remap"],
)
def test_what_an_engine_does_with_user_ids_is_known(
    fake: FakeEngine, info: dict[str, object], rootless: bool, maps_users: bool
) -> None:
    fake.info = info
    engine = Engine.connect({"DOCKER_HOST": fake.host})
    assert (engine.capabilities.rootless, engine.capabilities.maps_users) == (rootless, maps_users)
    engine.close()


@pytest.mark.parametrize("options", [["name=seccomp,profile=default", "name=rootless"], ["name=rootless,x=y"]])
def test_a_rootless_engine_is_known(fake: FakeEngine, options: list[str]) -> None:
    fake.info = {"SecurityOptions": options}
    engine = Engine.connect({"DOCKER_HOST": fake.host})
    assert engine.capabilities.rootless
    engine.close()


@pytest.mark.parametrize("field", ["MemoryLimit", "CpuCfsQuota", "SwapLimit"])
def test_an_engine_that_applies_no_limit_says_so(field: str, fake: FakeEngine) -> None:
    def applied() -> tuple[bool, bool, bool]:
        engine = Engine.connect({"DOCKER_HOST": fake.host})
        found = engine.capabilities
        engine.close()
        return found.limits_memory, found.limits_cpus, found.limits_swap

    assert applied() == (True, True, True)
    fake.info[field] = False
    assert applied() == (field != "MemoryLimit", field != "CpuCfsQuota", field != "SwapLimit")


@pytest.mark.parametrize(
    ("rootless", "cgroups", "applies"), [(True, "1", False), (True, "2", True), (False, "1", True)]
)
def test_podman_without_root_applies_limits_only_with_cgroups_of_version_2(
    fake: FakeEngine, rootless: bool, cgroups: str, applies: bool
) -> None:
    """It says of all limits that it has them."""
    fake.version = {**fake.version, "Components": [{"Name": "Podman Engine", "Version": "4.3.1"}]}
    fake.info = {"Rootless": rootless, "CgroupVersion": cgroups, "MemoryLimit": True, "CpuCfsQuota": True}
    engine = Engine.connect({"DOCKER_HOST": fake.host})
    found = engine.capabilities
    assert (found.limits_memory, found.limits_cpus, found.limits_swap) == (applies, applies, applies)
    engine.close()


def test_an_engine_that_speaks_newer_versions_is_spoken_to_in_one_that_the_sdk_knows(fake: FakeEngine) -> None:
    fake.version = {"Version": "99.0.0", "ApiVersion": "1.99"}
    engine = Engine.connect({"DOCKER_HOST": fake.host})
    assert engine.capabilities.api_version == "1.99"
    assert re.search(r"/v1\.\d\d/x$", engine.url("/x"))
    assert "v1.99" not in engine.url("/x")
    engine.close()


@pytest.mark.parametrize(("version", "too_old"), [("1.25", True), ("1.26", False), ("1.9", True)])
def test_the_oldest_engine_that_will_do_is_docker_17_03(fake: FakeEngine, version: str, too_old: bool) -> None:
    fake.version = {"ApiVersion": version}
    if too_old:
        error = refused({"DOCKER_HOST": fake.host})
        assert error.code is Code.ENGINE_TOO_OLD
        assert version in error.message
    else:
        Engine.connect({"DOCKER_HOST": fake.host}).close()


@pytest.mark.parametrize(
    ("hook", "told"),
    [
        (lambda exchange: exchange.json(200, {"name": "something else"}), "is not a Docker engine"),
        (lambda exchange: exchange.json(200, ["ApiVersion"]), "is not a Docker engine"),
        (lambda exchange: exchange.json(200, {"ApiVersion": "latest"}), "is not a Docker engine"),
        (lambda exchange: exchange.answer(200, b"", "text/html"), "is not a Docker engine"),
        (lambda exchange: exchange.answer(404, b"<h1>Not Found</h1>", "text/html"), "Not Found"),
        (lambda exchange: exchange.json(503, {"cause": "starting"}), '{"cause": "starting"}'),
        (lambda exchange: exchange.answer(503), "503 Server Error"),
    ],
    ids=["object", "list", "version", "empty", "404", "503 without a message", "503 without text"],
)
def test_what_does_not_answer_as_an_engine_is_unreachable(
    fake: FakeEngine, hook: Callable[[Exchange], None], told: str
) -> None:
    fake.on("GET", "/version", hook)
    error = refused({"DOCKER_HOST": fake.host})
    assert error.code is Code.ENGINE_UNREACHABLE
    assert f"No engine answers at {fake.host} (DOCKER_HOST): " in error.message
    assert told in error.message


def test_nobody_there_is_told_in_the_systems_words(directory: Path) -> None:
    path = directory / "none.sock"
    assert "No such file or directory" in refused({"DOCKER_HOST": f"unix://{path}"}).message
    with socket.socket(socket.AF_UNIX) as closed:
        closed.bind(str(path))
    assert "Connection refused" in refused({"DOCKER_HOST": f"unix://{path}"}).message
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert "Connection refused" in refused({"DOCKER_HOST": f"tcp://127.0.0.1:{port}"}).message


def test_a_listener_that_never_answers_is_not_waited_for(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "REQUEST_TIMEOUT", 0.3)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "e.sock"))
        listener.listen()
        error = refused({"DOCKER_HOST": f"unix://{directory}/e.sock"})
    assert error.code is Code.ENGINE_UNREACHABLE
    assert "it did not answer in time" in error.message


def test_an_engine_whose_oldest_api_is_too_new_is_named_with_the_remedy(fake: FakeEngine) -> None:
    fake.version = {"Version": "99.0.0", "ApiVersion": "2.10", "MinAPIVersion": "2.0"}
    error = refused({"DOCKER_HOST": fake.host})
    assert error.code is Code.ENGINE_TOO_NEW
    assert "The engine 99.0.0 speaks API version 2.0 and later" in error.message
    assert '"min-api-version": "1.' in (error.hint or "")


@pytest.mark.parametrize("oldest", ["1.40", "", None])
def test_an_engine_whose_oldest_api_we_know_is_spoken_to(fake: FakeEngine, oldest: str | None) -> None:
    fake.version = {"Version": "29.0.0", "ApiVersion": "1.52", "MinAPIVersion": oldest}
    Engine.connect({"DOCKER_HOST": fake.host}).close()


@pytest.mark.parametrize(("given", "spoken"), [("1.40", "1.40"), ("v1.30", "1.30"), ("", "1.41")])
def test_the_api_version_of_the_environment_is_spoken(fake: FakeEngine, given: str, spoken: str) -> None:
    fake.version = {"Version": "20.10.24", "ApiVersion": "1.41", "MinAPIVersion": "1.12"}
    engine = Engine.connect({"DOCKER_HOST": fake.host, "DOCKER_API_VERSION": given})
    assert engine.url("/x").endswith(f"/v{spoken}/x")
    engine.close()


@pytest.mark.parametrize("given", ["1.42", "1.25", "1.3", "latest", "2"])
def test_an_api_version_that_cannot_be_spoken_is_refused_with_those_that_can(fake: FakeEngine, given: str) -> None:
    fake.version = {"Version": "20.10.24", "ApiVersion": "1.41", "MinAPIVersion": "1.30"}
    error = refused({"DOCKER_HOST": fake.host, "DOCKER_API_VERSION": given})
    assert error.message == f"DOCKER_API_VERSION asks for API version {given}; with this engine it can be 1.30 to 1.41."


FORBIDDEN_PAGE = b"<html><body><h1>403 Forbidden</h1>\nRequest forbidden by administrative rules.\n</body></html>"


@pytest.mark.parametrize(
    ("status", "body", "kind", "told"),
    [
        (403, FORBIDDEN_PAGE, "text/html", "403 Forbidden Request forbidden by administrative rules."),
        (401, b"<!DOCTYPE html><title>x</title><style>p{}</style><p>Log in &amp; go</p>", "text/html", "Log in & go"),
        (403, b'{"message": "authorization denied by plugin p: no"}', "application/json", "denied by plugin p: no"),
        (403, b"", "text/plain", "403 Client Error"),
    ],
)
def test_what_a_proxy_before_the_engine_forbids_is_named(
    fake: FakeEngine, engine: Engine, status: int, body: bytes, kind: str, told: str
) -> None:
    fake.on("GET", "/volumes/x", lambda exchange: exchange.answer(status, body, kind))
    with pytest.raises(RunnerError) as caught, engine.failures("while it was tested"):
        engine.api.inspect_volume("x")
    fake.on("GET", "/version", lambda exchange: exchange.answer(status, body, kind))
    for error in (caught.value, refused({"DOCKER_HOST": fake.host})):
        assert error.code is Code.ENGINE_PERMISSION
        assert told in error.message
        assert "<" not in error.message
        assert "POST=1" in (error.hint or "")


def test_a_redirect_is_not_followed(fake: FakeEngine) -> None:
    def elsewhere(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 302 Found\r\nLocation: /info\r\nContent-Length: 0\r\n\r\n")

    fake.on("GET", "/version", elsewhere)
    assert "is not a Docker engine" in refused({"DOCKER_HOST": fake.host}).message
    assert not fake.requests("GET", "/info")


def test_a_host_that_cannot_be_resolved_is_told_in_the_resolvers_words() -> None:
    error = refused({"DOCKER_HOST": "tcp://engine.invalid:2375"})
    assert "Unknown error" not in error.message
    assert re.search(r"\(DOCKER_HOST\): .*(name|Name|nodename)", error.message)


# --- Failures later on -----------------------------------------------------------------------------------------


def failure(engine: Engine, fake: FakeEngine, hook: Callable[[Exchange], None]) -> RunnerError:
    fake.on("GET", "/volumes/x", hook)
    with pytest.raises(RunnerError) as caught, engine.failures("while it was tested"):
        engine.api.inspect_volume("x")
    return caught.value


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"message": "the disk fell off"}', "the disk fell off"),
        (b"the disk fell off\n", "the disk fell off"),
        (b'{"cause": "the disk fell off"}', '{"cause": "the disk fell off"}'),
        (b'["x"]', '["x"]'),
        (b'"x"', '"x"'),
        (b"null", "null"),
        (b"\xff\xfe", ""),
        (b"", "500 Server Error"),
    ],
)
def test_a_refusal_is_told_in_the_engines_words_whatever_they_look_like(
    engine: Engine, fake: FakeEngine, body: bytes, told: str
) -> None:
    error = failure(engine, fake, lambda exchange: exchange.answer(500, body))
    assert error.code is Code.INTERNAL
    assert error.message.startswith("The engine reported an error while it was tested: ")
    assert told in error.message
    assert error.hint is not None


def test_no_space_is_a_full_disk(engine: Engine, fake: FakeEngine) -> None:
    error = failure(engine, fake, lambda exchange: exchange.error(500, "write /x: No space left on device"))
    assert error.code is Code.DISK_FULL
    assert "write /x" in error.message


def cut(exchange: Exchange) -> None:
    exchange.send(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"Name":')
    exchange.hang_up()


def garbage(exchange: Exchange) -> None:
    exchange.send(b"\x00\x01\x02\r\n\r\n")
    exchange.hang_up()


@pytest.mark.parametrize(
    ("hook", "told"),
    [
        (lambda exchange: exchange.hang_up(), "it closed the connection without an answer"),
        (cut, "its answer broke off"),
        (garbage, "its answer broke off"),
        (lambda exchange: exchange.answer(200, b'{"Name":'), "its answer broke off"),
    ],
    ids=["closes", "cut", "garbage", "half a text"],
)
def test_an_engine_that_breaks_off_is_lost(
    engine: Engine, fake: FakeEngine, hook: Callable[[Exchange], None], told: str
) -> None:
    error = failure(engine, fake, hook)
    assert error.code is Code.ENGINE_UNREACHABLE
    assert error.message == f"The engine at {fake.host} stopped answering while it was tested: {told}"
    assert "the build continues where it was" in (error.hint or "")


def test_a_defect_of_our_own_is_not_laid_on_the_engine(engine: Engine) -> None:
    for defect in (KeyError("x"), TypeError("x"), ZeroDivisionError()):
        with pytest.raises(type(defect)), engine.failures("while it was tested"):
            raise defect


def test_an_error_that_has_its_words_keeps_them(engine: Engine) -> None:
    with pytest.raises(RunnerError, match="already worded"), engine.failures("while it was tested"):
        raise RunnerError(Code.VOLUME_BUSY, "already worded")


def test_cleaning_up_never_fails_and_is_short_with_an_engine_that_is_lost(
    engine: Engine, fake: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "LOST_TIMEOUT", 0.2)
    with engine.cleaning_up():
        engine.api.inspect_volume("not there")
    assert engine.api.timeout == engine_module.REQUEST_TIMEOUT
    with pytest.raises(RunnerError), engine.failures("while it was tested"):
        raise requests.Timeout
    fake.freeze()
    began = time.monotonic()
    with engine.cleaning_up():
        engine.api.inspect_volume("x")
    assert time.monotonic() - began < 30


def test_labels_have_our_prefix_and_others_are_not_taken_for_them() -> None:
    made = labels(step="make", volume="v")
    assert made == {"nerves-docker-port.step": "make", "nerves-docker-port.volume": "v"}
    assert label(made, "step") == "make"
    assert label({"step": "make", "nerves-docker-port.steps": "x"}, "step") is None
    assert label(None, "step") is None


def test_the_sdks_errors_do_not_leave_the_engine(engine: Engine) -> None:
    for error in (docker.errors.InvalidVersion("x"), docker.errors.StreamParseError("x")):
        with pytest.raises(RunnerError), engine.failures("while it was tested"):
            raise error


# --- Connections -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_one_connection_serves_requests_that_follow_each_other(directory: Path, fake: FakeEngine, kind: str) -> None:
    """Each connection costs a round trip, which is long where the engine is far away."""
    with Link(directory, fake.host, 0.0) as link:
        engine = Engine.connect({"DOCKER_HOST": link.host if kind == "unix" else link.tcp_host})
        engine.api.info()
        engine.api.containers()
        engine.api.volumes()
        engine.close()
        assert link.connections == 1
