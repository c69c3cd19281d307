"""Images on a real engine: pulled from a real registry, built from Dockerfiles, and what is said when neither works."""

from __future__ import annotations

import base64
import io
import json
import os
import secrets
import shutil
import signal
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import docker
import pytest
from integration.buildx import ensure_buildx

from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine import transfer
from nerves_docker_port.engine.client import Engine
from nerves_docker_port.image.pull import pull
from nerves_docker_port.port.wire import Atom
from support.images import NEW
from support.port import Conversation, wait_until
from support.registry import INDEX, PASSWORD, USER, Registry, Relay
from support.system import System, ours

BIG = 64 * 1024 * 1024
"""Bytes of the layer whose progress is looked at. Random, so that no compression makes it small."""

QUESTION = "The Nerves Docker build_runner needs to create the image.\nProceed?"


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    with Registry() as registry:
        yield registry


@pytest.fixture(scope="module")
def private() -> Iterator[Registry]:
    with Registry(private=True) as registry:
        yield registry


@pytest.fixture(scope="module")
def big(registry: Registry, client: docker.DockerClient) -> str:
    """The name, without a registry, of a builder with a big layer, which is only in the registry."""
    name = "ndp/big:1"
    build(client, f"{registry.host}/{name}", f"FROM {NEW}\nCOPY data /data\n", data=os.urandom(BIG))
    push(client, f"{registry.host}/{name}")
    return name


@pytest.fixture(scope="module")
def small(registry: Registry, private: Registry, client: docker.DockerClient) -> str:
    """The name, without a registry, of a tiny image that is in both registries and not at the engine."""
    for each in (registry, private):
        build(client, f"{each.host}/ndp/small:1", "FROM scratch\nCOPY data /data\n", data=secrets.token_bytes(100))
        push(client, f"{each.host}/ndp/small:1", auth=each is private)
    return "ndp/small:1"


@pytest.fixture
def tag(client: docker.DockerClient) -> Iterator[str]:
    """A tag of our own, without a registry, whose image is gone after the test."""
    tag = f"ndp_test/{secrets.token_hex(6)}:1"
    yield tag
    forget(client, tag)


@dataclass
class Desk:
    """A person's place: a system, a Docker configuration, and what is on the PATH besides."""

    system: System

    def configure(self, **config: Any) -> None:
        """Write ~/.docker/config.json."""
        self.system.write("home/.docker/config.json", json.dumps(config))

    def program(self, name: str, script: str) -> None:
        """Put a program on the PATH."""
        self.system.write(f"bin/{name}", f"#!/bin/sh\n{script}\n", mode=0o755)

    def build(self, *, answers: tuple[bool, ...] = (), docker_cli: bool = False, **changes: Any) -> Conversation:
        """Run a build. Where there is no docker CLI, the API is what images are built through."""
        path = f"{self.system.root}/bin:{os.environ['PATH'] if docker_cli else '/usr/sbin:/sbin'}"
        settings = changes.pop("settings", {})
        changes["runner_config"] = [(Atom(name), Atom(value)) for name, value in settings.items()]
        with self.system.helper(PATH=path) as helper:
            return helper.request("build", self.system.args(**changes), answers=answers)

    def fail(self, **changes: Any) -> dict[str, Any]:
        """A build that fails: its error."""
        conversation = self.build(**changes)
        assert conversation.error is not None
        return conversation.error


@pytest.fixture
def desk(system: System) -> Desk:
    return Desk(system)


def build(client: docker.DockerClient, tag: str, dockerfile: str, **files: bytes) -> None:
    """Build an image the way somebody else would."""
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        for name, content in {"Dockerfile": dockerfile.encode(), **files}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    context.seek(0)
    client.images.build(fileobj=context, custom_context=True, tag=tag, forcerm=True)


def push(client: docker.DockerClient, tag: str, *, auth: bool = False) -> None:
    """Push an image and forget it here."""
    credentials = {"username": USER, "password": PASSWORD} if auth else {}
    for event in client.images.push(tag, stream=True, decode=True, auth_config=credentials):
        assert "error" not in event, event
    client.images.remove(tag)


def forget(client: docker.DockerClient, tag: str) -> None:
    if client.images.list(tag):
        client.images.remove(tag, force=True)


def image_id(client: docker.DockerClient, tag: str) -> str:
    return str(client.images.get(tag).id)


def basic(user: str, password: str) -> dict[str, str]:
    """An entry of `auths`."""
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


# --- Pulling -----------------------------------------------------------------------------------------------------


