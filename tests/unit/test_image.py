"""Images: found by their exact name, and told apart by what they say of themselves. Pulls: tests/faults."""

from __future__ import annotations

import pytest

from nerves_docker_port.engine.client import Engine
from nerves_docker_port.errors import Code, RunnerError
from nerves_docker_port.image import ensure as image
from nerves_docker_port.image.ensure import Image
from nerves_docker_port.request.request import NEW, OLD
from support.fake_engine import FakeEngine


def test_an_image_says_what_it_is(engine: Engine, fake: FakeEngine) -> None:
    fake.add_image("mine:1", Entrypoint=["/nerves/entrypoint.sh", "x"], WorkingDir="/nerves", User="root")
    found = image.find(engine, "mine:1")
    assert found is not None
    assert found.id == fake.images["mine:1"]["Id"]
    assert (found.tag, found.entrypoint, found.workdir, found.user) == (
        "mine:1",
        ("/nerves/entrypoint.sh", "x"),
        "/nerves",
        "root",
    )


def test_an_image_that_says_nothing_of_itself_is_found(engine: Engine, fake: FakeEngine) -> None:
    fake.images["bare:1"] = {"Id": "sha256:0"}
    assert image.find(engine, "bare:1") == Image("bare:1", "sha256:0", (), "", "")
    fake.images["bare:1"]["Config"] = {"Entrypoint": None, "WorkingDir": None, "User": None}
    assert image.find(engine, "bare:1") == Image("bare:1", "sha256:0", (), "", "")


def test_an_image_that_is_not_there_is_none(engine: Engine) -> None:
    assert image.find(engine, "mine:1") is None


def test_an_image_with_registry_port_and_digest_is_asked_for_as_it_is(engine: Engine, fake: FakeEngine) -> None:
    for tag in ("localhost:5000/me/mine:1", "ghcr.io/me/mine@sha256:" + "0" * 64):
        fake.add_image(tag)
        assert image.find(engine, tag) is not None


def test_an_engine_that_cannot_tell_is_not_an_image_that_is_missing(engine: Engine, fake: FakeEngine) -> None:
    fake.on("GET", "/images/.*", lambda exchange: exchange.error(500, "the disk fell off"))
    with pytest.raises(RunnerError, match="while it looked for the image mine:1: the disk fell off") as caught:
        image.find(engine, "mine:1")
    assert caught.value.code is Code.INTERNAL


@pytest.mark.parametrize(
    ("entrypoint", "workdir", "generation"),
    [
        ((), "/home/nerves/project", NEW),
        ((), "", NEW),
        (("/nerves/entrypoint.sh",), "/nerves/build", OLD),
        ((), "/nerves/build", OLD),
        (("/nerves/entrypoint.sh",), "", OLD),
    ],
)
def test_the_generation_goes_by_entrypoint_and_working_directory(
    entrypoint: tuple[str, ...], workdir: str, generation: object
) -> None:
    assert Image("mine:1", "sha256:0", entrypoint, workdir, "").generation() is generation
