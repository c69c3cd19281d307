"""Faults that a real engine, a real disk and a real clock give: races, full disks, an engine that dies, secrets."""

from __future__ import annotations

import base64
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import docker
import pytest

from nerves_docker_port.port.wire import Atom
from support.images import NEW
from support.port import Conversation, Helper, packaged_command, wait_until
from support.system import System, at_work, content_of_volume, ours

MakeSystem = Callable[..., System]

RANDOM_CANCELLATIONS = int(os.environ.get("NDP_RANDOM_CANCELLATIONS", "50"))
"""`make soak` sets it to 1,000."""

RACES = int(os.environ.get("NDP_RACES", "25"))
"""Rounds of each race; `make soak` sets it to 100."""


class Racer:
    """A helper that is ready, with a working directory of its own, for request after request."""

    def __init__(self, system: System, name: str, helper: Helper) -> None:
        self._system = system
        self._helper = helper
        self._asked = 0
        self._cwd = system.root / name
        self._cwd.mkdir()
        self._cwd.chmod(0o777)

    def __call__(self, op: str, *make_args: str, **more: Any) -> Conversation:
        """One request, to its outcome. ``more`` goes to the request's own arguments."""
        self._asked += 1
        args = self._system.args(make_args=list(make_args), cwd=self._cwd)
        args.update({Atom(name): value for name, value in more.items()})
        return self._helper.request(op, args, request_id=self._asked)


