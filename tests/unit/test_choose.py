"""Which workspace a build gets, where the engine need not be asked."""

from __future__ import annotations

import io
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import docker.errors
import pytest

from nerves_docker_port.engine import archive, container
from nerves_docker_port.engine.client import Capabilities, Engine
from nerves_docker_port.engine.container import Spec
from nerves_docker_port.image.ensure import Image
from nerves_docker_port.request.settings import WorkspaceKind
from nerves_docker_port.workspace.choose import is_here, sees, which

IMAGE = Image(tag="tag", id="id", entrypoint=(), workdir="", user="")
HERE: dict[str, Any] = {"name": platform.node(), "kernel": os.uname().release}


def engine(url: str = "unix:///var/run/docker.sock", **capabilities: Any) -> Engine:
    """An engine that may be looked at, and fails when it is asked anything."""
    known = Capabilities("20.10", "1.41", "amd64", rootless=False, **capabilities)
    return cast(Engine, SimpleNamespace(endpoint=SimpleNamespace(url=url), capabilities=known, is_podman=False))


@pytest.mark.parametrize("setting", ["mounted", "copied"])
def test_a_setting_decides_without_a_question(setting: WorkspaceKind) -> None:
    choice = which(engine(), setting, IMAGE, Path("/none"))
    assert choice.kind == setting
    assert f"workspace: :{setting}" in choice.reason


def test_an_engine_on_this_machine_is_not_asked() -> None:
    choice = which(engine(**HERE), "auto", IMAGE, Path("/none"))
    assert choice.kind == "mounted"
    assert "on this machine" in choice.reason


def test_an_engine_that_maps_user_ids_gets_copies() -> None:
    choice = which(engine(**HERE, maps_users=True), "auto", IMAGE, Path("/none"))
    assert choice.kind == "copied"
    assert "maps user ids" in choice.reason


def test_docker_desktop_is_not_asked_for_its_own_files() -> None:
    assert which(engine(name="docker-desktop", system="Docker Desktop"), "auto", IMAGE, Path("/n")).kind == "mounted"


@pytest.mark.parametrize(
    "found",
    [
        engine("tcp://127.0.0.1:2375", **HERE),
        engine("ssh://me@host", **HERE),
        engine(**{**HERE, "name": "another"}),
        engine(**{**HERE, "kernel": "another"}),
        engine(),
    ],
)
def test_any_other_engine_is_not_taken_for_one_on_this_machine(found: Engine) -> None:
    assert not is_here(found)


NOT_THERE = 'invalid mount config for type "bind": bind source path does not exist: /somewhere'


@pytest.mark.parametrize("podman", [False, True])
@pytest.mark.parametrize(
    ("shown", "refusal", "answer"),
    [
        (b"id", None, True),
        (b"another", None, False),
        (None, None, False),
        (None, NOT_THERE, False),
        (None, "authorization denied by plugin", True),
    ],
)
def test_the_engine_is_shown_no_more_of_its_host_than_the_question_needs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    podman: bool,
    shown: bytes | None,
    refusal: str | None,
    answer: bool,
) -> None:
    """Docker mounts it on its own host, and nobody there can remove a directory on which something was mounted."""
    file = tmp_path / "id"
    file.write_bytes(b"id")

    def create(_engine: Engine, spec: Spec) -> str:
        (mount,) = spec.mounts
        # Podman would make a directory that it does not find.
        assert mount.source == ("/" if podman else str(tmp_path))
        if refusal is not None:
            raise docker.errors.APIError("400", explanation=refusal)
        return "made"

    @contextmanager
    def opened(_engine: Engine, _container: str, path: str) -> Iterator[io.BytesIO | None]:
        assert path == (f"/probe{file}" if podman else "/probe/id")
        yield None if shown is None else io.BytesIO(shown)

    monkeypatch.setattr(container, "create", create)
    monkeypatch.setattr(container, "remove", lambda _engine, _container: None)
    monkeypatch.setattr(archive, "opened", opened)
    asked = SimpleNamespace(failures=lambda _doing: nullcontext(), cleaning_up=nullcontext, is_podman=podman)
    assert sees(cast(Engine, asked), IMAGE, file) == answer
