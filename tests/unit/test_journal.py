"""The journal is readable after a kill, has a limited size, and never makes a build fail."""

from __future__ import annotations

import random
import resource
from pathlib import Path

import msgpack
import pytest

from nerves_docker_port.record import journal
from nerves_docker_port.record.journal import Journal

RECORDS: tuple[journal.Record, ...] = (
    journal.Began(
        "build", "my_system", "0.1.0", "my_system-portable", "/home/me/\udcff", "/home/me/build.log", ("-j4",)
    ),
    journal.Engine("unix:///run/docker.sock", "20.10.5", "amd64", 8, 1 << 34),
    journal.Image("builder:new", "sha256:1", None),
    journal.Workspace("mounted", "my_system-1", "/nerves/build"),
    journal.StageBegan("make"),
    journal.Headline(">>> busybox 1.36.1 Building"),
    journal.Announced("Creating artifact archive"),
    journal.Warned("It is late."),
    journal.Configuration("ab", ("busybox", "host-m4"), ("host-m4",)),
    journal.StageEnded("make", 1234),
    journal.PackageStep("busybox", "build", 10.5, 12.25),
    journal.PackageStep("busybox", "install-target", 12.5, None),
    journal.Clock(-0.5),
    journal.Ccache(3, 1),
    journal.Artifact("/dl/x.tar.gz", 7, "00"),
    journal.Cause(None, "Building", "unknown", ("a", "b"), None),
    journal.Ended("ok"),
)


def write(where: Path, *records: journal.Record) -> Path:
    kept = Journal(where, "build")
    for record in records:
        kept.write(record)
    kept.close()
    return kept.path


def test_headlines_that_came_together_are_read_one_by_one(tmp_path: Path) -> None:
    build = journal.read(write(tmp_path, journal.Headline(">>> a 1 Building\n>>> b 2 Building")))
    assert build is not None
    assert [text for _, text in build.headlines] == [">>> a 1 Building", ">>> b 2 Building"]


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "new" / "directory", *RECORDS)
    assert tuple(record for _, record in journal.records(path))[1:] == RECORDS
    build = journal.read(path)
    assert build is not None
    assert (build.began, build.engine, build.ended) == (RECORDS[0], RECORDS[1], RECORDS[-1])
    assert [step.step for step in build.package_steps] == ["build", "install-target"]
    ((at, headline),) = build.headlines
    assert headline == ">>> busybox 1.36.1 Building"
    (stage,) = build.stages
    assert stage.ended is not None
    assert build.opened_at <= stage.began <= at <= stage.ended <= build.last_at


def test_every_record_has_a_name_in_the_file_and_a_row_in_the_document() -> None:
    document = (Path(__file__).parents[2] / "docs/journal.md").read_text()
    kinds = {name: set(kind._fields) for name, kind in journal.KINDS.items()}
    rows = {
        cells[1].strip().strip("`"): cells[2]
        for cells in (line.split("|") for line in document.splitlines() if line.startswith("| `"))
    }
    assert rows.keys() == kinds.keys()
    for kind, fields in kinds.items():
        assert all(f"`{field}`" in rows[kind] for field in fields), kind


def test_a_journal_cut_at_any_byte_has_every_whole_record_before(tmp_path: Path) -> None:
    path = write(tmp_path, *RECORDS)
    whole = path.read_bytes()
    unpacker = msgpack.Unpacker(unicode_errors="surrogateescape")
    unpacker.feed(whole)
    ends = [unpacker.tell() for _ in unpacker]
    cut = tmp_path / "cut.msgpack"
    for size in range(len(whole)):
        cut.write_bytes(whole[:size])
        expected = sum(end <= size for end in ends)
        found = [record for _, record in journal.records(cut)]
        assert len(found) == expected
        assert tuple(found[1:]) == RECORDS[: max(0, expected - 1)]
        build = journal.read(cut)
        assert (build is None) == (expected == 0)
        assert build is None or build.ended is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xc1",
        b"no journal",
        b"\x81\xa1x",
        pytest.param(random.Random(1).randbytes(64), id="noise"),
        b"\x91" * 5000,
    ],
)
def test_what_is_no_journal_is_not_read(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.msgpack"
    path.write_bytes(content)
    assert journal.read(path) is None


def test_a_file_that_cannot_be_read_is_no_journal(tmp_path: Path) -> None:
    assert journal.read(tmp_path / "none.msgpack") is None
    assert journal.read(tmp_path) is None
    assert journal.files(tmp_path / "none") == []


def test_what_a_later_version_adds_is_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path, RECORDS[0])
    with path.open("ab") as file:
        file.write(msgpack.packb(["new_kind", 1.0, {"x": 1}]))
        file.write(msgpack.packb(["headline", 1.0, {"text": "a", "colour": "red"}]))
        file.write(msgpack.packb(["headline", 2.0, {"text": 5}]))
        file.write(msgpack.packb(["headline", 2.0, {}]))
        file.write(msgpack.packb({"a": 1}))
        file.write(msgpack.packb(["ended", 3.0, {"outcome": "ok"}]))
    build = journal.read(path)
    assert build is not None
    assert build.headlines == ((1.0, "a"),)
    assert build.ended == journal.Ended("ok")


def test_a_later_version_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.msgpack"
    path.write_bytes(msgpack.packb(["opened", 1.0, {"version": 2, "helper": "9", "id": "x"}]))
    assert journal.read(path) is None


def test_the_latest_journals_are_kept_and_those_that_are_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "KEPT", 5)
    under_way = Journal(tmp_path, "build")
    paths = [write(tmp_path) for _ in range(9)]
    assert set(journal.files(tmp_path)) == {under_way.path, *paths[-5:]}
    assert journal.is_open(under_way.path)
    under_way.close()
    assert not journal.is_open(under_way.path)
    paths.append(write(tmp_path))
    assert set(journal.files(tmp_path)) == set(paths[-5:])


def test_large_journals_are_kept_as_far_as_they_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "KEPT_BYTES", 10_000)
    paths = [write(tmp_path, journal.Headline("x" * 4000)) for _ in range(5)]
    assert journal.files(tmp_path) == sorted(paths[-3:], reverse=True)


def test_what_no_room_was_left_for_is_counted_and_the_rest_is_readable(tmp_path: Path) -> None:
    """The limit of a file's size cuts a write in the middle, as a full disk does."""
    kept = Journal(tmp_path, "build")
    kept.write(journal.Headline("before"))
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (kept.path.stat().st_size + 10, unlimited[1]))
    try:
        kept.write(journal.Headline("cut"), journal.Headline("gone"))
        kept.write(journal.Headline("gone, too"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    kept.write(journal.Headline("after"))
    kept.close()
    build = journal.read(kept.path)
    assert build is not None
    assert [text for _, text in build.headlines] == ["before", "after"]
    assert build.lost == 3


def test_a_journal_that_cannot_be_written_raises_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    kept = Journal(tmp_path / "file", "build")
    kept.write(journal.Ended("ok"))
    kept.close()
    kept.write(journal.Ended("ok"))
