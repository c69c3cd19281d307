"""The build volumes at a real engine: what is listed, and what may be removed."""

from __future__ import annotations

import platform
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from nerves_docker_port.port.wire import Atom, Term
from support.images import NEW
from support.port import Conversation
from support.system import System

MakeSystem = Callable[..., System]


def ask(
    system: System, *named: str, version: str = "0.1.0", answers: list[bool] | None = None, **extra: bool
) -> Conversation:
    """The request ``:volumes`` about a system whose version is ``version`` now."""
    args = system.args(interactive=answers is not None)
    package, names = args[Atom("package")], args[Atom("names")]
    assert isinstance(package, dict)
    assert isinstance(names, dict)
    args[Atom("package")] = {**package, Atom("version"): version}
    build_path = str(names[Atom("build_path")]).replace("0.1.0", version)
    args[Atom("names")] = {**names, Atom("build_path"): build_path}
    args.update({Atom(name): value for name, value in extra.items()})
    args[Atom("volumes")] = list(named)
    with system.helper() as helper:
        return helper.request("volumes", args, answers=answers or [])


def lines(conversation: Conversation) -> list[str]:
    """What was said, without the columns' blanks."""
    return [" ".join(line.split()) for line in str(conversation.value()["text"]).splitlines()]


def there(client: docker.DockerClient, name: str) -> bool:
    return name in [volume.name for volume in client.volumes.list()]


@pytest.fixture
def two_versions(system: System, client: docker.DockerClient) -> Iterator[System]:
    """A system that was built as 0.1.0; it is 0.2.0 by now."""
    system.run("build", make_args=["RUN=head -c 2097152 /dev/zero > big"]).value()
    yield system
    for volume in client.volumes.list(filters={"label": f"nerves-docker-port.path={system.package}"}):
        volume.remove(force=True)


def test_the_project_s_volumes_are_listed_with_version_size_and_last_use(
    make_system: MakeSystem, client: docker.DockerClient
) -> None:
    mine, other = make_system(), make_system(app="other_system")
    assert lines(ask(mine)) == ["There is no build volume of my_system."]
    for system in (mine, other):
        system.run("build", make_args=["RUN=head -c 2097152 /dev/zero > big"]).value()
    assert lines(ask(mine)) == [f"{mine.volume} my_system 0.1.0 2.0 MB last built by this runner just now"]
    everybody = lines(ask(mine, all=True))
    assert f"{mine.volume} my_system 0.1.0 2.0 MB last built by this runner just now" in everybody
    assert (
        f"{other.volume} other_system 0.1.0 2.0 MB last built by this runner just now of {other.package}" in everybody
    )


def test_a_volume_that_another_runner_made_is_listed_and_kept(system: System, client: docker.DockerClient) -> None:
    identifier = system.write("my_system/.nerves/artifacts/my_system-portable-0.1.0/.docker_id", "abcdefgh12345678")
    client.volumes.create(system.volume)
    assert identifier.exists()
    (line,) = lines(ask(system))
    assert line.startswith(f"{system.volume} my_system 0.1.0 ")
    assert line.endswith("made just now another runner's")
    shutil.rmtree(system.package / ".nerves/artifacts")
    ask(system, prune=True, yes=True).value()
    assert there(client, "my_system-abcdefgh12345678")
    client.volumes.get("my_system-abcdefgh12345678").remove()


@pytest.mark.parametrize("now", ["0.2.0", "0.0.9"])
def test_another_version_is_removed_only_if_it_is_named(
    two_versions: System, client: docker.DockerClient, now: str
) -> None:
    system = two_versions
    name = system.volume
    assert lines(ask(system, version=now)) == [
        f"{name} my_system 0.1.0 2.0 MB last built by this runner just now another version: the package's is {now}"
    ]
    said = ask(system, version=now, prune=True, yes=True)
    assert said.value()["removed"] == []
    assert lines(said)[0] == "There is nothing to remove."
    assert f"{name} (0.1.0)" in lines(said)[1]
    assert there(client, name)
    said = ask(system, name, version=now, prune=True, answers=[False])
    (question,) = said.questions
    assert name in question
    assert question.endswith("?")
    assert lines(said) == ["Nothing was removed."]
    assert there(client, name)
    said = ask(system, name, version=now, prune=True, answers=[True])
    assert said.value()["removed"] == [name]
    assert lines(said) == [f"Removed {name} (2.0 MB)"]
    assert not there(client, name)
    assert lines(ask(system, version=now, prune=True)) == ["There is nothing to remove."]


