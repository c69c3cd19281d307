"""Makes the small system of the tests for each kind of image, and the programs that write the logs."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from integration.host import REPOSITORY, WorldError

from support.images import NEW, OLD
from support.system import System

SOURCES = (
    REPOSITORY / "integration/platform/upstream/buildroot-2026.05/support/misbehave.c",
    REPOSITORY / "bench/stamp.c",
)
TOOLS = "/nerves/env/my_system/tools"
"""The path of the compiled programs in a container. It is below the package's directory."""
WORKDIRS = {NEW: "/home/nerves/project", OLD: "/nerves/build"}
VERSIONS = {NEW: "1.34.0", OLD: "1.27.1"}


@dataclass(frozen=True)
class Log:
    """A log that a container writes."""

    name: str
    arguments: tuple[str, ...]
    """The arguments of `misbehave` that write it."""
    knobs: tuple[str, ...]
    """The knobs of the miniature platform that write the same log."""
    size: int
    """Bytes."""
    sha256: str

    @property
    def command(self) -> list[str]:
        """The command that writes the log in a container."""
        return [f"{TOOLS}/misbehave", *self.arguments]


@dataclass
class Place:
    """The directories and systems for benchmarks on one engine. `place` removes all of them."""

    directory: Path
    host: str
    logs: dict[tuple[str, ...], Log] = field(default_factory=dict)
    _systems: dict[str, System] = field(default_factory=dict)

    def system(self, image: str = NEW) -> System:
        """Return the system that is built with this image. It belongs to the person who runs the benchmark."""
        if image not in self._systems:
            system = System(
                root=self.directory / image.rpartition(":")[2],
                uid=os.getuid(),
                image=image,
                host=self.host,
                platform_version=VERSIONS[image],
            )
            (system.root / "home/.ssh").mkdir()
            (system.root / "dl").mkdir()
            # The containers of the stock runner run as the image's own user, who must be able to write to these files.
            system.write("my_system/Config.in", "")
            (system.root / "dl").chmod(0o777)
            self._systems[image] = system
            self._compile(system)
        return self._systems[image]

    def log(self, name: str, arguments: Sequence[str], knobs: Sequence[str]) -> Log:
        """Return the log that `misbehave` writes. Its size and hash are computed in a container, without any runner."""
        key = tuple(arguments)
        if key not in self.logs:
            system = self.system()
            script = '"$@" | sha256sum; "$@" | wc -c'
            words = ["sh", "-c", script, "sh", f"{TOOLS}/misbehave", *arguments]
            digest, _, size = self.docker("run", "--rm", *mounts(system), system.image, *words).split()
            self.logs[key] = Log(name, key, tuple(knobs), int(size), digest)
        return self.logs[key]

    def docker(self, *words: str) -> str:
        """Run the `docker` CLI, and return its output. Raises `WorldError` if it fails."""
        done = subprocess.run(["docker", *words], env=self.env(), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise WorldError(f"`docker {' '.join(words)}` ended with status {done.returncode}:\n{done.stderr}")
        return done.stdout.strip()

    def env(self) -> dict[str, str]:
        """Return the environment for a program that uses the engine."""
        return {**os.environ, "DOCKER_HOST": self.host}

    def reset(self, image: str) -> None:
        """Remove the build volume and the artifact of the system that is built with this image."""
        system = self.system(image)
        for identity in system.package.glob(".nerves/artifacts/*/.docker_id"):
            self.docker("volume", "rm", "--force", f"{system.app}-{identity.read_text()}")
        shutil.rmtree(system.package / ".nerves", ignore_errors=True)
        system.artifact.unlink(missing_ok=True)

    def new_volume(self) -> str:
        """Return a new volume name of the kind that the stock runner makes."""
        return f"my_system-{secrets.token_hex(8).upper()}"

    def _compile(self, system: System) -> None:
        tools = system.package / "tools"
        tools.mkdir()
        for source in SOURCES:
            shutil.copy(source, tools)
            inside = f"{TOOLS}/{source.stem}"
            self.docker(
                *("run", "--rm", "--user", "0:0", "--entrypoint", "gcc", *mounts(system), system.image),
                *("-O2", "-o", inside, f"{inside}.c"),
            )


def mounts(system: System) -> list[str]:
    """Return the mounts that both runners use, without the build volume, as words for `docker run`."""
    bound = {
        "/nerves/dl": system.root / "dl",
        "/nerves/env/my_system": system.package,
        "/nerves/env/platform": system.root / "platform",
    }
    return [word for to, path in bound.items() for word in ("--mount", f"type=bind,src={path},target={to}")]


def check_log(path: Path, log: Log, what: str) -> None:
    """Check that the file contains every byte of `log`, in one piece. Raises `WorldError` if it does not."""
    with path.open("rb") as file:
        start = _find(file.read(1 << 20), log)
        file.seek(max(start, 0))
        digest, left = hashlib.sha256(), log.size
        while left and (data := file.read(min(left, 1 << 20))):
            digest.update(data)
            left -= len(data)
    if start < 0 or left or digest.hexdigest() != log.sha256:
        raise WorldError(f"{what}: {path} does not hold the whole log ({path.stat().st_size} bytes)")


def _find(beginning: bytes, log: Log) -> int:
    first = b"x" * 64 if log.arguments[0] == "oneline" else b"line 1 ."
    # `make` may print its command before the log, but the log always begins on a new line.
    return 0 if beginning.startswith(first) else beginning.find(b"\n" + first) + 1 or -1


@contextmanager
def place(host: str) -> Iterator[Place]:
    """Make a place in a temporary directory. After the block, its directory and its volumes are removed."""
    directory = Path(tempfile.mkdtemp(prefix="ndp-bench-"))
    directory.chmod(0o755)
    made = Place(directory, host)
    try:
        yield made
    finally:
        for image in (NEW, OLD):
            if (directory / image.rpartition(":")[2]).exists():
                made.reset(image)
        shutil.rmtree(directory, ignore_errors=True)
