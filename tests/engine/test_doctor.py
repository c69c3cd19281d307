"""The doctor on engines that are well and on those that are not, as text and as JSON."""

from __future__ import annotations

import grp
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest

from nerves_docker_port.port.wire import Atom
from support.fake_engine import FakeEngine
from support.images import NEW, OLD
from support.port import Helper, packaged_command, wait_until
from support.requests import keyword
from support.system import System

MakeSystem = Callable[..., System]


@dataclass
class Report:
    """What a doctor said."""

    ok: bool
    text: str
    findings: list[dict[str, Any]]

    def state(self, topic: str) -> list[str]:
        return [finding["state"] for finding in self.findings if finding["topic"] == topic]

    def texts(self, topic: str, state: str | None = None) -> list[str]:
        return [f["text"] for f in self.findings if f["topic"] == topic and state in (None, f["state"])]

    @property
    def problems(self) -> list[dict[str, Any]]:
        return [finding for finding in self.findings if finding["state"] == "problem"]


def examine(system: System, *, package: dict[Any, Any] | None = None, **options: Any) -> Report:
    """The report of `:doctor` on a project, over the port."""
    environ = options.pop("environ", {})
    with system.helper(**environ) as helper:
        return _report(helper, system, package, options)


def _report(helper: Helper, system: System, package: dict[Any, Any] | None = None, options: Any = None) -> Report:
    args = system.args(**(options or {}))
    if package is not None:
        args[Atom("package")] = {**args[Atom("package")], **package}  # type: ignore[dict-item]
    value = helper.request("doctor", args).value()
    found = json.loads(value["json"])
    assert found["ok"] == value["ok"] == (not any(f["state"] == "problem" for f in found["findings"]))
    _check_text(value["text"], found["findings"])
    return Report(value["ok"], value["text"], found["findings"])


def _check_text(text: str, findings: list[dict[str, Any]]) -> None:
    """Every finding has its line, and its remedy below it where it is not well."""
    lines = text.splitlines()
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == [f["state"] for f in findings]
    for finding in findings:
        assert any(line.startswith(finding["state"]) and finding["text"] in line for line in lines)
        if finding["state"] != "ok":
            assert f"-> {finding['remedy'].splitlines()[0]}" in text


def command(
    *arguments: str, host: str, cwd: Path | None = None, wrap: Sequence[str] = (), user: int | None = None, **env: str
) -> tuple[int, str]:
    """The command of a person: its exit status and what it printed. There is no terminal."""
    words = [*wrap, *packaged_command(), "doctor", *arguments]
    ended = subprocess.run(
        words,
        env={**os.environ, "DOCKER_HOST": host, **env},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
    )
    assert ended.stderr == ""
    return ended.returncode, ended.stdout


@contextmanager
def tmpfs(directory: Path, size: str) -> Iterator[None]:
    """A real small file system on the host."""
    directory.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=1777", "tmpfs", directory], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", directory], check=True)


@pytest.mark.parametrize(
    ("uid", "image", "version"), [(1000, NEW, "1.34.0"), (0, NEW, "1.34.0"), (4242, OLD, "1.27.0")]
)
def test_a_healthy_engine(
    make_system: MakeSystem, client: docker.DockerClient, uid: int, image: str, version: str
) -> None:
    system = make_system(uid=uid, image=image, platform_version=version)
    before = {str(path) for path in system.root.rglob("*")}
    volumes = {volume.name for volume in client.volumes.list()}
    report = examine(system)
    assert report.ok
    assert report.problems == []
    there = client.version()
    (engine,) = report.texts("engine", "ok")
    assert f"{there['Version']} (API {there['ApiVersion']}) at {system.host} (DOCKER_HOST), not rootless" in engine
    assert "on this machine" in report.texts("place")[0]
    assert report.texts("project") == [f"my_system 0.1.0 ({system.package})"]
    assert image in report.texts("image", "ok")[0]
    assert report.texts("mounts") == [
        f"a container reads and writes the package {system.package}",
        f"a container reads and writes the platform {system.root}/platform",
        # Not made yet: what is looked at is where it will be.
        f"a container reads and writes the downloads {system.root}",
    ]
    assert report.texts("user ids") == [f"what a container writes as {uid}:{uid} belongs to you ({uid}:{uid})"]
    assert "free at the engine" in report.texts("engine disk")[0]
    assert "free at the host" in report.texts("host disk")[0]
    assert report.texts("volume") == ["none yet; the first build makes it"]
    assert {"python", "memory", "leftovers"} <= {finding["topic"] for finding in report.findings}
    # Nothing is left of it.
    assert {str(path) for path in system.root.rglob("*")} == before
    # Other tests may examine something at the same time.
    assert wait_until(
        lambda: [c for c in client.containers.list(all=True, ignore_removed=True) if "doctor" in str(c.name)] == [], 60
    )
    assert wait_until(lambda: {v.name for v in client.volumes.list() if len(v.name or "") == 64} <= volumes, 60)


