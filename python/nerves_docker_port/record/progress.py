"""Tells the person, again and again, where a build is.

Two threads work beside the flow's: one says what is known by then, the other finds out what there is to build and what
earlier builds tell of it, which may take a minute. Neither is waited for, and nothing depends on them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from nerves_docker_port.record import estimate
from nerves_docker_port.record.course import Course
from nerves_docker_port.record.estimate import Past, Plan
from nerves_docker_port.record.headline import Parts
from nerves_docker_port.record.history import History, Packages, parse_packages
from nerves_docker_port.record.journal import Configuration
from nerves_docker_port.stages import StageName, Status

STAGES: Final[dict[StageName, str]] = {
    "create_build": "Preparing the build directory",
    "make": "Starting Buildroot",
    "make_system": "Packing the system",
}
"""The stages in which there is something to tell, and what they do before Buildroot says more."""

_REFRESH: Final = 5.0
"""Seconds after which the status is told again although nothing has happened: the peer counts on by itself."""
_PAUSE: Final = 0.2
"""Seconds between two tellings, at least."""
_ASK_AFTER: Final = 1.0
"""Seconds after its first package that a build is asked what there is to build. The question is work for the engine,
and would make a build that ends sooner take longer."""


class Tracker:
    """The progress of one flow. Its methods are called by the flow's thread."""

    def __init__(
        self,
        history: History,
        make_args: tuple[str, ...],
        tell: Callable[[Status], None] | None,
        keep: Callable[[Configuration], None],
    ) -> None:
        """``tell`` gets the status, if somebody wants it, and ``keep`` what is built, as soon as that is known.

        ``make_args`` are as the journal has them.
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
        self._is_telling = False
        self._teller: threading.Thread | None = None
        self._names: frozenset[str] | None = None
        self._plan: Plan | None = None
        self._before: frozenset[str] = frozenset()
        self._pasts: Sequence[Past] = ()
        self._left: tuple[float, float | None] = (0.0, None)

    def stage_started(self, name: StageName) -> None:
        """A stage has begun."""
        with self._lock:
            self._course.stage(name, time.monotonic())
            self._is_telling = name in STAGES
        if self._is_telling and self._tell is not None and self._teller is None:
            self._teller = threading.Thread(target=self._say, args=(self._tell,), name="status", daemon=True)
            self._teller.start()
        self._changed.set()

    def stage_finished(self) -> None:
        """The stage has ended: until the next one begins, there is nothing to tell."""
        with self._lock:
            self._is_telling = False

    def headlines(self, found: Sequence[Parts]) -> None:
        """Buildroot has begun these steps."""
        now = time.monotonic()
        with self._lock:
            for parts in found:
                self._course.headline(parts, now)
        if any(parts.package for parts in found):
            self._packages_seen.set()
        self._changed.set()

    def ask(self, look: Callable[[str], bytes | None]) -> None:
        """Find out what is to be built. ``look`` runs scripts/packages.sh with an argument; its output."""
        threading.Thread(target=self._find_out, args=(look,), name="look", daemon=True).start()

    def close(self) -> None:
        """There is nothing more to tell. Whatever is being told is told when this returns."""
        with self._lock:
            self._closed.set()
        self._packages_seen.set()
        self._changed.set()

    # --- What there is to build --------------------------------------------------------------------------------

    def _find_out(self, look: Callable[[str], bytes | None]) -> None:
        # Where there is nothing to build, no package begins.
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
            # What has begun meanwhile was not there before.
            begun = {package for package, _ in self._course.first}
            self._before = packages.built({word for what, word in words if what == "built"}) - begun
            self._names = packages.names
            self._plan = Plan(self._names - self._before, self._make_args, configuration)
            self._pasts = own
            is_known = self._time_left(time.monotonic()) is not None
        self._keep(Configuration(configuration, tuple(sorted(packages.names)), tuple(sorted(self._before))))
        if not is_known:
            pasts = [*own, *self._history.others()]
            with self._lock:
                self._pasts = pasts
        self._changed.set()

    def _list(self, look: Callable[[str], bytes | None], configuration: str) -> Packages | None:
        packages = parse_packages(look("list") or b"")
        if packages is not None:
            self._history.remember(configuration, packages)
        return packages

    # --- Telling -----------------------------------------------------------------------------------------------

    def _say(self, tell: Callable[[Status], None]) -> None:
        while True:
            self._changed.clear()
            with self._lock:
                if self._closed.is_set():
                    return
                # Told with the lock held, so that nothing is told after the end of a stage.
                if self._is_telling:
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
            done = len(self._names & (self._before | course.finished(now)))
            total = len(self._names)
            left = self._time_left(now)
        return Status(now - course.began, tuple(tasks), done, total, left)

    def _time_left(self, now: float) -> float | None:
        assert self._plan is not None
        # It takes a few milliseconds for a large build, so it is not done for each headline.
        if now - self._left[0] > 1:
            self._left = now, estimate.left(self._course, now, self._plan, self._pasts)
        at, left = self._left
        return None if left is None else max(0.0, left - (now - at))
