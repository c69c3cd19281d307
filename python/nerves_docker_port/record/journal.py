"""The journal of a flow: one file, to which a record is added each time something happens.

docs/journal.md describes the format. ``Journal`` writes such a file, ``read`` returns its content, and ``files`` finds
the journals of a package. If the disk is full or the directory cannot be written, nothing is raised, because a journal
must not stop a build.
"""

from __future__ import annotations

import fcntl
import functools
import os
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias, get_type_hints

import msgpack

from nerves_docker_port import __version__
from nerves_docker_port.request.request import Names

VERSION: Final = 1
"""The version of the format. A reader does not read a file whose version it does not know."""

SUFFIX: Final = ".msgpack"

KEPT: Final = 100
"""How many journals of a package are kept."""
HEADLINES_KEPT: Final = 20_000
"""How many headlines of a flow are kept. The largest configurations have some 15,000."""
KEPT_BYTES: Final = 64 * 1024 * 1024
"""How many bytes the journals of a package may have together. The latest journal is always kept."""

_OLD_FILE: Final = "builds.msgpack"
"""The file in which versions up to 0.1.0 kept one map for each flow."""


# --- The records -----------------------------------------------------------------------------------------------


class Opened(NamedTuple):
    """The first record of each file."""

    version: int
    helper: str
    """The version of the helper that wrote the file."""
    id: str
    """The id of this flow: 12 hexadecimal digits."""


class Began(NamedTuple):
    """The request of Mix. It has the names of variables, but not their values, which may be secrets."""

    flow: str
    """``build``, ``archive``, ``clean`` or ``shell``."""
    package: str
    package_version: str
    artifact: str
    """The artifact's name, without its extension."""
    directory: str
    """The package's directory."""
    log: str
    """The path of the log; empty if the flow has none."""
    make_args: tuple[str, ...] = ()
    """The arguments for make. A variable has no value here, except the number of jobs."""
    settings: Mapping[str, Any] = {}


class Engine(NamedTuple):
    """The engine that was found."""

    endpoint: str
    """The engine's address, without a password."""
    version: str
    architecture: str
    cpus: int
    memory: int
    """The engine's memory in bytes."""


class Image(NamedTuple):
    """The image that the build runs in."""

    tag: str
    id: str
    digest: str | None = None
    """The registry's digest, ``sha256:...``; ``None`` if the image comes from no registry."""


class Workspace(NamedTuple):
    """How the container sees the package, and the volume of the build directory."""

    kind: str
    """``mounted`` or ``copied``."""
    volume: str
    workdir: str
    """The build directory in the container."""


class StageBegan(NamedTuple):
    """A stage of the flow has begun. docs/protocol.md lists the names of the stages."""

    name: str


class StageEnded(NamedTuple):
    """A stage has succeeded. A stage that failed has no such record."""

    name: str
    milliseconds: int


class Announced(NamedTuple):
    """The runner has announced what it does next."""

    text: str


class Headline(NamedTuple):
    """Headlines of Buildroot as they are shown, one in each line: ``>>> busybox 1.36.1 Building``."""

    text: str


class Warned(NamedTuple):
    """The user was warned of a problem that does not stop the flow."""

    text: str


class Configuration(NamedTuple):
    """The packages of the configuration, as `make show-info` lists them, and those that were already built."""

    sha256: str
    """The SHA-256 of ``.config``."""
    packages: tuple[str, ...]
    """Buildroot's names of all packages. Host packages are named ``host-...``."""
    built_before: tuple[str, ...]
    """The packages that were already built when this flow began."""


class PackageStep(NamedTuple):
    """One step of one package, from Buildroot's ``build-time.log``, with times of the engine's clock."""

    package: str
    step: str
    """The step's name in the file: ``download``, ``extract``, ``configure``, ``build``, ``install-target``, ..."""
    began: float
    """The time of the beginning, in seconds since 1970."""
    ended: float | None
    """The time of the end, in seconds since 1970; ``None`` if the step failed or was stopped."""


