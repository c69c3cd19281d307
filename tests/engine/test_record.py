"""What a build leaves in its journal, and what is told of it while it runs. On the real engine."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import docker
import msgpack
import pytest

from nerves_docker_port.port.wire import Atom
from nerves_docker_port.record import journal
from nerves_docker_port.record.journal import Build
from support.port import Conversation
from support.requests import LIVE_TERMINAL
from support.system import System, ours

# Two packages, one after the other, with the times that Buildroot notes, and what it says of the configuration. A stamp
# says that a package is built. `HOLD` names a file in the package that the second one waits for.
MAKEFILE = """\
MAKEARGS := -C /nerves/env/platform
O ?= .
step = @printf '%s:%-5.5s:%-20.20s: %s\\n' "$$(date +%s.%N)" $1 $2 $3 >>build/build-time.log
all: build/host-one-1/.stamp_installed build/two-2/.stamp_installed
\t@$(or $(RUN),true)
\t@id -u > built
build/%/.stamp_installed:
\t@mkdir -p $(@D)
\t$(call step,start,build,$(basename $*))
\t@echo '>>> $(firstword $(subst -1, 1,$(subst -2, 2,$*))) 1 Configuring'
\t@[ -z "$(HOLD)" ] || [ $* != two-2 ] || while [ ! -e /nerves/env/my_system/$(HOLD) ]; do sleep 0.05; done
\t@[ -z "$(BREAK)" ] || [ $* != two-2 ] || exit 1
\t@echo '>>> $(firstword $(subst -1, 1,$(subst -2, 2,$*))) 1 Installing to target'
\t$(call step,end,build,$(basename $*))
\t@touch $@
show-info:
\t@grep -q BR2 $(O)/.config
\t@cat /nerves/env/my_system/show-info.json
system:
\t@mkdir -p "$(NERVES_ARTIFACT_NAME)"
\t@cp built "$(NERVES_ARTIFACT_NAME)/nerves-system.tag"
\t@tar czf "$(NERVES_ARTIFACT_NAME).tar.gz" "$(NERVES_ARTIFACT_NAME)"
"""
PACKAGES = {
    "host-one": {"type": "host", "stamp_dir": "build/host-one-1"},
    "two": {"type": "target", "stamp_dir": "build/two-2"},
    "rootfs-tar": {"type": "rootfs"},
}
KILLS = int(os.environ.get("NDP_KILLS", "6"))
"""`make soak` sets it to 100."""


@pytest.fixture
def buildroot(system: System) -> System:
    """A system whose platform tells of its packages as Buildroot does."""
    return with_packages(system)


def with_packages(system: System) -> System:
    """Give the system a platform that tells of its packages as Buildroot does."""
    system.write("platform/Makefile", MAKEFILE)
    system.write("my_system/show-info.json", json.dumps(PACKAGES))
    system.write(
        "my_system/in_create_build.sh",
        'cp "$1" "$2/.config"; echo \'BR2_EXTERNAL ?= /nerves/env/platform\' >"$2/.br2-external.mk"\n',
    )
    return system


def run(system: System, *make_args: str) -> Conversation:
    with system.helper() as helper:
        return helper.request("build", {**system.args(make_args=list(make_args)), Atom("terminal"): LIVE_TERMINAL})


def journals(system: System) -> list[Build]:
    """The journals of the system, latest first."""
    found = map(journal.read, journal.files(journals_in(system)))
    return [build for build in found if build is not None]


def journals_in(system: System) -> Path:
    return system.package / ".nerves/artifacts/my_system-portable-0.1.0/journal"


def steps(build: Build) -> Sequence[tuple[str, bool]]:
    return [(step.package, step.ended is not None) for step in build.package_steps]


def test_a_build_leaves_what_was_asked_and_found_and_done(buildroot: System, client: docker.DockerClient) -> None:
    before = time.time()
    value = run(buildroot, "TOKEN=secret", "PARALLEL_JOBS=2").value()
    (build,) = journals(buildroot)
    assert build.began is not None
    assert (build.began.flow, build.began.package) == ("build", "my_system")
    assert build.began.make_args == ("TOKEN=", "PARALLEL_JOBS=2")
    assert build.engine is not None
    assert build.engine.version == client.version()["Version"]
    assert build.image is not None
    assert build.image.id == client.images.get(buildroot.image).id
    assert build.workspace is not None
    assert build.workspace.volume == buildroot.volume
    assert [stage.name for stage in build.stages] == ["preflight", "create_build", "make", "make_system", "copy"]
    assert all(stage.ended is not None for stage in build.stages)
    assert [text for _, text in build.headlines] == [
        ">>> create-build nerves_defconfig",
        ">>> host-one 1 Configuring",
        ">>> host-one 1 Installing to target",
        ">>> two 1 Configuring",
        ">>> two 1 Installing to target",
    ]
    assert build.artifact == journal.Artifact(str(buildroot.artifact), value["size"], value["sha256"])
    assert build.ended == journal.Ended("ok")
    assert before <= build.opened_at <= build.last_at <= time.time()
    assert b"secret" not in build.path.read_bytes()


def test_the_times_of_the_packages_are_kept_of_each_build_only_its_own(buildroot: System) -> None:
    failed = run(buildroot, "BREAK=1")
    assert failed.error is not None
    run(buildroot).value()
    again, first = journals(buildroot)
    assert steps(first) == [("host-one-1", True), ("two-2", False)]
    assert first.ended is not None
    assert first.ended.outcome == "step_failed"
    assert "-----" not in first.ended.message
    assert first.cause is not None
    # Only what the second build did.
    assert steps(again) == [("two-2", True)]
    for build in (first, again):
        assert build.clock == journal.Clock(0.0)
        assert all(build.opened_at <= step.began <= build.last_at for step in build.package_steps)


def test_a_build_without_packages_is_not_asked_for_them(system: System) -> None:
    system.write("platform/Makefile", MAKEFILE.replace(">>>", "---"))
    run(system).value()
    (build,) = journals(system)
    assert build.package_steps == ()
    assert build.clock is None


def test_a_first_build_knows_how_many_packages_there_are(buildroot: System) -> None:
    with buildroot.helper() as helper:
        args = {**buildroot.args(make_args=["HOLD=go"]), Atom("terminal"): LIVE_TERMINAL}
        helper.start("build", args)
        # It is told again every few seconds, although nothing happens.
        conversation = helper.follow(until=lambda so_far: [status["done"] for status in so_far.status].count(1) >= 2)
        buildroot.write("my_system/go", "")
        conversation = helper.follow(conversation)
    conversation.value()
    known = [status for status in conversation.status if status["total"] is not None]
    assert {(status["done"], status["total"]) for status in known} <= {(0, 2), (1, 2), (2, 2)}
    held = [status for status in known if status["tasks"][0][0] == "two Configuring"]
    assert held
    assert held[-1]["done"] == 1
    assert held[-1]["left"] is None
    assert held[-1]["elapsed"] >= held[-1]["tasks"][0][1] >= 3000
    (build,) = journals(buildroot)
    assert build.configuration is not None
    assert build.configuration.packages == ("host-one", "two")
    assert build.configuration.built_before == ()


def test_a_later_build_knows_how_long_it_takes(buildroot: System, client: docker.DockerClient) -> None:
    run(buildroot, "RUN=sleep 8").value()
    client.volumes.get(buildroot.volume).remove()
    # What is there of the first answer is used: Buildroot is not asked again.
    buildroot.write("my_system/show-info.json", "not asked")
    told = run(buildroot, "RUN=sleep 8").status
    left = [status["left"] for status in told if status["left"] is not None]
    assert left
    assert all(0 <= each < 60_000 for each in left), left
    assert left[-1] < left[0]


def test_without_a_peer_that_shows_it_nothing_is_told(buildroot: System) -> None:
    assert buildroot.run("build").status == []


def test_a_full_disk_costs_the_journal_and_not_the_build(buildroot: System) -> None:
    where = journals_in(buildroot)
    where.mkdir(parents=True)
    buildroot.own()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k,mode=1777", "tmpfs", where], check=True)
    try:
        flood = (
            "echo '>>> first 1 Building'; sleep 1; for n in $$(seq 2000); do echo '>>> flood 1 Building'\\ $$n; done"
        )
        conversation = run(buildroot, f"RUN={flood}")
        assert len(conversation.log_lines) > 2000
        assert Path(conversation.value()["path"]).exists()
        assert conversation.warnings == []
        (build,) = journals(buildroot)
        assert build.began is not None
        assert build.headlines
        assert build.lost > 0
    finally:
        subprocess.run(["umount", where], check=True)


def test_a_helper_that_is_killed_at_any_moment_leaves_a_readable_journal(
    make_system: Callable[..., System], client: docker.DockerClient
) -> None:
    flood = "for n in $$(seq 100000); do echo '>>> flood 1 Building'\\ $$n; done; sleep 600"
    moments = random.Random(11)
    headlines = 0
    for _ in range(KILLS):
        # Each round has its own volume: the engine may still be making the container for a helper that was killed.
        system = with_packages(make_system())
        with system.helper() as helper:
            helper.start("build", {**system.args(make_args=[f"RUN={flood}"]), Atom("terminal"): LIVE_TERMINAL})
            helper.follow(until_stage=moments.choice(["preflight", "create_build", "make"]))
            time.sleep(moments.uniform(0, 1))
            helper.process.kill()
        # A helper that is killed in the first moment has not chosen the name of the volume, so there is no container.
        if any(system.package.glob(".nerves/artifacts/*/.docker_id")):
            for name in ours(client, system.volume):
                client.api.remove_container(name, force=True)
        (killed,) = journals(system)
        assert killed.ended is None
        assert not journal.is_open(killed.path)
        whole = sum(1 for _ in msgpack.Unpacker(io.BytesIO(killed.path.read_bytes())))
        assert whole == sum(1 for _ in journal.records(killed.path))
        headlines += len(killed.headlines)
    assert headlines > 0
