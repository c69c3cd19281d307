"""Runs tests of the helper with the Python of each Debian release that `world.py` has an Elixir of.

    .venv/bin/python integration/pythons.py [SUITE...] -- ARGUMENT...     pytest gets the arguments

It is run by a virtual environment that has pip, because the releases' own Pythons have none.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pip

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from integration.elixir import SUITES, command_in, ensure_elixir
from integration.host import REPOSITORY, WorldError, cache_dir, locked, main_program, say

REQUIREMENTS = REPOSITORY / "requirements" / "dev.txt"
PIP = Path(pip.__file__).resolve().parent
# What pip needs in the root file systems: itself, and the certificates that this machine trusts.
SHARED = [path for path in (PIP, Path("/etc/ssl/certs")) if path.is_dir()]


def main(arguments: list[str]) -> int:
    """Run the tests with each Python, all of them although one fails. Returns the exit status."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    failed = []
    for suite in arguments[:at] or [suite for suite in SUITES if suite != "host"]:
        root = ensure_elixir(suite)
        python = str(_environment(suite, root) / "bin" / "python")
        version = _run(root, [python, "-c", "import platform; print(platform.python_version())"]).stdout.strip()
        say(f"Python {version} ({suite})")
        done = subprocess.run(
            command_in(root, [python, "-m", "pytest", *arguments[at + 1 :]], SHARED), cwd=REPOSITORY, check=False
        )
        if done.returncode != 0:
            failed.append(f"Python {version}")
    if failed:
        say(f"failed with {' and '.join(failed)}")
    return 1 if failed else 0


def _environment(suite: str, root: Path | None) -> Path:
    """Return the virtual environment with what the tests need; make it if it is not in the cache."""
    recipe = hashlib.sha256(f"{root}\n".encode() + REQUIREMENTS.read_bytes()).hexdigest()[:12]
    made = cache_dir() / "pythons" / f"{suite}-{recipe}"
    with locked(f"python-{suite}"):
        if not (made / "ready").exists():
            shutil.rmtree(made, ignore_errors=True)
            # Debian has pip in packages of its own, so another pip runs with this Python, as `pip --python` does it.
            _run(root, ["/usr/bin/python3", "-m", "venv", "--without-pip", str(made)])
            install = [str(made / "bin" / "python"), str(PIP / "__pip-runner__.py"), "install", "--quiet"]
            _run(root, [*install, "--use-pep517", "--require-hashes", "--requirement", str(REQUIREMENTS)])
            (made / "ready").touch()
    return made


def _run(root: Path | None, argv: list[str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command_in(root, argv, SHARED), env=os.environ, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise WorldError(f"`{' '.join(argv)}` ended with status {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


if __name__ == "__main__":
    sys.exit(main_program(lambda: main(sys.argv[1:])))
