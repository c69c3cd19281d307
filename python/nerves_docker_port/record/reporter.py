"""What a flow tells the person, whoever passes it on: the port's session, a terminal, a test."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from nerves_docker_port.stages import StageName, Unit


class Reporter(Protocol):
    """The receiving end of a flow's messages. docs/protocol.md has the meaning of each event."""

    def headline(self, text: str) -> None:
        """The runner announces something."""

    def log(self, lines: bytes) -> None:
        """Whole lines of a container's output for the terminal, joined by newlines."""

    def stage_started(self, name: StageName) -> None:
        """A stage begins."""

    def stage_finished(self, name: StageName, milliseconds: int) -> None:
        """A stage ended well."""

    def progress(self, what: str, current: int, total: int | None, unit: Unit) -> None:
        """How far something long has come."""

    def warning(self, text: str) -> None:
        """Something is not as it should be, but the flow goes on."""

    def ask(self, text: str, *, default: bool) -> bool:
        """A question, waited for; without a person at a terminal the answer is ``default``."""


@contextmanager
def stage(reporter: Reporter, name: StageName) -> Iterator[None]:
    """Report the body as a stage: its start and, where it ends well, its duration."""
    started = time.monotonic()
    reporter.stage_started(name)
    yield
    reporter.stage_finished(name, round((time.monotonic() - started) * 1000))
