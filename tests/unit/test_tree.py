"""What is copied out of the build tree: written whole, at its place and nowhere else."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from nerves_docker_port.engine.archive import Member
from nerves_docker_port.errors import RunnerError
from nerves_docker_port.workspace import tree

WORKDIR = "/home/nerves/project"


def member(
    name: str,
    kind: bytes = tarfile.REGTYPE,
    *,
    content: bytes = b"",
    link: str = "",
    mode: int = 0o644,
    mtime: float = 1_000_000_000,
) -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.size, info.mtime = kind, link, mode, len(content), mtime
    return info, io.BytesIO(content) if kind == tarfile.REGTYPE else None


def directory(name: str, mode: int = 0o755) -> Member:
    return member(name, tarfile.DIRTYPE, mode=mode)


def write(place: Path, *members: Member) -> tree.Copied:
    return tree.write(iter(members), place, "volume", lambda _size: None)


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def test_modes_times_and_links_are_kept(tmp_path: Path) -> None:
    place = tmp_path / "images"
    copied = write(
        place,
        directory("images/", 0o555),
        directory("images/sub", 0o500),
        member("images/sub/file", content=b"12345", mode=0o4751),
        member("images/hard", tarfile.LNKTYPE, link="images/sub/file"),
        member("images/soft", tarfile.SYMTYPE, link="/etc/passwd"),
        member("images/new\nline", content=b"x", mode=0o000),
    )
    assert (copied.path, copied.size, copied.warnings) == (place, 6, [])
    assert place.stat().st_mode & 0o7777 == 0o555
    assert (place / "sub").stat().st_mode & 0o7777 == 0o500
    assert (place / "sub/file").read_bytes() == b"12345"
    # Never setuid: the program would run as the person who has copied it.
    assert (place / "sub/file").stat().st_mode & 0o7777 == 0o751
    assert (place / "hard").stat().st_ino == (place / "sub/file").stat().st_ino
    assert (place / "soft").readlink() == Path("/etc/passwd")
    assert (place / "new\nline").stat().st_mode & 0o7777 == 0o000
    assert {int(path.lstat().st_mtime) for path in (place, place / "sub", place / "soft")} == {1_000_000_000}
    assert (place / "sub").stat().st_uid == os.getuid()


def test_a_hole_takes_no_room(tmp_path: Path) -> None:
    size = 8 << 20
    for name, content in (("end", b"x" + bytes(size - 1)), ("middle", bytes(size - 1) + b"x"), ("all", bytes(size))):
        assert write(tmp_path / name, member(name, content=content)).size == size
        assert (tmp_path / name).read_bytes() == content
        assert (tmp_path / name).stat().st_blocks * 512 <= 2 << 20


HOSTILE: dict[str, list[Member]] = {
    "out by dots": [directory("a"), member("a/../../evil", content=b"x")],
    "out by an absolute path": [directory("a"), member("/evil", content=b"x")],
    "beside the root": [directory("a"), member("evil", content=b"x")],
    "through a link to a directory": [
        directory("a"),
        member("a/l", tarfile.SYMTYPE, link="../outside"),
        member("a/l/evil", content=b"x"),
    ],
    "through a link as the root": [
        member("a", tarfile.SYMTYPE, link="outside"),
        member("a/evil", content=b"x"),
    ],
    "a hard link to the outside": [directory("a"), member("a/h", tarfile.LNKTYPE, link="../outside/kept")],
    "a hard link through a link": [
        directory("a"),
        member("a/l", tarfile.SYMTYPE, link="../outside"),
        member("a/h", tarfile.LNKTYPE, link="a/l/kept"),
    ],
    "a name that no file can have": [directory("a"), member("a/nul\0evil", content=b"x")],
    "a time that no file can have": [directory("a"), member("a/evil", content=b"x", mtime=1e30)],
    "no time": [directory("a"), member("a/l", tarfile.SYMTYPE, link="x", mtime=float("nan"))],
    "a directory's time that no directory can have": [member("a", tarfile.DIRTYPE, mtime=-1e30)],
    "nothing": [],
}


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_leads_out_writes_nothing_and_leaves_nothing(tmp_path: Path, members: list[Member]) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    with pytest.raises(tarfile.TarError):
        write(tmp_path / "copy", *members)
    assert names(tmp_path) == ["outside"]
    assert names(outside) == ["kept"]
    assert (outside / "kept").stat().st_nlink == 1


def test_an_archive_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    def members() -> Iterator[Member]:
        yield directory("a", 0o500)
        yield member("a/b", content=b"x")
        raise tarfile.ReadError("it ends in the middle")

    (tmp_path / "kept").write_text("before")
    for place in (tmp_path / "new", tmp_path / "kept"):
        with pytest.raises(tarfile.ReadError):
            tree.write(members(), place, "volume", lambda _size: None)
    assert names(tmp_path) == ["kept"]
    assert (tmp_path / "kept").read_text() == "before"


def test_a_file_takes_the_place_of_a_file_or_of_a_link_and_never_goes_through_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "behind").write_text("kept")
    (tmp_path / "link").symlink_to("behind")
    for name in ("file", "link"):
        write(tmp_path / name, member("x", content=b"new"))
        assert (tmp_path / name).read_text() == "new"
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "behind").read_text() == "kept"


def test_a_directory_takes_the_place_of_nothing_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty", directory("a"), member("a/b", content=b"x"))
    assert names(tmp_path / "empty") == ["b"]
    with pytest.raises(RunnerError, match="is a directory with files in it") as full:
        write(tmp_path / "empty", directory("a"), member("a/c"))
    assert full.value.hint
    (tmp_path / "file").write_text("kept")
    with pytest.raises(RunnerError, match="is a file, and a directory is to be copied"):
        write(tmp_path / "file", directory("a"))
    assert (tmp_path / "file").read_text() == "kept"
    assert names(tmp_path) == ["empty", "file"]


def test_what_is_no_file_is_left_out_and_said(tmp_path: Path) -> None:
    copied = write(
        tmp_path / "a",
        directory("a"),
        member("a/pipe", tarfile.FIFOTYPE),
        member("a/other", tarfile.LNKTYPE, link="a/pipe"),
        member("a/x"),
        member("a/x", content=b"again"),
    )
    assert names(tmp_path / "a") == ["x"]
    pipe, other, again = copied.warnings
    assert "'a/pipe' was not copied" in pipe
    assert other == "'a/other' was not copied: nor was 'a/pipe', which is the same file."
    assert "another file of this name" in again
    with pytest.raises(RunnerError, match="pipe is neither a file, a directory nor a link"):
        write(tmp_path / "b", member("pipe", tarfile.FIFOTYPE))
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("images/", "images"),
        (".config", ".config"),
        ("./build/../images", "images"),
        (f"{WORKDIR}/images/a", "images/a"),
        (WORKDIR, "."),
        (".", "."),
        ("..a", "..a"),
    ],
)
def test_a_path_of_the_build_directory(given: str, path: str) -> None:
    assert tree.path_in_tree(given, (WORKDIR,)) == path


@pytest.mark.parametrize("given", ["", "..", "../x", "a/../../x", "/etc/passwd", f"{WORKDIR}-2/x", f"{WORKDIR}/../x"])
def test_a_path_that_leads_out_is_refused(given: str) -> None:
    with pytest.raises(RunnerError, match="no path in the build directory"):
        tree.path_in_tree(given, (WORKDIR,))


def test_the_place_of_a_copy(tmp_path: Path) -> None:
    def place(path: str, target: str) -> str:
        return tree.place_for(path, f"{tmp_path}/{target}", "my_system").relative_to(tmp_path).as_posix()

    assert place("images", "") == "images"
    assert place("build/x/.config", "linux.config") == "linux.config"
    assert place(".", "") == "my_system"
    (tmp_path / "images").mkdir()
    assert place("images", "images") == "images/images"
    with pytest.raises(RunnerError, match="There is no directory") as missing:
        place("images", "new/")
    assert "mkdir -p" in (missing.value.hint or "")


def test_what_a_killed_copy_from_the_same_volume_has_left_is_removed(tmp_path: Path) -> None:
    names: list[str] = []

    def members() -> Iterator[Member]:
        yield member("a", content=b"x")
        names.extend(path.name for path in tmp_path.iterdir())

    for volume in ("one", "two"):
        tree.write(members(), tmp_path / "a", volume, lambda _size: None)
        (tmp_path / "a").unlink()
    first, second = names
    # A directory with a file in it, whose modes are those of a copied directory.
    (tmp_path / first / "inner").mkdir(parents=True)
    (tmp_path / first / "inner" / "file").write_text("half")
    (tmp_path / first / "inner").chmod(0o500)
    (tmp_path / second).write_text("half")
    write_from_one = tree.write(iter([member("a", content=b"x")]), tmp_path / "a", "one", lambda _size: None)
    assert write_from_one.size == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [second, "a"]
