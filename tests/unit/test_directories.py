"""Directories on the host that cannot be made: the reason that a person is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from nerves_docker_port import directories
from nerves_docker_port.errors import Code, RunnerError


@pytest.mark.parametrize("below", ["", "a/b"])
@pytest.mark.parametrize(
    ("there", "reason"),
    [("file", "{0} is not a directory"), ("broken link", "{0} is a symbolic link to nowhere, which does not exist")],
)
def test_what_is_in_the_way_is_named(tmp_path: Path, there: str, reason: str, below: str) -> None:
    place = tmp_path / "place"
    if there == "file":
        place.write_text("")
    else:
        place.symlink_to("nowhere")
    with pytest.raises(RunnerError) as raised:
        directories.make(place / below, "The directory of the record")
    assert raised.value.code is Code.BAD_REQUEST
    wanted = f"The directory of the record {place / below} cannot be written: {reason.format(place)}"
    assert raised.value.message == wanted


def test_a_link_to_a_directory_is_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(".")
    directories.make(tmp_path / "link" / "a" / "b", "The directory")
    assert (tmp_path / "a" / "b").is_dir()
