"""Images: is it there, pull it, and what it says about itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import docker.errors
from docker.utils import parse_repository_tag

from nerves_docker_port import errors
from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine import Engine
from nerves_docker_port.reporter import Reporter, stage
from nerves_docker_port.request import NEW, OLD, Generation, ImageConfig


@dataclass(frozen=True)
class Image:
    """An image at the engine."""

    tag: str
    id: str
    entrypoint: tuple[str, ...]
    """Empty where it has none."""
    workdir: str
    user: str

    def generation(self) -> Generation:
        """Which kind of builder this is, from the image itself: for platforms whose version does not tell."""
        return OLD if self.workdir.startswith("/nerves") or self.entrypoint else NEW


def find(engine: Engine, tag: str) -> Image | None:
    """The image called ``tag``, or ``None`` if the engine has none."""
    with engine.failures(f"while it looked for the image {tag}"):
        try:
            found = engine.api.inspect_image(tag)
        except docker.errors.NotFound:
            return None
    config: Mapping[str, Any] = found.get("Config") or {}
    return Image(
        tag=tag,
        id=str(found["Id"]),
        entrypoint=tuple(config.get("Entrypoint") or ()),
        workdir=str(config.get("WorkingDir") or ""),
        user=str(config.get("User") or ""),
    )


def ensure(engine: Engine, wanted: ImageConfig, reporter: Reporter, cancellation: Cancellation) -> Image:
    """The wanted image, pulled if the engine does not have it.

    Raises ``RunnerError`` ``:image_unavailable``.
    """
    image = find(engine, wanted.tag)
    if image is not None:
        return image
    reporter.headline("Trying to pull image")
    with stage(reporter, "pull"):
        reason = _pull(engine, wanted.tag, reporter, cancellation)
    image = find(engine, wanted.tag)
    if image is None:
        dockerfile = str(wanted.dockerfile) if wanted.dockerfile.is_file() else None
        raise errors.image_unavailable(wanted.tag, reason or "the registry sent another image", dockerfile)
    return image


def _pull(engine: Engine, tag: str, reporter: Reporter, cancellation: Cancellation) -> str | None:
    """Pull ``tag``; why it could not be pulled, or ``None``.

    A pull that fails after it began has status 200 and an ``error`` among its events, which the SDK passes on unseen.
    """
    repository, version = parse_repository_tag(tag)
    try:
        with engine.failures(f"while it pulled {tag}"):
            events = engine.api.pull(repository, tag=version or "latest", stream=True, decode=True)
            with cancellation.on_cancel(events.close if hasattr(events, "close") else lambda: None):
                return _follow_pull(events, reporter, cancellation)
    except errors.RunnerError as error:
        cancellation.check()
        if error.code is not errors.Code.INTERNAL:
            raise
        return error.message


def _follow_pull(events: Iterable[Mapping[str, Any]], reporter: Reporter, cancellation: Cancellation) -> str | None:
    layers: dict[str, tuple[int, int]] = {}
    for event in events:
        cancellation.check()
        if "error" in event:
            return str(event["error"])
        detail = event.get("progressDetail") or {}
        if event.get("status") == "Downloading" and "total" in detail:
            layers[str(event.get("id"))] = (int(detail.get("current", 0)), int(detail["total"]))
            current, total = (sum(column) for column in zip(*layers.values(), strict=True))
            reporter.progress("Pulling image", current, total, "bytes")
    return None