class Clock(NamedTuple):
    """How many seconds the engine's clock was ahead of this machine's when the package steps were read."""

    ahead: float


class Ccache(NamedTuple):
    """What the compiler cache did for this flow."""

    hits: int
    misses: int
    remote_hits: int | None = None
    """How many of ``hits`` came from a remote storage; ``None`` if none is configured."""


class Artifact(NamedTuple):
    """The artifact that the flow has made."""

    path: str
    size: int
    """The artifact's size in bytes."""
    sha256: str


class Cause(NamedTuple):
    """The cause of a failed step, found in the log. The fields are those of ``record.cause.Cause``."""

    package: str | None
    step: str | None
    kind: str
    lines: tuple[str, ...]
    remedy: str | None


class Ended(NamedTuple):
    """The flow has ended. This is always the last record. If it is missing, the helper was killed."""

    outcome: str
    """``ok``, or the code of the error, as in docs/protocol.md."""
    message: str = ""
    """The message of the error."""
    hint: str | None = None


class Lost(NamedTuple):
    """Some records before this one are missing, because the disk was full, for example, or there were too many."""

    records: int


Record: TypeAlias = (
    Opened
    | Began
    | Engine
    | Image
    | Workspace
    | StageBegan
    | StageEnded
    | Announced
    | Headline
    | Warned
    | Configuration
    | PackageStep
    | Clock
    | Ccache
    | Artifact
    | Cause
    | Ended
    | Lost
)

KINDS: Final[Mapping[str, type[Record]]] = {
    "opened": Opened,
    "began": Began,
    "engine": Engine,
    "image": Image,
    "workspace": Workspace,
    "stage_began": StageBegan,
    "stage_ended": StageEnded,
    "announced": Announced,
    "headline": Headline,
    "warned": Warned,
    "configuration": Configuration,
    "package_step": PackageStep,
    "clock": Clock,
    "ccache": Ccache,
    "artifact": Artifact,
    "cause": Cause,
    "ended": Ended,
    "lost": Lost,
}
"""The name of each record in the file."""

_NAMES: Final = {record: name for name, record in KINDS.items()}


# --- Writing ---------------------------------------------------------------------------------------------------


def directory(names: Names) -> Path:
    """Return the directory of the journals of a package."""
    return _directory(names.build_path)


def _directory(build_path: Path) -> Path:
    return build_path / "journal"


