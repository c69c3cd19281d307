"""What goes into a copied workspace."""

from __future__ import annotations

import io
import os
import shutil
import socket
import tarfile
from pathlib import Path

import pytest

from nerves_docker_port import errors
from nerves_docker_port.workspace.packing import Packed, Tree, fingerprint, snapshot


def unpacked(*trees: Tree) -> dict[str, tarfile.TarInfo]:
    packed = Packed(trees, {"in/targets": b"/x\0"}, lambda: None)
    data = b"".join(packed)
    assert len(packed) == len(data)
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as tar:
        return {member.name: member for member in tar.getmembers()}


def make(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.fsencode(name))


def test_a_package_goes_in_without_what_mix_and_git_keep_there(tmp_path: Path) -> None:
    make(tmp_path, "mix.exs", "board/deps/x", "board/_build", "board/build.log", "buildroot/x", "disk.part")
    make(tmp_path, ".git/config", "sub/.git", "_build/x", "deps/x", ".nerves/x", "build.log", "archive.log", "run.log")
    make(tmp_path, "dl/large", ".nerves-docker-port-0")
    found = unpacked(Tree("package", tmp_path, "p", frozenset({tmp_path / "dl"})))
    files = {name for name, member in found.items() if member.isreg()}
    assert files == {
        "in/targets",
        *(
            f"p/{name}"
            for name in ("mix.exs", "board/deps/x", "board/_build", "board/build.log", "buildroot/x", "disk.part")
        ),
    }


def test_a_platform_goes_in_without_the_extracted_buildroot(tmp_path: Path) -> None:
    make(tmp_path, "create-build.sh", "buildroot-2026.05/Makefile", "support/buildroot/x", ".git/config", "build.log")
    (tmp_path / "buildroot").symlink_to("buildroot-2026.05")
    found = {name for name, member in unpacked(Tree("platform", tmp_path, "p")).items() if member.isreg()}
    assert found == {"in/targets", "p/create-build.sh", "p/support/buildroot/x", "p/build.log"}


def test_modes_times_links_and_names_are_kept(tmp_path: Path) -> None:
    odd = os.fsdecode(b"\xff \xc3\xbc" + b"x" * 150)
    make(tmp_path, "script", odd)
    # Some engines lose setuid, and the others keep it.
    (tmp_path / "script").chmod(0o4751)
    os.utime(tmp_path / "script", ns=(1, 1_234_567_890_123_456_789))
    (tmp_path / "dangling").symlink_to("/no/where")
    os.link(tmp_path / "script", tmp_path / "second")
    with socket.socket(socket.AF_UNIX) as unix:
        before = Path.cwd()
        os.chdir(tmp_path)
        unix.bind("socket")
        os.chdir(before)
    found = unpacked(Tree("other", tmp_path, "p"))
    assert found["p/script"].mode == 0o751
    assert found["p/script"].pax_headers["mtime"] == "1234567890.123456789"
    assert found["p/dangling"].linkname == "/no/where"
    assert found["p/second"].isreg()
    assert f"p/{odd}" in found
    assert "p/socket" not in found
    assert {(member.uid, member.gid) for member in found.values()} == {(0, 0)}


def test_a_single_file_and_a_linked_directory_go_in(tmp_path: Path) -> None:
    make(tmp_path, "real/x")
    (tmp_path / "link").symlink_to("real")
    found = unpacked(Tree("other", tmp_path / "link", "a"), Tree("other", tmp_path / "real/x", "b"))
    assert found["a/x"].isreg()
    assert found["b"].isreg()