def test_the_volume_of_the_project_has_its_size_and_age(system: System) -> None:
    system.run("build", make_args=["RUN=head -c 3000000 /dev/zero > big"]).value()
    (volume,) = examine(system).texts("volume")
    assert volume.startswith(f"{system.volume} (0.1.0): 2.9 MB, last built by this runner ")


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_the_command_examines_the_engine_outside_a_project(root: Path, open_host: str, arguments: list[str]) -> None:
    status, printed = command(*arguments, host=open_host, cwd=root, user=1000, HOME=str(root))
    assert status == 0
    if arguments:
        found = json.loads(printed)
        assert found["ok"] is True
        topics = [finding["topic"] for finding in found["findings"]]
    else:
        topics = [line[9:20].strip() for line in printed.splitlines() if not line.startswith(" ")]
        assert f"{root}/.nerves/dl" in printed
    assert topics[:5] == ["python", "engine", "place", "memory", "host disk"]
    assert "image" not in topics


def test_the_command_examines_an_image_and_the_directory(root: Path, open_host: str) -> None:
    directory = root / "a b,c"
    directory.mkdir(mode=0o755)
    os.chown(directory, 1000, 1000)
    status, printed = command("--image", NEW, host=open_host, cwd=directory, user=1000, HOME=str(root))
    assert status == 0
    assert f"a container reads and writes the directory {directory}" in printed
    assert "what a container writes as 1000:1000 belongs to you (1000:1000)" in printed
    assert list(directory.iterdir()) == []


def test_wrong_arguments_are_refused(open_host: str) -> None:
    ended = subprocess.run([*packaged_command(), "doctor", "--yaml"], capture_output=True, text=True)
    assert ended.returncode == 2
    assert "usage: python -m nerves_docker_port doctor" in ended.stderr


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_no_engine(root: Path, arguments: list[str]) -> None:
    status, printed = command(*arguments, host=f"unix://{root}/none.sock")
    assert status == 1
    if arguments:
        found = json.loads(printed)
        (problem,) = [finding for finding in found["findings"] if finding["state"] == "problem"]
        assert problem["topic"] == "engine"
        assert problem["text"].startswith(f"No engine answers at unix://{root}/none.sock (DOCKER_HOST): No such file")
        assert "systemctl start docker" in problem["remedy"]
    else:
        assert f"problem  engine      No engine answers at unix://{root}/none.sock (DOCKER_HOST)" in printed
        assert f"{' ' * 21}-> Start the engine" in printed
        assert "ok       host disk" in printed


@pytest.mark.parametrize("has_group", [False, True])
def test_an_engine_without_permission(make_system: MakeSystem, root: Path, has_group: bool) -> None:
    group = next(entry for entry in grp.getgrall() if entry.gr_gid)
    path = root / "closed.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        path.chmod(0o660 if has_group else 0o600)
        os.chown(path, 0, group.gr_gid)
        report = examine(make_system(uid=1000, host=f"unix://{path}"))
    (problem,) = report.problems
    assert problem["topic"] == "engine"
    assert problem["text"].startswith(f"Permission denied: the engine's socket unix://{path}")
    assert f"usermod -aG {group.gr_name if has_group else 'docker'} $USER" in problem["remedy"]


