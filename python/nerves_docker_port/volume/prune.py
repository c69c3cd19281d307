"""The build volumes at the engine: which ones exist, to which package each belongs, and which may be removed.

Only a volume with this package's label is ever removed (docs/architecture.md, "Containers"), and only if its package's
directory is certainly gone or if the user names the volume.
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
"""Seconds that the engine may take to add up the sizes of all volumes. It reads the size of every file."""

SIZES_PATIENCE = 10
"""Seconds for which this module repeats the request for the sizes while the engine adds them up for another client."""

_STOCK_NAME = re.compile(r"([A-Za-z][A-Za-z0-9_]*)-[A-Za-z0-9_]{16}")
"""The name of a volume of Nerves' own runner: the app's name and 16 characters. Such a volume has no labels."""


@dataclass(frozen=True)
class BuildVolume:
    """A build volume, with what its labels and the engine say about it."""

    name: str
    package: str
    version: str
    path: Path | None
    """The package's directory on the machine that made the volume."""
    host: str
    created: float | None
    """The time when the volume was made, in seconds since 1970."""
    last_built: float | None
    """The time of this runner's last build on the volume, in seconds since 1970, from the package's journal. It is
    ``None`` if there is no journal to read. Nothing tells when another runner used the volume."""
    size: int | None
    """The size in bytes, or ``None`` if the engine does not say it."""
    presence: Presence
    """Whether the package's directory exists."""
    labelled: bool
    """Whether this runner made the volume."""
    current: bool
    """Whether the request's package builds on the volume now."""

    @property
    def is_gone(self) -> bool:
        """Whether the directory of the volume's package is certainly gone."""
        # A package whose directory was moved still builds on its volume, whose label has the old path.
        return self.labelled and not self.current and self.presence.state == "gone"

    def is_of(self, package: Package) -> bool:
        """Return whether this is a volume of ``package`` in any version."""
        at_its_path = self.package == package.app and self.path == package.path and self.host in ("", node())
        return self.current or at_its_path

    def is_of_another_version(self, package: Package | None) -> bool:
        """Return whether this is a volume of ``package``, but of an older or newer version."""
        if package is None or not self.labelled or self.current or not self.is_of(package):
            return False
        return self.version not in ("", package.version)

    def concerns(self, package: Package | None) -> bool:
        """Return whether this is a volume of ``package``, or of another copy of the package that is gone."""
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
    """List the wanted build volumes, or remove the volumes that are named or whose packages are gone.

    Return the names of the removed volumes and the text for the user. Raises ``RunnerError``.
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
    """Return every build volume at the engine. The volume on which ``package`` builds now is marked as current."""
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
    """Return the build volume of an entry in the engine's list, or ``None`` if it is another kind of volume."""
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
        # A journal can be older than its volume, because a runner can remove a volume and make it again under its name.
        last_built=None if last_built is not None and created is not None and last_built < created else last_built,
        size=sizes.get(name),
        presence=found,
        labelled=labelled,
        current=name == current,
    )


def _moved_to(path: Path, name: str, package: str) -> Path | None:
    """Return the present directory of the package that builds on the volume ``name``, if ``path`` was only renamed.

    Return ``None`` if no directory beside ``path`` has the id of the volume.
    """
    for file in path.parent.glob(f"*/.nerves/artifacts/{glob.escape(package)}-portable-*/.docker_id"):
        with suppress(OSError, UnicodeDecodeError):
            identifier = file.read_text().strip()
            if identifier and name.endswith(f"-{identifier}"):
                return file.parents[3]
    return None


def _named(names: Iterable[str], every: Iterable[BuildVolume], allowed: Sequence[BuildVolume]) -> list[BuildVolume]:
    """Return the volumes with these names. Raises ``RunnerError`` if one does not exist or must not be removed."""
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
    """Remove the volumes ``going`` after the user has agreed. Return the names of the removed ones and a text.

    The text is for the user, and ends with the lines ``kept``. With ``yes`` nobody is asked. If ``ask`` is false, there
    is no terminal to ask at.
    """
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
    """Return the lines that say which other volumes the user may want to remove, and with which command."""
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
    """Return one line for each volume, with its name, package and version, size, age, and a remark."""
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
    """Return when this runner last built on the volume or, if that is not known, when the volume was made."""
    if each.last_built is not None:
        return f"last built by this runner {ago(time.time() - each.last_built)}"
    return "age unknown" if each.created is None else f"made {ago(time.time() - each.created)}"


def _sizes(engine: Engine) -> dict[str, int]:
    """Return the sizes of the volumes in bytes, by name, as far as the engine knows them."""
    with engine.failures("while it added up the sizes of its volumes"):
        # An engine before API version 1.42 ignores `type`, and also adds up the sizes of images and containers.
        deadline = time.monotonic() + SIZES_PATIENCE
        while True:
            response = engine.api.get(engine.url("/system/df"), params={"type": "volume"}, timeout=SIZES_TIMEOUT)
            # Docker adds up the sizes for only one client at a time.
            if b"disk usage operation is already running" not in response.content or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        try:
            response.raise_for_status()
            entries = list(response.json().get("Volumes") or [])
        except (requests.HTTPError, ValueError, AttributeError, TypeError):
            return {}
    sizes = {str(entry.get("Name")): (entry.get("UsageData") or {}).get("Size") for entry in entries}
    # The size -1 means that the engine does not know it.
    return {name: count for name, count in sizes.items() if isinstance(count, int) and count >= 0}


def _last_built(name: str, path: Path, package: str, version: str) -> float | None:
    # This is the directory that `Nerves.Artifact.build_path/1` returns.
    directory = path / ".nerves" / "artifacts" / f"{package}-portable-{version}"
    return journal.last_built(directory, name)
