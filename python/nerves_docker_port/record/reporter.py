"""The interface through which a flow sends messages to the person: over the port, on a terminal, or to a test."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from nerves_docker_port.stages import StageName, Status, Unit


class Reporter(Protocol):
    """Receives the messages of a flow. docs/protocol.md describes each event."""

    def headline(self, text: str) -> None:
        """Announce what the runner does next."""

    def log(self, lines: bytes) -> None:
        """Show whole lines of a container's output, joined by newlines, on the terminal."""

    def stage_started(self, name: StageName) -> None:
        """Report that a stage has started."""

    def stage_finished(self, name: StageName, milliseconds: int) -> None:
        """Report that a stage has succeeded."""

    def progress(self, what: str, current: int, total: int | None, unit: Unit) -> None:
        """Report the progress of a long task; ``total`` is ``None`` if it is not known."""

    def status(self, status: Status) -> None:
        """Show the status of the build in place of the status before. A thread of its own calls this."""

    def warning(self, text: str) -> None:
        """Report a problem that does not stop the flow."""

    def ask(self, text: str, *, default: bool) -> bool:
        """Ask a yes or no question, and return the answer. Return ``default`` if there is no user at a terminal."""


@contextmanager
def stage(reporter: Reporter, name: StageName) -> Iterator[None]:
    """Report the body as a stage: its start and, if it does not raise, its duration."""
    started = time.monotonic()
    reporter.stage_started(name)
    yield
    reporter.stage_finished(name, round((time.monotonic() - started) * 1000))
