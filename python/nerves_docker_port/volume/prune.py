"""The build volumes at the engine: which there are, whose they are, what may go.

Only volumes with our label are ever removed (docs/architecture.md, "Containers"), and of these only those that nobody
comes back to: the package's directory is gone, or its version is past.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from platform import node
from typing import Any, Literal, TypeAlias

import requests

from nerves_docker_port import errors
from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine.client import Engine, label
from nerves_docker_port.engine.resources import size
from nerves_docker_port.record import journal
from nerves_docker_port.record.reporter import Reporter
from nerves_docker_port.request.request import Names, Package, Request
from nerves_docker_port.volume import build_volume as volume

Past: TypeAlias = Literal["gone", "past"]

SIZES_TIMEOUT = 600
"""Seconds that the engine may take to add up the sizes of all volumes: it walks through every file."""


@dataclass(frozen=True)
class BuildVolume:
    """A build volume, as its labels and the engine tell of it."""

    name: str
    package: str
    version: str
    path: Path | None
    """Of the package, on the host that made it."""
    host: str
    created: float | None
    last_used: float | None
    """Seconds of the epoch; of the last build, from the package's journal. ``None`` where there is none to read."""
    size: int | None
    """Bytes; ``None`` where the engine does not say."""
    labelled: bool = True

    @property
    def is_gone(self) -> bool:
        """Whether its package's directory certainly is no more: it was on this host, and there is nothing there."""
        if self.path is None or self.host != node():
            return False
        try:
            self.path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            # Not for us to see: somebody else's.
            return False
        return False

    def is_of(self, package: Package) -> bool:
        """Whether it is a volume of ``package``, whatever its version."""
        return self.package == package.app and self.path == package.path and self.host in ("", node())

    def past(self, package: Package | None) -> Past | None:
        """Why nobody comes back to it; ``None`` where somebody may."""
        if not self.labelled:
            return None
        if self.is_gone:
            return "gone"
        if package is not None and self.is_of(package) and self.version and self.version != package.version:
            return "past"
        return None


def serve(
    request: Request | None,
    environ: Mapping[str, str],
    reporter: Reporter,
    cancellation: Cancellation,
    *,
    everybody: bool,
    remove: bool,
    yes: bool,
    interactive: bool,
) -> tuple[list[str], str]:
    """List the build volumes of the request's package, or everybody's, or remove those that nobody comes back to.

    The names of those removed, and what to tell the person. Raises ``RunnerError``.
    """
    package, names = (None, None) if request is None else (request.package, request.names)
    engine = Engine.connect(environ)
    try:
        # Whose package is gone has no project left that could ask for it.
        found = find(engine, package, names, everybody=everybody or remove)
        cancellation.check()
        if remove:
            return prune(engine, package, found, reporter, cancellation, yes=yes, interactive=interactive)
    finally:
        engine.close()
    if found:
        return [], table(found, package)
    return [], "There are no build volumes." if package is None else f"There is no build volume of {package.app}."


def find(engine: Engine, package: Package | None, names: Names | None, *, everybody: bool) -> list[BuildVolume]:
    """The build volumes of ``package``, or everybody's; its present one, even if another runner made it."""
    current = volume.name(package, names) if package is not None and names is not None else None
    found = []
    for entry in _volumes(engine):
        labels = entry.get("Labels") or {}
        name = str(entry.get("Name"))
        ours = label(labels, "volume") == name
        if not ours and name != current:
            continue
        path = label(labels, "path")
        made = BuildVolume(
            name=name,
            package=label(labels, "package") or (package.app if package is not None else ""),
            version=(label(labels, "version") or "") if ours or package is None else package.version,
            path=Path(path) if path else package.path if package is not None and not ours else None,
            host=label(labels, "host") or "",
            created=_time(str(entry.get("CreatedAt") or "")),
            last_used=None,
            size=_size(entry),
            labelled=ours,
        )
        made = _with_last_use(made)
        if everybody or name == current or (package is not None and made.is_of(package)):
            found.append(made)
    return sorted(found, key=lambda made: (made.package, made.version, made.name))


