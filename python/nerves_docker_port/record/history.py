"""What this machine remembers of earlier builds, of this package and of others, for the progress of the next one.

In the person's home directory there are a list of the directories with journals, so that the builds of one system can
tell of another's, and what Buildroot said of the packages of each configuration, so that it is asked once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from nerves_docker_port.record import estimate, journal
from nerves_docker_port.record.estimate import EarlierBuild

_DIRECTORY: Final = ".local/state/nerves_docker_port"
"""In the home directory (XDG Base Directory Specification, "state data")."""
_INDEX: Final = "journals"
_PACKAGES: Final = "packages"

_OWN: Final = 10
"""How many of this package's builds are looked at."""
_OTHERS: Final = 10
"""Of how many other packages the last build is looked at."""
_LONGEST_INDEX: Final = 1000
"""Lines of the index; the latest are kept."""
_KEPT_LISTS: Final = 50
"""How many configurations are remembered."""


@dataclass(frozen=True)
class Packages:
    """The packages of a configuration."""

    directories: dict[str, str]
    """Of each package the directory that it is built in, below the build directory: ``build/busybox-1.36.1``."""

    @property
    def names(self) -> frozenset[str]:
        """Buildroot's names, those of the host as ``host-...``."""
        return frozenset(self.directories)

    def built(self, directories: set[str]) -> frozenset[str]:
        """The packages whose directories are these."""
        return frozenset(name for name, directory in self.directories.items() if directory in directories)


def parse_packages(content: bytes) -> Packages | None:
    """What `make show-info` wrote; ``None`` where that is something else.

    A warning of make may stand before it. The file systems of a configuration are in it, too, but are no packages.
    """
    try:
        told = json.loads(content[content.index(b"{") :])
        directories = {
            str(name): str(each["stamp_dir"]) for name, each in told.items() if each["type"] in ("target", "host")
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return Packages(directories) if directories else None


class History:
    """The earlier builds of one package, and of others on this machine. Nothing here raises ``OSError``."""

    def __init__(self, home: Path, journals: Path) -> None:
        """``journals`` is the directory with the journals of this package."""
        self._state = home / _DIRECTORY
        self._journals = journals

    def register(self) -> None:
        """Let builds of other packages find the journals of this one."""
        index = self._state / _INDEX
        with suppress(OSError):
            known = self._known()
            if str(self._journals) in known or "\n" in str(self._journals):
                return
            self._state.mkdir(parents=True, exist_ok=True)
            if len(known) >= _LONGEST_INDEX:
                _replace(index, "".join(f"{line}\n" for line in known[-_LONGEST_INDEX // 2 :]))
            with index.open("a", errors="surrogateescape") as file:
                file.write(f"{self._journals}\n")

    def own(self) -> list[EarlierBuild]:
        """This package's last builds, the latest first."""
        return list(islice(_earlier(self._journals), _OWN))

    def others(self) -> list[EarlierBuild]:
        """The last build of each of the packages that were built last on this machine, the latest first."""
        latest = []
        for line in dict.fromkeys(self._known()):
            if line != str(self._journals):
                latest += [(path.name, path) for path in journal.files(Path(line))[:1]]
        found = (next(_earlier(path.parent), None) for _, path in sorted(latest, reverse=True)[:_OTHERS])
        return [each for each in found if each is not None]

    def packages_of(self, configuration: str) -> Packages | None:
        """What is remembered of the configuration whose ``.config`` has this SHA-256."""
        with suppress(OSError):
            return parse_packages((self._state / _PACKAGES / f"{configuration}.json").read_bytes())
        return None

    def remember(self, configuration: str, packages: Packages) -> None:
        """Remember the packages of a configuration, as `make show-info` tells of them, but no more than we need."""
        directory = self._state / _PACKAGES
        with suppress(OSError):
            directory.mkdir(parents=True, exist_ok=True)
            kept = sorted(directory.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
            for path in kept[_KEPT_LISTS - 1 :]:
                path.unlink()
            told = {name: {"type": "target", "stamp_dir": each} for name, each in packages.directories.items()}
            _replace(directory / f"{configuration}.json", json.dumps(told))

    def _known(self) -> list[str]:
        try:
            return (self._state / _INDEX).read_text(errors="surrogateescape").splitlines()
        except OSError:
            return []


def _earlier(directory: Path) -> Iterator[EarlierBuild]:
    for path in journal.files(directory):
        build = journal.read(path) if "-build-" in path.name and not journal.is_open(path) else None
        found = None if build is None else estimate.earlier_build(build)
        if found is not None:
            yield found


def _replace(path: Path, text: str) -> None:
    """Write a file whole or not at all: others may be reading it."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(text, errors="surrogateescape")
    new.replace(path)
