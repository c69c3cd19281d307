"""Finds where a build failed: which package, in which step, and which part of the log has the cause.

It reads the log once, in pieces, and keeps only its landmarks: Buildroot's headlines and make's own error lines. It
does not know what a cause looks like: ``cause`` does.
"""

from __future__ import annotations

import itertools
import re
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

_PIECE = 1 << 20
"""Bytes of one read. The piece stays in the processor's cache for all searches, and no log fills the memory."""
_BEFORE, _AFTER = 1024, 4096
"""Bytes around a mark in which the beginning and the end of its line are looked for."""
_KEPT = 8192
"""Landmarks of each sort that are kept, the latest. A large system has about 3,000 headlines."""
_LONGEST = 1000
"""Bytes of a landmark's line that are kept."""

# Literals: `re` finds them with memchr, at more than 1 GB/s. An alternation of them takes four times as long.
_HEADLINE_MARK = re.compile(rb">>> ")
_MAKE_MARK = re.compile(rb": \*\*\* ")
_RUN_MARK = re.compile(rb"Build directory successfully created\.")
"""The last words of nerves_system_br's create-build.sh: what follows is a run of its own."""

_INVERSE = b"\x1b[7m"
# A first look at the bytes, which rejects what is no landmark before anything of it is copied.
_LIKE_HEADLINE = re.compile(rb">>> [^ \n]* [^ \n]* [A-Z]")
_BEFORE_MAKE_MARK = frozenset(b"e]0123456789")
# `MESSAGE` in Buildroot's package/pkg-utils.mk writes `>>> name version step`; name and version can be empty.
_HEADLINE = re.compile(r">>> (?P<package>\S*) (?P<version>\S*) (?P<step>[A-Z].*)")
_STEP = re.compile(
    r"Downloading|Extracting|Patching|Configuring|Building|Installing |Autoreconfiguring|Fixing |Updating "
)
_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\([AB0]")

# GNU make, src/job.c and src/output.c: `make[2]: *** [Makefile:5: target] Error 2`, before 4.0 `make[2]: *** [target]
# Error 2`; a fatal error of its own ends in `.  Stop.`, and one in a makefile begins with file and line.
_MAKE = re.compile(r"(?:^|.*[^\w/.-])(?P<program>[\w/.-]*make)(?:\[(?P<level>\d+)\])?: \*\*\* (?P<said>.*)")
_MAKEFILE = re.compile(r"(?:.*\s)?(?P<file>[^\s:'\"]+):(?P<line>\d+): \*\*\* (?P<said>.*)")
_TARGET = re.compile(r"\[(?:(?P<where>[^\s\]]+:\d+|<[^>]*>): )?(?P<target>.*)\] (?P<status>\S.*)$")
_NEEDED_BY = re.compile(r"needed by ['`\u2018](?P<target>[^'\u2019]+)")
_WAITING = "Waiting for unfinished jobs"
_NO_CHILDREN = "wait: No child processes"
"""What make also prints when a signal has ended its jobs. Another line says which job failed."""

_BUILD_PATH = re.compile(r"/build/(?P<directory>[^/\s]+)/(?P<file>[^/\s]+)$")
_STAMP = re.compile(r"\.stamp_(?P<stamp>\w+)$")
_LEGAL_INFO = re.compile(r"(?P<package>\S+)-(?:all-)?legal-info$")
# The directory is `name-version`. Where no headline tells the name, the version begins at the first dash before a
# number, at a commit, or at a word that Buildroot uses instead of one.
_VERSION = re.compile(r"-(?:v?\d[^-]*(?:-[^-]+)*|[0-9a-f]{7,40}|custom|local|undefined|master|main|HEAD)$")

STEPS = {
    "downloaded": "Downloading",
    "actual_downloaded": "Downloading",
    "extracted": "Extracting",
    "rsynced": "Syncing from source dir",
    "patched": "Patching",
    "configured": "Configuring",
    "built": "Building",
    "host_installed": "Installing to host directory",
    "staging_installed": "Installing to staging directory",
    "target_installed": "Installing to target",
    "images_installed": "Installing to images directory",
}
"""The headline of the step that makes each of Buildroot's stamps (package/pkg-generic.mk)."""
_AFTERWORK = ("Fixing ", "Copying gdbserver")
"""Headlines within a step that do not name what the step is about."""
_STEPLESS = ("system", "defconfig", "dependencies", "_all", "all")
"""Targets that do not belong to the headline before them."""

INTERRUPTIONS = ("Interrupt", "Terminated", "Hangup", "Error 130", "Error 143", "Error 129")
"""What make writes of a target whose recipe was ended by SIGINT, SIGTERM or SIGHUP (strsignal, 128 + number)."""


@dataclass(frozen=True)
class Headline:
    """``>>> package version step``; ``package`` is empty for what concerns the whole system."""

    offset: int
    package: str
    version: str
    step: str

    @property
    def directory(self) -> str:
        """The name of the package's build directory (``<PKG>_BASENAME`` in package/pkg-generic.mk)."""
        return f"{self.package}-{self.version}" if self.version else self.package


@dataclass(frozen=True)
class MakeError:
    """A line of make's own that has ``***``: a failed target, or an error in a makefile."""

    offset: int
    level: int | None
    """How deep this make runs below the first one; ``None`` for an error in a makefile, which does not tell."""
    text: str
    said: str
    """The line without make's name."""
    target: str
    """The failed target, or the target that needs one that cannot be made; ``""`` for neither."""
    status: str
    """``Error 2``, ``Interrupt`` ... of a failed target; ``""`` otherwise."""
    makefile: str
    """The makefile that has an error itself; ``""`` for a failed target."""

    @property
    def end(self) -> int:
        """The offset behind the line."""
        return self.offset + len(self.text.encode())

    @property
    def is_waiting(self) -> bool:
        """Whether make only says that it waits for jobs that still run."""
        return self.said.startswith(_WAITING)

    @property
    def is_failure(self) -> bool:
        """Whether this ends its make, as against a remark such as ``*** Deleting file``."""
        if self.said.startswith(_NO_CHILDREN):
            return False
        return bool(self.status) or self.said.endswith("Stop.") or self.said.startswith("No rule to make target")

    @property
    def is_interruption(self) -> bool:
        """Whether the recipe was ended by a signal that a person or the runner sends."""
        return self.status.startswith(INTERRUPTIONS)


@dataclass
class Landmarks:
    """What one reading of a log keeps of it."""

    headlines: deque[Headline] = field(default_factory=lambda: deque(maxlen=_KEPT))
    errors: deque[MakeError] = field(default_factory=lambda: deque(maxlen=_KEPT))
    runs: deque[int] = field(default_factory=lambda: deque(maxlen=_KEPT))
    size: int = 0

    @property
    def end(self) -> int:
        """The offset of the last landmark; -1 if there is none."""
        last = [kept[-1] for kept in (self.headlines, self.errors) if kept]
        return max([*(landmark.offset for landmark in last), *list(self.runs)[-1:]], default=-1)


@dataclass(frozen=True)
class Place:
    """Where a build failed. Offsets are bytes in the log."""

    package: str | None
    step: str | None
    headline: str
    """The step's headline as it stands, with a script's or an overlay's path; ``""`` if there is none."""
    begin: int
    """Where the output of the failed step begins: the cause is not before it."""
    end: int
    """Where the error line of the innermost failed make begins: the cause is before it, or that line."""
    inner: MakeError
    """The innermost failed make's line."""
    outer: MakeError
    """Buildroot's own make's line."""
    last: MakeError
    """The outermost make's line: nothing of that run can come after it."""
    others_ran: bool
    """Whether other jobs of the same make still ran, and printed, when the innermost make failed."""
    patching: int | None
    """Where this package's ``Patching`` begins."""


def read_landmarks(log: BinaryIO) -> Landmarks:
    """Read ``log`` from its present position to its end, once. Takes about a second for 400 MB."""
    found = Landmarks()
    data, start = log.read(_PIECE), 0
    done = 0  # Marks before this index of `data` were found in the piece before.
    while data:
        more = log.read(_PIECE)
        # The end of a mark's line must be in `data`: what is too near to its end waits for the next piece.
        limit = len(data) - _AFTER if more else len(data)
        _keep_landmarks(data, start, done, limit, found)
        found.size = start + len(data)
        if not more:
            break
        kept = max(0, limit - _BEFORE)
        done = max(0, limit) - kept
        start += kept
        data = data[kept:] + more
    return found


def _keep_landmarks(data: bytes, start: int, first: int, limit: int, found: Landmarks) -> None:
    for mark in _HEADLINE_MARK.finditer(data, first, min(limit + 3, len(data))):
        if _LIKE_HEADLINE.match(data, mark.start()) and (headline := _headline(data, mark.start(), start)):
            found.headlines.append(headline)
    for mark in _MAKE_MARK.finditer(data, max(1, first), min(limit + 5, len(data))):
        if data[mark.start() - 1] in _BEFORE_MAKE_MARK and (error := _make_error(data, mark.start(), start)):
            found.errors.append(error)
    for mark in _RUN_MARK.finditer(data, first, min(limit + 36, len(data))):
        found.runs.append(start + mark.start())


def _headline(data: bytes, at: int, start: int) -> Headline | None:
    begins_line = data[max(0, at - 1) : at] in (b"", b"\n", b"\r") or data[max(0, at - len(_INVERSE)) : at] == _INVERSE
    match = _HEADLINE.match(_ESCAPE.sub("", _text(data, at, _end_of_line(data, at))))
    # In a parallel build without a terminal, a headline can follow the unfinished line of another package's job.
    if match is None or not (begins_line or _STEP.match(match["step"])):
        return None
    return Headline(start + at, match["package"], match["version"], match["step"].strip())


def _make_error(data: bytes, at: int, start: int) -> MakeError | None:
    begin = max(data.rfind(b"\n", max(0, at - _BEFORE), at), data.rfind(b"\r", max(0, at - _BEFORE), at)) + 1
    begin = max(begin, at - _BEFORE)
    text = _ESCAPE.sub("", _text(data, begin, _end_of_line(data, at))).rstrip()
    match = _MAKE.match(text)
    if match:
        said, makefile = match["said"], ""
        level = int(match["level"]) if match["level"] and len(match["level"]) < 4 else 0
        begin = at - len(text[match.start("program") : match.start("said")].encode()) + len(b": *** ")
        text = text[match.start("program") :]
    else:
        match = _MAKEFILE.match(text)
        if match is None:
            return None
        level, said, makefile = None, match["said"], match["file"]
    failed = _TARGET.match(said)
    needing = None if failed else _NEEDED_BY.search(said)
    return MakeError(
        offset=start + begin,
        level=level,
        text=text,
        said=said,
        target=failed["target"] if failed else needing["target"] if needing else "",
        status=failed["status"] if failed else "",
        makefile=makefile,
    )


def _end_of_line(data: bytes, at: int) -> int:
    end = data.find(b"\n", at, at + _AFTER)
    return min(end if end >= 0 else len(data), at + _LONGEST)


def _text(data: bytes, begin: int, end: int) -> str:
    return data[begin:end].rstrip(b"\r").decode("utf-8", "replace")


def find_place(found: Landmarks) -> Place | None:
    """Where the last run in the log failed; ``None`` where make reports no failure that ended it."""
    last = _last_failure(found)
    if last is None:
        return None
    begin = _begin_of_run(last, found)
    # A signal reaches all makes at once: then an inner one's line can come after the outermost one's.
    end = last.offset if not last.is_interruption else found.size
    errors = [error for error in found.errors if begin <= error.offset <= end]
    outer = _outermost_of_buildroot(last, errors, found.headlines)
    package = _package(outer, found.headlines)
    headlines = [headline for headline in found.headlines if begin <= headline.offset < outer.offset]
    step, step_begin, headline = _step(outer, package, headlines)
    inner = _innermost(outer, [error for error in errors if step_begin <= error.offset])
    own = [headline for headline in headlines if headline.package == package and headline.step == "Patching"]
    return Place(
        package=package,
        step=step,
        headline=headline,
        begin=max(begin, step_begin),
        end=inner.offset,
        inner=inner,
        outer=outer,
        last=last,
        others_ran=any(error.is_waiting and inner.offset < error.offset < outer.offset for error in errors),
        patching=own[-1].offset if own else None,
    )


def _last_failure(found: Landmarks) -> MakeError | None:
    """The line of the outermost make that ended the last run."""
    failures = [error for error in found.errors if error.is_failure]
    # A make that has failed prints no headline any more. One after it is of another run, or the failed make was inside
    # a package that went on without it.
    lived = max([headline.offset for headline in list(found.headlines)[-1:]] + list(found.runs)[-1:], default=-1)
    top = [error for error in failures if not error.level and error.offset > lived]
    if top:
        return top[-1]
    # Buildroot's own make may be the outermost, and then other packages' jobs go on and print headlines; or the log was
    # cut before the outermost make's line. A step has certainly failed where its package did not go on afterwards.
    for error in reversed(failures):
        if _is_of_buildroot(error):
            return None if _went_on(error, found) else error
    return None


def _went_on(error: MakeError, found: Landmarks) -> bool:
    """Whether something after the failure of a package's step shows that another run followed."""
    if any(run > error.offset for run in found.runs):
        return True
    package = _package(error, found.headlines)
    begun = {headline.package for headline in found.headlines if headline.offset < error.offset}
    waits = any(
        other.is_waiting and other.level == error.level and other.offset > error.offset for other in found.errors
    )
    later = [headline.package for headline in found.headlines if headline.offset > error.offset]
    return package in later or not (waits or begun.issuperset(later))


def _begin_of_run(last: MakeError, found: Landmarks) -> int:
    """Where the run that ``last`` ended begins, in a log that may hold several."""
    begin = max((run for run in found.runs if run < last.offset), default=0)
    failures = [error for error in found.errors if error.is_failure and begin < error.offset <= last.offset]
    for error, following in itertools.pairwise(failures):
        # The outermost make's line ended an earlier run, unless a make inside a package printed it: then the package's
        # step fails next, without a headline in between.
        if error.level == 0 and not _is_of_buildroot(error):
            end = error.offset + len(error.text.encode())
            # A make around the outermost one, such as a wrapper's, reports the same failure on the next line.
            if following.offset <= end + len("\r\n"):
                continue
            begun = any(error.offset < headline.offset < following.offset for headline in found.headlines)
            if begun or not following.level:
                begin = end
    return begin


def _is_of_buildroot(error: MakeError) -> bool:
    return bool(_STAMP.search(error.target) or _LEGAL_INFO.match(error.target) or _BUILD_PATH.search(error.target))


def _outermost_of_buildroot(last: MakeError, errors: Sequence[MakeError], headlines: Iterable[Headline]) -> MakeError:
    """From the last line of all inwards: the first that is about a package's step, else the one below the wrapper's."""
    seen = [last]
    while not _is_of_buildroot(seen[-1]):
        inner = _cause_of(seen[-1], errors)
        if inner is None or inner in seen:
            break
        seen.append(inner)
    if _is_of_buildroot(seen[-1]):
        return _first_of_buildroot(seen[-1], errors, headlines)
    return seen[1] if len(seen) > 1 else last


def _first_of_buildroot(error: MakeError, errors: Sequence[MakeError], headlines: Iterable[Headline]) -> MakeError:
    """The first package's failure of the same make: with several jobs or with `make -k` other packages go on."""
    latest = {headline.package: headline.offset for headline in headlines if headline.offset < error.offset}
    same = [other for other in errors if other.level == error.level and other.is_failure and _is_of_buildroot(other)]
    for other in same:
        # Where the package went on afterwards, the failure was of an earlier run.
        if latest.get(_package(other, headlines) or "", -1) < other.offset:
            return other
    return error


def _innermost(outer: MakeError, errors: Sequence[MakeError]) -> MakeError:
    # Interrupted makes report in any order, so one of their lines may lead back to another.
    seen = [outer]
    while (inner := _cause_of(seen[-1], errors)) and inner not in seen:
        seen.append(inner)
    return seen[-1]


def _cause_of(error: MakeError, errors: Sequence[MakeError]) -> MakeError | None:
    """The failure, one level further in, that made ``error``'s recipe fail."""
    if not error.status:
        return None
    level = error.level or 0
    failures = [other for other in errors if other.is_failure]
    before = [other for other in failures if other.offset < error.offset]
    inner = [other for other in before if other.level in (level + 1, None)]
    if not inner and error.is_interruption:
        inner = [other for other in failures if other.is_interruption and other.level == level + 1]
    if not inner:
        # A package can run its make without make's own variables: then that one counts its levels from zero.
        inner = [other for other in before[-1:] if _is_near(other, error)]
    return _first_of_its_make(inner[-1], errors) if inner else None


def _is_near(other: MakeError, error: MakeError) -> bool:
    return error.offset - other.offset < 2 * _LONGEST and other.text != error.text


def _first_of_its_make(error: MakeError, errors: Sequence[MakeError]) -> MakeError:
    """The first failure of the same make: one with several jobs reports it, says that it waits, and reports others."""
    same = [other for other in errors if other.level == error.level and other.offset < error.offset]
    for index in range(len(same) - 1, 0, -1):
        if same[index].is_waiting and same[index - 1].is_failure:
            return same[index - 1]
        if not same[index].is_failure:
            break
    return error


def _package(error: MakeError, headlines: Iterable[Headline]) -> str | None:
    if match := _LEGAL_INFO.match(error.target):
        return match["package"]
    match = _BUILD_PATH.search(error.target)
    if match is None:
        return None
    directory = match["directory"]
    for headline in headlines:
        if headline.package and headline.directory == directory:
            return headline.package
    if directory in ("buildroot-fs", "buildroot-config"):
        return None
    return _VERSION.sub("", directory, count=1) or directory


def _step(outer: MakeError, package: str | None, headlines: Sequence[Headline]) -> tuple[str | None, int, str]:
    """The step's name, the offset of its headline and that headline's words."""
    last = headlines[-1] if headlines else None
    if outer.makefile or not outer.status:
        return None, last.offset if last else 0, ""
    if package is None:
        if last and not last.package and outer.target not in _STEPLESS:
            return _without_path(last.step), last.offset, last.step
        return None, last.offset if last else 0, ""
    own = [headline for headline in headlines if headline.package == package]
    stamp = _STAMP.search(outer.target)
    main = STEPS.get(stamp["stamp"]) if stamp else None
    begun = [index for index, headline in enumerate(own) if main and headline.step.startswith(main)]
    if main and not begun:
        # Buildroot prints no headline where nothing has to be downloaded, but it checks the file's hash.
        before = own[-1] if own else last
        return main, before.offset if before else 0, main
    if not own:
        return None, 0, ""
    named = [headline for headline in own if not headline.step.startswith(_AFTERWORK)] or own
    return _without_path(named[-1].step), own[begun[-1]].offset if begun else named[-1].offset, named[-1].step


def _without_path(step: str) -> str:
    """``Executing post-build script /a/b.sh``: the headline without what it is done to."""
    return re.sub(r"(?: \S*/\S*)+$", "", step)
