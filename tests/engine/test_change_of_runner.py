"""One build tree, now ours, now the stock runner's: nothing is built anew, nothing is refused, in either order.

The stock runner is what it was recorded to ask of the engine (tests/conformance). Its containers work as the image's
own user. Ours must leave that user a tree that it can use, wherever that user can use the files of the host: where
mounts map every owner to the caller (Docker Desktop does), and where the caller has that user's uid.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from integration.host import apt_install

from support.images import NEW
from support.recordings import RECORDINGS
from support.system import System

IMAGE_UID = 1005
"""Of the user `nerves` in images from 1.28.1 on."""

CALLER = 501
"""The first user of a Mac."""

# `built` is made once; that each run writes something shows that it may.
MAKEFILE = """\
all: built
\t@date > last-run

built:
\t@echo '>>> compiling'
\t@id -u > $@

system:
\t@mkdir -p "$(NERVES_ARTIFACT_NAME)"
\t@cp built "$(NERVES_ARTIFACT_NAME)/nerves-system.tag"
\t@tar czf "$(NERVES_ARTIFACT_NAME).tar.gz" "$(NERVES_ARTIFACT_NAME)"
"""


@pytest.fixture
def mapped(root: Path) -> Iterator[Path]:
    """A directory in which every file belongs to the caller, whoever makes it, as in a virtual machine's share."""
    apt_install(["bindfs"], "a test needs mounts that map owners")
    real, shown = root / "real", root / "shown"
    for directory in (real, shown):
        directory.mkdir()
    owner = [f"--force-user={CALLER}", f"--force-group={CALLER}"]
    made = [f"--create-for-user={CALLER}", f"--create-for-group={CALLER}"]
    subprocess.run(["bindfs", *owner, *made, "--chown-ignore", "--perms=a+rwX", real, shown], check=True)
    try:
        yield shown
    finally:
        subprocess.run(["umount", "--lazy", shown], check=True)


@pytest.fixture(params=["mounts that map owners", "the image's uid"])
def tree(
    request: pytest.FixtureRequest, make_system: Callable[..., System], open_host: str, client: docker.DockerClient
) -> Iterator[System]:
    """A system whose build tree both runners must be able to use."""
    if request.param == "the image's uid":
        system = make_system(uid=IMAGE_UID)
    else:
        system = System(root=request.getfixturevalue("mapped"), uid=CALLER, image=NEW, host=open_host)
    system.write("platform/Makefile", MAKEFILE)
    system.write("my_system/.nerves/artifacts/my_system-portable-0.1.0/.docker_id", os.urandom(8).hex())
    system.write("home/.ssh/known_hosts", "")
    system.write("dl/.keep", "")
    yield system
    for volume in client.volumes.list(filters={"name": system.volume}):
        volume.remove(force=True)


def ours(system: System) -> str:
    """A build by this runner; what it printed."""
    with system.helper() as helper:
        helper.request("build", system.args()).value()
        helper.request("archive", system.args(), request_id=2).value()
    return system.build_log.read_text()


def stock(system: System) -> str:
    """What the stock runner does for the same; what its containers printed."""
    recording: dict[str, Any] = json.loads((RECORDINGS / "artifact_new_image.json").read_text())
    values = {
        "<volume>": system.volume,
        "<image>": system.image,
        "<artifact>": system.artifact.name.removesuffix(".tar.gz"),
        "<download_dir>": str(system.artifact.parent),
        "<package>": str(system.package),
        "<platform>": str(system.root / "platform"),
        "<home>": str(system.root / "home"),
        "LINES=1": "all",
    }
    printed = ""
    for words in recording["docker_argv"]:
        for placeholder, value in values.items():
            words = [word.replace(placeholder, value) for word in words]  # noqa: PLW2901  # one after the other
        done = subprocess.run(
            ["docker", *words],
            env={**os.environ, "DOCKER_HOST": system.host},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        printed += done.stdout
        assert done.returncode == 0, (words, printed)
    return printed


@pytest.mark.parametrize("runners", [(ours, stock, ours), (stock, ours, stock)], ids=["ours first", "stock first"])
def test_a_tree_can_be_built_on_by_either_runner_in_turn(
    tree: System, runners: tuple[Callable[[System], str], ...], client: docker.DockerClient
) -> None:
    printed = [runner(tree) for runner in runners]
    assert ["compiling" in each for each in printed] == [True, False, False]
    assert tree.built_by() == IMAGE_UID
    # Whatever the container made on the host for its question is gone.
    assert sorted(path.name for path in tree.package.iterdir() if "owner" in path.name) == []
    assert {path.stat().st_uid for path in tree.package.rglob("*")} == {tree.uid}
