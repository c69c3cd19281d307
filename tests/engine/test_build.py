"""Build, archive, clean on the real engine; the mended faults of the stock runner (numbers: docs/stock-runner.md)."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import secrets
import signal
import socket
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import docker
import pytest
from docker.types import Mount

from nerves_docker_port.port.wire import Atom
from support.images import NEW, NEW_1_28_0, OLD
from support.port import wait_until
from support.system import System, ours, owner

MakeSystem = Callable[..., System]


def test_build_brings_a_whole_artifact_to_the_download_directory(system: System, client: docker.DockerClient) -> None:
    conversation = system.run("build")
    value = conversation.value()
    content = system.artifact.read_bytes()
    assert value["path"] == str(system.artifact)
    assert value["size"] == len(content)
    assert value["sha256"] == hashlib.sha256(content).hexdigest()
    assert [name for name, _ in value["stages"]] == ["preflight", "create_build", "make", "make_system", "copy"]
    assert conversation.headlines == [
        "Starting Build... (this may take a while)",
        "Creating artifact archive",
        "Copying artifact archive to host",
    ]
    assert conversation.log_lines == [
        b">>> create-build nerves_defconfig",
        b">>> hello 1.0 Building",
        b">>> system Packing",
    ]
    with tarfile.open(system.artifact) as archive:
        assert "my_system-portable-0.1.0-ABCDEF0/nerves-system.tag" in archive.getnames()
    assert [path.name for path in system.artifact.parent.iterdir()] == [system.artifact.name]
    assert ours(client, system.volume) == []


def test_archive_right_after_build_reuses_its_artifact_and_says_from_when(
    system: System, client: docker.DockerClient
) -> None:
    with system.helper() as helper:
        built = helper.request("build", system.args()).value()
        (parked,) = ours(client, system.volume)
        assert parked.startswith(f"{system.volume}-parked-")
        conversation = helper.request("archive", system.args(), request_id=2)
    value = conversation.value()
    assert (value["path"], value["sha256"]) == (built["path"], built["sha256"])
    assert conversation.finished == ["preflight", "check_tree"]
    (headline,) = conversation.headlines
    assert re.fullmatch(r"Reusing artifact archive from \d{4}-.* \d\d:\d\d:\d\d: nothing was built since", headline)
    assert headline in system.archive_log.read_text()
    assert ours(client, system.volume) == []


def test_archive_by_another_helper_packs_again_and_leaves_the_build_log_alone(system: System) -> None:
    """An artifact is handed out again only within the session that has packed it."""
    system.run("build").value()
    first = system.build_log.read_bytes()
    for _time in range(2):
        assert system.run("archive").finished == ["preflight", "make_system", "copy"]
    assert b">>> system Packing" in system.archive_log.read_bytes()
    assert system.build_log.read_bytes() == first


def in_the_tree(system: System, client: docker.DockerClient, change: str) -> None:
    """Change the build directory as the stock runner, or anybody with `docker run`, does it."""
    client.containers.run(
        system.image,
        ["sh", "-c", change],
        mounts=[Mount("/home/nerves/project", system.volume)],
        user="1000",
        working_dir="/home/nerves/project",
        remove=True,
    )


@pytest.mark.parametrize(
    "change",
    ["touch images", "echo x >> built", "mv built elsewhere; mv elsewhere built", "touch -d 2000-01-01 built"],
)
def test_archive_packs_again_after_any_change_in_the_build_directory(
    system: System, client: docker.DockerClient, change: str
) -> None:
    with system.helper() as helper:
        helper.request("build", system.args()).value()
        in_the_tree(system, client, change)
        conversation = helper.request("archive", system.args(), request_id=2)
    conversation.value()
    assert conversation.finished == ["preflight", "make_system", "copy"]
    assert b">>> system Packing" in system.archive_log.read_bytes()


# What `make system` reads outside of the build directory.
OUTSIDE = {
    "a script of the platform is edited": "echo more >> platform/scripts/scrub.sh",
    "a script is edited, and its time set back": "touch -r platform/scripts/scrub.sh t; echo more >> "
    "platform/scripts/scrub.sh; touch -r t platform/scripts/scrub.sh; rm t",
    "another script of the same size and time": "touch -r platform/scripts/scrub.sh t; printf last > "
    "platform/scripts/scrub.sh; touch -r t platform/scripts/scrub.sh; rm t",
    "a script is added": "echo new > platform/scripts/new.sh",
    "a script is removed": "rm platform/scripts/scrub.sh",
    "a script is renamed": "mv platform/scripts/scrub.sh platform/scripts/other.sh",
    "a script may be run": "chmod +x platform/scripts/scrub.sh",
    "a link leads elsewhere": "ln -sfn other.sh platform/scripts/link.sh",
    "the environment of the platform": "echo more >> platform/nerves-env.sh",
    "a file of the package": "echo more >> my_system/rootfs_overlay/etc/file",
    "a directory of the package may be read by its owner only": "chmod 700 my_system/rootfs_overlay/etc",
    "an empty directory of the package is added": "mkdir my_system/rootfs_overlay/var",
}


@pytest.mark.parametrize("change", OUTSIDE.values(), ids=OUTSIDE)
def test_archive_packs_again_after_a_change_of_what_is_packed_from_elsewhere(system: System, change: str) -> None:
    """`make system` takes scripts of the platform and files of the package, too."""
    for file, text in (
        ("platform/scripts/scrub.sh", "once"),
        ("platform/nerves-env.sh", "once\n"),
        ("my_system/rootfs_overlay/etc/file", "once\n"),
    ):
        system.write(file, text)
    (system.root / "platform/scripts/link.sh").symlink_to("scrub.sh")
    packing = 'rm -rf "$(NERVES_ARTIFACT_NAME)/scripts"; cp -a /nerves/env/platform/scripts "$(NERVES_ARTIFACT_NAME)/"'
    makefile = (system.root / "platform/Makefile").read_text()
    system.write("platform/Makefile", makefile.replace("\t@tar czf", f"\t@{packing}\n\t@tar czf"))
    with system.helper() as helper:
        helper.request("build", system.args()).value()
        subprocess.run(["sh", "-ec", change], cwd=system.root, check=True)
        conversation = helper.request("archive", system.args(), request_id=2)
    conversation.value()
    assert conversation.finished == ["preflight", "make_system", "copy"]
    with tarfile.open(system.artifact) as archive:
        packed = {name.partition("/scripts/")[2] for name in archive.getnames() if "/scripts/" in name}
    assert packed == {path.name for path in (system.root / "platform/scripts").iterdir()}


def test_archive_packs_again_after_a_change_in_a_file_system_that_is_mounted_in_the_package(system: System) -> None:
    overlay = system.package / "rootfs_overlay"
    overlay.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(overlay)], check=True)
    try:
        with system.helper() as helper:
            helper.request("build", system.args()).value()
            (overlay / "file").write_text("new")
            conversation = helper.request("archive", system.args(), request_id=2)
    finally:
        subprocess.run(["umount", str(overlay)], check=True)
    conversation.value()
    assert conversation.finished == ["preflight", "make_system", "copy"]


@pytest.mark.parametrize("mode", ["ro", "rw"])
def test_a_directory_of_the_host_at_tmp_gets_nothing_of_the_runner_s(system: System, mode: str) -> None:
    """Two builds would have the same file there, and what is secret would stay."""
    shared = system.root / "shared"
    shared.mkdir()
    system.own()
    args = system.args(runner_config=[(Atom("mounts"), [(str(shared), "/tmp", Atom(mode))])])
    with system.helper() as helper:
        helper.request("build", args).value()
        assert list(shared.iterdir()) == []
        assert helper.request("archive", args, request_id=2).finished == ["preflight", "check_tree"]


def test_what_mix_itself_writes_between_build_and_archive_is_no_change(system: System) -> None:
    with system.helper() as helper:
        helper.request("build", system.args()).value()
        for name in (".nerves/artifacts/x", "_build/dev/lib/x", "deps/x/mix.exs", "build.log"):
            path = system.package / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")
        conversation = helper.request("archive", system.args(), request_id=2)
    assert conversation.finished == ["preflight", "check_tree"]


def test_archive_after_a_build_of_another_helper_packs_again(system: System, client: docker.DockerClient) -> None:
    with system.helper() as helper:
        helper.request("build", system.args()).value()
        # What another command of ours does to the tree: it has the volume although a session is parked on it.
        system.run("build", make_args=["RUN=echo more > more"]).value()
        conversation = helper.request("archive", system.args(), request_id=2)
    conversation.value()
    assert conversation.finished == ["preflight", "make_system", "copy"]
    assert ours(client, system.volume) == []


def test_archive_begins_anew_where_somebody_has_the_volume_or_has_removed_the_parked_session(
    system: System, client: docker.DockerClient
) -> None:
    with system.helper() as helper, system.helper() as other:
        helper.request("build", system.args()).value()
        client.containers.get(ours(client, system.volume)[0]).remove(force=True)
        conversation = helper.request("archive", system.args(), request_id=2)
        assert conversation.finished == ["preflight", "make_system", "copy"]
        helper.request("build", system.args(), request_id=3).value()
        other.start("build", system.args(make_args=["RUN=sleep 600"], cwd=system.root))
        meanwhile = other.follow(until_stage="make")
        error = helper.request("archive", system.args(), request_id=4).error
        assert error is not None
        assert error["code"] == "volume_busy"
        other.send((Atom("cancel"), 1))
        other.follow(meanwhile)
    assert ours(client, system.volume) == []


@pytest.mark.parametrize("damage", ["gone", "shorter", "another"])
def test_archive_packs_again_where_the_host_s_copy_is_not_what_was_built(system: System, damage: str) -> None:
    with system.helper() as helper:
        helper.request("build", system.args()).value()
        content = system.artifact.read_bytes()
        if damage == "gone":
            system.artifact.unlink()
        elif damage == "shorter":
            system.artifact.write_bytes(content[:-1])
        else:
            system.artifact.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert "make_system" in helper.request("archive", system.args(), request_id=2).finished
    with gzip.open(system.artifact) as archive:
        assert archive.read()


def test_make_args_reach_make_as_they_are(system: System) -> None:
    words = ["RUN=printf '%s|' 'a b' \"c'd\" '$$HOME' é", "--no-print-directory"]
    system.run("build", make_args=words).value()
    assert "a b|c'd|$HOME|é|".encode() in system.build_log.read_bytes()


@pytest.mark.parametrize("uid", [0, 1000, 1005, 4242])
def test_any_uid_builds_and_owns_what_the_build_wrote(make_system: MakeSystem, uid: int) -> None:
    """Fault 1."""
    system = make_system(uid=uid)
    system.run("build").value()
    system.run("archive").value()
    for path in (system.package / "Config.in", system.build_log, system.archive_log, system.artifact):
        assert owner(path) == (uid, uid), path
    assert system.built_by() == uid
    everything = [Path(directory) / name for directory, _, names in os.walk(system.root) for name in names]
    assert [path for path in everything if owner(path) != (uid, uid)] == []


@pytest.mark.parametrize("uid", [0, 1000])
def test_old_generation_images_build_for_any_uid(make_system: MakeSystem, uid: int) -> None:
    system = make_system(uid=uid, image=OLD, platform_version="1.27.0")
    conversation = system.run("build")
    assert [name for name, _ in conversation.value()["stages"] if name != "preflight"] == [
        "create_build",
        "make",
        "make_system",
        "copy",
    ]
    for path in (system.package / "Config.in", system.build_log, system.artifact):
        assert owner(path) == (uid, uid), path
    assert system.built_by() == uid


@pytest.fixture
def old_system(make_system: MakeSystem) -> System:
    """With an image up to 1.27, whose entrypoint makes the user and runs its command as a child, without `exec`."""
    return make_system(uid=1000, image=OLD, platform_version="1.27.0")


def test_old_generation_images_make_their_user_once_and_serve_the_archive_in_the_same_container(
    old_system: System, client: docker.DockerClient
) -> None:
    system = old_system
    with system.helper() as helper:
        helper.request("build", system.args(make_args=["RUN=id -un"])).value()
        assert len(ours(client, system.volume)) == 1
        log = system.build_log.read_text()
        assert (log.count("Setting User"), log.count("\nnerves\n")) == (1, 1)
        # Something to pack, so that there are further steps.
        system.artifact.unlink()
        conversation = helper.request("archive", system.args(), request_id=2)
    conversation.value()
    assert conversation.finished == ["preflight", "make_system", "copy"]
    assert "Setting User" not in system.archive_log.read_text()
    assert system.built_by() == 1000


def test_old_generation_images_hear_that_their_helper_lives(old_system: System, client: docker.DockerClient) -> None:
    """Their own entrypoint would end at the first heartbeat, were it the container's first program."""
    patience = {"NERVES_DOCKER_PATIENCE": "10"}
    conversation = old_system.run("build", make_args=["RUN=sleep 15; echo slept"], env=patience)
    conversation.value()
    assert conversation.warnings == []
    assert "\nslept\n" in old_system.build_log.read_text()


