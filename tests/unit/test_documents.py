"""Every link in the documents leads somewhere, on the repository's page and in the documentation that ExDoc makes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# What the Hex package contains (elixir_shim/mix.exs, `extras`). ExDoc makes a page of each.
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "RELEASE.md", "SECURITY.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
OTHERS = [
    *(ROOT / "elixir_shim" / "README.md", ROOT / "integration" / "README.md"),
    ROOT / "integration" / "nerves_stand_in" / "README.md",
]

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)|<(?:img|a)\b[^>]*?(?:src|href)=\"([^\"]+)\"")
FENCED = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)


def links(page: Path) -> list[str]:
    """The targets of the links in a document that lead into the repository."""
    found = (match[1] or match[2] for match in LINK.finditer(FENCED.sub("", page.read_text())))
    return [link for link in found if not re.match(r"[a-z]+:", link)]


def anchors(page: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub and ExDoc make them."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link
        if page in PAGES and target.suffix == ".md":
            assert target in PAGES, f"{link} is not in the Hex package"
        elif page in PAGES:
            # `assets` in elixir_shim/mix.exs copies this directory, and no other, beside ExDoc's pages.
            assert target.parent == ROOT / "docs" / "images", link


def test_the_addresses_of_the_repository_are_the_one_that_mix_exs_names() -> None:
    declared = re.search(r'@source_url "(.+)"', (ROOT / "elixir_shim" / "mix.exs").read_text())
    assert declared is not None
    assert f'Repository = "{declared[1]}"' in (ROOT / "pyproject.toml").read_text()
    for page in PAGES:
        for address in re.findall(r"https://github\.com/[\w-]+/nerves_docker_port", page.read_text()):
            assert address == declared[1]