class Journal:
    """Writes the journal of one flow. Any thread may call its methods, which raise no ``OSError``.

    While the journal is open, it holds a lock on its file (flock(2)). The lock shows a reader whether the flow still
    runs or was killed.
    """

    def __init__(self, where: Path, flow: str, *, make: bool = True) -> None:
        """Make a file in the directory ``where``, and remove the oldest files if there are too many.

        Without ``make``, no journal is written if ``where`` does not exist.
        """
        self.id = secrets.token_hex(6)
        self.path = where / f"{_time_prefix(time.time())}-{flow}-{self.id}{SUFFIX}"
        self._lock = threading.Lock()
        self._written = 0
        self._lost = 0
        self._fd: int | None = None
        with suppress(OSError):
            if make:
                where.mkdir(parents=True, exist_ok=True)
            _make_room(where)
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o666)
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.write(Opened(VERSION, __version__, self.id))

    def write(self, *records: Record) -> None:
        """Add the records in one write. All of them get the current time."""
        at = time.time()
        with self._lock:
            if self._fd is None:
                return
            if self._lost:
                records = (Lost(self._lost), *records)
            data = b"".join(_packed(at, record) for record in records)
            try:
                whole = os.write(self._fd, data) == len(data)
            except OSError:
                whole = False
            if whole:
                self._written += len(data)
                self._lost = 0
                return
            # A record that was written only in part would make all later records unreadable, so it is removed.
            self._lost += len(records) - (self._lost > 0)
            try:
                os.ftruncate(self._fd, self._written)
            except OSError:
                self._close()

    def close(self) -> None:
        """Close the file. Later records are ignored."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            with suppress(OSError):
                os.close(fd)


def _packed(at: float, record: Record) -> bytes:
    # A path may contain bytes that are not UTF-8 (PEP 383).
    packed: bytes = msgpack.packb([_NAMES[type(record)], at, record._asdict()], unicode_errors="surrogateescape")
    return packed


def _time_prefix(at: float) -> str:
    """Return a time as the beginning of a file's name, in UTC with microseconds, so that the names sort by time."""
    return datetime.fromtimestamp(at, timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")


def _make_room(where: Path) -> None:
    """Remove the oldest journals to make room for one more. A journal that is being written is kept."""
    size = 0
    for count, path in enumerate(files(where), 1):
        with suppress(OSError):
            size += path.stat().st_size
            if (count >= KEPT or size > KEPT_BYTES) and not is_open(path):
                path.unlink()


# --- Reading ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """A stage of a flow, and when it began and ended. ``ended`` is ``None`` if the stage did not succeed."""

    name: str
    began: float
    ended: float | None


@dataclass(frozen=True)
class Build:
    """The content of the journal of one flow. Times are in seconds since 1970 by the clock of the machine of Mix.

    A field is ``None`` or empty if its value was not yet known when the flow ended or was killed.
    """

    path: Path
    opened: Opened
    opened_at: float
    last_at: float
    """The time of the last record."""
    began: Began | None = None
    engine: Engine | None = None
    image: Image | None = None
    workspace: Workspace | None = None
    configuration: Configuration | None = None
    clock: Clock | None = None
    ccache: Ccache | None = None
    artifact: Artifact | None = None
    cause: Cause | None = None
    ended: Ended | None = None
    stages: tuple[Stage, ...] = ()
    headlines: tuple[tuple[float, str], ...] = ()
    """Buildroot's headlines, each with the time at which it arrived."""
    announced: tuple[tuple[float, str], ...] = ()
    warnings: tuple[tuple[float, str], ...] = ()
    package_steps: tuple[PackageStep, ...] = ()
    """The steps of packages, sorted by their beginning. It is empty if ``build-time.log`` could not be read. Then the
    headlines show the steps, except the ends of steps that run in parallel with others."""
    lost: int = 0
    """How many records are missing because they could not be written."""


def files(where: Path) -> list[Path]:
    """Return the journals in a directory, the latest first. The list is empty if the directory cannot be read."""
    try:
        return sorted((path for path in where.iterdir() if path.suffix == SUFFIX), reverse=True)
    except OSError:
        return []


def records(path: Path) -> Iterator[tuple[float, Record]]:
    """Yield the records of a journal with their times, up to the first record that is damaged or incomplete.

    Records and fields of a later version are ignored. Raises ``OSError`` if the file cannot be read.
    """
    unpacker = msgpack.Unpacker(use_list=False, strict_map_key=False, unicode_errors="surrogateescape")
    # After damaged bytes it is not known where the next record begins, so reading ends there.
    with path.open("rb") as file, suppress(ValueError, RecursionError, msgpack.UnpackException):
        while data := file.read(1 << 20):
            unpacker.feed(data)
            for value in unpacker:
                known = _record(value)
                if known is not None:
                    yield known


def read(path: Path) -> Build | None:
    """Return the content of a journal, or ``None`` if it cannot be read, is no journal, or has another version."""
    try:
        return _build_from(path, records(path))
    except OSError:
        return None


def is_open(path: Path) -> bool:
    """Return whether the flow that writes this journal still runs. On a file system without locks this is False."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def last_built(build_path: Path, volume: str) -> float | None:
    """Return when a build or an archive last used a volume, in seconds since 1970, by the journals of a package.

    Return ``None`` if no journal names the volume.
    """
    found = list(_times_in_old_file(build_path / _OLD_FILE, volume))
    for path in files(_directory(build_path)):
        build = read(path)
        if (
            build is not None
            and (build.began is not None and build.began.flow in ("build", "archive"))
            and (build.workspace is not None and build.workspace.volume == volume)
        ):
            found.append(build.last_at)
            break
    return max(found, default=None)


def _times_in_old_file(path: Path, volume: str) -> Iterator[float]:
    """Yield the same times from the one file that versions up to 0.1.0 wrote for all flows."""
    unpacker = msgpack.Unpacker(strict_map_key=False)
    with suppress(OSError, ValueError, RecursionError, msgpack.UnpackException):
        unpacker.feed(path.read_bytes())
        for record in unpacker:
            if isinstance(record, dict) and record.get("volume") == volume and isinstance(record.get("at"), float):
                yield record["at"]


_SINGLE_FIELDS: Final[Mapping[type, str]] = {
    Began: "began",
    Engine: "engine",
    Image: "image",
    Workspace: "workspace",
    Configuration: "configuration",
    Clock: "clock",
    Ccache: "ccache",
    Artifact: "artifact",
    Cause: "cause",
    Ended: "ended",
}
"""The fields of ``Build`` that have a single record. If the file has several such records, the last one is used."""


def _build_from(path: Path, found: Iterator[tuple[float, Record]]) -> Build | None:
    opened_at, opened = next(found, (0.0, None))
    if not isinstance(opened, Opened) or opened.version != VERSION:
        return None
    singles: dict[str, Any] = {}
    stages: list[Stage] = []
    texts: dict[type, list[tuple[float, str]]] = {Headline: [], Announced: [], Warned: []}
    steps: list[PackageStep] = []
    at, lost = opened_at, 0
    for at, record in found:
        if type(record) in _SINGLE_FIELDS:
            singles[_SINGLE_FIELDS[type(record)]] = record
        elif isinstance(record, Headline):
            texts[Headline] += [(at, line) for line in record.text.split("\n")]
        elif isinstance(record, (Announced, Warned)):
            texts[type(record)].append((at, record.text))
        elif isinstance(record, PackageStep):
            steps.append(record)
        elif isinstance(record, StageBegan):
            stages.append(Stage(record.name, at, None))
        elif isinstance(record, StageEnded):
            stages = [
                Stage(stage.name, stage.began, at) if stage.name == record.name and stage.ended is None else stage
                for stage in stages
            ]
        elif isinstance(record, Lost):
            lost += record.records
    return Build(
        path,
        opened,
        opened_at,
        at,
        stages=tuple(stages),
        headlines=tuple(texts[Headline]),
        announced=tuple(texts[Announced]),
        warnings=tuple(texts[Warned]),
        package_steps=tuple(sorted(steps, key=lambda step: step.began)),
        lost=lost,
        **singles,
    )


@functools.cache
def _types(name: str) -> dict[str, Any]:
    """Return the types of the fields of a kind of record. They are found here because only a reader needs them."""
    return get_type_hints(KINDS[name])


def _record(value: object) -> tuple[float, Record] | None:
    """Return the record for a value in a file, or ``None`` if this version does not know such a record."""
    match value:
        case (str(name), float(at), {**values}) if name in KINDS:
            kind = KINDS[name]
            types = _types(name)
            known: dict[str, Any] = {str(key): each for key, each in values.items() if key in types}
            if not all(_has_type(each, types[key]) for key, each in known.items()):
                return None
            try:
                return at, kind(**known)
            except TypeError:
                # A field is missing.
                return None
        case _:
            return None


def _has_type(value: object, wanted: Any) -> bool:
    """Return whether a value from a file has the type of its field."""
    if wanted == tuple[str, ...]:
        return isinstance(value, tuple) and all(isinstance(each, str) for each in value)
    if wanted == Mapping[str, Any]:
        return isinstance(value, dict)
    return isinstance(value, wanted)