@pytest.mark.parametrize(("image", "version"), [(NEW, "1.34.0"), (OLD, "1.27.0")])
@pytest.mark.parametrize("uid", [0, 1000])
def test_make_gets_term_and_can_remove_what_is_half_written(
    make_system: MakeSystem, uid: int, image: str, version: str
) -> None:
    """GNU make deletes the target that it was making when it gets a signal, and not when it is killed."""
    system = make_system(uid=uid, image=image, platform_version=version)
    half = "half: \n\t@echo begun > $@; echo is begun; sleep 600; echo done >> $@\n"
    system.write("platform/Makefile", f"all: half\nsystem:\n\t@true\n{half}")
    with system.helper() as helper:
        helper.start("build", system.args())
        conversation = helper.follow(until_stage="make")
        assert wait_until(lambda: "is begun" in system.build_log.read_text(), 30)
        helper.send((Atom("cancel"), 1))
        assert helper.follow(conversation).error is not None
    system.write("platform/Makefile", "all:\n\t@ls\n\t@[ ! -e half ]\nsystem:\n\t@true\n")
    error = system.run("build").error
    # It gets as far as the missing archive.
    assert error is not None
    assert error["code"] == "artifact_missing", error


@pytest.mark.parametrize("uid", [0, 1000, 4242])
def test_the_image_of_1_28_0_without_a_project_directory_builds(make_system: MakeSystem, uid: int) -> None:
    system = make_system(uid=uid, image=NEW_1_28_0, platform_version="1.28.0")
    system.run("build").value()
    assert system.built_by() == uid


