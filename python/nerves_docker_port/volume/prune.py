"""The build volumes at the engine: which there are, whose they are, what may go.

Only volumes with our label are ever removed (docs/architecture.md, "Containers"), and of these only those whose
package's directory is certainly gone, and those that the person names.
"""

from __future__ import annotations

import glob
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from platform import node
from typing import Any

import requests

from nerves_docker_port import errors
from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.engine.client import Engine, label
from nerves_docker_port.record import journal
from nerves_docker_port.record.reporter import Reporter
from nerves_docker_port.request.request import Names, Package, Request
from nerves_docker_port.request.volumes import VolumesRequest
from nerves_docker_port.text import ago, parse_time, size
from nerves_docker_port.volume import build_volume as volume
from nerves_docker_port.volume.machine import Presence, presence

SIZES_TIMEOUT = 600
"""Seconds that the engine may take to add up the sizes of all volumes: it walks through every file."""

SIZES_PATIENCE = 10
"""Seconds for which the sizes are asked for again while the engine adds them up for somebody else."""

_STOCK_NAME = re.compile(r"([A-Za-z][A-Za-z0-9_]*)-[A-Za-z0-9_]{16}")
"""What Nerves' own runner calls its volumes: the app's name and 16 characters. It gives them no labels."""


@dataclass(frozen=True)
class BuildVolume:
    """A build volume, as its labels and the engine tell of it."""

    name: str
    package: str
    version: str
    path: Path | None
    """Of the package, on the machine that made the volume."""
    host: str
    created: float | None
    """Seconds since 1970."""
    last_built: float | None
    """Likewise, by this runner, from the package's journal; ``None`` where there is none to read. Neither the engine
    nor a file tells what another runner has done on the volume since."""
    size: int | None
    """Bytes; ``None`` where the engine does not say."""
    presence: Presence
    """Of the package's directory."""
    labelled: bool
    """Whether this runner made it."""
    current: bool
    """Whether the request's package builds on it now."""

    @property
    def is_gone(self) -> bool:
        """Whether its package's directory certainly is no more."""
        # A package that was moved still builds on the volume that has its old path.
        return self.labelled and not self.current and self.presence.state == "gone"

    def is_of(self, package: Package) -> bool:
        """Whether it is a volume of ``package``, whatever its version."""
        at_its_path = self.package == package.app and self.path == package.path and self.host in ("", node())
        return self.current or at_its_path

    def is_of_another_version(self, package: Package | None) -> bool:
        """Whether it is a volume of ``package``, but of an older or newer version of it."""
        if package is None or not self.labelled or self.current or not self.is_of(package):
            return False
        return self.version not in ("", package.version)

    def concerns(self, package: Package | None) -> bool:
        """Whether it is a volume of ``package``, or of another copy of the package that is gone."""
        return package is not None and (self.is_of(package) or (self.is_gone and self.package == package.app))


def serve(
    request: Request | None,
    environ: Mapping[str, str],
    reporter: Reporter,
    cancellation: Cancellation,
    wanted: VolumesRequest,
    *,
    interactive: bool,
) -> tuple[list[str], str]:
    """List the build volumes that are asked for, or remove those that are named or whose packages are gone.

    The names of those removed, and what to tell the person. Raises ``RunnerError``.
    """
    package, names = (None, None) if request is None else (request.package, request.names)
    if package is None and not wanted.everybody:
        raise errors.no_package_of_volumes()
    engine = Engine.connect(environ)
    try:
        every = find(engine, package, names)
        cancellation.check()
        found = [each for each in every if wanted.everybody or each.concerns(package)]
        if wanted.remove:
            if wanted.names:
                going, kept = _named(wanted.names, every, found), []
            else:
                going, kept = [each for each in found if each.is_gone], _kept(found, package)
            return _remove(engine, package, going, kept, reporter, cancellation, yes=wanted.yes, ask=interactive)
    finally:
        engine.close()
    if found:
        return [], table(found, package)
    return [], "There are no build volumes." if package is None else f"There is no build volume of {package.app}."


def find(engine: Engine, package: Package | None, names: Names | None) -> list[BuildVolume]:
    """Every build volume at the engine, and the present one of ``package`` among them marked as current."""
    current = volume.name(package, names) if package is not None and names is not None else None
    sizes = _sizes(engine)
    with engine.failures("while it listed its volumes"):
        # Podman's list of sizes has no labels, so the volumes themselves are listed, too.
        entries = list(engine.api.volumes().get("Volumes") or [])
    found = (_build_volume(entry, sizes, package, current) for entry in entries)
    return sorted(filter(None, found), key=lambda made: (made.package, made.version, made.name))


def _build_volume(
    entry: Mapping[str, Any], sizes: Mapping[str, int], package: Package | None, current: str | None
) -> BuildVolume | None:
    """The build volume that the engine's list has in ``entry``; ``None`` where it is another kind of volume."""
    name, labels = str(entry.get("Name")), entry.get("Labels") or {}
    stock = _STOCK_NAME.fullmatch(name)
    labelled = label(labels, "volume") == name
    if labelled:
        owner, version, path = label(labels, "package") or "", label(labels, "version") or "", label(labels, "path")
    elif name == current and package is not None:
        owner, version, path = package.app, package.version, str(package.path)
    elif stock is not None and not labels:
        owner, version, path = stock[1], "", None
    else:
        return None
    directory, host = Path(path) if path else None, label(labels, "host") or ""
    found = Presence("unknown")
    if directory is not None and labelled:
        machine, place = (label(labels, key) or "" for key in ("machine", "directory"))
        found = presence(directory, host=host, machine=machine, directory=place)
        moved = _moved_to(directory, name, owner) if found.state == "gone" else None
        if moved is not None:
            directory, found = moved, Presence("there")
    nanoseconds = parse_time(str(entry.get("CreatedAt") or ""))
    created = None if nanoseconds is None else nanoseconds / 1e9
    last_built = _last_built(name, directory, owner, version) if directory and host in ("", node()) else None
    return BuildVolume(
        name=name,
        package=owner,
        version=version,
        path=directory,
        host=host,
        created=created,
        # The name stays when a volume is removed and made again, by whichever runner; the journal stays, too.
        last_built=None if last_built is not None and created is not None and last_built < created else last_built,
        size=sizes.get(name),
        presence=found,
        labelled=labelled,
        current=name == current,
    )


