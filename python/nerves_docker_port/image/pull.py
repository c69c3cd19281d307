"""Pulls an image with the person's credentials, and reports progress and the reason of a failure."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from docker.utils import parse_repository_tag

from nerves_docker_port import errors
from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine import credentials, transfer
from nerves_docker_port.engine.client import Engine
from nerves_docker_port.record.reporter import Reporter
from nerves_docker_port.request import image_name

PROGRESS_INTERVAL = 0.2
"""Seconds between two progress events. The engine sends ten events a second for each layer."""

# The answers to missing or wrong credentials: "unauthorized: authentication required" and "incorrect username or
# password" (Docker Hub), "denied: denied" (ghcr.io), "no basic auth credentials" (the engine), "401 Unauthorized"
# (proxies).
_REFUSED = re.compile(r"unauthorized|denied|basic auth|incorrect username|authentication|\b40[13]\b", re.IGNORECASE)


def pull(engine: Engine, tag: str, reporter: Reporter, cancellation: Cancellation) -> str | None:
    """Pull ``tag``. Return ``None``, or the reason why it could not be pulled.

    If the credentials that Docker keeps cannot be read, or the registry refuses them, the pull is tried without
    credentials, because broken credentials must not prevent the pull of a public image.
    Raises ``RunnerError`` ``:disk_full``, ``:cancelled``, or an error of the engine.
    """
    try:
        registry = image_name.parse(tag).registry
    except ValueError as error:
        return str(error)
    config = engine.endpoint.config
    broken = None
    try:
        kept = credentials.for_registry(engine, registry, cancellation)
    except credentials.BrokenError as error:
        kept, broken = None, str(error)
        reporter.warning(
            f"The credentials for {registry} could not be read ({config.path}): {broken}\nTrying without credentials."
        )
    reason = _pull(engine, tag, kept or {}, reporter, cancellation)
    if reason is not None and kept is not None and _REFUSED.search(reason):
        reporter.warning(
            f"The registry {registry} does not take the credentials that Docker keeps for it "
            f"({config.path}): {reason}\nTrying without credentials."
        )
        # If this fails, too, the first reason is more useful: it is about the credentials that the person has.
        reason = _pull(engine, tag, {}, reporter, cancellation) and reason
    if reason is not None and broken is not None and _REFUSED.search(reason):
        return f"{reason} (without credentials, because they could not be read: {broken})"
    return reason


def _pull(
    engine: Engine, tag: str, kept: Mapping[str, Any], reporter: Reporter, cancellation: Cancellation
) -> str | None:
    """Try to pull once. Return ``None``, or the reason why it failed.

    The engine answers with status 200 before it pulls. So a failure during the pull is an event with an ``error``.
    """
    repository, version = parse_repository_tag(tag)
    params = {"fromImage": repository, "tag": version or "latest"}
    if engine.platform is not None:
        params["platform"] = engine.platform
    with engine.failures(f"while it pulled {tag}"):
        try:
            with closing(
                transfer.events(
                    engine,
                    "/images/create",
                    params=params,
                    headers={"X-Registry-Auth": credentials.header(kept)},
                    cancellation=cancellation,
                )
            ) as events:
                reason = _follow(events, Progress("Pulling image", "Unpacking image", reporter))
        except (transfer.RefusedError, transfer.StalledError) as error:
            reason = str(error)
    if reason is not None and errors.says_disk_full(reason):
        raise errors.disk_full(f"The engine ran out of disk space while it pulled {tag}: {reason}")
    return reason


def _follow(events: Iterable[Mapping[str, Any]], progress: Progress) -> str | None:
    for event in events:
        reason = error_in(event)
        if reason is not None:
            return reason
        progress.take(event)
    progress.finish()
    return None


def error_in(event: Mapping[str, Any]) -> str | None:
    """Return the error message in an event, or ``None`` if the event reports no error."""
    if "error" not in event and "errorDetail" not in event:
        return None
    detail = event.get("errorDetail")
    text = event.get("error") or (detail.get("message") if isinstance(detail, dict) else None)
    return str(text or "the engine does not say why").strip()


@dataclass
class _Layer:
    """The state of one layer. All sizes are in bytes.

    The engine never reports the size of a layer that it already has, or that is very small.
    """

    size: int | None = None
    downloaded: int = 0
    unpacked: int = 0
    is_downloaded: bool = False
    is_unpacked: bool = False


class Progress:
    """Computes the progress of a pull, in layers and in bytes, from the events of the engine, and reports it."""

    def __init__(self, pulling: str, unpacking: str, reporter: Reporter) -> None:
        self._pulling = pulling
        self._unpacking = unpacking
        self._reporter = reporter
        self._layers: dict[str, _Layer] = {}
        self._reported: tuple[str, int, int | None] | None = None
        self._reported_at = 0.0

    def take(self, event: Mapping[str, Any]) -> bool:
        """Take in one event, and report progress if it is due. Return whether the event was about a layer."""
        status = str(event.get("status", ""))
        layer = self._layer(str(event.get("id", "")), status)
        if layer is None:
            return False
        detail = event.get("progressDetail")
        detail = detail if isinstance(detail, dict) else {}
        current, total = detail.get("current"), detail.get("total")
        if status == "Downloading":
            if isinstance(current, int):
                layer.downloaded = current
            if isinstance(total, int) and total > 0:
                layer.size = total
        elif status in ("Verifying Checksum", "Download complete"):
            layer.is_downloaded = True
        elif status == "Extracting":
            layer.is_downloaded = True
            # An engine with the containerd image store counts seconds here, and sends no total.
            if isinstance(current, int) and isinstance(total, int) and total > 0:
                layer.size, layer.unpacked = total, current
        elif status in ("Pull complete", "Already exists"):
            layer.is_downloaded = layer.is_unpacked = True
        elif status.startswith("Retrying in"):
            layer.downloaded = 0
        self._report(last=False)
        return True

    def finish(self) -> None:
        """Report the last state after a pull that succeeded."""
        if any(layer.size for layer in self._layers.values()):
            self._report(last=True)

    def _layer(self, name: str, status: str) -> _Layer | None:
        if not name or not status.startswith(
            (
                *("Pulling fs layer", "Waiting", "Downloading", "Verifying Checksum", "Download complete"),
                *("Extracting", "Pull complete", "Already exists", "Retrying in"),
            )
        ):
            return None
        return self._layers.setdefault(name, _Layer())

    def _report(self, *, last: bool) -> None:
        now = time.monotonic()
        layers = self._layers.values()
        if not last and (now - self._reported_at < PROGRESS_INTERVAL or not any(layer.size for layer in layers)):
            return
        what, done, current = self._unpacking, sum(layer.is_unpacked for layer in layers), 0
        if all(layer.is_downloaded for layer in layers):
            current = sum((layer.size or 0) if layer.is_unpacked else layer.unpacked for layer in layers)
        else:
            what, done = self._pulling, sum(layer.is_downloaded for layer in layers)
            current = sum((layer.size or 0) if layer.is_downloaded else layer.downloaded for layer in layers)
        # While the size of a layer is unknown there is no total: it would grow later, and the percentage would fall.
        known = all(layer.size is not None or layer.is_downloaded for layer in layers)
        total = sum(layer.size or 0 for layer in layers) if known else None
        report = (f"{what}, {done} of {len(layers)} layers", current, total)
        if report != self._reported:
            self._reported, self._reported_at = report, now
            self._reporter.progress(*report, "bytes")