def test_the_build_user_keeps_its_name_home_and_sudo(make_system: MakeSystem) -> None:
    system = make_system(uid=4242)
    run = "id -un; echo home=$$HOME; sudo -n id -u; touch ~/x; echo to-stderr > /dev/stderr; getent passwd $$(id -u)"
    system.run("build", make_args=[f"RUN={run}"]).value()
    # Where the engine gives containers no network, sudo cannot resolve the host's name, says so, and works.
    lines = [line for line in system.build_log.read_text().splitlines() if not line.startswith("sudo: ")]
    assert lines[1:6] == ["nerves", "home=/home/nerves", "0", "to-stderr", "nerves:x:4242:4242::/home/nerves:/bin/bash"]


def test_a_build_tree_of_another_uid_is_given_over_once(make_system: MakeSystem, client: docker.DockerClient) -> None:
    """A tree that the stock runner made belongs to uid 1005 and builds on for everybody."""
    system = make_system(uid=1000)
    system.run("build").value()
    client.containers.run(
        NEW,
        ["chown", "-R", "1005:1005", "/tree"],
        mounts=[Mount("/tree", system.volume)],
        user="0",
        remove=True,
    )
    system.run("build").value()
    owners = client.containers.run(
        NEW, ["find", "/tree", "-printf", "%u:%U\\n"], mounts=[Mount("/tree", system.volume)], user="0", remove=True
    )
    assert {line.rpartition(":")[2] for line in owners.decode().split()} == {"1000"}


