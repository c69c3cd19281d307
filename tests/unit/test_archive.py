"""Files that come out of a container."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import pytest

from nerves_docker_port.engine import archive
from nerves_docker_port.engine.client import Engine


@pytest.mark.parametrize(
    ("pieces", "asked"),
    [([], 1), ([b""], 1), ([b"ab"], 1), ([b"abcd"], 2), ([b"abcd", b""], 2), ([b"abcd", b"efgh", b"i"], 3)],
)
def test_the_pieces_of_a_file_are_one_content(pieces: list[bytes], asked: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A piece that is smaller than the others is the last, so no further one is asked for."""
    paths: list[str] = []

    @contextmanager
    def opened(_engine: Engine, _container: str, path: str) -> Iterator[IO[bytes] | None]:
        paths.append(path)
        number = int(path.removeprefix("/out/x."))
        yield io.BytesIO(pieces[number]) if number < len(pieces) else None

    monkeypatch.setattr(archive, "opened", opened)
    with archive.opened_in_pieces(Engine.__new__(Engine), "c", "/out/x", 4) as content:
        assert b"".join(iter(lambda: content.read(3), b"")) == b"".join(pieces)
        assert content.read(3) == b""
    assert paths == [f"/out/x.00000{number}" for number in range(asked)]
