"""Writes the journal of a flow: the messages to the user, and other facts that the flow finds out."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nerves_docker_port import errors
from nerves_docker_port.record import headline, journal
from nerves_docker_port.record.history import History
from nerves_docker_port.record.journal import Journal, Record
from nerves_docker_port.record.progress import Tracker
from nerves_docker_port.record.reporter import Reporter
from nerves_docker_port.request.request import Request
from nerves_docker_port.request.settings import Settings
from nerves_docker_port.stages import StageName, Status, Unit

_JOBS_ARGUMENT = re.compile(r"-[jl] ?[0-9.]*|--jobs(=[0-9]+)?|[A-Z0-9_]*(JOBS|JLEVEL)=[0-9]*")

_FOLLOWED_PER_SECOND = 2000
"""How many headlines in one second are passed to the tracker at most. A build that compiles something has fewer."""


class Recorder:
    """A reporter that passes all messages on to another reporter and writes them to the journal."""

    def __init__(self, reporter: Reporter, kept: Journal, tracker: Tracker) -> None:
        self._reporter = reporter
        self._journal = kept
        self.tracker = tracker
        self.opened_at = time.time()
        """The time at which the flow began, in seconds since 1970."""
        self.has_seen_packages = False
        """Whether Buildroot has begun a step of a package."""
        self.not_kept = 0
        """How many headlines are not in the journal, because there were too many."""
        self._headlines_kept = 0
        self._second, self._followed = 0.0, 0

    def record(self, *records: Record) -> None:
        """Write records that are no messages to the user."""
        self._journal.write(*records)

    def headline(self, text: str) -> None:
        """See ``Reporter``."""
        self._reporter.headline(text)
        self.record(journal.Announced(text))

    def log(self, lines: bytes) -> None:
        """See ``Reporter``."""
        self._reporter.log(lines)
        text = lines.decode(errors="replace")
        count = lines.count(b"\n") + 1
        if self._headlines_kept + count <= journal.HEADLINES_KEPT:
            self._headlines_kept += count
            self.record(journal.Headline(text))
        else:
            self.not_kept += count
        if self._is_flood(count):
            return
        texts = text.split("\n")
        found = [parts for parts in map(headline.parse, texts) if parts is not None]
        self.has_seen_packages = self.has_seen_packages or any(parts.package for parts in found)
        self.tracker.headlines(found)

    def _is_flood(self, count: int) -> bool:
        """Return whether too many headlines have come in this second, including these ``count``.

        The tracker does not get them then, because its work would delay the log.
        """
        now = time.monotonic()
        if now - self._second > 1:
            self._second, self._followed = now, 0
        self._followed += count
        return self._followed > _FOLLOWED_PER_SECOND

    def stage_started(self, name: StageName) -> None:
        """See ``Reporter``."""
        self._reporter.stage_started(name)
        self.record(journal.StageBegan(name))
        self.tracker.stage_started(name)

    def stage_finished(self, name: StageName, milliseconds: int) -> None:
        """See ``Reporter``."""
        self.tracker.stage_finished()
        self._reporter.stage_finished(name, milliseconds)
        self.record(journal.StageEnded(name, milliseconds))

    def progress(self, what: str, current: int, total: int | None, unit: Unit) -> None:
        """See ``Reporter``."""
        self._reporter.progress(what, current, total, unit)

    def status(self, status: Status) -> None:
        """See ``Reporter``."""
        self._reporter.status(status)

    def warning(self, text: str) -> None:
        """See ``Reporter``."""
        self._reporter.warning(text)
        self.record(journal.Warned(text))

    def ask(self, text: str, *, default: bool) -> bool:
        """See ``Reporter``."""
        return self._reporter.ask(text, default=default)


@contextmanager
def recorded(request: Request, flow: str, reporter: Reporter, log: Path | None = None) -> Iterator[Recorder]:
    """Write a journal while the body of the `with` runs, which is the flow ``flow``. Yields the recorder.

    The journal also gets the outcome, whether the body returns or raises.
    """
    # Only a build makes the directory of the journals. Otherwise an archive that is refused because nothing was built
    # would leave a journal.
    where = journal.directory(request.names)
    kept = Journal(where, flow, make=flow == "build")
    history = History(request.home, where)
    began = _began_record(request, flow, log)
    tell = reporter.status if request.shows_status else None
    recorder = Recorder(reporter, kept, Tracker(history, began.make_args, tell, kept.write))
    try:
        if flow == "build":
            history.register()
        recorder.record(began)
        try:
            yield recorder
        finally:
            recorder.tracker.close()
            if recorder.not_kept:
                recorder.record(journal.Lost(recorder.not_kept))
        recorder.record(journal.Ended("ok"))
    except errors.RunnerError as error:
        # The lines of the log that an error shows stay in the log.
        message = error.message.partition("\n-----\n")[0].rstrip()
        recorder.record(journal.Ended(error.code.value, message, error.hint))
        raise
    except BaseException as error:
        recorder.record(journal.Ended(errors.Code.INTERNAL.value, type(error).__name__))
        raise
    finally:
        kept.close()
        _collect(request, flow, kept.path, reporter)


def _collect(request: Request, flow: str, kept: Path, reporter: Reporter) -> None:
    """Copy the record to the directory of the setting `record_dir`, if it is set.

    If this fails, the user gets a warning, and the flow does not fail.
    """
    directory = request.settings.record_dir
    if directory is None or flow not in ("build", "archive"):
        return
    # Imported here to save time, because most builds do not use this setting.
    from nerves_docker_port.record.collect import collect

    try:
        collect(kept, directory, flow)
    except errors.RunnerError as error:
        reporter.warning(error.message)


def _began_record(request: Request, flow: str, log: Path | None) -> journal.Began:
    return journal.Began(
        flow=flow,
        package=request.package.app,
        package_version=request.package.version,
        artifact=request.names.artifact,
        directory=str(request.package.path),
        log="" if log is None else str(log),
        make_args=tuple(_without_value(word) for word in request.make_args),
        settings=_without_secrets(request.settings),
    )


def _without_value(word: str) -> str:
    name, equals, _value = word.partition("=")
    return word if _JOBS_ARGUMENT.fullmatch(word) else name + equals


def _without_secrets(settings: Settings) -> dict[str, object]:
    """Return the settings for the journal, without any value that may contain a secret."""
    return {
        "env": sorted(settings.env),
        "ccache": settings.ccache is not None,
        "cpus": None if settings.cpus is None else str(settings.cpus),
        "memory": settings.memory,
        "swap": settings.swap,
        "network": settings.network,
        "ssh": settings.ssh,
        "pull": settings.pull,
        "workspace": settings.workspace,
        "patience": settings.patience,
        "mounts": [mount.target for mount in settings.mounts],
        "host_config": sorted(settings.host_config),
    }
