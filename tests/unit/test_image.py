"""Images are found by their exact names, and their generation is read from their configuration.

The tests of pulls are in tests/faults.
"""

from __future__ import annotations

import pytest

from nerves_docker_port.engine.client import Engine
from nerves_docker_port.errors import Code, RunnerError
from nerves_docker_port.image import ensure as image
from nerves_docker_port.image.ensure import Image
from nerves_docker_port.request.request import NEW, OLD
from support.fake_engine import FakeEngine


def test_the_properties_of_an_image_are_read(engine: Engine, fake: FakeEngine) -> None:
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


def test_an_image_without_a_configuration_is_found(engine: Engine, fake: FakeEngine) -> None:
    fake.images["bare:1"] = {"Id": "sha256:0"}
    assert image.find(engine, "bare:1") == Image("bare:1", "sha256:0", (), "", "")
    fake.images["bare:1"]["Config"] = {"Entrypoint": None, "WorkingDir": None, "User": None}
    assert image.find(engine, "bare:1") == Image("bare:1", "sha256:0", (), "", "")


def test_a_missing_image_is_none(engine: Engine) -> None:
    assert image.find(engine, "mine:1") is None


def test_a_name_with_a_registry_port_or_a_digest_is_not_changed(engine: Engine, fake: FakeEngine) -> None:
    for tag in ("localhost:5000/me/mine:1", "ghcr.io/me/mine@sha256:" + "0" * 64):
        fake.add_image(tag)
        assert image.find(engine, tag) is not None


def test_an_error_of_the_engine_does_not_mean_that_the_image_is_missing(engine: Engine, fake: FakeEngine) -> None:
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
def test_entrypoint_and_working_directory_decide_the_generation(
    entrypoint: tuple[str, ...], workdir: str, generation: object
) -> None:
    assert Image("mine:1", "sha256:0", entrypoint, workdir, "").generation() is generation