def _moved_to(path: Path, name: str, package: str) -> Path | None:
    """Where the package that builds on the volume is now, if its directory, once ``path``, was only renamed."""
    for file in path.parent.glob(f"*/.nerves/artifacts/{glob.escape(package)}-portable-*/.docker_id"):
        with suppress(OSError, UnicodeDecodeError):
            identifier = file.read_text().strip()
            if identifier and name.endswith(f"-{identifier}"):
                return file.parents[3]
    return None


def _named(names: Iterable[str], every: Iterable[BuildVolume], allowed: Sequence[BuildVolume]) -> list[BuildVolume]:
    """The volumes of these names. Raises ``RunnerError`` where one is not there or not to be removed."""
    known = {each.name: each for each in every}
    for name in names:
        each = known.get(name)
        if each is None:
            raise errors.no_such_volume(name)
        if not each.labelled:
            raise errors.volume_of_another_runner(name)
        if each not in allowed:
            raise errors.volume_of_another_package(name, each.package, str(each.path))
    return [known[name] for name in dict.fromkeys(names)]


def _remove(
    engine: Engine,
    package: Package | None,
    going: Sequence[BuildVolume],
    kept: Sequence[str],
    reporter: Reporter,
    cancellation: Cancellation,
    *,
    yes: bool,
    ask: bool,
) -> tuple[list[str], str]:
    """Remove ``going``, after asking; the names of those removed, and what to say. ``kept`` is said at the end."""
    if not going:
        return [], "\n".join(["There is nothing to remove.", *kept])
    listing = table(going, package)
    if not yes:
        if not ask:
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
    return removed, "\n".join([*lines, *kept])


def _kept(found: Sequence[BuildVolume], package: Package | None) -> list[str]:
    """What is said of volumes that stay although somebody may want them to go, and how they go."""
    lines = []
    versions = [f"{each.name} ({each.version})" for each in found if each.is_of_another_version(package)]
    if versions:
        lines.append(
            f"Kept, because a branch may still need them: {', '.join(versions)}. "
            "`mix nerves_docker_port.volumes --prune NAME` removes one."
        )
    unknown = [each for each in found if each.labelled and not each.current and each.presence.state == "unknown"]
    if package is not None:
        unknown = [each for each in unknown if not each.is_of(package)]
    if unknown:
        lines.append(
            f"Kept, because it is not known whether the packages are still there: "
            f"{', '.join(each.name for each in unknown)}. `mix nerves_docker_port.volumes --all` says why, "
            "`mix nerves_docker_port.volumes --all --prune NAME` removes one."
        )
    return lines


def table(found: Iterable[BuildVolume], package: Package | None) -> str:
    """One line for each volume: name, package and version, size, age, and what is to be known besides."""
    rows = [
        (
            each.name,
            f"{each.package} {each.version}".strip(),
            "size unknown" if each.size is None else size(each.size),
            age(each),
            _remark(each, package),
        )
        for each in found
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _remark(each: BuildVolume, package: Package | None) -> str:
    if not each.labelled:
        return "another runner's"
    if each.is_gone:
        return f"its package's directory is gone: {each.path}"
    if package is not None and each.is_of_another_version(package):
        return f"another version: the package's is {package.version}"
    if package is not None and each.is_of(package):
        return ""
    if each.presence.state == "unknown":
        return f"of {each.path}; whether that is still there is not known: {each.presence.reason}"
    return f"of {each.path}"


def age(each: BuildVolume) -> str:
    """When this runner last built on it or, where that is not known, when it was made."""
    if each.last_built is not None:
        return f"last built by this runner {ago(time.time() - each.last_built)}"
    return "age unknown" if each.created is None else f"made {ago(time.time() - each.created)}"


def _sizes(engine: Engine) -> dict[str, int]:
    """The bytes that volumes take, by name, where the engine knows them."""
    with engine.failures("while it added up the sizes of its volumes"):
        # Before API 1.42 `type` is not known, and more is added up.
        deadline = time.monotonic() + SIZES_PATIENCE
        while True:
            response = engine.api.get(engine.url("/system/df"), params={"type": "volume"}, timeout=SIZES_TIMEOUT)
            # Docker adds up for one who asks at a time.
            if b"disk usage operation is already running" not in response.content or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        try:
            response.raise_for_status()
            entries = list(response.json().get("Volumes") or [])
        except (requests.HTTPError, ValueError, AttributeError, TypeError):
            return {}
    sizes = {str(entry.get("Name")): (entry.get("UsageData") or {}).get("Size") for entry in entries}
    # -1: not known.
    return {name: count for name, count in sizes.items() if isinstance(count, int) and count >= 0}


def _last_built(name: str, path: Path, package: str, version: str) -> float | None:
    # Where Nerves has the package's build state (`Nerves.Artifact.build_path/1`).
    directory = path / ".nerves" / "artifacts" / f"{package}-portable-{version}"
    return journal.last_built(directory, name)
