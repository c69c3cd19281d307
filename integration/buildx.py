"""Finds or fetches the buildx plug-in of the docker CLI, which builds images with BuildKit.

Debian has a package for it since trixie. The program in this package also runs on bookworm, with the CLI and the engine
of bookworm. So on bookworm it is unpacked from trixie's package, and nothing is installed.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from integration.elixir import command_in, ensure_elixir
from integration.host import WorldError, cache_dir, has_apt, is_root, locked, logged, say

PLACES = ("/usr/libexec/docker/cli-plugins", "/usr/lib/docker/cli-plugins", "/usr/local/lib/docker/cli-plugins")
NAME = "docker-buildx"


def ensure_buildx() -> Path:
    """Return the path of the plug-in's program, to be linked in the directory `cli-plugins` of a DOCKER_CONFIG."""
    for place in PLACES:
        if (Path(place) / NAME).exists():
            return Path(place) / NAME
    kept = cache_dir() / "buildx-trixie" / NAME
    with locked("buildx"):
        if kept.exists():
            return kept
        if not (has_apt() and is_root()):
            raise WorldError("no `docker buildx` here. Please install Docker's buildx plug-in, then run this again.")
        say("fetching Debian trixie's docker-buildx")
        kept.parent.mkdir(exist_ok=True)
        # apt-get in the root file system of trixie's Elixir uses the package lists of trixie.
        fetch = f"cd '{kept.parent}' && apt-get update && apt-get -o Acquire::Retries=3 download docker-buildx"
        logged(command_in(ensure_elixir("trixie"), ["sh", "-c", fetch]), cache_dir() / "logs" / "buildx.log")
        (package,) = kept.parent.glob("*.deb")
        unpacked = kept.parent / "unpacked"
        subprocess.run(["dpkg-deb", "--extract", package, unpacked], check=True)
        (unpacked / PLACES[0].lstrip("/") / NAME).rename(kept)
        package.unlink()
        subprocess.run(["rm", "-r", unpacked], check=True)
    return kept