def together(*runs: Callable[[], Conversation]) -> list[Conversation]:
    """The outcomes of what starts in the same instant."""
    barrier = threading.Barrier(len(runs))
    outcomes: dict[int, Conversation] = {}

    def run(index: int) -> None:
        barrier.wait()
        outcomes[index] = runs[index]()

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(runs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [outcomes[index] for index in range(len(runs))]


def code(conversation: Conversation) -> str:
    return "ok" if conversation.error is None else str(conversation.error["code"])


def test_of_two_builds_started_in_the_same_instant_exactly_one_runs(
    make_system: MakeSystem, client: docker.DockerClient
) -> None:
    """Fault 4. With helpers that are ready and a build that outlasts the other's start."""
    system = make_system()
    system.run("build").value()
    with system.helper() as first, system.helper() as second:
        one, two = Racer(system, "one", first), Racer(system, "two", second)
        for _round in range(2 * RACES):
            outcomes = together(lambda: one("build", "RUN=sleep 0.6"), lambda: two("build", "RUN=sleep 0.6"))
            assert sorted(map(code, outcomes)) == ["ok", "volume_busy"], [each.error for each in outcomes]
    assert ours(client, system.volume) == []


WORLDS = {
    "pid namespaces": ["unshare", "--pid", "--fork", "--mount-proc"],
    "host names": ["unshare", "--uts", "sh", "-c", 'hostname another-host; exec "$@"', "sh"],
    "users": ["setpriv", "--reuid=1001", "--regid=1001", "--clear-groups"],
    "time zones": ["env", "TZ=Pacific/Kiritimati", "LC_TIME=de_DE.UTF-8"],
}


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_of_two_builds_between_which_nothing_but_the_engine_is_the_same_exactly_one_runs(
    world: list[str], make_system: MakeSystem, client: docker.DockerClient
) -> None:
    system = make_system(uid=0)
    system.run("build").value()
    for path in (system.root, *system.root.rglob("*")):
        path.chmod(0o777)
    other = Helper(
        command=[*world, *packaged_command()], env={"DOCKER_HOST": system.host, "HOME": str(system.root / "home")}
    )
    with other, system.helper() as helper:
        one, two = Racer(system, "one", helper), Racer(system, "two", other)
        for _round in range(RACES // 5):
            outcomes = together(lambda: one("build", "RUN=sleep 0.5"), lambda: two("build", "RUN=sleep 0.5"))
            assert sorted(map(code, outcomes)) == ["ok", "volume_busy"], [each.error for each in outcomes]
        # Nor does the one who comes later take a living build's volume.
        waiting = threading.Thread(target=lambda: one("build", "RUN=sleep 5"))
        waiting.start()
        # The parked container of the last round also uses the volume, so the session's name is looked for.
        assert wait_until(lambda: client.containers.list(filters={"name": f"^/?{system.volume}-session$"}), 30)
        outcome = two("build")
        waiting.join()
        assert code(outcome) == "volume_busy"
        assert f"{system.volume}-session (build, started " in outcome.error["message"]  # type: ignore[index]
    assert ours(client, system.volume) == []


@pytest.mark.parametrize("other", ["shell", "clean", "prune"])
def test_of_a_build_and_another_command_in_the_same_instant_never_both_and_never_none_has_the_volume(
    other: str, make_system: MakeSystem, client: docker.DockerClient
) -> None:
    """A build is slower at its start than the others, so these begin a little later, by more in every round."""
    system = make_system()
    system.run("build").value()
    volume = system.volume
    refused = 0
    with system.helper() as first, system.helper() as second:
        builder, rival = Racer(system, "one", first), Racer(system, "two", second)

        ended = {}

        def build() -> Conversation:
            conversation = builder("build", "RUN=sleep 0.3")
            ended["build"] = time.monotonic()
            return conversation

        def opposed(delay: float) -> Conversation:
            time.sleep(delay)
            if other == "prune":
                conversation = rival("volumes", prune=True, yes=True, all=True, volumes=[volume])
            else:
                conversation = rival(other)
            ended["rival"] = time.monotonic()
            return conversation

        for round_ in range(RACES):
            built, opposite = together(build, partial(opposed, round_ % 10 * 0.03))
            outcomes = [code(built), code(opposite)]
            if other == "prune" and opposite.ok is not None and volume not in opposite.ok["removed"]:
                # A volume that is in use is kept, and that is said; the command itself is no failure.
                assert f"{volume}-session" in opposite.ok["text"]
                outcomes[1] = "volume_busy"
            if opposite.error is not None and "There is no build volume" in opposite.error["message"]:
                # The round before has removed the volume, and the build has not made it again yet.
                assert other == "prune"
                outcomes[1] = "ok"
            assert set(outcomes) <= {"ok", "volume_busy"}, (built.error, opposite.error)
            assert outcomes != ["volume_busy", "volume_busy"]
            refused += "volume_busy" in outcomes
            there = [each for each in client.volumes.list() if each.name == volume]
            if outcomes == ["ok", "ok"] and there == []:
                # On a busy machine the other may come when the build is over, and may remove what it made.
                assert other != "shell"
                assert ended["rival"] > ended["build"]
            elif outcomes[0] == "ok":
                # Where the other came first, the build made a new volume, ours like the one before.
                assert there[0].attrs["Labels"]["nerves-docker-port.volume"] == volume
                # What was built is in it, for a helper that knows nothing of the build.
                assert rival("archive").finished == ["preflight", "make_system", "copy"]
            elif other != "shell":
                assert there == []
    assert refused > 0
    assert ours(client, volume) == []


def test_the_one_that_is_refused_is_told_by_whom_since_when_and_how_to_stop_it(
    make_system: MakeSystem, client: docker.DockerClient
) -> None:
    system = make_system()
    with system.helper() as first:
        first.start("build", system.args(make_args=["RUN=sleep 60"]))
        first.follow(until_stage="make")
        assert wait_until(lambda: client.containers.list(filters={"volume": system.volume}), 10)
        (container,) = client.containers.list(filters={"volume": system.volume})
        started = time.monotonic()
        for op in ("build", "archive", "clean"):
            error = system.run(op).error
            assert error is not None
            assert error["code"] == "volume_busy"
            assert f"{container.name} (build, started " in error["message"]
            assert f"docker stop {container.name}" in error["hint"]
        assert time.monotonic() - started < 15
        # The remedy works.
        container.stop(timeout=1)
        error = first.follow().error
        assert error is not None
        assert error["code"] == "step_failed"
    system.run("build").value()


def test_a_volume_that_somebody_else_s_container_uses_is_refused_and_that_container_left_alone(
    make_system: MakeSystem, client: docker.DockerClient
) -> None:
    """The stock runner's, say: it has none of our labels."""
    system = make_system()
    system.run("build").value()
    foreign = client.containers.run(
        NEW, ["sleep", "60"], mounts=[docker.types.Mount("/x", system.volume)], detach=True, init=True
    )
    try:
        error = system.run("build").error
        assert error is not None
        assert error["code"] == "volume_busy"
        assert f"{foreign.name} (not started by this runner, started " in error["message"]
        foreign.reload()
        assert foreign.status == "running"
    finally:
        foreign.remove(force=True)
    system.run("build").value()


def test_a_session_that_never_started_or_has_ended_holds_nothing_but_one_that_is_about_to_start_does(
    make_system: MakeSystem, client: docker.DockerClient
) -> None:
    """By the engine's own state and clock; who made the container does not matter."""
    system = make_system()
    system.run("build").value()
    name = f"{system.volume}-session"
    labels = {"nerves-docker-port.volume": system.volume, "nerves-docker-port.step": "build"}
    ended = client.containers.run(NEW, ["true"], name=name, labels=labels, detach=True)
    ended.wait()
    system.run("build").value()
    made = client.containers.create(NEW, ["true"], name=name, labels=labels)
    error = system.run("build").error
    assert error is not None
    assert error["code"] == "volume_busy"
    assert f"docker rm --force {name}" in error["hint"]
    made.reload()
    # A minute later, as it is for a person; here at once.
    hasty = Path(__file__).parent / "hasty_helper.py"
    env = {
        "DOCKER_HOST": system.host,
        "HOME": str(system.root / "home"),
        "NERVES_HASTY": json.dumps({"volume.lock.LEFTOVER_AGE": -1}),
    }
    with Helper(command=[sys.executable, str(hasty)], env=env) as helper:
        helper.request("build", system.args()).value()
    with pytest.raises(docker.errors.NotFound):
        made.reload()
    assert ours(client, system.volume) == []


def test_cancelled_at_random_moments_a_build_leaves_nothing_and_no_traceback(
    make_system: MakeSystem, client: docker.DockerClient
) -> None:
    system = make_system()
    system.run("build").value()
    before = system.artifact.read_bytes()
    seed = int(os.environ.get("NDP_SEED", str(random.SystemRandom().randrange(1 << 32))))
    print(f"NDP_SEED={seed}")
    chance = random.Random(seed)
    system.write("my_system/in_make_system.sh", "head -c 3000000 /dev/urandom > built\n")
    errors = system.root / "stderr"
    with errors.open("wb") as stderr:
        for _round in range(RANDOM_CANCELLATIONS):
            end = chance.choice(["cancel", "end of file", "SIGTERM", "SIGKILL"])
            # What a killed helper leaves ends by itself (test_kill_matrix.py). That can take a minute, and the engine
            # may still be making the container that the helper asked for. So each kill has its own system.
            used = make_system() if end == "SIGKILL" else system
            with used.helper(stderr=stderr.fileno()) as helper:
                helper.start("build", used.args(make_args=[f"RUN=sleep 0.{chance.randrange(6)}"]))
                time.sleep(chance.uniform(0, 2.5))
                if end == "cancel":
                    helper.send((Atom("cancel"), 1))
                    # One that came too late finds the session parked, for as long as the helper is there.
                    if helper.follow().error is not None:
                        assert ours(client, system.volume) == []
                elif end == "end of file":
                    helper.close()
                elif end == "SIGTERM":
                    helper.process.terminate()
                else:
                    helper.process.kill()
            assert ours(client, system.volume) == []
    conversation = system.run("build")
    assert conversation.value()["size"] > 3_000_000
    assert ours(client, system.volume) == []
    assert before != system.artifact.read_bytes()
    assert b"Traceback" not in errors.read_bytes()


@pytest.fixture
def small_disk() -> Iterator[Callable[[Path, int], None]]:
    """Mounts small file systems; they are gone after the test."""
    mounted: list[Path] = []

    def mount(path: Path, kilobytes: int) -> None:
        path.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", path], check=True)
        mounted.append(path)

    yield mount
    for path in mounted:
        subprocess.run(["umount", "--lazy", path], check=True)


def test_a_full_disk_at_the_engine_is_called_that_and_the_artifact_stays(
    make_system: MakeSystem, client: docker.DockerClient
) -> None:
    system = make_system(uid=0)
    system.run("build").value()
    before = system.artifact.read_bytes()
    # The build volume on a small file system of its own, on a loop device.
    image = Path(tempfile.mkstemp(prefix="ndp-disk-")[1])
    volume = system.volume
    loop = ""
    try:
        with image.open("wb") as file:
            file.truncate(8 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
        made = subprocess.run(["losetup", "--find", "--show", image], check=True, capture_output=True, text=True)
        loop = made.stdout.strip()
        client.volumes.get(volume).remove()
        client.volumes.create(volume, driver_opts={"type": "ext4", "device": loop})
        error = system.run("build", make_args=["RUN=head -c 20000000 /dev/zero > big"]).error
        assert error is not None
        assert error["code"] == "disk_full"
        assert "No space left on device" in error["message"]
        assert "docker system df" in error["hint"]
        assert system.artifact.read_bytes() == before
        assert ours(client, volume) == []
    finally:
        client.volumes.get(volume).remove(force=True)
        if loop:
            subprocess.run(["losetup", "--detach", loop], check=True)
        image.unlink()


def test_a_full_disk_in_the_download_directory_is_called_that_and_leaves_no_half_artifact(
    make_system: MakeSystem, small_disk: Callable[[Path, int], None], client: docker.DockerClient
) -> None:
    system = make_system(uid=0)
    small_disk(system.root / "dl", 1024)
    system.run("build").value()
    before = system.artifact.read_bytes()
    system.write("my_system/in_make_system.sh", "head -c 3000000 /dev/urandom > built\n")
    error = system.run("build").error
    assert error is not None
    assert error["code"] == "disk_full"
    assert str(system.artifact) in error["message"]
    assert system.artifact.read_bytes() == before
    assert [path.name for path in system.artifact.parent.iterdir()] == [system.artifact.name]
    assert ours(client, system.volume) == []


def test_a_full_disk_under_the_log_is_called_that(
    make_system: MakeSystem, small_disk: Callable[[Path, int], None], client: docker.DockerClient
) -> None:
    system = make_system(uid=0)
    small_disk(system.root / "cwd", 256)
    error = system.run("build", cwd=system.root / "cwd", make_args=["RUN=head -c 3000000 /dev/zero"]).error
    assert error is not None
    assert error["code"] == "disk_full"
    assert str(system.root / "cwd" / "build.log") in error["message"]
    assert ours(client, system.volume) == []
    system.run("build").value()


def test_a_full_disk_under_a_copy_is_called_that_and_leaves_nothing(
    make_system: MakeSystem, small_disk: Callable[[Path, int], None], client: docker.DockerClient
) -> None:
    system = make_system(uid=0)
    system.run("build", make_args=["RUN=mkdir big && head -c 3000000 /dev/urandom > big/file && ln -s file big/a"])
    small_disk(system.root / "out", 1024)
    (system.root / "out" / "file").write_text("kept")
    for source, target in (("big", "new"), ("big/file", "file")):
        with system.helper() as helper:
            args = {**system.args(), Atom("source"): source, Atom("target"): str(system.root / "out" / target)}
            error = helper.request("copy", args).error
        assert error is not None
        assert error["code"] == "disk_full"
        assert str(system.root / "out" / target) in error["message"]
    assert [path.name for path in (system.root / "out").iterdir()] == ["file"]
    assert (system.root / "out" / "file").read_text() == "kept"
    assert ours(client, system.volume) == []


def test_a_download_directory_that_may_not_be_written_is_named(make_system: MakeSystem) -> None:
    system = make_system(uid=1000)
    closed = system.root / "closed"
    closed.mkdir(mode=0o755)
    error = system.run("build", download_dir=closed).error
    assert error is not None
    assert error["code"] == "bad_request"
    assert f"The download directory {closed} cannot be written: Permission denied" in error["message"]


def _a_directory(path: Path) -> str:
    path.mkdir(parents=True)
    return f"The artifact cannot be put at {path}, because that is a directory."


def _on_a_full_disk(path: Path) -> str:
    with suppress(OSError), (path.parent / "big").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    return f"No space is left on the host for the artifact {path}."


def _in_a_directory_of_somebody_else(path: Path) -> str:
    path.parent.mkdir(mode=0o755)
    return f"The download directory {path.parent} cannot be written: Permission denied"


def _of_somebody_else_in_a_sticky_directory(path: Path) -> str:
    path.parent.mkdir()
    path.parent.chmod(0o1777)
    path.write_bytes(b"")
    return f"The artifact {path} cannot be written: it belongs to another user, and its directory is sticky"


def _behind_a_broken_link(path: Path) -> str:
    path.parent.symlink_to(path.parent.with_name("nowhere"))
    reason = f"{path.parent} is a symbolic link to {path.parent.with_name('nowhere')}, which does not exist"
    return f"The download directory {path.parent} cannot be written: {reason}"


def _below_a_file(path: Path) -> str:
    path.parent.write_bytes(b"")
    return f"The download directory {path.parent} cannot be written: {path.parent} is not a directory"


@pytest.mark.parametrize("op", ["build", "archive"])
@pytest.mark.parametrize(
    "place",
    [
        _a_directory,
        _on_a_full_disk,
        _in_a_directory_of_somebody_else,
        _of_somebody_else_in_a_sticky_directory,
        _behind_a_broken_link,
        _below_a_file,
    ],
)
def test_a_place_where_no_artifact_can_be_is_told_before_anything_is_built(
    make_system: MakeSystem, small_disk: Callable[[Path, int], None], place: Callable[[Path], str], op: str
) -> None:
    system = make_system()
    if place is _on_a_full_disk:
        small_disk(system.artifact.parent, 256)
        system.artifact.parent.chmod(0o777)
    said = place(system.artifact)
    conversation = system.run(op)
    assert conversation.error is not None
    assert conversation.error["message"] == said
    assert conversation.error["hint"]
    assert conversation.stages == []


@pytest.mark.parametrize("there", ["broken link", "link to a directory", "read-only file", "pipe"])
def test_what_the_artifact_replaces(make_system: MakeSystem, there: str) -> None:
    system = make_system()
    system.artifact.parent.mkdir()
    if there == "read-only file":
        system.artifact.write_bytes(b"")
        system.artifact.chmod(0o400)
    elif there == "pipe":
        os.mkfifo(system.artifact)
    else:
        system.artifact.symlink_to("nowhere" if there == "broken link" else "..")
    system.own()
    assert system.run("build").value()["path"] == str(system.artifact)
    assert system.built_by() == 1000
    assert not system.artifact.is_symlink()


def test_a_package_directory_that_may_not_be_written_is_a_failing_step_that_shows_why(make_system: MakeSystem) -> None:
    system = make_system(uid=1000)
    elsewhere = system.root / "cwd"
    elsewhere.mkdir()
    os.chown(elsewhere, 1000, 1000)
    (system.package / ".nerves").mkdir()
    os.chown(system.package / ".nerves", 1000, 1000)
    os.chown(system.package, 0, 0)
    error = system.run("build", cwd=elsewhere).error
    assert error is not None
    assert error["code"] == "step_failed"
    assert "Config.in: Permission denied" in error["message"]


def test_too_little_memory_is_called_that(make_system: MakeSystem) -> None:
    system = make_system()
    run = "echo 'cc1plus: out of memory allocating 65536 bytes'; exit 4"
    error = system.run("build", make_args=[f"RUN={run}"]).error
    assert error is not None
    assert error["code"] == "out_of_memory"
    assert "PARALLEL_JOBS" in error["hint"]


@pytest.mark.parametrize(
    "run",
    ["kill -9 $$$$", "sleep 60 & kill -9 $$!; wait $$!", "sh -c 'kill -9 $$$$'; exit 4", "kill -9 $$PPID"],
    ids=["recipe", "child", "inner shell", "make"],
)
def test_what_is_killed_from_inside_has_not_run_out_of_memory(make_system: MakeSystem, run: str) -> None:
    error = make_system().run("build", make_args=[f"RUN={run}"]).error
    assert error is not None
    assert error["code"] == "step_failed"
    assert "out of memory" not in error["message"]
    assert "the kernel did not do it for want of memory" in (error["hint"] or "") or run.endswith("exit 4")


@pytest.mark.parametrize("processes", ["$(pidof make)", "-1"], ids=["make", "all"])
def test_what_is_killed_from_outside_has_not_run_out_of_memory(
    make_system: MakeSystem, client: docker.DockerClient, processes: str
) -> None:
    system = make_system()
    with system.helper() as helper:
        helper.start("build", system.args(make_args=["RUN=sleep 600"]))
        helper.follow(until_stage="make")
        (name,) = at_work(client, system.volume)
        container = client.containers.get(name)

        def killed() -> bool:
            try:
                return container.exec_run(["sh", "-c", f"pidof make && kill -9 {processes}"], user="0").exit_code == 0
            except docker.errors.APIError:
                # The container has ended because of it.
                return True

        assert wait_until(killed, 60)
        error = helper.follow().error
    assert error is not None
    assert error["code"] == "step_failed"
    assert "the kernel did not do it for want of memory" in error["hint"]


def test_a_container_that_outgrows_its_memory_is_called_that(make_system: MakeSystem) -> None:
    system = make_system()
    memory: list[Any] = [(Atom("memory"), "64M"), (Atom("swap"), "0")]
    # `tail` keeps a line until it has seen its end.
    error = system.run("build", make_args=["RUN=head -c 300000000 /dev/zero | tail"], runner_config=memory).error
    assert error is not None
    assert error["code"] == "out_of_memory"


def test_no_network_in_the_container_is_called_that(make_system: MakeSystem) -> None:
    system = make_system()
    run = "bash -c 'exec 3<>/dev/tcp/example.com/80'"
    network: list[Any] = [(Atom("network"), "none")]
    error = system.run("build", make_args=[f"RUN={run}"], runner_config=network).error
    assert error is not None
    assert error["code"] == "no_network"
    assert error["hint"] is not None


SECRETS = {
    "artifact_sites": "ghp_plantedArtifactSiteToken",
    "registry": "plantedRegistryPassword",
    "ssh": "PLANTEDPRIVATEKEY",
}


def test_no_secret_is_in_anything_that_is_written_labelled_or_passed_on(
    make_system: MakeSystem, client: docker.DockerClient
) -> None:
    system = make_system()
    login = base64.b64encode(f"user:{SECRETS['registry']}".encode()).decode()
    system.write("home/.docker/config.json", json.dumps({"auths": {"registry.example.com": {"auth": login}}}))
    system.write("home/.ssh/id_ed25519", SECRETS["ssh"], mode=0o600)
    args = system.args(make_args=["RUN=sleep 3"])
    sites = (
        Atom("artifact_sites"),
        [(Atom("github_api"), "acme/x", [(Atom("token"), SECRETS["artifact_sites"])])],
    )
    package: Any = args[Atom("package")]
    # The shim takes them out; even where one did not, the helper must not spread them.
    package[Atom("config")].append(sites)
    seen: list[str] = []
    with system.helper() as helper:
        helper.start("build", args)
        conversation = helper.follow(until_stage="make")
        assert wait_until(lambda: client.containers.list(filters={"volume": system.volume}), 10)
        containers = client.containers.list(all=True, filters={"volume": system.volume})
        seen += [json.dumps(container.attrs) for container in containers]
        processes = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True)
        seen.append(processes.stdout)
        conversation = helper.follow(conversation)
    failing = system.run("build", make_args=["RUN=exit 1"])
    seen += [repr(conversation), repr(failing), json.dumps(client.volumes.get(system.volume).attrs)]
    files = [path for path in system.root.rglob("*") if path.is_file() and "home" not in path.parts]
    assert {"build.log", ".docker_id"} <= {path.name for path in files}
    assert any(path.parent.name == "journal" for path in files)
    for path in files:
        seen.append(path.read_bytes().decode("latin-1"))
    seen.append(content_of_volume(client, system.volume))
    for secret in (*SECRETS.values(), login):
        assert [text[:200] for text in seen if secret in text] == []
