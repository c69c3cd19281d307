"""The release has one number, which stands in three places."""

from __future__ import annotations

import re
from pathlib import Path

import nerves_docker_port

ROOT = Path(__file__).parents[2]


def test_the_helper_the_shim_and_the_changelog_name_the_same_version() -> None:
    shim = re.search(r'^  @version "(.+)"$', (ROOT / "elixir_shim" / "mix.exs").read_text(), re.MULTILINE)
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert shim is not None
    assert newest is not None
    assert nerves_docker_port.__version__ == shim[1] == newest[1]


def test_the_readme_asks_mix_for_this_version() -> None:
    major, minor, _patch = nerves_docker_port.__version__.split(".")
    assert f'{{:nerves_docker_port, "~> {major}.{minor}", runtime: false}}' in (ROOT / "README.md").read_text()