def test_a_home_without_ssh_builds(system: System) -> None:
    """Fault 2."""
    assert not (system.root / "home" / ".ssh").exists()
    system.run("build", make_args=["RUN=ls -A /home/nerves/.ssh"]).value()
    # What the image has there is not hidden by an empty mount.
    assert "known_hosts" in system.build_log.read_text()


def test_ssh_keys_can_be_used_and_not_changed_where_they_exist(system: System) -> None:
    key = system.write("home/.ssh/id_test", "key\n", mode=0o600)
    system.run(
        "build", make_args=["RUN=cat ~/.ssh/id_test; echo changed > ~/.ssh/id_test; touch ~/.ssh/new; true"]
    ).value()
    assert "\nkey\n" in system.build_log.read_text()
    assert key.read_text() == "key\n"
    assert [path.name for path in key.parent.iterdir()] == ["id_test"]


def test_a_volume_whose_name_only_contains_ours_is_not_taken_for_it(
    system: System, client: docker.DockerClient
) -> None:
    """Fault 5."""
    build_path = system.package / ".nerves" / "artifacts" / "my_system-portable-0.1.0"
    name = secrets.token_hex(8)
    system.write(f"{build_path.relative_to(system.root)}/.docker_id", name)
    decoy = client.volumes.create(f"my_system-{name}-copy")
    try:
        system.run("build").value()
        assert client.volumes.get(f"my_system-{name}").attrs["Labels"]["nerves-docker-port.package"] == "my_system"
        system.run("clean").value()
        assert client.volumes.get(decoy.name).name == decoy.name
        with pytest.raises(docker.errors.NotFound):
            client.volumes.get(f"my_system-{name}")
    finally:
        decoy.remove()


