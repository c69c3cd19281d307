"""The record of every build: one msgpack map per flow, appended to a file beside the package's other build state.

A record is written with one append, so that a crash leaves at most a torn last record, which the next one replaces. A
record never holds a secret: it is made of names, times and outcomes only.
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
"""Bytes. A longer journal is started anew with its last records; some 2,000 builds fit."""

_KEPT = 200


def append(directory: Path, record: Mapping[str, Any]) -> None:
    """Add a record to the journal in ``directory``. A journal that cannot be written stops no build."""
    with suppress(OSError):
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / FILE
        _mend(path)
        with path.open("ab", buffering=0) as file:
            file.write(msgpack.packb({"at": time.time(), **record}))


def read(directory: Path) -> list[dict[str, Any]]:
    """The records, oldest first, up to the first that is torn."""
    try:
        return _parse((directory / FILE).read_bytes())[0]
    except OSError:
        return []


def _parse(data: bytes) -> tuple[list[dict[str, Any]], int]:
    """The whole records in ``data``, and how many bytes they take."""
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


def _mend(path: Path) -> None:
    """Take off what a crash left torn, so that what comes after it can be read; shorten a journal that is long."""
    if not path.exists():
        return
    data = path.read_bytes()
    records, end = _parse(data)
    if end == len(data) <= _MAX_SIZE:
        return
    new = path.with_name(f"{FILE}.new")
    new.write_bytes(b"".join(msgpack.packb(record) for record in records[-_KEPT:]))
    new.replace(path)
