"""`:run` and `:copy`: one command in the build directory, and files out of it, on a real engine."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import pytest

from nerves_docker_port.port.wire import Atom, Term
from support import hostile
from support.images import NEW, OLD
from support.port import Conversation, Helper, wait_until
from support.requests import keyword
from support.system import System, at_work, owner

PERSON = 12345


@contextmanager
def helper_with_output(system: System) -> Iterator[tuple[Helper, int]]:
    """A helper whose standard output is a pipe; its other end."""
    read, write = os.pipe()
    kept = os.dup(1)
    os.dup2(write, 1)
    try:
        helper = system.helper()
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(write)
    try:
        with helper:
            yield helper, read
    finally:
        os.close(read)


def run(system: System, *words: str | bytes, **changes: Any) -> tuple[Conversation, bytes]:
    """Run a command; the messages, and what it wrote."""
    written = bytearray()

    def collect(fd: int) -> None:
        while data := os.read(fd, 65536):
            written.extend(data)

    with helper_with_output(system) as (helper, fd):
        thread = threading.Thread(target=collect, args=(fd,))
        thread.start()
        conversation = helper.request("run", {**system.args(**changes), Atom("command"): list(words)})
        helper.close()
        helper.process.wait(60)
        thread.join()
    return conversation, bytes(written)


def command(system: System, script: str) -> dict[Term, Term]:
    """The arguments of a request for a shell script."""
    return {**system.args(), Atom("command"): ["sh", "-c", script]}


def sh(system: System, script: str) -> bytes:
    """Run a shell script that is to end well; what it wrote."""
    conversation, written = run(system, "sh", "-c", script)
    assert conversation.value() == {"status": 0}, written
    return written


def seen_by_docker_run(client: docker.DockerClient, system: System, env: list[str]) -> list[bytes]:
    """The environment that `docker run --env` gives to a program in the image."""
    options: dict[str, Any] = {"remove": True, "stderr": False, "working_dir": _workdir(system)}
    written: bytes = client.containers.run(system.image, ["env"], environment=env, **options)
    # The entrypoint of the old image writes lines of its own.
    return _variables(written.rpartition(b"Switching user\n")[2])


def _workdir(system: System) -> str:
    return "/home/nerves/project" if system.image == NEW else "/nerves/build"


def _variables(environ: bytes) -> list[bytes]:
    return sorted(each for each in environ.splitlines() if not each.startswith((b"HOSTNAME=", b"ERROR: ld.so")))


@pytest.mark.parametrize("image", [NEW, OLD])
@pytest.mark.parametrize("name", ["none", "all", "BASH_FUNC_printf%%", "FUNCNEST"])
def test_a_command_sees_the_environment_that_docker_run_would_give_it(
    make_system: Callable[..., System], client: docker.DockerClient, image: str, name: str
) -> None:
    given = {} if name == "none" else hostile.VARIABLES if name == "all" else {name: hostile.VARIABLES[name]}
    if image == OLD:
        given = {name: value for name, value in given.items() if name in hostile.HARMLESS_FOR_STOCK}
    system = make_system(image=image, platform_version="1.34.0" if image == NEW else "1.27.0")
    system.write("my_system/hostile.sh", "exit 9\n")
    config = keyword(env=keyword(**given))
    conversation, written = run(system, "env", runner_config=config)
    assert conversation.value() == {"status": 0}, written
    ours = ["UID=1000", "GID=1000", "TERM=xterm-256color", "NERVES_BR_DL_DIR=/nerves/dl"]
    expected = seen_by_docker_run(client, system, [*ours, *(f"{name}={value}" for name, value in given.items())])
    assert _variables(written) == expected


def copy(system: System, source: str | bytes, target: Path | str) -> Conversation:
    with system.helper() as helper:
        return helper.request("copy", {**system.args(), Atom("source"): source, Atom("target"): str(target)})


@pytest.fixture(params=[NEW, OLD])
def system(request: pytest.FixtureRequest, make_system: Callable[..., System]) -> System:
    """A plain user's system on each kind of image."""
    version = {NEW: "1.34.0", OLD: "1.27.1"}[request.param]
    return make_system(image=request.param, platform_version=version, uid=PERSON)


@pytest.fixture
def new_system(make_system: Callable[..., System]) -> System:
    return make_system(uid=PERSON)


