"""The packaged helper and the Python distribution, made as a release makes them."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import venv
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements" / "runtime.txt").read_text()


@pytest.fixture(scope="module")
def package_helper() -> ModuleType:
    """The module `python/package_helper.py`, which is in no package."""
    spec = importlib.util.spec_from_file_location("package_helper", ROOT / "python" / "package_helper.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """The helper, packaged in two directories by people with other habits; and what the first one was told."""
    made = []
    for name, umask in (("one", 0o022), ("two and a blank", 0o077)):
        target = tmp_path_factory.mktemp(name) / "python"
        ended = subprocess.run(
            [sys.executable, ROOT / "python" / "package_helper.py", target],
            cwd=target.parent,
            umask=umask,
            capture_output=True,
            text=True,
            check=True,
        )
        made.append((target, ended.stdout))
    (one, said), (two, _) = made
    return one, two, said


def test_two_builders_get_the_same_bytes(packaged: tuple[Path, Path, str], package_helper: ModuleType) -> None:
    one, two, said = packaged
    digests = {package_helper.digest(directory) for directory in (one, two)}
    assert len(digests) == 1
    assert f"(SHA-256 of its files: {digests.pop()})" in said
    files = [path for path in one.rglob("*") if path.is_file()]
    assert len(files) > 100
    for path in files:
        content = path.read_bytes()
        assert (two / path.relative_to(one)).read_bytes() == content
        for builder in (ROOT, one.parent, Path(sys.prefix)):
            assert str(builder).encode() not in content, path


def test_the_list_of_what_is_in_it_agrees_with_the_lock_the_notice_and_the_metadata(
    packaged: tuple[Path, Path, str],
) -> None:
    directory = packaged[0]
    sbom = json.loads((directory / "sbom.cdx.json").read_text())
    assert sbom["bomFormat"] == "CycloneDX"
    locked = dict(re.findall(r"^([\w-]+)==(\S+)", LOCK, re.MULTILINE))
    assert {part["name"]: part["version"] for part in sbom["components"]} == locked
    notice = (ROOT / "elixir_shim" / "NOTICE").read_text()
    for part in sbom["components"]:
        (license_expression,) = (each["expression"] for each in part["licenses"])
        assert re.search(rf"^  {part['name']} +{re.escape(license_expression)}( \(|$)", notice, re.MULTILINE)
        spelling = part["name"].replace("-", "_")
        assert list(directory.glob(f"{spelling}-*.dist-info/licenses/*")) != []
    ours = re.search(r"licenses: \[(.+)\]", (ROOT / "elixir_shim" / "mix.exs").read_text())
    assert ours is not None
    # Of a choice, the first one is ours.
    theirs = {part["licenses"][0]["expression"].split(" OR ")[0] for part in sbom["components"]}
    assert set(json.loads(f"[{ours[1]}]")) == theirs | {"Apache-2.0"}


def test_the_wheel_passes_twine_and_runs_in_an_empty_environment(tmp_path: Path, host: str) -> None:
    made = subprocess.run(
        ["make", "dist", f"DIST={tmp_path}/dist"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert made.returncode == 0, made.stdout
    assert made.stdout.count("PASSED") == 2
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    (_sources,) = (tmp_path / "dist").glob("*.tar.gz")
    venv.create(tmp_path / "empty", with_pip=True)
    python = tmp_path / "empty" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--use-pep517", wheel], check=True)
    ended = subprocess.run(
        [python.with_name("nerves-docker-port"), "doctor", "--json"],
        cwd=tmp_path,
        env={**os.environ, "DOCKER_HOST": host},
        capture_output=True,
        text=True,
    )
    assert ended.stderr == ""
    assert ended.returncode == 0, ended.stdout
    assert json.loads(ended.stdout)["ok"] is True
