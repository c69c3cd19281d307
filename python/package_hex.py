"""Make the Hex package (``make hex``).

    python python/package_hex.py build/hex

``build/hex/package`` is then the package as a person who depends on it gets it: the shim, the packaged helper and the
documents of the repository. ``mix hex.publish`` is run there. ``build/hex/nerves_docker_port-VERSION.tar`` has the same
files in the layout of Hex (https://github.com/hexpm/specifications/blob/main/package_tarball.md), so that a release can
be tried where Hex is not installed. It needs Mix, which reads the metadata from ``mix.exs``.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHIM = ROOT / "elixir_shim"
DOCUMENTS = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "RELEASE.md", "SECURITY.md", "docs")

# Prints the metadata as Erlang terms, as Hex does.
METADATA = """\
config = Mix.Project.config()
package = config[:package]
pairs = for {key, value} <- package[:links], do: {key, value}
files = Enum.flat_map(package[:files], &[&1 | Path.wildcard(&1 <> "/**", match_dot: true)])
terms = [
  {"name", to_string(config[:app])},
  {"version", config[:version]},
  {"app", to_string(config[:app])},
  {"description", config[:description]},
  {"elixir", config[:elixir]},
  {"licenses", package[:licenses]},
  {"links", pairs},
  {"files", files |> Enum.filter(&File.regular?/1) |> Enum.uniq() |> Enum.sort()},
  {"build_tools", ["mix"]},
  {"requirements", []}
]
for term <- terms, do: IO.write(:io_lib.format("~tp.~n", [term]))
"""


def main() -> None:
    """Run the command line in the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path)
    target: Path = parser.parse_args().target.resolve()
    package = target / "package"
    shutil.rmtree(target, ignore_errors=True)
    _stage(package)
    metadata = subprocess.run(
        ["mix", "run", "--no-compile", "--no-start", "--no-deps-check", "-e", METADATA],
        cwd=package,
        env={**os.environ, "MIX_ENV": "prod", "MIX_BUILD_PATH": str(target / "build")},
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    shutil.rmtree(target / "build", ignore_errors=True)
    version = metadata.decode().partition('{<<"version">>,<<"')[2].partition('"')[0]
    tarball = target / f"nerves_docker_port-{version}.tar"
    tarball.write_bytes(_tarball(metadata, package))
    print(f"made {tarball}")  # noqa: T201


def _stage(package: Path) -> None:
    """Put the package's files together in the new directory ``package``."""
    clean = shutil.ignore_patterns("__pycache__")
    package.mkdir(parents=True)
    for name in ("lib", "priv"):
        shutil.copytree(SHIM / name, package / name, ignore=clean)
    for name in ("mix.exs", ".formatter.exs", "LICENSE", "NOTICE"):
        shutil.copy(SHIM / name, package / name)
    for name in DOCUMENTS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, package / name)
        else:
            shutil.copy(ROOT / name, package / name)


def _tarball(metadata: bytes, package: Path) -> bytes:
    files = ((path.relative_to(package).as_posix(), path) for path in sorted(package.rglob("*")) if path.is_file())
    contents = gzip.compress(_tar((name, path.read_bytes()) for name, path in files), mtime=0)
    version = b"3"
    checksum = hashlib.sha256(version + metadata + contents).hexdigest().upper().encode()
    members = {"VERSION": version, "CHECKSUM": checksum, "metadata.config": metadata, "contents.tar.gz": contents}
    return _tar(iter(members.items()))


def _tar(members: Iterator[tuple[str, bytes]]) -> bytes:
    """Return a tar archive in which nothing depends on who makes it, where and when."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


if __name__ == "__main__":
    main()
