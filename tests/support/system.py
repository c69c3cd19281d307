"""A system, a platform and a home directory on disk, for tests against a real engine.

The platform does what matters to the runner (it writes a ``Config.in`` into the package, and a Makefile into the build
directory), but it compiles nothing, and a test decides what its steps do. `integration/platform` compiles something.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker

from nerves_docker_port.port.wire import Term
from support.images import NEW
from support.port import Conversation, Helper, packaged_command
from support.requests import arguments

CREATE_BUILD = """\
#!/bin/sh
set -e
printf '\\033[7m>>> create-build %s\\033[27m\\n' "$(basename "$1")"
dir=$(dirname "$1")
[ -f "$1" ] || { echo "no defconfig $1"; exit 1; }
[ -e "$dir/Config.in" ] || echo "# Add project-specific packages here" > "$dir/Config.in"
[ ! -e "$dir/in_create_build.sh" ] || . "$dir/in_create_build.sh"
cp /nerves/env/platform/Makefile "$2/Makefile"
"""

# The make argument `RUN` and, for `make system`, a script in the package can add commands to a step.
MAKEFILE = """\
all:
\t@$(or $(RUN),true)
\t@printf '\\033[7m>>> hello 1.0 Building\\033[27m\\n'
\t@id -u > built

system:
\t@[ ! -e $(SCRIPT) ] || . $(SCRIPT)
\t@printf '\\033[7m>>> system Packing\\033[27m\\n'
\t@[ -e built ] || { echo "make: nothing built"; exit 2; }
\t@mkdir -p "$(NERVES_ARTIFACT_NAME)"
\t@cp built "$(NERVES_ARTIFACT_NAME)/nerves-system.tag"
\t@tar czf "$(NERVES_ARTIFACT_NAME).tar.gz" "$(NERVES_ARTIFACT_NAME)"

SCRIPT = $(wildcard /nerves/env/*/in_make_system.sh)
"""


@dataclass
class System:
    """One system in the directory ``root``, owned by ``uid``."""

    root: Path
    uid: int
    image: str
    host: str
    """The engine's ``DOCKER_HOST``."""
    app: str = "my_system"
    platform_version: str | None = "1.34.0"
    package_name: str = "my_system"
    variables: Mapping[str, str] = field(default_factory=dict)
    """Further variables that the helper needs to reach the engine."""

    def __post_init__(self) -> None:
        self.write("platform/create-build.sh", CREATE_BUILD, mode=0o755)
        self.write("platform/Makefile", MAKEFILE)
        self.write(f"{self.package_name}/nerves_defconfig", "BR2_x86_64=y\n")
        (self.root / "home").mkdir(exist_ok=True)
        self.own()

    @property
    def package(self) -> Path:
        """The system's directory."""
        return self.root / self.package_name

    @property
    def artifact(self) -> Path:
        """The path of the artifact."""
        return self.root / "dl" / f"{self.app}-portable-0.1.0-ABCDEF0.tar.gz"

    @property
    def build_log(self) -> Path:
        """The path of the log of ``build``."""
        return self.package / "build.log"

    @property
    def archive_log(self) -> Path:
        """The path of the log of ``archive``."""
        return self.package / "archive.log"

    @property
    def volume(self) -> str:
        """The build volume's name."""
        directory = self.package / ".nerves" / "artifacts" / f"{self.app}-portable-0.1.0"
        return f"{self.app}-{(directory / '.docker_id').read_text()}"

    def write(self, path: str, text: str, *, mode: int = 0o644) -> Path:
        """Write a file in ``root`` that belongs to the system's user."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
        self.own()
        return file

    def own(self) -> None:
        """Make the system's user the owner of everything in ``root``."""
        if os.getuid() == 0:
            for directory, _, files in os.walk(self.root):
                os.chown(directory, self.uid, self.uid)
                for file in files:
                    os.chown(Path(directory) / file, self.uid, self.uid, follow_symlinks=False)

    def args(self, **changes: Any) -> dict[Term, Term]:
        """Return the arguments of a request."""
        changes.setdefault("image", self.image)
        return arguments(
            self.root, app=self.app, package=self.package, platform_version=self.platform_version, **changes
        )

    def helper(self, *, stderr: int | None = None, **env: str) -> Helper:
        """Start a helper that runs as the system's user."""
        return Helper(
            command=packaged_command(),
            env={"DOCKER_HOST": self.host, "HOME": str(self.root / "home"), **self.variables, **env},
            user=self.uid if os.getuid() == 0 else None,
            stderr=stderr,
        )

    def run(self, op: str, *, answers: Sequence[bool] = (), **changes: Any) -> Conversation:
        """Send one request to a helper of its own."""
        with self.helper() as helper:
            return helper.request(op, self.args(**changes), answers=answers)

    def built_by(self) -> int:
        """Return the uid of the build, which the build has written to the artifact."""
        with tarfile.open(self.artifact) as archive:
            name = next(name for name in archive.getnames() if name.endswith("nerves-system.tag"))
            member = archive.extractfile(name)
            assert member is not None
            return int(member.read())


def ours(client: docker.DockerClient, volume: str | None = None) -> list[str]:
    """Return the names of the containers with this package's label, even if they do not run."""
    label = "nerves-docker-port.volume" + ("" if volume is None else f"={volume}")
    # Not the SDK's list of objects: it inspects each, and Podman answers 500 for one that it has just removed.
    listed = client.api.containers(all=True, filters={"label": label})
    return [str(each["Names"][0]).lstrip("/") for each in listed]


def at_work(client: docker.DockerClient, volume: str) -> list[str]:
    """Return the names in ``ours`` that hold the volume, which a parked session does not."""
    return [name for name in ours(client, volume) if not name.startswith(f"{volume}-parked-")]


def owner(path: Path) -> tuple[int, int]:
    """Return the uid and the gid of a file."""
    status = path.lstat()
    return status.st_uid, status.st_gid


def load_json(path: Path) -> Any:
    """Return the value in a JSON file."""
    return json.loads(path.read_text())


def content_of_volume(client: docker.DockerClient, volume: str) -> str:
    """Return the bytes of every file in ``volume``, one after the other, decoded as Latin-1."""
    content: bytes = client.containers.run(
        NEW,
        ["sh", "-c", "find /tree -type f -exec cat {} +"],
        mounts=[docker.types.Mount("/tree", volume)],
        user="0",
        remove=True,
    )
    return content.decode("latin-1")
