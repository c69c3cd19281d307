"""The journal is readable after a crash, has a limited size, and never makes a build fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from nerves_docker_port.record import journal


def test_records_are_read_back_in_order_with_the_time_they_were_written(tmp_path: Path) -> None:
    for number in range(3):
        journal.append(tmp_path / "new", {"number": number})
    records = journal.read(tmp_path / "new")
    assert [record["number"] for record in records] == [0, 1, 2]
    assert all(record["at"] > 1_700_000_000 for record in records)


def test_a_missing_journal_has_no_records(tmp_path: Path) -> None:
    assert journal.read(tmp_path) == []


def test_only_an_incomplete_record_is_lost_and_the_next_one_is_readable(tmp_path: Path) -> None:
    journal.append(tmp_path, {"number": 1})
    path = tmp_path / journal.FILE
    first = path.read_bytes()
    journal.append(tmp_path, {"number": 2})
    both = path.read_bytes()
    for cut in range(len(first) + 1, len(both)):
        path.write_bytes(both[:cut])
        assert [record["number"] for record in journal.read(tmp_path)] == [1]
        journal.append(tmp_path, {"number": 3})
        assert [record["number"] for record in journal.read(tmp_path)] == [1, 3]


@pytest.mark.parametrize("content", [b"\xc1", b"\x93\x01", b"\x01\x02", b"\xdf\xff\xff\xff\xff", b"\x91" * 100_000])
def test_a_damaged_journal_has_no_records_and_is_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / journal.FILE).write_bytes(content)
    assert journal.read(tmp_path) == []
    journal.append(tmp_path, {"number": 1})
    assert [record["number"] for record in journal.read(tmp_path)] == [1]


def test_a_long_journal_is_shortened_to_its_last_records(tmp_path: Path) -> None:
    for number in range(600):
        journal.append(tmp_path, {"number": number, "filling": "x" * 4000})
    records = journal.read(tmp_path)
    assert records[-1]["number"] == 599
    assert len(records) < 500
    assert (tmp_path / journal.FILE).stat().st_size < 2 << 20


def test_a_journal_that_cannot_be_written_raises_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    journal.append(tmp_path / "file", {"number": 1})