def test_archive_without_a_build_says_so_and_makes_no_volume(system: System, client: docker.DockerClient) -> None:
    """Fault 6."""
    error = system.run("archive").error
    assert error is not None
    assert error["code"] == "no_build_tree"
    assert "mix nerves.clean my_system" in error["hint"]
    assert client.volumes.list(filters={"label": f"nerves-docker-port.path={system.package}"}) == []
    assert not (system.package / ".nerves").exists()
    assert not system.artifact.exists()


def test_archive_on_an_empty_volume_says_so_with_the_archive_log(system: System, client: docker.DockerClient) -> None:
    """Fault 6: the stock runner left empty volumes behind, and quoted the wrong log."""
    system.write("my_system/build.log", "of another build\n")
    system.write("my_system/.nerves/artifacts/my_system-portable-0.1.0/.docker_id", secrets.token_hex(8))
    client.volumes.create(system.volume)
    error = system.run("archive").error
    assert error is not None
    assert error["code"] == "no_build_tree"
    assert error["log"] == str(system.archive_log)
    assert "No rule to make target 'system'" in error["message"]
    assert "of another build" not in error["message"]


def test_an_error_in_archive_quotes_the_archive_log(system: System) -> None:
    """Fault 6."""
    system.run("build").value()
    system.write("my_system/in_make_system.sh", "echo only in archive; exit 5\n")
    system.artifact.unlink()
    error = system.run("archive").error
    assert error is not None
    assert error["code"] == "step_failed"
    assert error["log"] == str(system.archive_log)
    assert "only in archive" in error["message"]


def test_an_image_that_cannot_be_had_names_the_dockerfile_to_build_it_from(system: System) -> None:
    """Faults 7 and 9: the file's own name counts, from the package's directory, not from the working directory."""
    dockerfile = system.write("my_system/docker/Dockerfile.build", "FROM scratch\n")
    elsewhere = system.root / "elsewhere"
    elsewhere.mkdir(mode=0o777)
    elsewhere.chmod(0o777)
    image = "127.0.0.1:1/acme/none:1"
    error = system.run("build", image=image, dockerfile="docker/Dockerfile.build", cwd=elsewhere).error
    assert error is not None
    assert error["code"] == "image_unavailable"
    assert image in error["message"]
    assert f"docker build --tag {image} --file {dockerfile} {dockerfile.parent}" in error["hint"]
    assert "volume" not in error["message"]
    assert "nerves_cache" not in error["message"]


def test_the_platform_s_own_dockerfile_is_the_default(system: System) -> None:
    """Fault 7: the stock runner takes a directory of that name for the file."""
    dockerfile = system.write("platform/support/docker/nerves_system_br/Dockerfile", "FROM scratch\n")
    error = system.run("build", image=None).error
    assert error is not None
    assert error["code"] == "image_unavailable"
    assert "ghcr.io/nerves-project/nerves_system_br:1.34.0" in error["message"]
    assert str(dockerfile) in error["hint"]


def test_clean_removes_volume_and_cache_and_can_be_repeated(system: System, client: docker.DockerClient) -> None:
    """Fault 8."""
    system.run("build").value()
    volume = system.volume
    cache = system.root / "artifacts" / "my_system-portable-0.1.0"
    system.write("artifacts/my_system-portable-0.1.0/CHECKSUM", "x")
    conversation = system.run("clean")
    assert conversation.value()["removed"] == [volume, str(cache)]
    assert conversation.headlines == [f"Deleting build volume {volume}"]
    assert not cache.exists()
    with pytest.raises(docker.errors.NotFound):
        client.volumes.get(volume)
    again = system.run("clean")
    assert again.value()["removed"] == []
    assert again.headlines == []
    # The id stays, so that the next build has the same volume.
    assert system.volume == volume


