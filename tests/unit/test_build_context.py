"""The digest of a build context: it covers the Dockerfile, and the files of the context that the Dockerfile uses."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from nerves_docker_port.errors import RunnerError
from nerves_docker_port.image.context import Context, sources


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM x\nRUN make\n", set()),
        ("COPY a /b", {"a"}),
        ("copy ./a b/ c* /d/", {"a", "b", "c*"}),
        ("ADD --chown=1:1 --chmod=755 a /b", {"a"}),
        ('COPY ["a b", "c", "/d"]', {"a b", "c"}),
        ("COPY --from=base /x /y", set()),
        ("ADD https://example.com/x.tar git@example.com:x.git local /", {"local"}),
        ("COPY . /src", {"."}),
        ("COPY / /src", {"."}),
        ("COPY ../../etc/passwd /", {"etc/passwd"}),
        ("COPY \\\n  a \\\n  # a comment in between\n  b \\\n  /c", {"a", "b"}),
        ("# escape=`\nCOPY a `\n b /c\nCOPY C:\\ /d", {"a", "b", "C:\\"}),
        ("COPY files/$VERSION/x /", {"files"}),
        ("COPY $FILE /", {"."}),
        ("# COPY a /b", set()),
        ("RUN --mount=type=bind,source=s,target=/s make", {"s"}),
        ("RUN --mount=target=/s make", {"."}),
        ("RUN --mount=type=cache,target=/s --mount=from=base,target=/t make", set()),
        ("ONBUILD COPY a /b", set()),
    ],
)
def test_the_files_that_a_dockerfile_uses_of_its_context(text: str, expected: set[str]) -> None:
    assert sources(text) == expected


@pytest.fixture
def context(tmp_path: Path) -> Context:
    (tmp_path / "Dockerfile").write_text("FROM x\nCOPY used d* /\n")
    (tmp_path / "used").write_text("1")
    (tmp_path / "unused").write_text("1")
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "in").write_text("1")
    found = Context.find(tmp_path / "Dockerfile")
    assert found is not None
    return found


def change(context: Context, what: str) -> None:
    root = context.root
    match what:
        case "the Dockerfile":
            context.dockerfile.write_text("FROM x\nCOPY used d* /\n# more\n")
        case "content":
            (root / "used").write_text("2")
        case "content in a directory":
            (root / "dir" / "in").write_text("2")
        case "mode":
            (root / "used").chmod(0o755)
        case "another file that a pattern matches":
            (root / "d.hidden").write_text("")
        case "a link in the file's place":
            (root / "used").unlink()
            (root / "used").symlink_to("unused")
        case "an empty directory":
            (root / "dir" / "empty").mkdir()
        case "a file that is no longer there":
            (root / "dir" / "in").unlink()
        case "unused":
            (root / "unused").write_text("2")
        case "time":
            os.utime(root / "used", (0, 0))
        case "group permissions":
            (root / "used").chmod(0o664)
        case "what is ignored":
            (root / ".dockerignore").write_text("dir/i*\n")
            digest = context.digest()
            (root / "dir" / "in").write_text("2")
            assert context.digest() == digest


@pytest.mark.parametrize(
    "what",
    [
        "the Dockerfile",
        "content",
        "content in a directory",
        "mode",
        "another file that a pattern matches",
        "a link in the file's place",
        "an empty directory",
        "a file that is no longer there",
        "what is ignored",
    ],
)
def test_a_relevant_change_changes_the_digest(context: Context, what: str) -> None:
    before = context.digest()
    change(context, what)
    assert context.digest() != before


@pytest.mark.parametrize("what", ["unused", "time", "group permissions"])
def test_an_irrelevant_change_does_not_change_the_digest(context: Context, what: str) -> None:
    before = context.digest()
    change(context, what)
    assert context.digest() == before


def test_a_copy_of_the_whole_context_ignores_the_files_that_builds_write(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM x\nCOPY . /src\nCOPY deps/lock /\n")
    context = Context.find(tmp_path / "Dockerfile")
    assert context is not None
    before = context.digest()
    for name in ("build.log", "archive.log", "Config.in", "my-portable-0.1.0-ABC.tar.gz"):
        (tmp_path / name).write_text("x")
    for name in ("_build", "deps", ".nerves", ".git"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text("x")
    assert context.digest() == before
    # A file in an excluded directory counts if the Dockerfile names it.
    (tmp_path / "deps" / "lock").write_text("x")
    after = context.digest()
    assert after != before
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "build.log").write_text("x")
    assert context.digest() != after


def test_a_directory_means_the_dockerfile_in_it_and_a_missing_file_is_none(tmp_path: Path) -> None:
    assert Context.find(tmp_path / "none") is None
    assert Context.find(tmp_path) is None
    (tmp_path / "Dockerfile").write_text("FROM x\n")
    context = Context.find(tmp_path)
    assert context is not None
    assert context.dockerfile == tmp_path / "Dockerfile"


def test_the_dockerfiles_own_ignore_file_decides_what_is_packed(tmp_path: Path) -> None:
    for name in ("Dockerfile.build", "a", "b"):
        (tmp_path / name).write_text(name)
    (tmp_path / ".dockerignore").write_text("\ufeff# comment\n\na\n")
    context = Context.find(tmp_path / "Dockerfile.build")
    assert context is not None

    def packed() -> set[str]:
        file, name = context.packed()
        assert name == "Dockerfile.build"
        with file, tarfile.open(fileobj=file) as tar:
            return set(tar.getnames())

    assert packed() == {".dockerignore", "Dockerfile.build", "b"}
    (tmp_path / "Dockerfile.build.dockerignore").write_text("b\nDockerfile.build\n")
    assert packed() == {"Dockerfile.build", "Dockerfile.build.dockerignore", "a"}


@pytest.mark.parametrize(
    ("pattern", "used", "unused"),
    [("[^x]1", "a1", "x1"), ("[!x]1", "x1", "a1"), ("\\*", "*", "a1"), ("a?", "a1", "x1"), ("[a-c]*", "b.c", "x1")],
)
def test_patterns_of_copy_are_read_as_go_reads_them(pattern: str, used: str, unused: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM x\nCOPY {pattern} /\n")
    for name in (used, unused):
        (tmp_path / name).write_text("1")
    context = Context(tmp_path / "Dockerfile")
    before = context.digest()
    (tmp_path / unused).write_text("2")
    assert context.digest() == before
    (tmp_path / used).write_text("2")
    assert context.digest() != before


def test_a_line_of_the_ignore_file_that_is_no_pattern_is_named(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM x\nCOPY . /\n")
    (tmp_path / ".dockerignore").write_text("ok\n[b-\n")
    for doing in (Context(tmp_path / "Dockerfile").digest, Context(tmp_path / "Dockerfile").packed):
        with pytest.raises(RunnerError) as caught:
            doing()
        assert caught.value.message == f"{tmp_path}/.dockerignore cannot be used: syntax error in pattern '[b-'"


def test_a_script_of_unicode_in_the_ignore_file_is_named(tmp_path: Path) -> None:
    """The CLI knows the scripts, but Python does not, so no file may be chosen by a guess."""
    (tmp_path / "Dockerfile").write_text("FROM x\nCOPY . /\n")
    (tmp_path / ".dockerignore").write_text("\\p{Greek}*\n")
    with pytest.raises(RunnerError, match=r"\\p\{Greek\} is not supported: only general categories"):
        Context(tmp_path / "Dockerfile").packed()
