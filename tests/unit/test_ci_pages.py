"""The pages of docs/ci.md: actionlint and the services' own schemas take them, and every name in them is known."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from nerves_docker_port.request import settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "ci.md").read_text()
BIN = Path(sys.executable).parent


def blocks() -> dict[str, str]:
    """The YAML of each service, by the title of its section."""
    found = {}
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        block = re.search(r"^```yaml\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
        if block is not None:
            found[section.partition("\n")[0]] = block[1]
    return found


def check(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_is_a_page_for_each_service() -> None:
    assert set(blocks()) == {"GitHub Actions", "GitLab CI"}


@pytest.mark.parametrize(("service", "schema"), [("GitHub Actions", "github-workflows"), ("GitLab CI", "gitlab-ci")])
def test_the_schema_of_the_service_takes_its_page(tmp_path: Path, service: str, schema: str) -> None:
    page = tmp_path / "page.yml"
    page.write_text(blocks()[service])
    check(str(BIN / "check-jsonschema"), "--builtin-schema", f"vendor.{schema}", str(page))


def test_actionlint_takes_the_page_of_github(tmp_path: Path) -> None:
    page = tmp_path / "page.yml"
    page.write_text(blocks()["GitHub Actions"])
    check("actionlint" if not (BIN / "actionlint").exists() else str(BIN / "actionlint"), str(page))


def test_every_variable_of_the_runner_is_known() -> None:
    parts = [f"ccache_{part}" for part in (*settings.CCACHE_PARTS, "password")]
    known = {settings.PREFIX + key.upper() for key in (*settings.SETTINGS, *parts)}
    used = set(re.findall(r"NERVES_DOCKER_[A-Z_]+", PAGE))
    assert used
    assert used - known == set()


def test_every_task_is_one_of_ours_and_doctor_goes_first() -> None:
    tasks = {path.stem for path in (ROOT / "elixir_shim" / "lib" / "mix" / "tasks").glob("*.ex")}
    for block in blocks().values():
        used = re.findall(r"mix (nerves_docker_port\.\w+|nerves\.artifact)", block)
        assert used == ["nerves_docker_port.doctor", "nerves.artifact", "nerves_docker_port.report"]
        assert set(used) - {"nerves.artifact"} <= tasks
