"""The journal of a package's builds: a file in ``.nerves/artifacts/<name>/`` with one msgpack map for each flow.

A record is appended with one write. So a crash can only leave an incomplete last record, which is removed before the
next record is written. A record contains names, times and outcomes, and no secrets.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgpack

FILE = "builds.msgpack"

_MAX_SIZE = 1 << 20
"""Bytes, enough for about 2,000 builds. A longer journal is cut to its last ``_RECORDS_KEPT`` records."""

_RECORDS_KEPT = 200


def append(directory: Path, record: Mapping[str, Any]) -> None:
    """Add a record to the journal in ``directory``.

    A journal that cannot be written must not stop a build, so an ``OSError`` is ignored.
    """
    with suppress(OSError):
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / FILE
        _repair(path)
        with path.open("ab", buffering=0) as file:
            file.write(msgpack.packb({"at": time.time(), **record}))


def read(directory: Path) -> list[dict[str, Any]]:
    """Return the records, oldest first, up to the first incomplete one; an empty list if the file cannot be read."""
    try:
        return _parse((directory / FILE).read_bytes())[0]
    except OSError:
        return []


def _parse(data: bytes) -> tuple[list[dict[str, Any]], int]:
    """Return the complete records at the beginning of ``data``, and how many bytes they take."""
    unpacker = msgpack.Unpacker(max_buffer_size=len(data) + 1, strict_map_key=False)
    unpacker.feed(data)
    records: list[dict[str, Any]] = []
    end = 0
    while True:
        try:
            record = unpacker.unpack()
        except (msgpack.OutOfData, ValueError, msgpack.UnpackException, RecursionError):
            return records, end
        if not isinstance(record, dict):
            return records, end
        records.append(record)
        end = unpacker.tell()


def _repair(path: Path) -> None:
    """Remove an incomplete last record, because no record after it could be read. Shorten a long journal."""
    if not path.exists():
        return
    data = path.read_bytes()
    records, end = _parse(data)
    if end == len(data) <= _MAX_SIZE:
        return
    new = path.with_name(f"{FILE}.new")
    new.write_bytes(b"".join(msgpack.packb(record) for record in records[-_RECORDS_KEPT:]))
    new.replace(path)
