"""Copy the helper and its dependencies into the shim's package (``make package``).

    python python/package_helper.py elixir_shim/priv/python

The result contains pure Python only. It runs on every machine with ``python3`` 3.10 or later, without pip, a virtual
environment or a network. Only this script needs pip and a package index. The target directory is replaced as a whole,
after the new one is complete.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "runtime.txt"
OLDEST_PYTHON = "3.10"

# The package index has no pure Python wheels of these packages, but their sources can be built into such wheels.
FROM_SOURCE = ("erlang_py", "msgpack")

# Only syntax that Python 2.7 can parse, so that a Python that is too old prints the message and no syntax error.
MAIN = '''\
"""Entry point of the packaged helper: `python3 -I -X utf8 priv/python port`."""
import sys

if sys.version_info < (3, 10):
    sys.stderr.write(
        "nerves_docker_port needs Python 3.10 or later; %s is Python %s.\\n"
        % (sys.executable, sys.version.split()[0])
    )
    sys.exit(78)

from nerves_docker_port.__main__ import main

sys.exit(main())
'''


def main() -> None:
    """Run the command line in the module's docstring. Exits with a message if a dependency is not pure Python."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path)
    target: Path = parser.parse_args().target.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        staged = Path(scratch) / "python"
        _install(staged, Path(scratch))
        shutil.copytree(
            ROOT / "python" / "nerves_docker_port",
            staged / "nerves_docker_port",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        (staged / "__main__.py").write_text(MAIN)
        compiled = [path for path in staged.rglob("*") if path.suffix in (".so", ".pyd", ".dylib")]
        if compiled:
            sys.exit(f"not pure Python: {', '.join(path.name for path in compiled)}")
        if target.exists():
            shutil.rmtree(target)
        staged.rename(target)
    print(f"packaged the helper in {target}")  # noqa: T201


def _install(staged: Path, scratch: Path) -> None:
    """Install the locked dependencies in ``staged``, from wheels for any platform, or from sources."""
    wheels = scratch / "wheels"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    lock = _split_lock(scratch)
    environment = {**os.environ, "MSGPACK_PUREPYTHON": "1"}
    subprocess.run(
        [
            *pip,
            "wheel",
            "--no-deps",
            # Without this, the pip of Debian 12 needs the `wheel` package, which a new virtual environment lacks.
            "--use-pep517",
            "--no-binary",
            ",".join(FROM_SOURCE),
            "--wheel-dir",
            wheels,
            "-r",
            lock["source"],
        ],
        check=True,
        env=environment,
    )
    subprocess.run(
        [
            *(*pip, "install", "--no-deps", "--no-compile", "--target", str(staged), "-r", str(lock["wheel"])),
            *("--only-binary", ":all:", "--platform", "any", "--implementation", "py"),
            *("--python-version", OLDEST_PYTHON),
        ],
        check=True,
    )
    subprocess.run(
        [
            *pip,
            "install",
            "--no-deps",
            "--no-compile",
            "--no-index",
            "--target",
            staged,
            *wheels.glob("*.whl"),
        ],
        check=True,
    )
    # The commands of the dependencies, which the helper does not use.
    shutil.rmtree(staged / "bin", ignore_errors=True)


def _split_lock(scratch: Path) -> dict[str, Path]:
    """Split the lock file into the packages built from source and the rest. A requirement keeps its hashes."""
    parts: dict[str, list[str]] = {"source": [], "wheel": []}
    current = "wheel"
    for line in LOCK.read_text().splitlines(keepends=True):
        if line[:1].isalnum():
            name = line.split("==")[0].replace("-", "_").lower()
            current = "source" if name in FROM_SOURCE else "wheel"
        parts[current].append(line)
    paths = {}
    for name, lines in parts.items():
        paths[name] = scratch / f"{name}.txt"
        paths[name].write_text("".join(lines))
    return paths


if __name__ == "__main__":
    main()