def out(system: System) -> Path:
    """A directory for copies, of the system's user."""
    path = system.root / "out"
    path.mkdir()
    system.own()
    return path


# --- run -------------------------------------------------------------------------------------------------------


def test_a_command_runs_as_a_build_step_does(system: System, client: docker.DockerClient) -> None:
    conversation, written = run(system, "sh", "-c", "id -u; pwd; ls Makefile; echo error >&2; touch made", "a b")
    workdir = "/nerves/build" if system.image == OLD else "/home/nerves/project"
    assert written.decode().splitlines() == [str(PERSON), workdir, "Makefile", "error"]
    assert conversation.value() == {"status": 0}
    assert conversation.finished == ["preflight", "create_build", "run"]
    # What it wrote is shown once, and what create-build.sh wrote is not shown as the command's.
    assert b">>> create-build nerves_defconfig" in conversation.log
    log = (system.package / "run.log").read_bytes()
    assert log.endswith(written)
    assert b">>> create-build" in log
    assert owner(system.package / "run.log") == (PERSON, PERSON)
    assert at_work(client, system.volume) == []


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 1", 1), ("exit 130", 130), ("kill -TERM $$", 143), ("kill -INT $$", 130), ("exit 255", 255)],
)
def test_the_exit_status_is_the_commands(new_system: System, script: str, status: int) -> None:
    conversation, _ = run(new_system, "sh", "-c", script)
    assert conversation.value() == {"status": status}
    assert conversation.warnings == []


def test_words_arrive_as_they_are(new_system: System) -> None:
    words: list[str | bytes] = ["", "a b", "$HOME", "'", '"', "new\nline", b"\xff", "ü", "--get", "*"]
    _, written = run(new_system, "printf", r"<%s>", *words)
    expected = b"".join(b"<" + (word if isinstance(word, bytes) else word.encode()) + b">" for word in words)
    assert written == expected


def test_a_program_that_is_not_there(new_system: System) -> None:
    conversation, written = run(new_system, "no-such-program")
    assert conversation.value() == {"status": 127}
    assert b"'no-such-program': No such file or directory" in written


def test_what_a_command_writes_is_not_looked_through(new_system: System) -> None:
    script = r"printf '\033[7m>>> hello 1.0 Building\033[27m\n\000\377\r\n'"
    assert sh(new_system, script) == b"\x1b[7m>>> hello 1.0 Building\x1b[27m\n\0\xff\r\n"
    conversation, _ = run(new_system, "sh", "-c", script)
    assert conversation.log_lines == [b">>> create-build nerves_defconfig"]


def test_two_hundred_megabytes_to_a_reader_that_sleeps_first(new_system: System) -> None:
    size = 200_000_000
    with helper_with_output(new_system) as (helper, fd):
        helper.start("run", command(new_system, f"yes 0123456789abcde | head -c {size}"))
        helper.follow(until_stage="run")
        # Nobody reads; the helper waits, and keeps next to nothing meanwhile.
        time.sleep(3)
        memory = next(
            line for line in Path(f"/proc/{helper.process.pid}/status").read_text().splitlines() if "VmRSS" in line
        )
        assert int(memory.split()[1]) < 150_000
        read = 0
        while read < size:
            data = os.read(fd, 1 << 20)
            assert data
            read += len(data)
        assert helper.follow().value() == {"status": 0}
    assert read == size
    assert (new_system.package / "run.log").stat().st_size > size


def test_nobody_reads_any_more(new_system: System, client: docker.DockerClient) -> None:
    with helper_with_output(new_system) as (helper, fd):
        helper.start("run", command(new_system, "yes"))
        helper.follow(until_stage="run")
        os.dup2(os.open(os.devnull, os.O_RDONLY), fd)
        error = helper.follow().error
    assert error is not None
    assert error["code"] == "cancelled"
    assert "has ended" in error["message"]
    assert at_work(client, new_system.volume) == []


def test_a_command_is_ended_with_its_helper(new_system: System, client: docker.DockerClient) -> None:
    with helper_with_output(new_system) as (helper, fd):
        script = "trap 'echo ended; exit' TERM; echo begun; while :; do sleep 1; done"
        helper.start("run", command(new_system, script))
        assert os.read(fd, 6) == b"begun\n"
        helper.signal(signal.SIGTERM)
        error = helper.follow().error
    assert error is not None
    assert error["code"] == "cancelled"
    assert wait_until(lambda: at_work(client, new_system.volume) == [])
    log = (new_system.package / "run.log").read_text().splitlines()
    assert log[1] == "begun"
    assert "ended" in log


