"""The ways in which this package gets into somebody's project: from Hex, and from git."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from integration.elixir import ensure_elixir
from integration.project import Project, lay_out

from support.images import NEW

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(directory: Path, host: str) -> Project:
    """A system with nothing but `mix.exs` and a defconfig, on this machine."""
    return _bare_system(directory, host, None)


def _bare_system(directory: Path, host: str, elixir: Path | None) -> Project:
    project = lay_out(directory / "p", host=host, image=NEW, elixir=elixir)
    _replace(project, 'Path.join(__DIR__, "VERSION") |> File.read!() |> String.trim()', '"0.1.0"')
    _replace(project, ', "VERSION"]', "]")
    for path in project.system.iterdir():
        if path.name not in ("mix.exs", "nerves_defconfig"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return project


def _replace(project: Project, old: str, new: str) -> None:
    mix_exs = project.system / "mix.exs"
    text = mix_exs.read_text()
    assert old in text
    mix_exs.write_text(text.replace(old, new))


@pytest.mark.parametrize("suite", ["host", "trixie"])
def test_a_system_with_the_unpacked_hex_tarball_builds_to_an_artifact(directory: Path, host: str, suite: str) -> None:
    """On this machine, and in a root file system that has Debian's Elixir and python3, no pip and no `docker`."""
    project = _bare_system(directory, host, ensure_elixir(suite))
    made = project.directory / "hex"
    subprocess.run([sys.executable, ROOT / "python" / "package_hex.py", made], check=True)
    (tarball,) = made.glob("nerves_docker_port-*.tar")
    shim = project.directory / "elixir_shim"
    shutil.rmtree(shim)
    with tarfile.open(tarball) as outer:
        members = {name: _member(outer, name) for name in outer.getnames()}
        assert list(members) == ["VERSION", "CHECKSUM", "metadata.config", "contents.tar.gz"]
    checked = members["VERSION"] + members["metadata.config"] + members["contents.tar.gz"]
    assert members["CHECKSUM"].decode() == hashlib.sha256(checked).hexdigest().upper()
    contents = made / "contents.tar.gz"
    contents.write_bytes(members["contents.tar.gz"])
    with tarfile.open(contents) as inner:
        inner.extractall(shim)
        names = inner.getnames()
    listed = members["metadata.config"].decode().partition('{<<"files">>')[2].partition("]}.")[0]
    assert sorted(names) == re.findall(r'<<"(.+?)">>', listed)
    for name in (
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        "NOTICE",
        "docs/configuration.md",
        "priv/python/sbom.cdx.json",
    ):
        assert (shim / name).exists(), name
    assert not (shim / "test").exists()

    built = project.mix("nerves.artifact")
    assert built.returncode == 0, built.stdout
    assert len(list(project.system.glob("my_system-portable-0.1.0-*.tar.gz"))) == 1
    helped = project.mix("help")
    for task in ("mix nerves_docker_port.doctor", "mix nerves_docker_port.volumes"):
        assert task in helped.stdout


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None
    return file.read()


def test_from_git_mix_says_what_to_type_and_then_builds(project: Project) -> None:
    """First as somebody who knows `sparse` would write it, then as the error says."""
    repository = project.directory / "repository"
    _clone(repository)
    shutil.rmtree(project.directory / "elixir_shim")
    project = replace(project, settings={**project.settings, "GIT_ALLOW_PROTOCOL": "file"})
    _replace(
        project,
        'path: System.get_env("MINI_SHIM_PATH", "../../elixir_shim")',
        f'git: "{repository}", sparse: "elixir_shim"',
    )
    assert project.mix("deps.get").returncode == 0
    refused = project.mix("nerves.artifact")
    assert refused.returncode != 0
    root = project.system / "deps" / "nerves_docker_port"
    assert f"The helper is missing: there is no {project.system}/_build/" in refused.stdout
    assert 'write `subdir: "elixir_shim"` instead of `sparse: "elixir_shim"`' in refused.stdout
    assert f"\n    mix deps.get\n    make -C {root} package\n" in refused.stdout

    _replace(project, "sparse:", "subdir:")
    assert project.mix("deps.get").returncode == 0
    refused = project.mix("nerves.artifact")
    assert refused.returncode != 0
    assert f"\n    make -C {root} package\n" in refused.stdout
    packaged = subprocess.run(
        ["make", "-C", root, "package"], env=project.env(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert packaged.returncode == 0, packaged.stdout
    built = project.mix("nerves.artifact")
    assert built.returncode == 0, built.stdout


def _clone(repository: Path) -> None:
    """A repository with one commit, of what is in this one now, committed or not."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, files.split("\0")):
        if (ROOT / name).exists():
            (repository / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, repository / name)
    person = {
        f"GIT_{role}_{what}": "ndp@example.invalid" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "All"]):
        subprocess.run(["git", *command], cwd=repository, env={**os.environ, **person}, check=True)
