"""A Mix project of one's own: copies of the mini system and of all that it depends on, in a directory that can be
thrown away, and Mix run in it with a home, a download directory and a cache of its own. The repository stays untouched.
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
# Which platform version goes with which kind of image: the working directory and the user depend on it.
PLATFORM_VERSIONS = {"old": "1.27.1", "new-1.28.0": "1.28.0", "new": "1.34.0"}
# A person's own settings of these would reach into the project.
FOREIGN = ("NERVES_SYSTEM", "NERVES_TOOLCHAIN", "XDG_DATA_HOME", "MIX_ENV", "MIX_TARGET", "MIX_BUILD_PATH", "MAKEFLAGS")


@dataclass(frozen=True)
class Project:
    """The directories of a laid out project, and how Mix is run in it."""

    directory: Path
    elixir: Path | None = None
    """The root file system of the Elixir to use; `None` for the machine's."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Environment variables: the engine, and what `system/mix.exs` lists."""

    @property
    def system(self) -> Path:
        """The custom system: Mix's working directory."""
        return self.directory / "system"

    @property
    def platform(self) -> Path:
        """The platform, which builds write to."""
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
        """$HOME; without an `.ssh`."""
        return self.directory / "home"

    def env(self, **more: str) -> dict[str, str]:
        """Mix's environment."""
        ours = {
            "HOME": str(self.home),
            "NERVES_DL_DIR": str(self.downloads),
            "NERVES_ARTIFACTS_DIR": str(self.artifacts),
            "LC_ALL": "C.UTF-8",
        }
        kept = {name: value for name, value in os.environ.items() if name not in FOREIGN}
        return {**kept, **ours, **self.settings, **more}

    def command(self, *task: str) -> list[str]:
        """The command line that runs a Mix task; to be run in `system`."""
        return command_in(self.elixir, ["mix", *task], shared=[self.directory])

    def mix(self, *task: str, timeout: float = 600.0, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a Mix task to its end; what it prints, errors included, is `stdout`."""
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
    """Copy the mini project to `directory`, which must be new or empty.

    `host` is the engine's endpoint, `image` the tag of a build image of that `kind`. The helper is the one that the
    shim carries (`make package`), unless NERVES_DOCKER_PORT_COMMAND names another.
    """
    if not os.environ.get("NERVES_DOCKER_PORT_COMMAND"):
        carried = REPOSITORY / "elixir_shim" / "priv" / "python" / "__main__.py"
        if not carried.exists():
            raise WorldError("the shim carries no helper yet: run `make package`, or set NERVES_DOCKER_PORT_COMMAND")
    generated = shutil.ignore_patterns("_build", "deps", "doc", "__pycache__", ".nerves", "buildroot", "buildroot-*")
    for name in ("platform", "system", "nerves_stand_in"):
        shutil.copytree(HERE / name, directory / name, ignore=generated, symlinks=True)
    # The sources that the platform packs are named like what is generated from them.
    shutil.copytree(HERE / "platform" / "upstream", directory / "platform" / "upstream", dirs_exist_ok=True)
    shutil.copytree(REPOSITORY / "elixir_shim", directory / "elixir_shim", ignore=generated, symlinks=True)
    (directory / "platform" / "VERSION").write_text(PLATFORM_VERSIONS[kind] + "\n")
    fixed = {"DOCKER_HOST": host, "MINI_IMAGE": image, "MINI_SHIM_PATH": "../elixir_shim"}
    project = Project(directory=directory, elixir=elixir, settings={**fixed, **settings})
    for made in (project.home, project.downloads):
        made.mkdir()
    return project