def test_clean_of_a_package_that_was_never_built_is_fine_and_makes_nothing(system: System) -> None:
    """Fault 8."""
    assert system.run("clean").value()["removed"] == []
    assert not (system.package / ".nerves").exists()


def test_clean_removes_a_link_in_the_cache_but_not_what_it_points_to(system: System) -> None:
    target = system.write("linked/CHECKSUM", "x").parent
    cache = system.root / "artifacts" / "my_system-portable-0.1.0"
    cache.parent.mkdir()
    cache.symlink_to(target)
    system.own()
    system.run("clean").value()
    assert not cache.is_symlink()
    assert (target / "CHECKSUM").exists()


def test_paths_may_hold_spaces_commas_quotes_dollars_and_any_letter(make_system: MakeSystem) -> None:
    """Fault 10."""
    system = make_system(package_name="mon système, \"v2\" 'x' $HOME `id`;é=1")
    system.write("home/.ssh/config", "Host x\n")
    system.run("build").value()
    assert owner(system.package / "Config.in") == (1000, 1000)
    assert system.artifact.exists()


def test_an_app_whose_name_is_not_ascii_builds(make_system: MakeSystem) -> None:
    system = make_system(app="mon_système")
    system.run("build").value()
    assert "mon_système" in system.artifact.name


def test_the_download_directory_is_made_if_it_is_missing(system: System) -> None:
    conversation = system.run("build", download_dir=system.root / "deep" / "dl")
    assert Path(conversation.value()["path"]).parent == system.root / "deep" / "dl"


def test_an_engine_without_a_docker_version_text_is_asked_over_its_api(system: System) -> None:
    """Fault 12: podman's and nerdctl's version texts crash the stock runner; ours runs without any CLI on the PATH."""
    tools = system.root / "bin"
    tools.mkdir()
    with system.helper(PATH=str(tools)) as helper:
        helper.request("build", system.args()).value()


@pytest.mark.parametrize(("image", "workdir"), [(NEW, "/home/nerves/project"), (OLD, "/nerves/build")])
@pytest.mark.parametrize("version", [None, "", "not a version"])
def test_a_platform_of_unknown_version_goes_by_the_image(
    make_system: MakeSystem, image: str, workdir: str, version: str | None
) -> None:
    """Fault 13."""
    system = make_system(image=image, platform_version=version)
    system.run("build", make_args=["RUN=pwd"]).value()
    assert f"\n{workdir}\n" in system.build_log.read_text()


def test_a_socket_without_permission_is_called_that(system: System, root: Path) -> None:
    """Fault 14."""
    closed = root / "closed"
    closed.mkdir()
    link = closed / "docker.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(link))
        link.chmod(0o600)
        with system.helper(DOCKER_HOST=f"unix://{link}") as helper:
            error = helper.request("build", system.args()).error
    assert error is not None
    assert error["code"] == "engine_permission"
    assert str(link) in error["message"]
    assert "usermod -aG docker" in error["hint"]


@pytest.mark.parametrize("op", ["build", "archive", "clean"])
def test_no_engine_is_called_that(system: System, op: str) -> None:
    with system.helper(DOCKER_HOST=f"unix://{system.root}/none.sock") as helper:
        error = helper.request(op, system.args()).error
    assert error is not None
    assert error["code"] == "engine_unreachable"
    assert "none.sock (DOCKER_HOST): No such file or directory" in error["message"]
    assert error["hint"] is not None


def test_a_context_that_does_not_exist_is_an_error_not_the_default_engine(system: System) -> None:
    with system.helper(DOCKER_HOST="", DOCKER_CONTEXT="nowhere") as helper:
        error = helper.request("build", system.args()).error
    assert error is not None
    assert error["code"] == "engine_unreachable"
    assert '"nowhere" (DOCKER_CONTEXT) does not exist' in error["message"]


def test_a_failing_make_tells_step_status_last_lines_and_log_and_spares_the_artifact(
    system: System, client: docker.DockerClient
) -> None:
    system.run("build").value()
    before = system.artifact.read_bytes()
    error = system.run("build", make_args=["RUN=seq 1 40; exit 3"]).error
    assert error is not None
    assert error["code"] == "step_failed"
    assert "`make 'RUN=seq 1 40; exit 3'` ended with exit status 2" in error["message"]
    assert "The Nerves Docker build_runner encountered an error while building" in error["message"]
    quoted = error["message"].split("-----\n")[1].splitlines()
    assert quoted == system.build_log.read_text().splitlines()[-16:]
    assert len(quoted) == 16
    assert str(system.build_log) in error["message"]
    assert error["log"] == str(system.build_log)
    assert system.artifact.read_bytes() == before
    assert ours(client, system.volume) == []