@pytest.mark.parametrize("size", [0, 5, 5000])
def test_a_file_that_changes_while_it_is_read_spoils_nothing_else(tmp_path: Path, size: int) -> None:
    make(tmp_path, "a", "b")
    (tmp_path / "a").write_bytes(bytes(2000))
    packed = Packed((Tree("other", tmp_path, "p"),), {}, lambda: None)
    (tmp_path / "a").write_bytes(bytes(size))
    with tarfile.open(fileobj=io.BytesIO(b"".join(packed))) as tar:
        assert [member.name for member in tar.getmembers()] == ["p", "p/a", "p/b"]
        content = tar.extractfile("p/b")
        assert content is not None
        assert content.read() == b"b"


def test_a_file_that_is_removed_before_it_is_read_is_left_out(tmp_path: Path) -> None:
    """For example an editor's temporary file."""
    make(tmp_path, "z", "b" * 150)
    for name, size in (("a", 2000), ("b" * 150, 3_000_000)):
        (tmp_path / name).write_bytes(b"x" * size)
    packed = Packed((Tree("other", tmp_path, "p"),), {}, lambda: None)
    for name in ("a", "b" * 150):
        (tmp_path / name).unlink()
    data = b"".join(packed)
    assert len(data) == len(packed)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert [member.name for member in tar.getmembers()] == ["p", "in/gone", "in/gone", "p/z"]
        content = tar.extractfile("p/z")
        assert content is not None
        assert content.read() == b"z"


def test_a_directory_or_a_link_that_is_removed_while_files_are_chosen_is_left_out(tmp_path: Path) -> None:
    make(tmp_path, "kept", "removed/x")
    (tmp_path / "link").symlink_to("kept")
    calls = 0

    def check() -> None:
        """Remove the link and the directory after the states of both were read. It is called once for each file."""
        nonlocal calls
        calls += 1
        if calls == 3:
            (tmp_path / "link").unlink()
        if calls == 4:
            shutil.rmtree(tmp_path / "removed")

    packed = Packed((Tree("other", tmp_path, "p"),), {}, check)
    data = b"".join(packed)
    assert len(data) == len(packed)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == ["p", "p/kept", "p/removed"]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(errors.RunnerError) as caught:
        unpacked(Tree("package", tmp_path / "none", "p"))
    assert str(tmp_path / "none") in caught.value.message


def test_a_snapshot_tells_of_any_change(tmp_path: Path) -> None:
    make(tmp_path, "a", "sub/b")
    trees = (Tree("package", tmp_path, "p"),)
    seen = [snapshot(trees)]

    def changed() -> bool:
        seen.append(snapshot(trees))
        return seen[-1] != seen[-2]

    assert not changed()
    times = (tmp_path / "a").stat()
    (tmp_path / "a").write_text("b")
    os.utime(tmp_path / "a", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert changed()
    (tmp_path / "a").chmod(0o600)
    assert changed()
    make(tmp_path, "sub/c")
    assert changed()
    (tmp_path / "sub/c").unlink()
    assert changed()
    (tmp_path / "empty").mkdir()
    assert changed()
    (tmp_path / "empty").chmod(0o700)
    assert changed()
    make(tmp_path, "_build/x", "build.log")
    assert not changed()


def test_a_fingerprint_tells_of_directories_too(tmp_path: Path) -> None:
    make(tmp_path, "a", "sub/b")
    trees = (Tree("package", tmp_path, "p"),)
    seen = {fingerprint(snapshot(trees))}
    make(tmp_path, "_build/x", "build.log")
    assert fingerprint(snapshot(trees)) in seen
    times = (tmp_path / "a").stat()
    (tmp_path / "a").write_text("b")
    os.utime(tmp_path / "a", ns=(times.st_atime_ns, times.st_mtime_ns))
    seen.add(fingerprint(snapshot(trees)))
    (tmp_path / "empty").mkdir()
    seen.add(fingerprint(snapshot(trees)))
    (tmp_path / "empty").chmod(0o700)
    seen.add(fingerprint(snapshot(trees)))
    (tmp_path / "sub").rename(tmp_path / "other")
    seen.add(fingerprint(snapshot(trees)))
    assert len(seen) == 5
