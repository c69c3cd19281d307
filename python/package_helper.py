"""Copy the helper and its dependencies into the shim's package (``make package``).

    python python/package_helper.py elixir_shim/priv/python

The result contains pure Python only. It runs on every machine with ``python3`` 3.10 or later, without pip, a virtual
environment or a network. Only this script needs pip and a package index. The target directory is replaced as a whole,
after the new one is complete.

The same sources give the same files, wherever and by whom they are packaged: the dependencies and what builds them are
locked with hashes, and what pip notes about an installation (such as the builder's path) is removed. So anybody can
check a release. The last line of the output has one SHA-256 for all files. ``sbom.cdx.json`` lists the dependencies
with their versions and licenses.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from email.parser import HeaderParser
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
        (staged / "sbom.cdx.json").write_text(json.dumps(_sbom(staged), indent=2) + "\n")
        _tidy(staged)
        compiled = [path for path in staged.rglob("*") if path.suffix in (".so", ".pyd", ".dylib")]
        if compiled:
            sys.exit(f"not pure Python: {', '.join(path.name for path in compiled)}")
        if target.exists():
            shutil.rmtree(target)
        staged.rename(target)
    print(f"packaged the helper in {target} (SHA-256 of its files: {digest(target)})")  # noqa: T201


def digest(directory: Path) -> str:
    """Return one SHA-256 for the names, the modes and the contents of all files below ``directory``."""
    sha256 = hashlib.sha256()
    for path in sorted(path for path in directory.rglob("*") if path.is_file() and path.suffix != ".pyc"):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        sha256.update(f"{content} {path.stat().st_mode & 0o777:o} {path.relative_to(directory)}\n".encode())
    return sha256.hexdigest()


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
            # With the setuptools of this environment, which is locked: another version would write other metadata.
            "--no-build-isolation",
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


def _tidy(staged: Path) -> None:
    """Remove what differs from builder to builder, and the commands of the dependencies."""
    shutil.rmtree(staged / "bin", ignore_errors=True)
    for information in staged.glob("*.dist-info"):
        for path in information.iterdir():
            if path.name not in ("METADATA", "licenses"):
                path.unlink()
    for path in (staged, *staged.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _sbom(staged: Path) -> dict[str, object]:
    """Return the list of the dependencies as a CycloneDX 1.5 document (https://cyclonedx.org/docs/1.5/json/).

    It has no time and no serial number, because the same sources have to give the same bytes.
    """
    sys.path.insert(0, str(ROOT / "python"))
    from nerves_docker_port import __version__

    components = []
    for file in sorted(staged.glob("*.dist-info/METADATA")):
        metadata = HeaderParser().parsestr(file.read_text(encoding="utf-8"))
        name = metadata["Name"].replace("_", "-").lower()
        components.append(
            {
                "type": "library",
                "bom-ref": f"pkg:pypi/{name}@{metadata['Version']}",
                "name": name,
                "version": metadata["Version"],
                "licenses": [{"expression": metadata["License-Expression"] or metadata["License"]}],
                "purl": f"pkg:pypi/{name}@{metadata['Version']}",
            }
        )
    helper = {"type": "application", "name": "nerves-docker-port", "version": __version__}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {**helper, "licenses": [{"expression": "Apache-2.0"}]}},
        "components": components,
    }


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