def test_an_old_engine(root: Path) -> None:
    with FakeEngine(root) as fake:
        fake.version["ApiVersion"] = "1.24"
        status, printed = command("--json", host=fake.host)
    assert status == 1
    (problem,) = [finding for finding in json.loads(printed)["findings"] if finding["state"] == "problem"]
    assert problem["text"] == "The engine speaks API version 1.24; 1.26 or later is needed."
    assert "Update the engine" in problem["remedy"]


def test_an_engine_with_little_memory(root: Path) -> None:
    with FakeEngine(root) as fake:
        fake.info.update(NCPU=8, MemTotal=2 * 1024**3)
        fake.on("GET", "/system/df", lambda exchange: exchange.json(200, {"Volumes": []}))
        status, printed = command("--json", host=fake.host)
    (memory,) = [finding for finding in json.loads(printed)["findings"] if finding["topic"] == "memory"]
    assert (status, memory["state"]) == (0, "warning")
    assert memory["text"] == "2 GB of memory for 8 CPUs; Buildroot wants 6 GB"
    assert "PARALLEL_JOBS" in memory["remedy"]


def test_an_engine_that_fails_half_way_ends_the_report(root: Path) -> None:
    with FakeEngine(root) as fake:
        fake.images.clear()
        fake.on("GET", r"/volumes", lambda exchange: exchange.json(500, {"message": "out of order"}))
        status, printed = command("--json", host=fake.host)
    findings = json.loads(printed)["findings"]
    assert status == 1
    assert (findings[-1]["topic"], findings[-1]["state"]) == ("engine", "problem")
    assert "out of order" in findings[-1]["text"]


def test_a_full_disk(system: System) -> None:
    with tmpfs(system.root / "dl", "1m"):
        filled = subprocess.run(["dd", "if=/dev/zero", f"of={system.root}/dl/big", "bs=64k"], stderr=subprocess.DEVNULL)
        assert filled.returncode == 1
        report = examine(system)
    assert not report.ok
    assert report.state("host disk") == ["problem"]
    assert f"0 B free at the host, for downloads and artifacts ({system.root}/dl)" in report.texts("host disk")[0]
    (mount,) = report.texts("mounts", "problem")
    assert mount == f"the downloads {system.root}/dl cannot be written: No space left on device"


def test_a_disk_with_little_room_is_a_warning(system: System) -> None:
    with tmpfs(system.root / "dl", "1g"):
        report = examine(system)
        assert report.ok
        assert report.texts("host disk", "warning")[0].startswith("1 GB free")
        # The build says so, too, before it begins.
        assert any("There is little: 1 GB free at the host" in text for text in system.run("build").warnings)


def test_a_directory_that_the_engine_sees_otherwise(make_system: MakeSystem) -> None:
    system = make_system(uid=0)
    (system.root / "dl").mkdir()
    private = ["unshare", "-m", "--", "sh", "-c", 'mount -t tmpfs tmpfs "$0" && exec "$@"', str(system.root / "dl")]
    with Helper(command=[*private, *packaged_command()], env={"DOCKER_HOST": system.host}) as helper:
        report = _report(helper, system)
    assert not report.ok
    (mount,) = report.texts("mounts", "problem")
    assert mount == f"the engine sees another directory at {system.root}/dl (downloads) than you do"
    assert any("If Mix runs in a container itself" in problem["remedy"] for problem in report.problems)
    assert len(report.texts("mounts", "ok")) == 2


def test_a_directory_that_the_engine_does_not_see(root: Path, open_host: str) -> None:
    script = 'mount -t tmpfs tmpfs "$0" && mkdir "$0/here" && cd "$0/here" && exec "$@"'
    wrap = ["unshare", "-m", "--", "sh", "-c", script, str(root)]
    # The engine's socket must stay in sight.
    status, printed = command("--image", NEW, "--json", host=open_host, wrap=wrap)
    assert status == 1
    (problem,) = [finding for finding in json.loads(printed)["findings"] if finding["state"] == "problem"]
    assert problem["topic"] == "mounts"
    assert problem["text"].startswith(f"the engine cannot mount the directory {root}/here")