def test_create_build_that_fails(new_system: System) -> None:
    new_system.write("my_system/in_create_build.sh", "echo no such option; exit 3\n")
    conversation, written = run(new_system, "true")
    assert conversation.error is not None
    assert conversation.error["code"] == "step_failed"
    assert "create-build.sh" in conversation.error["message"]
    assert "no such option" in conversation.error["message"]
    assert conversation.error["log"] == str(new_system.package / "run.log")
    assert written == b""


def _refused(conversation: Conversation) -> bool:
    return conversation.error is not None and conversation.error["code"] == "volume_busy"


def test_a_build_a_command_and_a_copy_exclude_each_other(new_system: System) -> None:
    sh(new_system, "true")
    with helper_with_output(new_system) as (helper, fd):
        helper.start("run", command(new_system, "echo begun; sleep 1000"))
        assert os.read(fd, 6) == b"begun\n"
        log = (new_system.package / "run.log").read_bytes()
        assert _refused(run(new_system, "true")[0])
        assert _refused(new_system.run("build"))
        assert _refused(copy(new_system, "Makefile", new_system.root / "x"))
        # The log of the one that runs is left alone.
        assert (new_system.package / "run.log").read_bytes() == log


# --- copy ------------------------------------------------------------------------------------------------------


def test_a_file_and_a_directory_are_the_callers(system: System, client: docker.DockerClient) -> None:
    sh(
        system,
        "mkdir -p d/e; echo a > d/f; chmod 640 d/f; ln d/f d/g; ln -s f d/in; ln -s /etc/passwd d/out; "
        "printf x > 'd/new\nline'; echo s > d/secret; chmod 000 d/secret; chmod 555 d/e; mkfifo d/pipe; "
        "ln d/pipe d/same; chmod 4711 d/g; truncate -s 30M d/sparse; "
        "printf x > \"$(printf 'd/\\377')\"",
    )
    there = out(system)
    conversation = copy(system, "d", there)
    size = 2 + 1 + 2 + 1 + (30 << 20)
    assert conversation.value() == {"path": str(there / "d"), "size": size}
    assert conversation.warnings == [
        "'d/pipe' was not copied: it is neither a file, a directory nor a link.",
        "'d/same' was not copied: nor was 'd/pipe', which is the same file.",
    ]
    found = {os.fsencode(path.name) for path in (there / "d").iterdir()}
    assert found == {b"e", b"f", b"g", b"in", b"out", b"new\nline", b"secret", b"sparse", b"\xff"}
    assert (there / "d/sparse").stat().st_blocks == 0
    assert {owner(path) for path in (there / "d", *(there / "d").rglob("*"))} == {(PERSON, PERSON)}
    # Never setuid: the program would run as the caller.
    assert (there / "d/f").stat().st_mode & 0o7777 == 0o711
    assert (there / "d/f").stat().st_ino == (there / "d/g").stat().st_ino
    assert (there / "d/e").stat().st_mode & 0o777 == 0o555
    assert (there / "d/secret").stat().st_mode & 0o777 == 0o000
    assert (there / "d/out").readlink() == Path("/etc/passwd")
    assert copy(system, "d/f", there / "renamed").value()["path"] == str(there / "renamed")
    assert copy(system, "d/new\nline", there).value()["size"] == 1
    assert (there / "new\nline").read_text() == "x"
    assert at_work(client, system.volume) == []