def test_a_missing_image_is_pulled_with_progress_and_used(
    desk: Desk, registry: Registry, big: str, client: docker.DockerClient
) -> None:
    # Loopback would be done before there is anything to see.
    with Relay(registry, rate=32 * 1024 * 1024) as relay:
        tag = f"{relay.host}/{big}"
        conversation = desk.build(image=tag)
    try:
        conversation.value()
        assert conversation.headlines[0] == "Trying to pull image"
        assert "pull" in conversation.finished
        assert conversation.questions == conversation.warnings == []
        sizes = [event["current"] for event in conversation.progress if event["what"].startswith("Pulling image, ")]
        assert len(sizes) >= 2, "a pull of 64 MiB says more than once how far it is"
        assert sizes == sorted(sizes)
        assert 0 < sizes[0] < BIG
        last = conversation.progress[-1]
        layers = last["what"].removeprefix("Unpacking image, ").removesuffix(" layers").split(" of ")
        assert layers[0] == layers[1] != "0"
        assert last["current"] == last["total"] >= BIG
        assert last["unit"] == "bytes"
    finally:
        forget(client, tag)


def test_an_image_that_is_here_is_not_pulled(desk: Desk) -> None:
    conversation = desk.build()
    conversation.value()
    assert "pull" not in conversation.finished
    assert conversation.progress == []


def test_always_pulls_what_is_new_in_the_registry(desk: Desk, registry: Registry, client: docker.DockerClient) -> None:
    tag = f"{registry.host}/ndp/moving:1"
    try:
        build(client, tag, "FROM scratch\nCOPY data /data\n", data=b"new")
        new = image_id(client, tag)
        push(client, tag)
        build(client, tag, "FROM scratch\nCOPY data /data\n", data=b"old")
        assert image_id(client, tag) != new
        conversation = desk.build(image=tag, settings={"pull": "always"})
        assert "Trying to pull image" in conversation.headlines
        assert image_id(client, tag) == new
    finally:
        forget(client, tag)


def test_always_with_a_registry_that_is_away_is_an_error_that_tells_of_the_image_here(
    desk: Desk, client: docker.DockerClient
) -> None:
    tag = "127.0.0.1:1/ndp/here:1"
    client.images.get(NEW).tag(tag)
    try:
        error = desk.fail(image=tag, settings={"pull": "always"})
        assert error["code"] == "image_unavailable"
        assert "connection refused" in error["message"]
        assert "pull: :missing" in error["hint"]
    finally:
        forget(client, tag)


def test_never_pulls_nothing(desk: Desk, registry: Registry, small: str, client: docker.DockerClient) -> None:
    tag = f"{registry.host}/{small}"
    conversation = desk.build(image=tag, settings={"pull": "never"})
    error = conversation.error
    assert error is not None
    assert error["code"] == "image_unavailable"
    assert f"{tag} is not at the engine and is not pulled: the configuration says `pull: :never`" in error["message"]
    assert "docker pull" in error["hint"]
    assert conversation.headlines == []
    assert client.images.list(tag) == []


def test_a_variable_overrides_the_policy(desk: Desk, registry: Registry, small: str) -> None:
    error = desk.fail(image=f"{registry.host}/{small}", env={"NERVES_DOCKER_PULL": "never"})
    assert "is not pulled" in error["message"]


def test_a_tag_that_the_registry_does_not_have_is_called_that(desk: Desk, registry: Registry) -> None:
    error = desk.fail(image=f"{registry.host}/ndp/none:1")
    assert error["code"] == "image_unavailable"
    assert "could not be pulled: manifest for" in error["message"]
    assert "not found" in error["message"]
    assert "Check the tag" in error["hint"]


def test_a_registry_that_cannot_be_reached_is_called_that(desk: Desk) -> None:
    error = desk.fail(image="127.0.0.1:1/ndp/none:1")
    assert error["code"] == "image_unavailable"
    assert "connection refused" in error["message"]
    assert "It is the engine that must reach the registry" in error["hint"]


