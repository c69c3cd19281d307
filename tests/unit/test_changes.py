"""What comes back from a copy of the package: nothing is lost, nothing leads out of the package's directory."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from nerves_docker_port import errors
from nerves_docker_port.workspace import changes
from nerves_docker_port.workspace.changes import Applied


def file(name: str, content: str = "", mode: int = 0o644) -> Callable[[tarfile.TarFile], None]:
    def add(tar: tarfile.TarFile) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(content.encode()), mode
        tar.addfile(member, io.BytesIO(content.encode()))

    return add


def special(name: str, kind: bytes, target: str = "") -> Callable[[tarfile.TarFile], None]:
    def add(tar: tarfile.TarFile) -> None:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        tar.addfile(member)

    return add


def directory(name: str, mode: int = 0o755) -> Callable[[tarfile.TarFile], None]:
    def add(tar: tarfile.TarFile) -> None:
        member = tarfile.TarInfo(name)
        member.type, member.mode = tarfile.DIRTYPE, mode
        tar.addfile(member)

    return add


def came(name: str, content: str, mode: int = 0o644) -> list[str]:
    """The records of a file as it went in."""
    return [f"h {hashlib.sha256(content.encode()).hexdigest()}  ./{name}", f"m {mode:o} ./{name}"]


def packed(*members: Callable[[tarfile.TarFile], None], base: list[str], deleted: list[str]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.GNU_FORMAT) as tar:
        file("base", "".join(f"{record}\0" for record in base))(tar)
        file("deleted", "".join(f"{name}\0" for name in deleted))(tar)
        for add in members:
            add(tar)
    return made.getvalue()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    package = tmp_path / "package"
    package.mkdir()
    return package


def apply(
    package: Path,
    *members: Callable[[tarfile.TarFile], None],
    base: list[str] | None = None,
    deleted: list[str] | None = None,
) -> Applied:
    return changes.apply(io.BytesIO(packed(*members, base=base or [], deleted=deleted or [])), package)


def names(package: Path) -> list[str]:
    return sorted(str(path.relative_to(package)) for path in package.rglob("*"))


def test_a_new_file_is_made_with_its_directories_and_mode(package: Path) -> None:
    applied = apply(package, file("./a b/c/new", "x", 0o755))
    made = package / "a b/c/new"
    assert made.read_text() == "x"
    assert stat.S_IMODE(made.stat().st_mode) == 0o755
    assert applied == Applied([made], [])
    assert names(package) == ["a b", "a b/c", "a b/c/new"]


def test_a_file_that_is_as_it_went_in_is_replaced(package: Path) -> None:
    (package / "f").write_text("old")
    assert apply(package, file("./f", "new"), base=came("f", "old")).warnings == []
    assert (package / "f").read_text() == "new"
    assert names(package) == ["f"]


@pytest.mark.parametrize("base", [came("f", "old"), []])
def test_a_file_that_was_changed_here_is_kept_and_the_other_one_beside_it(package: Path, base: list[str]) -> None:
    (package / "f").write_text("mine")
    (package / "f.from-build").write_text("of another day")
    applied = apply(package, file("./f", "new"), base=base)
    assert (package / "f").read_text() == "mine"
    assert (package / "f.from-build").read_text() == "of another day"
    assert (package / "f.from-build.2").read_text() == "new"
    (warning,) = applied.warnings
    assert str(package / "f.from-build.2") in warning
    assert applied.written == []


def test_a_file_system_that_ignores_case_is_named(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Such a file system finds the file under both names, and lists it under the first.
    (package / "kconfig").write_text("of Kconfig")
    monkeypatch.setattr(os, "listdir", lambda _directory: ["Kconfig"])
    (warning,) = apply(package, file("./kconfig", "of kconfig")).warnings
    assert "differs in upper and lower case only" in warning
    assert str(package / "kconfig.from-build") in warning
    assert (package / "kconfig").read_text() == "of Kconfig"
    assert (package / "kconfig.from-build").read_text() == "of kconfig"


def test_a_second_attempt_makes_no_second_copy(package: Path) -> None:
    (package / "f").write_text("mine")
    apply(package, file("./f", "new"), base=came("f", "old"))
    assert apply(package, file("./f", "new"), base=came("f", "old")) == Applied()
    assert names(package) == ["f", "f.from-build"]


def test_a_file_that_was_removed_here_does_not_come_back_under_its_name(package: Path) -> None:
    apply(package, file("./f", "new"), base=came("f", "old"))
    assert names(package) == ["f.from-build"]


def test_a_directory_in_the_place_of_a_file_is_kept(package: Path) -> None:
    (package / "f").mkdir()
    (warning,) = apply(package, file("./f", "new"), base=came("f", "old")).warnings
    assert "by something of another kind" in warning
    assert names(package) == ["f", "f.from-build"]


def test_the_same_content_is_nothing_but_a_new_mode_counts(package: Path) -> None:
    (package / "f").write_text("same")
    (package / "f").chmod(0o644)
    before = (package / "f").stat()
    assert apply(package, file("./f", "same")) == Applied()
    assert (package / "f").stat().st_mtime_ns == before.st_mtime_ns
    apply(package, file("./f", "same", 0o755), base=came("f", "same"))
    assert stat.S_IMODE((package / "f").stat().st_mode) == 0o755
    # Somebody else's mode is kept.
    apply(package, file("./f", "same", 0o600), base=came("f", "same"))
    assert stat.S_IMODE((package / "f").stat().st_mode) == 0o755


def test_setuid_does_not_come_back(package: Path) -> None:
    apply(package, file("./f", "x", 0o6755))
    assert stat.S_IMODE((package / "f").stat().st_mode) == 0o755


def test_links_stay_links(package: Path, tmp_path: Path) -> None:
    (package / "l").symlink_to("one")
    apply(package, special("./l", tarfile.SYMTYPE, "two"), base=["l ./l//one"])
    assert (package / "l").readlink() == Path("two")
    apply(package, special("./l", tarfile.SYMTYPE, "three"), base=["l ./l//one"])
    assert (package / "l").readlink() == Path("two")
    assert (package / "l.from-build").readlink() == Path("three")
    # A link in the place of a file that is as it was is replaced, and nothing is written through it.
    outside = tmp_path / "outside"
    outside.write_text("outside")
    (package / "out").symlink_to(outside)
    apply(package, file("./out", "new"), base=[f"l ./out//{outside}"])
    assert not (package / "out").is_symlink()
    assert outside.read_text() == "outside"


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "./../out", "./a/../../out", "out", "./", "./a//b", "."])
def test_a_path_that_leads_out_is_refused_and_named(package: Path, tmp_path: Path, name: str) -> None:
    before = names(tmp_path)
    (warning,) = apply(package, file(name, "evil")).warnings
    assert repr(name.rstrip("/")) in warning or repr(name) in warning
    assert names(tmp_path) == before


def test_a_path_through_a_link_does_not_lead_out_and_is_named(package: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (package / "here").symlink_to(tmp_path / "outside")
    (package / "dangling").symlink_to(tmp_path / "nowhere")
    applied = apply(
        package,
        special("./sent", tarfile.SYMTYPE, "../outside"),
        file("./sent/evil", "evil"),
        file("./here/evil", "evil"),
        file("./here/deep/evil", "evil"),
        file("./dangling/evil", "evil"),
    )
    named = [str(package / f"{name}.from-build") for name in ("sent", "here", "dangling")]
    assert [name for name, warning in zip(named, applied.warnings, strict=True) if name in warning] == named
    assert (package / "here.from-build/deep/evil").read_text() == "evil"
    assert names(tmp_path / "outside") == []
    assert not (tmp_path / "nowhere").exists()


def test_a_directory_in_the_place_of_a_file_or_a_link_comes_under_another_name(package: Path) -> None:
    """The file itself stays, as each file does that was only removed in the build."""
    (package / "f").write_text("old")
    (package / "l").symlink_to("f")
    (package / "l.from-build").write_text("of another day")
    members = (directory("./f"), file("./f/x", "x"), directory("./f/d"), directory("./l"), file("./l/y", "y"))
    base = [*came("f", "old"), "l ./l//f"]
    applied = apply(package, *members, base=base, deleted=[])
    assert (package / "f").read_text() == "old"
    assert (package / "l").is_symlink()
    assert (package / "f.from-build/x").read_text() == "x"
    assert (package / "f.from-build/d").is_dir()
    assert (package / "l.from-build.2/y").read_text() == "y"
    assert all("by something of another kind" in warning for warning in applied.warnings)
    kept = [str(package / name) for name in ("f.from-build", "l.from-build.2")]
    assert [name for name, warning in zip(kept, applied.warnings, strict=True) if name in warning] == kept
    # The next attempt, after a connection that broke, makes no second copy.
    before = names(package)
    apply(package, *members, base=base, deleted=[])
    assert names(package) == before


def test_empty_directories_and_modes_of_directories_come_back(package: Path) -> None:
    for name in ("changed", "mine"):
        (package / name).mkdir(mode=0o755)
    (package / "mine").chmod(0o700)
    base = [f"d 755 ./{name}" for name in ("changed", "mine", "removed")]
    members = [directory(f"./{name}", 0o555) for name in ("changed", "mine", "new", "new/inner", "removed")]
    applied = apply(package, *members, file("./new/file", "x"), base=base)
    modes = {name: stat.S_IMODE((package / name).stat().st_mode) for name in ("changed", "mine", "new", "new/inner")}
    assert modes == {"changed": 0o555, "mine": 0o700, "new": 0o555, "new/inner": 0o555}
    assert names(package) == ["changed", "mine", "new", "new/file", "new/inner"]
    assert applied.warnings == []


@pytest.mark.parametrize(
    "name", ["./.git/hooks/post-checkout", "./sub/.git/config", "./.nerves/x", "./_build/x", "./deps/x", "./build.log"]
)
def test_what_never_went_in_does_not_come_back(package: Path, name: str) -> None:
    assert len(apply(package, file(name, "evil")).warnings) == 1
    assert names(package) == []


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE])
def test_what_is_no_file_no_directory_and_no_symbolic_link_is_refused(package: Path, kind: bytes) -> None:
    assert len(apply(package, special("./x", kind, "/etc/passwd")).warnings) == 1
    assert names(package) == []


def test_deleted_files_stay_and_are_named_once_together(package: Path) -> None:
    for name in ("a", "b"):
        (package / name).write_text("")
    (warning,) = apply(package, deleted=["./a", "./b", "./gone here, too"]).warnings
    assert "a, b" in warning
    assert names(package) == ["a", "b"]


def test_of_many_deleted_files_a_few_are_named_and_of_a_directory_only_itself(package: Path) -> None:
    files = [f"f{number:02}" for number in range(12)] + [f"d/x{number}" for number in range(5)]
    (package / "d").mkdir()
    for name in files:
        (package / name).write_text("")
    (warning,) = apply(package, deleted=[f"./{name}" for name in ("d", *files)]).warnings
    assert "d, f00, f01, f02, f03, f04, f05, f06, f07, f08 and 3 more in its copy" in warning


def test_a_break_leaves_old_files_and_no_half_ones(package: Path) -> None:
    (package / "f").write_text("old")
    data = packed(file("./f", "x" * 100_000), base=came("f", "old"), deleted=[])
    with pytest.raises(tarfile.TarError):
        changes.apply(io.BytesIO(data[:50_000]), package)
    assert (package / "f").read_text() == "old"
    assert names(package) == ["f"]


def test_a_file_that_cannot_be_written_is_an_error_that_names_it(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", ".nerves-docker-port-0")

    # The tests run as root, who may write everywhere.
    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(errors.RunnerError) as caught:
        apply(package, file("./d/f", "new"))
    assert caught.value.code is errors.Code.BAD_REQUEST
    assert f"{package}/d/f was changed by the build" in caught.value.message
    assert "Operation not permitted" in caught.value.message
    assert names(package) == ["d"]


def test_a_name_that_is_too_long_is_an_error(package: Path) -> None:
    with pytest.raises(errors.RunnerError) as caught:
        apply(package, file(f"./{'x' * 300}", "new"))
    assert caught.value.code is errors.Code.BAD_REQUEST


def test_names_of_any_bytes_come_back(package: Path) -> None:
    name = os.fsdecode(b"\xff\n\xc3\xbc")
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as tar:
        file(f"./{name}", "x")(tar)
    changes.apply(io.BytesIO(made.getvalue()), package)
    assert os.listdir(package) == [name]  # noqa: PTH208