def test_what_cannot_be_copied_is_said_and_nothing_is_written(new_system: System) -> None:
    sh(
        new_system,
        "ln -s /etc etc; ln -s nowhere dangling; mkdir d; ln -s $PWD/d inside; echo x > d/x; ln -s .. up; mkfifo pipe; "
        "perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local => \"socket\", Listen => 1) or die'; "
        "ln -s socket link",
    )
    there = out(new_system)
    for source, said in (
        ("nothing", "There is no nothing in the build directory."),
        ("d/x/y", "There is no d/x/y in the build directory."),
        ("dangling", "a symbolic link to nowhere, which is not there"),
        ("etc", "leads out of the build directory, to /etc"),
        ("etc/passwd", "leads out of the build directory, to /etc/passwd"),
        ("up", "leads out of the build directory"),
        ("../x", "no path in the build directory"),
        ("/etc/passwd", "no path in the build directory"),
        ("pipe", "pipe is neither a file, a directory nor a link."),
        ("socket", "socket is neither a file, a directory nor a link."),
        ("link", "link is neither a file, a directory nor a link."),
    ):
        error = copy(new_system, source, there).error
        assert error is not None, source
        assert error["code"] == "bad_request"
        assert said in error["message"]
        assert error["hint"]
    assert list(there.iterdir()) == []
    assert copy(new_system, "inside", there).value()["path"] == str(there / "inside")
    assert (there / "inside/x").read_text() == "x\n"
    assert copy(new_system, "inside/x", there).value()["size"] == 2


def test_a_copy_before_anything_was_built(new_system: System) -> None:
    error = copy(new_system, "images", out(new_system)).error
    assert error is not None
    assert error["code"] == "no_build_tree"


def test_a_directory_of_a_gigabyte(new_system: System) -> None:
    sh(
        new_system,
        "mkdir big; cd big; head -c 1000000 /dev/urandom > 0; for n in $(seq 999); do cp 0 $n; done; "
        "cat $(seq 0 999) | sha256sum > ../sum",
    )
    there = out(new_system)
    conversation = copy(new_system, "big", there)
    assert conversation.value()["size"] == 1_000_000_000
    assert conversation.progress[-1]["unit"] == "bytes"
    assert len(list((there / "big").iterdir())) == 1000
    copy(new_system, "sum", there)
    digest = subprocess.run(
        ["sh", "-c", "cat $(seq 0 999) | sha256sum"], cwd=there / "big", capture_output=True, text=True, check=True
    ).stdout
    assert digest == (there / "sum").read_text()


def test_a_copy_that_is_cancelled_leaves_nothing(new_system: System, client: docker.DockerClient) -> None:
    sh(new_system, "mkdir big; head -c 800000000 /dev/zero > big/zeros")
    there = out(new_system)
    with new_system.helper() as helper:
        helper.start("copy", {**new_system.args(), Atom("source"): "big", Atom("target"): str(there)})
        assert wait_until(lambda: any(there.iterdir()))
        helper.signal(signal.SIGTERM)
        error = helper.follow().error
    assert error is not None
    assert error["code"] == "cancelled"
    assert list(there.iterdir()) == []
    assert wait_until(lambda: at_work(client, new_system.volume) == [])


def test_a_place_that_may_not_be_written(new_system: System) -> None:
    sh(new_system, "true")
    there = new_system.root / "closed"
    there.mkdir(mode=0o755)
    error = copy(new_system, "Makefile", there).error
    assert error is not None
    assert "cannot be written: Permission denied" in error["message"]
    assert list(there.iterdir()) == []


def test_the_next_copy_removes_what_a_killed_one_has_left(
    make_system: Callable[..., System], client: docker.DockerClient
) -> None:
    system = make_system()
    sh(system, "head -c 200000000 /dev/urandom > big; echo small > small")
    target = system.root / "out"
    target.mkdir()
    system.own()
    with system.helper() as helper:
        args = {**system.args(env={"NERVES_DOCKER_PATIENCE": "10"}), Atom("source"): "big", Atom("target"): str(target)}
        helper.start("copy", args)
        assert wait_until(lambda: list(target.iterdir()), 60)
        helper.process.kill()
        helper.process.wait(60)
    (left,) = target.iterdir()
    assert left.name != "big"
    assert wait_until(lambda: at_work(client, system.volume) == [], 60)
    copy(system, "small", target).value()
    assert [path.name for path in target.iterdir()] == ["small"]


def test_a_copy_from_an_image_whose_environment_programs_complain_about(
    make_system: Callable[..., System], client: docker.DockerClient
) -> None:
    tag = f"nerves_docker_port/complains:{os.getpid()}"
    made = client.containers.create(NEW, "true")
    try:
        made.commit(*tag.split(":"), changes="ENV LD_PRELOAD=/nowhere/lib.so")
    finally:
        made.remove()
    try:
        system = make_system(image=tag)
        system.run("build").value()
        copy(system, "built", system.root / "out").value()
        assert (system.root / "out").read_text() == "1000\n"
    finally:
        client.images.remove(tag)