def test_a_directory_that_cannot_be_written(system: System) -> None:
    os.chown(system.root / "platform", 0, 0)
    report = examine(system)
    assert report.texts("mounts", "problem") == [
        f"the platform {system.root}/platform cannot be written: Permission denied"
    ]


def test_an_image_that_is_not_there(make_system: MakeSystem) -> None:
    system = make_system(image="acme/none:1")
    report = examine(system)
    assert report.ok
    assert report.texts("image", "warning") == [
        "acme/none:1 is not at the engine; the next build pulls or builds it",
    ]
    assert report.texts("mounts") == ["not examined: there is no image to try it with"]
    assert not examine(system, runner_config=keyword(pull=Atom("never"))).ok


def test_a_wrong_configuration_is_a_problem_and_the_rest_is_examined(system: System) -> None:
    report = examine(system, runner_config=keyword(memmory="1G"))
    assert not report.ok
    assert report.texts("project", "problem") == [
        "`memmory:` in build_runner_config is not known. Did you mean `memory:`?"
    ]
    assert report.state("engine") == ["ok"]


def test_another_build_runner_is_noticed(system: System) -> None:
    ours, theirs = Atom("Elixir.NervesDockerPort.BuildRunner"), Atom("Elixir.Nerves.Artifact.BuildRunners.Docker")
    assert examine(system, package={Atom("build_runner"): (ours, [])}).texts("runner") == []
    report = examine(system, package={Atom("build_runner"): (theirs, [])})
    assert report.texts("runner", "warning") == ["the package is built by Nerves.Artifact.BuildRunners.Docker"]


def test_limits_of_the_configuration_count(system: System) -> None:
    report = examine(system, runner_config=keyword(memory="1G", cpus=1))
    assert report.texts("memory", "warning") == [
        "1 GB of memory (by the configuration) for 1 CPU; Buildroot wants 6 GB"
    ]


@pytest.mark.alone  # what other tests have at the engine is left over for this hasty helper
def test_leftovers_of_the_dead_are_named_but_not_what_is_about_to_start(
    system: System, client: docker.DockerClient
) -> None:
    left = client.containers.create(
        NEW, ["true"], name=f"ndp-left-{os.getpid()}", labels={"nerves-docker-port.project": "nerves_docker_port"}
    )
    try:
        young = examine(system)
        # Not a minute after it was made, as it is for a person, but at once.
        hasty = Path(__file__).parent.parent / "faults" / "hasty_helper.py"
        env = {"DOCKER_HOST": system.host, "NERVES_HASTY": json.dumps({"volume.lock.LEFTOVER_AGE": -1})}
        with Helper(command=[sys.executable, str(hasty)], env=env) as helper:
            report = _report(helper, system)
    finally:
        left.remove()
    assert not any(str(left.name) in text for text in young.texts("leftovers"))
    (text,) = [text for text in report.texts("leftovers", "warning") if "of builds that died" in text]
    assert str(left.name) in text
    assert report.ok


def test_what_is_not_understood_on_the_way_to_the_engine_is_told(host: str, root: Path) -> None:
    (root / "config.json").write_text('{"auths": {"reg.example": {"auth": "!!!"}}, "proxies": []}')
    _status, printed = command(host=host, cwd=root, DOCKER_CONFIG=str(root))
    assert f'warning  config.json "auths": "reg.example": "auth" in {root}/config.json is not Base64' in printed
    assert f'warning  config.json "proxies" in {root}/config.json is not an object' in printed


def test_an_image_that_cannot_be_one_is_named(host: str, root: Path) -> None:
    status, printed = command("--image", "MySystem:0.1", host=host, cwd=root)
    assert status == 1
    assert "problem  image       --image: 'MySystem:0.1' cannot be an image's name: " in printed
    assert "must be in lower case" in printed
