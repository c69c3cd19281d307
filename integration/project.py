"""A temporary Mix project: a copy of the miniature system and its dependencies in another directory.

Mix runs there with its own home directory, download directory and artifact cache, so the repository does not change.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from integration.elixir import command_in
from integration.host import REPOSITORY, WorldError

if TYPE_CHECKING:
    from collections.abc import Mapping

HERE = Path(__file__).resolve().parent
# The platform version for each kind of image. A build runner derives the working directory and the user from it.
PLATFORM_VERSIONS = {"old": "1.27.1", "new-1.28.0": "1.28.0", "new": "1.34.0"}
# These variables are removed from the environment of Mix, because a developer's settings would change the project.
FOREIGN = (
    *("NERVES_SYSTEM", "NERVES_TOOLCHAIN", "XDG_DATA_HOME", "MIX_ENV", "MIX_TARGET", "MIX_BUILD_PATH", "MAKEFLAGS"),
    *("CI", "GITHUB_ACTIONS", "GITLAB_CI", "GITHUB_STEP_SUMMARY"),
)


@dataclass(frozen=True)
class Project:
    """The directories of a temporary project, and the commands to run Mix in it."""

    directory: Path
    elixir: Path | None = None
    """The root file system of the Elixir to use, or `None` for the Elixir of the machine."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Environment variables for the engine, and those that `system/mix.exs` lists."""

    @property
    def system(self) -> Path:
        """The directory of the custom system, in which Mix runs."""
        return self.directory / "system"

    @property
    def platform(self) -> Path:
        """The directory of the platform. Builds write to it."""
        return self.directory / "platform"

    @property
    def downloads(self) -> Path:
        """$NERVES_DL_DIR."""
        return self.directory / "dl"

    @property
    def artifacts(self) -> Path:
        """$NERVES_ARTIFACTS_DIR."""
        return self.directory / "artifacts"

    @property
    def home(self) -> Path:
        """$HOME. It has no `.ssh`."""
        return self.directory / "home"

    def env(self, **more: str) -> dict[str, str]:
        """Return the environment variables for Mix."""
        ours = {
            "HOME": str(self.home),
            "NERVES_DL_DIR": str(self.downloads),
            "NERVES_ARTIFACTS_DIR": str(self.artifacts),
            "LC_ALL": "C.UTF-8",
        }
        kept = {name: value for name, value in os.environ.items() if name not in FOREIGN}
        return {**kept, **ours, **self.settings, **more}

    def command(self, *task: str) -> list[str]:
        """Return the command line of a Mix task, which has to be run in the directory `system`."""
        return command_in(self.elixir, ["mix", *task], shared=[self.directory])

    def mix(self, *task: str, timeout: float = 600.0, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a Mix task to its end. `stdout` of the result has the whole output, with standard error."""
        return subprocess.run(
            self.command(*task),
            cwd=self.system,
            env=self.env(**more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )


def lay_out(
    directory: Path, *, host: str, image: str, kind: str = "new", elixir: Path | None = None, **settings: str
) -> Project:
    """Copy the miniature system and its dependencies to `directory`, which must be new or empty.

    `host` is the engine's endpoint, and `image` the tag of a builder image of that `kind`. The project uses the helper
    in the shim's package (`make package`), unless NERVES_DOCKER_PORT_COMMAND names another one. Raises `WorldError` if
    there is no helper.
    """
    if not os.environ.get("NERVES_DOCKER_PORT_COMMAND"):
        carried = REPOSITORY / "elixir_shim" / "priv" / "python" / "__main__.py"
        if not carried.exists():
            raise WorldError("the shim carries no helper yet: run `make package`, or set NERVES_DOCKER_PORT_COMMAND")
    generated = shutil.ignore_patterns("_build", "deps", "doc", "__pycache__", ".nerves", "buildroot", "buildroot-*")
    for name in ("platform", "system", "nerves_stand_in"):
        shutil.copytree(HERE / name, directory / name, ignore=generated, symlinks=True)
    # `generated` has also excluded the directory `buildroot-*` in `upstream`, which is a source.
    shutil.copytree(HERE / "platform" / "upstream", directory / "platform" / "upstream", dirs_exist_ok=True)
    shutil.copytree(REPOSITORY / "elixir_shim", directory / "elixir_shim", ignore=generated, symlinks=True)
    (directory / "platform" / "VERSION").write_text(PLATFORM_VERSIONS[kind] + "\n")
    fixed = {"DOCKER_HOST": host, "MINI_IMAGE": image, "MINI_SHIM_PATH": "../elixir_shim"}
    project = Project(directory=directory, elixir=elixir, settings={**fixed, **settings})
    for made in (project.home, project.downloads):
        made.mkdir()
    return project