def prune(
    engine: Engine,
    package: Package | None,
    found: Sequence[BuildVolume],
    reporter: Reporter,
    cancellation: Cancellation,
    *,
    yes: bool,
    interactive: bool,
) -> tuple[list[str], str]:
    """Remove those among ``found`` that nobody comes back to, after asking; their names, and what to say of it."""
    going = [each for each in found if each.past(package)]
    if not going:
        return [], "There is nothing to remove."
    listing = table(going, package)
    if not yes:
        if not interactive:
            return [], (
                f"These would be removed:\n\n{listing}\n\nNothing was removed: there is no terminal to ask at. "
                "`--yes` removes them without asking."
            )
        what = "this build volume" if len(going) == 1 else f"these {len(going)} build volumes"
        if not reporter.ask(f"{listing}\n\nRemove {what}?", default=False):
            return [], "Nothing was removed."
    removed, lines = [], []
    for each in going:
        cancellation.check()
        try:
            volume.remove(engine, each.name)
        except errors.RunnerError as error:
            if error.code is errors.Code.ENGINE_UNREACHABLE:
                raise
            lines.append(f"Kept {each.name}: {error.message}")
        else:
            removed.append(each.name)
            lines.append(f"Removed {each.name}{'' if each.size is None else f' ({size(each.size)})'}")
    return removed, "\n".join(lines)


def table(found: Iterable[BuildVolume], package: Package | None) -> str:
    """One line for each volume: name, package and version, size, last use, and what is to be known besides."""
    rows = []
    for each in found:
        remarks = {
            "gone": f"its package's directory is gone: {each.path}",
            "past": f"its version is past: the package's is {package.version if package else ''}",
            None: "" if package is not None and each.is_of(package) else f"of {each.path}" if each.path else "",
        }
        rows.append(
            (
                each.name,
                f"{each.package} {each.version}".strip(),
                "size unknown" if each.size is None else size(each.size),
                use(each),
                remarks[each.past(package)] if each.labelled else "made by another runner",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def use(each: BuildVolume) -> str:
    """When it was last used, as far as is known."""
    if each.last_used is not None:
        return f"last used {_ago(each.last_used)}"
    return "age unknown" if each.created is None else f"made {_ago(each.created)}"


def _volumes(engine: Engine) -> list[Mapping[str, Any]]:
    """All volumes, with their sizes where the engine knows them."""
    with engine.failures("while it added up the sizes of its volumes"):
        # Before API 1.42 `type` is not known, and more is added up.
        response = engine.api.get(engine.url("/system/df"), params={"type": "volume"}, timeout=SIZES_TIMEOUT)
        try:
            response.raise_for_status()
            found = response.json().get("Volumes")
        except (requests.HTTPError, ValueError, AttributeError):
            found = None
    if isinstance(found, list):
        return found
    with engine.failures("while it listed its volumes"):
        return list(engine.api.volumes().get("Volumes") or [])


def _size(entry: Mapping[str, Any]) -> int | None:
    # -1: not known.
    found = (entry.get("UsageData") or {}).get("Size")
    return found if isinstance(found, int) and found >= 0 else None


def _with_last_use(made: BuildVolume) -> BuildVolume:
    if made.path is None or made.host not in ("", node()):
        return made
    # Where Nerves has the package's build state (`Nerves.Artifact.build_path/1`).
    directory = made.path / ".nerves" / "artifacts" / f"{made.package}-portable-{made.version}"
    used = [record.get("at") for record in journal.read(directory) if record.get("volume") == made.name]
    last = max((moment for moment in used if isinstance(moment, float)), default=None)
    return BuildVolume(**{**made.__dict__, "last_used": last})


def _time(moment: str) -> float | None:
    """An RFC 3339 time, with or without a fraction, as seconds of the epoch."""
    match = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)", moment)
    if match is None:
        return None
    whole = datetime.fromisoformat(match[1]).replace(tzinfo=timezone.utc)
    offset = timedelta()
    if match[2] != "Z":
        offset = timedelta(hours=int(match[2][1:3]), minutes=int(match[2][4:6]))
    return (whole + offset if match[2][0] == "-" else whole - offset).timestamp()


def _ago(moment: float) -> str:
    seconds = max(0, time.time() - moment)
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        count = int(seconds // length)
        if count:
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    return "just now"