def test_without_a_terminal_nothing_is_asked_or_removed_but_with_yes(
    two_versions: System, client: docker.DockerClient
) -> None:
    system = two_versions
    name = system.volume
    said = ask(system, name, version="0.2.0", prune=True)
    assert said.questions == []
    assert said.value()["removed"] == []
    assert "no terminal to ask at. `--yes` removes them" in str(said.value()["text"])
    assert name in str(said.value()["text"])
    assert there(client, name)
    said = ask(system, name, version="0.2.0", prune=True, yes=True)
    assert said.questions == []
    assert not there(client, name)


def test_what_is_in_use_is_kept(two_versions: System, client: docker.DockerClient) -> None:
    system = two_versions
    user = client.containers.run(
        NEW, ["sleep", "60"], volumes={system.volume: {"bind": "/v"}}, detach=True, stop_signal="KILL"
    )
    try:
        (line,) = lines(ask(system, system.volume, version="0.2.0", prune=True, yes=True))
        assert line.startswith(f"Kept {system.volume}: The build volume {system.volume} is in use by the container")
        assert there(client, system.volume)
    finally:
        user.remove(force=True)


@pytest.mark.alone  # another test with `--all` could remove it first
def test_volumes_of_other_packages_that_are_gone_are_removed_only_with_all(
    make_system: MakeSystem, client: docker.DockerClient
) -> None:
    gone, mine = make_system(app="gone_system"), make_system()
    gone.run("build").value()
    mine.run("build").value()
    volume = gone.volume
    shutil.rmtree(gone.package)
    listed = lines(ask(mine, all=True))
    assert any(line.startswith(volume) and line.endswith(f"directory is gone: {gone.package}") for line in listed)
    assert ask(mine, prune=True, yes=True).value()["removed"] == []
    assert there(client, volume)
    said = ask(mine, prune=True, answers=[True], all=True)
    # On an engine that others use there may be more to remove.
    assert volume in said.value()["removed"]
    assert mine.volume not in said.value()["removed"]
    assert there(client, mine.volume)


def test_a_container_with_the_host_s_name_and_other_directories_removes_nothing(
    make_system: MakeSystem, client: docker.DockerClient
) -> None:
    """A dev container: the same engine, host name and home directory, but other directories under the same paths."""
    gone, mine = make_system(app="gone_system"), make_system()
    gone.run("build").value()
    mine.run("build").value()
    away = gone.root.rename(gone.root.with_name("away"))
    gone.root.mkdir()
    try:
        (line,) = [line for line in lines(ask(mine, all=True)) if line.startswith("gone_system-")]
        assert f"of {gone.package}; whether that is still there is not known: {gone.root} is not the same" in line
        said = ask(mine, prune=True, yes=True, all=True)
        assert line.split()[0] not in said.value()["removed"]
    finally:
        gone.root.rmdir()
        away.rename(gone.root)
    assert there(client, gone.volume)


@pytest.mark.parametrize("why", ["another host", "not for us to see", "an older version's", "no label"])
def test_what_may_belong_to_somebody_is_never_gone(
    make_system: MakeSystem, client: docker.DockerClient, why: str, tmp_path: Path
) -> None:
    system = make_system(uid=1000)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    labels: dict[str, str] = {"package": "x", "version": "0.0.1", "path": str(closed / "x"), "host": "elsewhere"}
    if why == "not for us to see":
        (closed / "x").mkdir()
        labels["host"] = platform.node()
    elif why == "an older version's":
        # Its directory's parent is there, and the host's name is the same.
        labels |= {"path": str(system.root / "x"), "host": platform.node()}
    # Tests may run side by side, and at the same engine.
    name = f"ndp-test-not-ours-{secrets.token_hex(4)}"
    labels = {f"nerves-docker-port.{key}": value for key, value in {**labels, "volume": name}.items()}
    made = client.volumes.create(name, labels={} if why == "no label" else labels)
    try:
        said = ask(system, prune=True, yes=True, all=True)
        assert name not in said.value()["removed"]
        assert there(client, name)
    finally:
        made.remove()


def test_outside_a_project_everybody_s_are_listed(system: System, client: docker.DockerClient) -> None:
    system.run("build").value()
    args: dict[Term, Term] = {
        Atom("package"): None,
        Atom("cwd"): "/",
        Atom("home"): "/",
        Atom("env"): {},
        Atom("terminal"): {Atom("interactive"): False},
        Atom("all"): True,
    }
    with system.helper() as helper:
        conversation: Any = helper.request("volumes", args)
    assert any(line.startswith(f"{system.volume} my_system 0.1.0") for line in lines(conversation))