def test_a_registry_that_stops_half_way_is_an_error(
    desk: Desk, registry: Registry, big: str, client: docker.DockerClient
) -> None:
    """The engine tries five more times, for a minute."""
    with Relay(registry, limit=BIG // 2) as relay:
        conversation = desk.build(image=f"{relay.host}/{big}")
        assert relay.is_spent
        assert client.images.list(f"{relay.host}/{big}") == []
    assert conversation.progress != []
    error = conversation.error
    assert error is not None
    assert error["code"] == "image_unavailable"
    assert f"{relay.host}/{big} is not at the engine and could not be pulled: " in error["message"]
    assert error["hint"] is not None


class Silent:
    """A reporter that keeps warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.progressed = 0

    def headline(self, text: str) -> None: ...

    def log(self, lines: bytes) -> None: ...

    def stage_started(self, name: str) -> None: ...

    def stage_finished(self, name: str, milliseconds: int) -> None: ...

    def progress(self, what: str, current: int, total: int | None, unit: str) -> None:
        self.progressed += 1

    def status(self, status: object) -> None: ...

    def warning(self, text: str) -> None:
        self.warnings.append(text)

    def ask(self, text: str, *, default: bool) -> bool:
        raise AssertionError("nothing is to be asked")


def test_a_registry_that_falls_silent_half_way_is_an_error_in_the_end(
    host: str, registry: Registry, big: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine itself would wait without end."""
    monkeypatch.setattr(transfer, "PULL_TIMEOUT", 3)
    engine = Engine.connect({"DOCKER_HOST": host})
    reporter = Silent()
    with Relay(registry, limit=BIG // 2, stalls=True) as relay:
        reason = pull(engine, f"{relay.host}/{big}", reporter, Cancellation())
        assert relay.is_spent
    engine.close()
    assert reason == "nothing has arrived for 3 seconds"
    assert reporter.progressed > 0


def test_a_pull_can_be_cancelled(desk: Desk, registry: Registry, big: str) -> None:
    with (
        Relay(registry, limit=BIG // 2, stalls=True) as relay,
        desk.system.helper() as helper,
    ):
        helper.start("build", desk.system.args(image=f"{relay.host}/{big}"))
        conversation = helper.follow(until_stage="pull")
        assert helper.wait_until(lambda: relay.is_spent, seconds=60)
        began = time.monotonic()
        helper.send((Atom("cancel"), 1))
        conversation = helper.follow(conversation)
        assert time.monotonic() - began < 60
    assert conversation.error is not None
    assert conversation.error["code"] == "cancelled"


# --- Platforms ---------------------------------------------------------------------------------------------------


def layer(**files: bytes) -> bytes:
    """A layer with programs in it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"bin/{name}")
            member.size, member.mode = len(content), 0o755
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def foreign_of(client: docker.DockerClient) -> str:
    """An architecture that the engine does not have."""
    return "arm64" if client.version()["Arch"] != "arm64" else "amd64"


def test_a_pull_takes_the_engine_s_own_platform(desk: Desk, registry: Registry, client: docker.DockerClient) -> None:
    native, foreign = client.version()["Arch"], foreign_of(client)
    manifests = [
        {
            **registry.put_image("ndp/multi", architecture, layer(sh=architecture.encode()), architecture),
            "platform": {"architecture": architecture, "os": "linux"},
        }
        for architecture in (foreign, native)
    ]
    registry.put_manifest("ndp/multi", "1", {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})
    tag = f"{registry.host}/ndp/multi:1"
    try:
        conversation = desk.build(image=tag)
        assert "pull" in conversation.finished
        assert conversation.warnings == []
        assert client.images.get(tag).attrs["Architecture"] == native
    finally:
        forget(client, tag)
    registry.put_manifest("ndp/multi", "2", {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests[:1]})
    error = desk.fail(image=f"{registry.host}/ndp/multi:2")
    assert error["code"] == "image_unavailable"
    assert "no matching manifest" in error["message"]
    assert "architecture" in error["hint"]


def test_an_image_of_another_platform_is_named_as_such(
    desk: Desk, registry: Registry, client: docker.DockerClient
) -> None:
    """A warning first, for there may be emulation; an error of its own when a program of it does not start."""
    native, foreign = client.version()["Arch"], foreign_of(client)
    machine = {"arm64": b"\xb7", "amd64": b"\x3e"}[foreign]
    # An ELF header for that machine (e_machine), and no more.
    program = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + b"\x02\0" + machine + b"\0\x01\0\0\0" + bytes(40)
    registry.put_image("ndp/foreign", "1", layer(bash=program), foreign)
    tag = f"{registry.host}/ndp/foreign:1"
    try:
        conversation = desk.build(image=tag)
        (warning,) = conversation.warnings
        assert f"{tag} is made for {foreign}, and the engine is on {native}" in warning
        error = conversation.error
        assert error is not None
        assert error["code"] == "image_unavailable"
        assert f"{tag} is made for {foreign}, and the engine is on {native}" in error["message"]
        assert f"docker image rm {tag}" in error["hint"]
    finally:
        forget(client, tag)


# --- Credentials -------------------------------------------------------------------------------------------------


def test_credentials_in_config_json_are_used(
    desk: Desk, private: Registry, small: str, client: docker.DockerClient
) -> None:
    tag = f"{private.host}/{small}"
    desk.configure(auths={private.host: basic(USER, PASSWORD)})
    try:
        conversation = desk.build(image=tag)
        assert "pull" in conversation.finished
        assert conversation.warnings == []
    finally:
        forget(client, tag)


def test_a_private_image_without_credentials_says_how_to_log_in(desk: Desk, private: Registry, small: str) -> None:
    error = desk.fail(image=f"{private.host}/{small}")
    assert error["code"] == "image_unavailable"
    assert "no basic auth credentials" in error["message"]
    assert "docker login" in error["hint"]


def test_refused_credentials_are_told_and_a_private_image_stays_unavailable(
    desk: Desk, private: Registry, small: str
) -> None:
    desk.configure(auths={private.host: basic(USER, "wrong")})
    conversation = desk.build(image=f"{private.host}/{small}")
    (warning,) = conversation.warnings
    assert f"The registry {private.host} does not take the credentials" in warning
    assert str(desk.system.root / "home/.docker/config.json") in warning
    error = conversation.error
    assert error is not None
    assert error["code"] == "image_unavailable"
    assert "unauthorized" in error["message"]
    assert "wrong" not in error["message"] + warning


@pytest.mark.parametrize("key", ["credsStore", "credHelpers"])
def test_a_credential_helper_is_asked(
    desk: Desk, private: Registry, small: str, client: docker.DockerClient, key: str
) -> None:
    tag = f"{private.host}/{small}"
    answer = json.dumps({"ServerURL": private.host, "Username": USER, "Secret": PASSWORD})
    desk.program("docker-credential-works", f'[ "$1" = get ] && [ "$(cat)" = {private.host} ] && echo \'{answer}\'')
    desk.configure(**{key: "works" if key == "credsStore" else {private.host: "works"}})
    # The script's `cat`.
    desk.program("cat", 'exec /bin/cat "$@"')
    try:
        conversation = desk.build(image=tag)
        assert "pull" in conversation.finished, conversation.error
        assert conversation.warnings == []
    finally:
        forget(client, tag)


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo the keychain is locked; exit 1", 'exited with "the keychain is locked"'),
        ("echo nonsense", "makes no sense"),
        (None, "not installed or not available in PATH"),
    ],
    ids=["fails", "nonsense", "missing"],
)
def test_a_broken_credential_helper_does_not_stand_before_a_public_image(
    desk: Desk, registry: Registry, small: str, client: docker.DockerClient, script: str | None, told: str
) -> None:
    """The SDK fails every pull then (docker-py #2225)."""
    tag = f"{registry.host}/{small}"
    if script is not None:
        desk.program("docker-credential-broken", script)
    desk.configure(credsStore="broken")
    try:
        conversation = desk.build(image=tag)
        assert "pull" in conversation.finished, conversation.error
        (warning,) = conversation.warnings
        assert told in warning
        assert "Trying without credentials." in warning
    finally:
        forget(client, tag)


def test_a_broken_credential_helper_is_named_where_the_image_is_private(
    desk: Desk, private: Registry, small: str
) -> None:
    desk.program("docker-credential-broken", "exit 1")
    desk.configure(credsStore="broken")
    error = desk.fail(image=f"{private.host}/{small}")
    assert error["code"] == "image_unavailable"
    assert "no basic auth credentials" in error["message"]
    assert "docker-credential-broken" in error["message"]


# --- Building through the API --------------------------------------------------------------------------------------


def test_an_image_is_built_from_a_dockerfile_of_another_name_in_a_sub_directory(
    desk: Desk, tag: str, client: docker.DockerClient
) -> None:
    """Faults 7 and 9: the name counts, the path is the package's, and the context is the Dockerfile's directory."""
    desk.system.write("my_system/docker/Dockerfile.build", f"FROM {NEW}\nCOPY tool /tool\nRUN cat /tool; echo done\n")
    desk.system.write("my_system/docker/tool", "from the context\n")
    desk.system.write("my_system/docker/Dockerfile", "FROM scratch\nCOPY nothing /\n")
    elsewhere = desk.system.root / "elsewhere"
    elsewhere.mkdir()
    desk.system.own()
    conversation = desk.build(
        image=tag,
        dockerfile="docker/Dockerfile.build",
        cwd=elsewhere,
        settings={"create_image": "always"},
        make_args=["RUN=cat /tool"],
    )
    conversation.value()
    assert conversation.headlines[:2] == ["Create image", "Starting Build... (this may take a while)"]
    assert "build_image" in conversation.finished
    assert "pull" not in conversation.finished
    assert conversation.questions == conversation.warnings == []
    steps = [line for line in conversation.log_lines if line.startswith(b">>> Step")]
    assert steps == [
        f">>> Step 1/3 : FROM {NEW}".encode(),
        b">>> Step 2/3 : COPY tool /tool",
        b">>> Step 3/3 : RUN cat /tool; echo done",
    ]
    log = (elsewhere / "build.log").read_text()
    assert " : RUN cat /tool; echo done\n" in log
    # Once from the image's step, once from the build's.
    assert log.count("from the context\n") == 2
    assert log.index("Successfully built") < log.index(">>> create-build")
    labels = client.images.get(tag).labels
    assert labels["nerves-docker-port.project"] == "nerves_docker_port"
    assert len(labels["nerves-docker-port.context"]) == 64


@pytest.mark.parametrize("answer", [True, False])
def test_a_person_at_a_terminal_is_asked_first(desk: Desk, tag: str, client: docker.DockerClient, answer: bool) -> None:
    desk.system.write("my_system/Dockerfile", f"FROM {NEW}\nRUN true\n")
    conversation = desk.build(image=tag, interactive=True, answers=(answer,))
    assert conversation.questions == [QUESTION]
    if answer:
        conversation.value()
        assert image_id(client, tag)
    else:
        assert conversation.error is not None
        assert conversation.error["code"] == "image_unavailable"
        assert "without image" in conversation.error["message"]
        assert client.images.list(tag) == []
        assert not desk.system.build_log.exists()


@pytest.mark.parametrize(
    ("setting", "interactive"),
    [("ask", False), ("never", False), ("never", True)],
    ids=["no person", "never", "never asks"],
)
def test_nothing_is_asked_or_built_without_a_terminal_or_a_permission(
    desk: Desk, tag: str, client: docker.DockerClient, setting: str, interactive: bool
) -> None:
    dockerfile = desk.system.write("my_system/Dockerfile", "FROM scratch\n")
    began = time.monotonic()
    conversation = desk.build(image=tag, interactive=interactive, settings={"create_image": setting})
    assert time.monotonic() - began < 60
    assert conversation.questions == []
    error = conversation.error
    assert error is not None
    assert error["code"] == "image_unavailable"
    assert "its tag names no registry" in error["message"]
    assert f"docker build --tag {tag} --file {dockerfile} {dockerfile.parent}" in error["hint"]
    assert "create_image: :always" in error["hint"]
    assert client.images.list(tag) == []


def test_an_image_with_a_registry_is_pulled_first_and_then_built(
    desk: Desk, registry: Registry, client: docker.DockerClient
) -> None:
    tag = f"{registry.host}/ndp/unpublished:1"
    desk.system.write("my_system/Dockerfile", f"FROM {NEW}\nRUN true\n")
    try:
        conversation = desk.build(image=tag, settings={"create_image": "always"})
        conversation.value()
        assert conversation.headlines[:2] == ["Trying to pull image", "Create image"]
    finally:
        forget(client, tag)


def test_always_pulls_a_tag_without_a_registry_too(desk: Desk, tag: str) -> None:
    """Who says `pull: :always` is taken at their word."""
    desk.system.write("my_system/Dockerfile", f"FROM {NEW}\n")
    conversation = desk.build(image=tag, settings={"pull": "always"})
    assert "Trying to pull image" in conversation.headlines


def test_a_dockerfile_that_fails_tells_the_step_the_last_lines_and_the_log(
    desk: Desk, tag: str, client: docker.DockerClient
) -> None:
    dockerfile = desk.system.write(
        "my_system/Dockerfile", f"FROM {NEW}\nRUN seq 1 40; echo no such tool; exit 3\nRUN true\n"
    )
    error = desk.fail(image=tag, settings={"create_image": "always"})
    assert error["code"] == "image_build_failed"
    assert f"could not create the image {tag} from {dockerfile}" in error["message"]
    assert "`Step 2/3 : RUN seq 1 40; echo no such tool; exit 3` failed: " in error["message"]
    assert "non-zero code: 3" in error["message"]
    assert "\nno such tool\n" in error["message"]
    assert error["log"] == str(desk.system.build_log)
    assert str(desk.system.build_log) in error["message"]
    assert "volume" not in error["message"]
    assert client.images.list(tag) == []
    assert ours(client, desk.system.volume) == []


@pytest.mark.parametrize(
    ("dockerfile", "told"),
    [
        ("FROM scratch\nCOPY none /none\n", "none"),
        ("FRAM scratch\n", "FRAM"),
        ("", "empty"),
        ("FROM 127.0.0.1:1/ndp/none:1\n", "connection refused"),
    ],
    ids=["no such file", "no instruction", "empty", "no base"],
)
def test_every_fault_of_a_dockerfile_is_told(desk: Desk, tag: str, dockerfile: str, told: str) -> None:
    desk.system.write("my_system/Dockerfile", dockerfile)
    error = desk.fail(image=tag, settings={"create_image": "always"})
    assert error["code"] == "image_build_failed"
    assert told in error["message"]
    assert error["log"] == str(desk.system.build_log)


@pytest.mark.parametrize(
    "instruction",
    [
        "RUN <<EOT\nset -e\nEOT",
        "RUN --mount=type=cache,target=/x true",
        "COPY --link Dockerfile /x",
        "ADD --chmod=1 . /",
    ],
)
def test_a_dockerfile_that_needs_buildkit_says_how_to_have_it(desk: Desk, tag: str, instruction: str) -> None:
    desk.system.write("my_system/Dockerfile", f"FROM {NEW}\n{instruction}\n")
    error = desk.fail(image=tag, settings={"create_image": "always"})
    assert error["code"] == "image_build_failed"
    assert error["hint"].startswith("The Dockerfile needs BuildKit")
    assert "apt-get install docker-buildx" in error["hint"]


@pytest.mark.parametrize(
    ("base", "hint"),
    [
        ("{registry}/ndp/none:1", "Check the name after FROM in the Dockerfile: the registry does not have it."),
        ("{private}/ndp/small:1", "log in first: `docker login {private}`. Check the name after FROM"),
        ("127.0.0.1:1/ndp/none:1", "It is the engine that must reach the registry"),
        ("NDP/none:1", "a name is written in lower case"),
    ],
    ids=["unknown", "private", "unreachable", "upper case"],
)
def test_a_base_image_that_is_not_to_be_had_says_why(
    desk: Desk, registry: Registry, private: Registry, small: str, tag: str, base: str, hint: str
) -> None:
    desk.system.write(
        "my_system/Dockerfile", f"FROM {base.format(registry=registry.host, private=private.host)}\nRUN true\n"
    )
    error = desk.fail(image=tag, settings={"create_image": "always"})
    assert error["code"] == "image_build_failed"
    assert "The base image could not be had." in error["hint"]
    assert hint.format(private=private.host) in error["hint"]
    assert small


def test_a_full_disk_is_called_that(desk: Desk, tag: str) -> None:
    desk.system.write(
        "my_system/Dockerfile", f"FROM {NEW}\nRUN mkdir /t && echo 'write /t/x: no space left on device' && exit 1\n"
    )
    error = desk.fail(image=tag, settings={"create_image": "always"})
    assert error["code"] == "disk_full"
    assert "RUN mkdir /t" in error["message"]


def test_what_cannot_be_read_in_the_context_is_named(desk: Desk, tag: str) -> None:
    desk.system.write("my_system/Dockerfile", "FROM scratch\nCOPY secret /secret\n")
    secret = desk.system.write("my_system/secret", "x")
    os.chown(secret, 0, 0)
    secret.chmod(0o600)
    error = desk.fail(image=tag, settings={"create_image": "always"})
    assert error["code"] == "image_build_failed"
    assert str(secret) in error["message"]
    assert ".dockerignore" in error["hint"]


def test_dockerignore_is_honoured(desk: Desk, tag: str, client: docker.DockerClient) -> None:
    desk.system.write("my_system/Dockerfile", f"FROM {NEW}\nCOPY . /src\nRUN ls -A /src > /tmp/list\n")
    desk.system.write("my_system/.dockerignore", "# not these\nsecret*\n.nerves\n!secret.pub\n")
    for name in ("secret", "secret.pub", "other"):
        desk.system.write(f"my_system/{name}", name)
    conversation = desk.build(image=tag, settings={"create_image": "always"}, make_args=["RUN=cat /tmp/list"])
    conversation.value()
    listed = desk.system.build_log.read_text().split("\n")
    assert {"secret.pub", "other"} <= set(listed)
    assert not {"secret", ".nerves"} & set(listed)


def test_an_image_build_can_be_cancelled(desk: Desk, tag: str, client: docker.DockerClient) -> None:
    mark = secrets.token_hex(6)
    desk.system.write("my_system/Dockerfile", f"FROM {NEW}\nRUN echo {mark}; sleep 600\n")
    args = desk.system.args(image=tag, runner_config=[(Atom("create_image"), Atom("always"))])

    def running() -> list[Any]:
        return [c for c in client.containers.list(ignore_removed=True) if mark in str(c.attrs["Args"])]

    with desk.system.helper(PATH="/usr/sbin") as helper:
        helper.start("build", args)
        conversation = helper.follow(until_stage="build_image")
        assert helper.wait_until(running)
        helper.send((Atom("cancel"), 1))
        conversation = helper.follow(conversation)
        assert conversation.error is not None
        assert conversation.error["code"] == "cancelled"
        assert helper.wait_until(lambda: not running())


def test_a_build_that_is_refused_leaves_the_log_of_the_one_that_runs_alone(
    desk: Desk, tag: str, client: docker.DockerClient
) -> None:
    """The log is emptied when an image is built; not where another build holds the volume."""
    desk.system.write("my_system/Dockerfile", f"FROM {NEW}\nRUN true\n")
    with desk.system.helper() as first:
        first.start("build", desk.system.args(make_args=["RUN=sleep 600"]))
        first.follow(until_stage="make")
        assert first.wait_until(lambda: client.containers.list(filters={"volume": desk.system.volume}))
        log = desk.system.build_log.read_bytes()
        error = desk.fail(image=tag, settings={"create_image": "always"})
        assert error["code"] == "volume_busy"
        assert desk.system.build_log.read_bytes() == log
        assert client.images.list(tag) == []


# --- What has changed ----------------------------------------------------------------------------------------------


@pytest.fixture
def built(desk: Desk, tag: str) -> str:
    """The tag of an image that was built here, from a Dockerfile and a file of its context."""
    desk.system.write("my_system/Dockerfile", f"FROM {NEW}\nCOPY tool /tool\n")
    desk.system.write("my_system/tool", "first\n")
    desk.build(image=tag, settings={"create_image": "always"}).value()
    return tag


@pytest.mark.parametrize(
    ("file", "text"),
    [("Dockerfile", f"FROM {NEW}\nCOPY tool /tool\nENV X=1\n"), ("tool", "second\n")],
    ids=["Dockerfile", "context"],
)
def test_a_changed_dockerfile_or_context_is_noticed_and_built_again(
    desk: Desk, built: str, client: docker.DockerClient, file: str, text: str
) -> None:
    """Fault 15."""
    before = image_id(client, built)
    again = desk.build(image=built, settings={"create_image": "always"})
    again.value()
    assert "build_image" not in again.finished
    desk.system.write(f"my_system/{file}", text)
    conversation = desk.build(image=built, settings={"create_image": "always"})
    conversation.value()
    assert "Create image" in conversation.headlines
    assert conversation.warnings == []
    assert image_id(client, built) != before
    last = desk.build(image=built, settings={"create_image": "always"})
    assert "build_image" not in last.finished


def test_a_build_writes_into_the_package_without_making_the_image_old(
    desk: Desk, tag: str, client: docker.DockerClient
) -> None:
    desk.system.write("my_system/Dockerfile", f"FROM {NEW}\nCOPY . /src\n")
    settings = {"create_image": "always"}
    desk.build(image=tag, settings=settings).value()
    (desk.system.package / "my_system-portable-0.1.0-ABCDEF0.tar.gz").write_bytes(desk.system.artifact.read_bytes())
    assert (desk.system.package / "Config.in").exists()
    assert "build_image" not in desk.build(image=tag, settings=settings).finished
    desk.system.write("my_system/more", "x")
    assert "build_image" in desk.build(image=tag, settings=settings).finished


@pytest.mark.parametrize(
    ("setting", "interactive", "answers"),
    [("never", True, ()), ("ask", False, ()), ("ask", True, (False,))],
    ids=["never", "no terminal", "the person says no"],
)
def test_a_changed_image_that_may_not_be_built_is_used_with_a_warning(
    desk: Desk, built: str, client: docker.DockerClient, setting: str, interactive: bool, answers: tuple[bool, ...]
) -> None:
    before = image_id(client, built)
    desk.system.write("my_system/tool", "second\n")
    conversation = desk.build(image=built, settings={"create_image": setting}, interactive=interactive, answers=answers)
    conversation.value()
    (warning,) = conversation.warnings
    assert f"{desk.system.package / 'Dockerfile'}, or what it uses, has changed" in warning
    assert "create_image: :always" in warning
    assert len(conversation.questions) == len(answers)
    assert image_id(client, built) == before


def test_a_person_is_asked_whether_a_changed_image_is_built_again(
    desk: Desk, built: str, client: docker.DockerClient
) -> None:
    before = image_id(client, built)
    desk.system.write("my_system/tool", "second\n")
    conversation = desk.build(image=built, interactive=True, answers=(True,))
    conversation.value()
    (question,) = conversation.questions
    assert question.endswith("Build it again?")
    assert image_id(client, built) != before


def test_an_image_that_somebody_else_made_is_left_alone(desk: Desk, tag: str, client: docker.DockerClient) -> None:
    client.images.get(NEW).tag(tag)
    desk.system.write("my_system/Dockerfile", "FROM scratch\n")
    conversation = desk.build(image=tag, settings={"create_image": "always"})
    conversation.value()
    assert "build_image" not in conversation.finished
    assert conversation.warnings == []


def test_a_changed_dockerfile_that_fails_is_an_error_and_the_old_image_stays(
    desk: Desk, built: str, client: docker.DockerClient
) -> None:
    before = image_id(client, built)
    desk.system.write("my_system/Dockerfile", f"FROM {NEW}\nRUN exit 1\n")
    error = desk.fail(image=built, settings={"create_image": "always"})
    assert error["code"] == "image_build_failed"
    assert image_id(client, built) == before


# --- BuildKit ------------------------------------------------------------------------------------------------------


@pytest.fixture
def buildx(desk: Desk) -> Desk:
    """A desk with `docker buildx`: the real one, where the person has put it."""
    plugin = ensure_buildx()
    directory = desk.system.root / "home/.docker/cli-plugins"
    directory.mkdir(parents=True)
    shutil.copy(plugin, directory)
    desk.system.own()
    return desk


def test_buildx_builds_where_it_is_there(buildx: Desk, tag: str, client: docker.DockerClient) -> None:
    """No RUN: the tests' engine has no bridge, without which BuildKit runs nothing."""
    dockerfile = f"FROM {NEW} AS base\nCOPY --chmod=755 tool /tool\nFROM base\nCOPY tool /again\n"
    buildx.system.write("my_system/docker/Dockerfile.build", dockerfile)
    buildx.system.write("my_system/docker/Dockerfile.build.dockerignore", "other\n")
    buildx.system.write("my_system/docker/tool", "echo from the tool\n")
    conversation = buildx.build(
        image=tag,
        dockerfile="docker/Dockerfile.build",
        docker_cli=True,
        settings={"create_image": "always"},
        make_args=["RUN=/tool"],
    )
    conversation.value()
    assert conversation.headlines[0] == "Create image"
    steps = [line for line in conversation.log_lines if line.startswith(b">>> Step")]
    assert steps[-1] == b">>> Step (stage-1) 1/1 : COPY tool /again" or b"COPY tool /again" in steps[-1]
    log = buildx.system.build_log.read_text()
    # BuildKit's own, not the older builder's: that has no `#1 [internal]` and no COPY --chmod.
    assert "[internal] load build definition from Dockerfile.build" in log
    assert "from the tool\n" in log
    assert len(client.images.get(tag).labels["nerves-docker-port.context"]) == 64
    again = buildx.build(
        image=tag, dockerfile="docker/Dockerfile.build", docker_cli=True, settings={"create_image": "always"}
    )
    assert "build_image" not in again.finished


def test_a_dockerfile_that_fails_in_buildx_tells_the_step(buildx: Desk, tag: str, client: docker.DockerClient) -> None:
    buildx.system.write("my_system/Dockerfile", f"FROM {NEW}\nCOPY tool /tool\nCOPY none /none\n")
    buildx.system.write("my_system/tool", "x")
    error = buildx.fail(image=tag, docker_cli=True, settings={"create_image": "always"})
    assert error["code"] == "image_build_failed"
    assert "COPY none /none` failed: " in error["message"]
    assert "not found" in error["message"]
    assert error["log"] == str(buildx.system.build_log)
    assert client.images.list(tag) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_buildx_ends_with_the_helper(desk: Desk, tag: str, number: signal.Signals) -> None:
    """A silent step prints nothing for hours, so buildx itself would not notice that nobody listens any more."""
    desk.program("docker", f'[ "$2" = version ] && exec echo buildx; echo $$ > {desk.system.root}/home/pid; sleep 600')
    desk.system.write("my_system/Dockerfile", f"FROM {NEW}\nRUN sleep 600\n")
    path = f"{desk.system.root}/bin:{os.environ['PATH']}"
    noted = desk.system.root / "home" / "pid"
    with desk.system.helper(PATH=path) as helper:
        args = desk.system.args(image=tag, runner_config=[(Atom("create_image"), Atom("always"))])
        helper.start("build", args)
        assert wait_until(lambda: noted.exists() and noted.read_text().endswith("\n"))
        group = int(noted.read_text())
        os.killpg(group, 0)
        helper.signal(number)
        assert wait_until(lambda: not _is_there(group))


def _is_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_broken_credential_helper_is_left_out_where_buildx_fails_by_it(
    buildx: Desk, private: Registry, small: str, tag: str
) -> None:
    """Only a registry that wants to know who comes has buildx ask the helper."""
    buildx.program("docker-credential-broken", "echo the keychain is locked; exit 1")
    buildx.configure(credsStore="broken")
    buildx.system.write("my_system/Dockerfile", f"FROM {private.host}/{small}\nCOPY tool /tool\n")
    buildx.system.write("my_system/tool", "x")
    conversation = buildx.build(image=tag, docker_cli=True, settings={"create_image": "always"})
    (warning,) = conversation.warnings
    assert "could not be read" in warning
    assert "the keychain is locked" in warning
    error = conversation.error
    assert error is not None
    assert error["code"] == "image_build_failed"
    # The second try came as far as the registry.
    assert "error getting credentials" not in error["message"].split("-----")[0]
    assert buildx.system.build_log.read_text().count("[internal] load build definition") > 1


def test_a_broken_credential_helper_does_not_stand_before_a_build_through_the_api(
    desk: Desk, registry: Registry, small: str, tag: str, client: docker.DockerClient
) -> None:
    desk.program("docker-credential-broken", "exit 1")
    desk.configure(credsStore="broken")
    desk.system.write("my_system/Dockerfile", f"FROM {registry.host}/{small}\nCOPY tool /tool\n")
    desk.system.write("my_system/tool", "x")
    conversation = desk.build(image=tag, settings={"create_image": "always"})
    assert "build_image" in conversation.finished, conversation.error
    (warning,) = conversation.warnings
    assert "The image is built without them." in warning
    forget(client, f"{registry.host}/{small}")


def test_credentials_reach_a_build_for_its_base_image(
    desk: Desk, private: Registry, small: str, tag: str, client: docker.DockerClient
) -> None:
    desk.configure(auths={private.host: basic(USER, PASSWORD)})
    desk.system.write("my_system/Dockerfile", f"FROM {private.host}/{small}\nCOPY tool /tool\n")
    desk.system.write("my_system/tool", "x")
    conversation = desk.build(image=tag, settings={"create_image": "always"})
    assert "build_image" in conversation.finished, conversation.error
    forget(client, f"{private.host}/{small}")