def test_a_failing_step_s_error_has_the_cause_for_a_program(system: System) -> None:
    said = "printf '\\033[7m>>> zlib 1.3 Building\\033[27m\\nzlib.c:7:1: error: expected %s\\n' \\;; exit 3"
    error = system.run("build", make_args=[f"RUN={said}"]).error
    assert error is not None
    cause = error["cause"]
    assert cause["lines"] == ["zlib.c:7:1: error: expected ;"]
    assert cause["title"] in error["message"]
    assert set(cause) == {"title", "package", "step", "kind", "lines", "remedy"}
    context = system.helper(DOCKER_CONTEXT="nobody", DOCKER_HOST="")
    with context as helper:
        assert "cause" not in (helper.request("build", system.args()).error or {"cause": ""})


def test_a_failing_create_build_ends_the_build(system: System, client: docker.DockerClient) -> None:
    system.write("my_system/in_create_build.sh", "echo no such thing; exit 9\n")
    conversation = system.run("build")
    assert conversation.error is not None
    assert "ended with exit status 9" in conversation.error["message"]
    assert conversation.finished == ["preflight"]
    assert ours(client, system.volume) == []


def test_a_make_system_that_leaves_no_archive_is_an_error_and_leaves_no_artifact(system: System) -> None:
    system.write("my_system/in_make_system.sh", "exit 0\n")
    system.write("platform/Makefile", "all:\n\t@true\nsystem:\n\t@true\n")
    error = system.run("build").error
    assert error is not None
    assert error["code"] == "artifact_missing"
    assert "there is no /home/nerves/project/my_system-portable-0.1.0-ABCDEF0.tar.gz" in error["message"]
    assert list(system.artifact.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("head -c 10000 /dev/urandom | gzip | head -c 5000", "it ends in the middle"),
        ("echo not gzip", "it is damaged"),
        ("true", "it ends in the middle"),
    ],
)
def test_an_archive_that_is_not_whole_never_gets_its_final_name(system: System, content: str, reason: str) -> None:
    system.run("build").value()
    before = system.artifact.read_bytes()
    system.write("platform/Makefile", f"all:\n\t@true\nsystem:\n\t@({content}) > $(NERVES_ARTIFACT_NAME).tar.gz\n")
    error = system.run("build").error
    assert error is not None
    assert error["code"] == "artifact_missing"
    assert reason in error["message"]
    assert system.artifact.read_bytes() == before
    assert [path.name for path in system.artifact.parent.iterdir()] == [system.artifact.name]


def test_a_program_that_a_step_has_left_running_writes_to_the_log_and_not_into_the_artifact(system: System) -> None:
    noise = "(while sleep 0.01; do echo noise; echo noise >&2; done) &"
    system.write("my_system/in_make_system.sh", f"{noise}\nhead -c 20000000 /dev/urandom > built\n")
    value = system.run("build").value()
    content = system.artifact.read_bytes()
    assert value["sha256"] == hashlib.sha256(content).hexdigest()
    assert len(gzip.decompress(content)) > 20_000_000
    assert "noise" in system.build_log.read_text()


def test_a_headline_that_is_written_in_two_parts_is_shown_once_and_whole(system: System) -> None:
    """Fault 17: the parts come in reads of their own."""
    first = r"printf '>>> cut in'; sleep 0.3; printf ' two\n'"
    second = r"printf '\033[7m>'; sleep 0.3; printf '>> the mark cut\033[27m\n'"
    run = f"{first}; {second}"
    conversation = system.run("build", make_args=[f"RUN={run}"])
    conversation.value()
    shown = [line for line in conversation.log_lines if b"cut" in line]
    assert shown == [b">>> cut in two", b">>> the mark cut"]


