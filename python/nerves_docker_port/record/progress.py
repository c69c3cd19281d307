"""Reports the status of a build to the user, again and again.

Two threads run in parallel with the flow. The first sends the status. The second finds out which packages the build has
and how long earlier builds took for them, which may take a minute. The flow never waits for them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from nerves_docker_port.record import estimate
from nerves_docker_port.record.course import Course
from nerves_docker_port.record.estimate import EarlierBuild, Plan
from nerves_docker_port.record.headline import Parts
from nerves_docker_port.record.history import History, Packages, parse_packages
from nerves_docker_port.record.journal import Configuration
from nerves_docker_port.stages import StageName, Status

STAGES: Final[dict[StageName, str]] = {
    "create_build": "Preparing the build directory",
    "make": "Starting Buildroot",
    "make_system": "Packing the system",
}
"""The stages in which the status is sent, with the text that it has until Buildroot prints a headline."""

_REFRESH: Final = 5.0
"""Seconds after which the status is sent again even if nothing has happened. The peer itself counts the time on."""
_PAUSE: Final = 0.2
"""The least number of seconds between two statuses."""
_ASK_AFTER: Final = 1.0
"""Seconds after the first package of a build before the helper asks what the build has to do. This question is work for
the engine, so a build that ends sooner would take longer because of it."""


class Tracker:
    """The progress of one flow. The flow's thread calls its methods."""

    def __init__(
        self,
        history: History,
        make_args: tuple[str, ...],
        tell: Callable[[Status], None] | None,
        keep: Callable[[Configuration], None],
    ) -> None:
        """Make a tracker for one flow.

        ``tell`` is called with each status; ``None`` if the status is not shown. ``keep`` is called with the
        configuration as soon as it is known. ``make_args`` have the form in which the journal keeps them.
        """
        self._history = history
        self._make_args = make_args
        self._tell = tell
        self._keep = keep
        self._course = Course(time.monotonic())
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._packages_seen = threading.Event()
        self._closed = threading.Event()
        self._is_active = False
        self._sender: threading.Thread | None = None
        self._names: frozenset[str] | None = None
        self._plan: Plan | None = None
        self._built_before: frozenset[str] = frozenset()
        self._earlier: Sequence[EarlierBuild] = ()
        self._last_estimate: tuple[float, float | None] = (0.0, None)
        """The time of the last estimate, and the seconds that were left then."""

    def stage_started(self, name: StageName) -> None:
        """Note that a stage has begun."""
        with self._lock:
            self._course.stage(name, time.monotonic())
            self._is_active = name in STAGES
        if self._is_active and self._tell is not None and self._sender is None:
            self._sender = threading.Thread(target=self._send_statuses, args=(self._tell,), name="status", daemon=True)
            self._sender.start()
        self._changed.set()

    def stage_finished(self) -> None:
        """Note that the stage has ended. No status is sent until the next one begins."""
        with self._lock:
            self._is_active = False

    def headlines(self, found: Sequence[Parts]) -> None:
        """Note that Buildroot has begun these steps."""
        now = time.monotonic()
        with self._lock:
            for parts in found:
                self._course.headline(parts, now)
        if any(parts.package for parts in found):
            self._packages_seen.set()
        self._changed.set()

    def ask(self, look: Callable[[str], bytes | None]) -> None:
        """Start a thread that finds out what is built.

        ``look`` runs scripts/packages.sh with an argument and returns its output, or ``None`` if it fails.
        """
        threading.Thread(target=self._find_out, args=(look,), name="look", daemon=True).start()

    def close(self) -> None:
        """Send no more status. A status that is being sent has been sent when this returns."""
        with self._lock:
            self._closed.set()
        self._packages_seen.set()
        self._changed.set()

    # --- The packages of the build -----------------------------------------------------------------------------

    def _find_out(self, look: Callable[[str], bytes | None]) -> None:
        # If there is nothing to build, no package begins.
        self._packages_seen.wait()
        if self._closed.wait(_ASK_AFTER):
            return
        own = self._history.own()
        found = look("look")
        words = [line.split(" ", 1) for line in (found or b"").decode(errors="replace").splitlines() if " " in line]
        configuration = next((word for what, word in words if what == "config"), None)
        if configuration is None:
            return
        packages = self._history.packages_of(configuration) or self._list(look, configuration)
        if packages is None:
            return
        with self._lock:
            # A package whose first step has begun since the flow began was not built before.
            begun = {package for package, _ in self._course.first}
            self._built_before = packages.built({word for what, word in words if what == "built"}) - begun
            self._names = packages.names
            self._plan = Plan(self._names - self._built_before, self._make_args, configuration)
            self._earlier = own
            is_known = self._time_left(time.monotonic()) is not None
        self._keep(Configuration(configuration, tuple(sorted(packages.names)), tuple(sorted(self._built_before))))
        if not is_known:
            earlier = [*own, *self._history.others()]
            with self._lock:
                self._earlier = earlier
        self._changed.set()

    def _list(self, look: Callable[[str], bytes | None], configuration: str) -> Packages | None:
        packages = parse_packages(look("list") or b"")
        if packages is not None:
            self._history.remember(configuration, packages)
        return packages

    # --- Sending the status ------------------------------------------------------------------------------------

    def _send_statuses(self, tell: Callable[[Status], None]) -> None:
        while True:
            self._changed.clear()
            with self._lock:
                if self._closed.is_set():
                    return
                # The lock is held while the status is sent, so that no status is sent after the end of a stage.
                if self._is_active:
                    tell(self._status(time.monotonic()))
            self._changed.wait(_REFRESH)
            time.sleep(_PAUSE)

    def _status(self, now: float) -> Status:
        course = self._course
        tasks = [(f"{package} {step}", now - since) for package, step, since in course.under_way(now)]
        if not tasks and course.last is not None:
            step = course.last[1]
            stage = next((text for name, text in STAGES.items() if step == f"stage {name}"), step)
            tasks = [(stage, now - course.last_at)]
        done = total = left = None
        if self._names is not None:
            done = len(self._names & (self._built_before | course.finished(now)))
            total = len(self._names)
            left = self._time_left(now)
        return Status(now - course.began, tuple(tasks), done, total, left)

    def _time_left(self, now: float) -> float | None:
        assert self._plan is not None
        # The estimate takes a few milliseconds for a large build, so it is made at most once in a second.
        if now - self._last_estimate[0] > 1:
            self._last_estimate = now, estimate.left(self._course, now, self._plan, self._earlier)
        at, left = self._last_estimate
        return None if left is None else max(0.0, left - (now - at))
