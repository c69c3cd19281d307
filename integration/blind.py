"""Starts an engine that sees none of the host's files, like one on another host, in a virtual machine or in Docker.

It is a `dockerd` in a mount namespace of its own, in which the directories where people have their projects are empty,
and in a UTS namespace of its own, so that its host name differs from this machine's. A test can change both while the
engine runs.
"""

from __future__ import annotations

import contextlib
import http.client
import secrets
import shutil
import subprocess
import tempfile
import time
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from integration.engine import START_SECONDS, Api, Places, answers, die_with_parent, dockerd_command, end, sweep
from integration.host import WorldError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NAME = "far"
HIDDEN = ("/tmp", "/home", "/root", "/mnt")


@dataclass(frozen=True)
class BlindEngine:
    """A running engine that does not see the host's files."""

    host: str
    """The value for DOCKER_HOST."""
    data: Path
    """The engine's data root, as a path of this machine."""
    pid: int

    def run_there(self, *argv: str) -> None:
        """Run a program in the namespaces of the engine, so that it sees the same files and the same host name."""
        subprocess.run(["nsenter", f"--target={self.pid}", "--mount", "--uts", *argv], check=True, capture_output=True)


@contextlib.contextmanager
def blind_engine(source: str, images: Sequence[str]) -> Iterator[BlindEngine]:
    """Provide such an engine while the block runs, with copies of these images of the engine at `source`."""
    # The name becomes that of a containerd namespace. Its words must have letters and digits, and not begin with "_".
    cache = Path(f"/var/tmp/ndp-blind-{secrets.token_hex(4)}")
    cache.mkdir(mode=0o700)
    where = Places(cache=cache, run=Path("/run") / cache.name)
    hidden = {*HIDDEN, tempfile.gettempdir()}
    script = f'hostname {NAME}; for d in {" ".join(sorted(hidden))}; do mount -t tmpfs none "$d"; done; exec "$@"'
    unshare = ["unshare", "--mount", "--uts", "--propagation", "private", "bash", "-e", "-c", script, "bash"]
    where.run.mkdir(mode=0o755)
    try:
        with where.log.open("wb") as log:
            daemon = subprocess.Popen(
                [*unshare, *dockerd_command(where)],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - the tests have one thread when this is called
            )
        try:
            _await_start(daemon, where)
            copy_images(source, where.host, images)
            yield BlindEngine(where.host, where.data, daemon.pid)
        finally:
            end(daemon)
    finally:
        sweep(where)
        shutil.rmtree(cache)


def copy_images(source: str, target: str, images: Sequence[str]) -> None:
    """Copy these images from the engine at `source` to the engine at `target`."""
    names = urllib.parse.urlencode({"names": list(images)}, doseq=True)
    status, packed = Api(source).request("GET", f"/images/get?{names}")
    if status != 200:
        raise WorldError(f"the engine does not give the images {', '.join(images)}: {packed[:200]!r}")
    Api(target).events("/images/load?quiet=1", body=packed, what="load images")


def _await_start(daemon: subprocess.Popen[bytes], where: Places) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if answers(where.host, timeout=1.0):
                return
        if daemon.poll() is not None or time.monotonic() > deadline:
            lines = where.log.read_text(errors="replace").splitlines()[-15:]
            raise WorldError("\n".join(["dockerd does not come up:", *lines]))
        time.sleep(0.05)