def test_labels_tell_whose_every_object_is(system: System, client: docker.DockerClient) -> None:
    with system.helper() as helper:
        helper.start("build", system.args(make_args=["RUN=sleep 30"]))
        helper.follow(until_stage="make")
        # Running, and not only made.
        assert helper.wait_until(lambda: client.containers.list(filters={"volume": system.volume}))
        found = client.containers.list(filters={"volume": system.volume})
        labels = found[0].labels
        assert labels["nerves-docker-port.step"] == "build"
        assert labels["nerves-docker-port.volume"] == system.volume
        assert labels["nerves-docker-port.project"] == "nerves_docker_port"
        assert found[0].name == f"{system.volume}-session"
        assert found[0].attrs["HostConfig"]["LogConfig"]["Type"] == "none"
        # It goes when it has ended, although nobody may be there to ask for that.
        assert found[0].attrs["HostConfig"]["AutoRemove"] is True
    volume = client.volumes.get(system.volume)
    assert volume.attrs["Labels"]["nerves-docker-port.package"] == "my_system"
    assert volume.attrs["Labels"]["nerves-docker-port.version"] == "0.1.0"
    assert volume.attrs["Labels"]["nerves-docker-port.path"] == str(system.package)


def test_an_id_file_with_nonsense_is_an_error_that_names_it(system: System) -> None:
    path = system.write("my_system/.nerves/artifacts/my_system-portable-0.1.0/.docker_id", "not an id!\n")
    error = system.run("build").error
    assert error is not None
    assert error["code"] == "bad_request"
    assert str(path) in error["message"]
    assert path.read_text() == "not an id!\n"


def test_the_id_is_sixteen_characters_without_a_newline_and_stays(system: System) -> None:
    system.run("build").value()
    path = system.package / ".nerves/artifacts/my_system-portable-0.1.0/.docker_id"
    first = path.read_text()
    assert re.fullmatch(r"[A-Za-z0-9_]{16}", first)
    assert stat.S_ISREG(path.lstat().st_mode)
    assert sorted(p.name for p in path.parent.iterdir()) == [".docker_id", "journal"]
    system.run("build").value()
    assert path.read_text() == first


@pytest.mark.parametrize("end", ["eof", "cancel", "SIGTERM"])
def test_a_build_that_is_cancelled_leaves_nothing_running(
    system: System, client: docker.DockerClient, end: str
) -> None:
    """Fault 3."""
    with system.helper() as helper:
        helper.start("build", system.args(make_args=["RUN=sleep 600"]))
        conversation = helper.follow(until_stage="make")
        assert helper.wait_until(lambda: client.containers.list(filters={"volume": system.volume}))
        if end == "eof":
            helper.close()
        elif end == "cancel":
            helper.send((Atom("cancel"), 1))
        else:
            helper.signal(signal.SIGTERM)
        conversation = helper.follow(conversation)
        assert conversation.error is not None
        assert conversation.error["code"] == "cancelled"
        assert ours(client, system.volume) == []
    system.run("build").value()


def test_a_log_of_200_mb_is_complete_and_every_headline_comes_once_and_in_order(system: System) -> None:
    # 2,000,000 lines of 100 bytes, each hundredth a headline.
    program = (
        'awk \'BEGIN { for (i = 1; i <= 2000000; i++) if (i % 100 == 0) printf ">>> package-%09d 1.0 %077d\\n", i, 0; '
        'else printf "%0100d\\n", i }\' | head -c 400000000'
    )
    system.write("platform/Makefile", "all:\n\t@sh /nerves/env/platform/lines.sh\nsystem:\n\t@exit 7\n")
    system.write("platform/lines.sh", program + "\n")
    conversation = system.run("build")
    assert conversation.error is not None
    assert "exit status 2" in conversation.error["message"]

    def lines() -> list[bytes]:
        return [
            b">>> package-%09d 1.0 %077d\n" % (i, 0) if i % 100 == 0 else b"%0100d\n" % i for i in range(1, 2_000_001)
        ]

    expected = hashlib.sha256(b"".join(lines())).hexdigest()
    content = system.build_log.read_bytes()
    start = content.index(b"0" * 90)
    end = content.rindex(b">>> package-002000000")
    end = content.index(b"\n", end) + 1
    assert len(content[start:end]) >= 200_000_000
    assert hashlib.sha256(content[start:end]).hexdigest() == expected
    shown = [line for line in conversation.log_lines if b"package-" in line]
    assert shown == [line.strip() for line in lines() if line.startswith(b">>>")]
    assert conversation.warnings == []


def test_the_artifact_can_be_read_to_its_end(system: System) -> None:
    system.run("build").value()
    with gzip.open(system.artifact) as archive:
        assert archive.read()
