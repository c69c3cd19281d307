"""The compile cache of a team: real ccache in the builder image, real stores, two engines with nothing in common."""

from __future__ import annotations

import base64
import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import docker
import pytest
from integration.blind import blind_engine

from nerves_docker_port.record import journal
from nerves_docker_port.request.request import from_args
from support.compile import RUN, add_program
from support.images import NEW, OLD
from support.port import Conversation, wait_until
from support.recorder import Recorder
from support.stores import Store, free_port, redis, slow, web_dav
from support.system import System, content_of_volume

MakeSystem = Callable[..., System]

PASSWORD = "pla:nted|Cache $Pass%word/@#"  # every character that means something on the way to ccache
FILES = 12


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with redis(PASSWORD) as store:
        yield store


@pytest.fixture
def system(make_system: MakeSystem) -> System:
    made = make_system()
    add_program(made, files=FILES, functions=5)
    return made


def build(system: System, **cache: str) -> Conversation:
    """A build whose container has the host's network, with settings such as ``REMOTE``."""
    return system.run("build", make_args=[RUN], env=variables(**cache))


def variables(**cache: str) -> dict[str, str]:
    return {"NERVES_DOCKER_NETWORK": "host", **{f"NERVES_DOCKER_CCACHE_{name}": cache[name] for name in cache}}


def remote(store: Store) -> dict[str, str]:
    return {"REMOTE": f"redis://127.0.0.1:{store.port}", "PASSWORD": PASSWORD}


def hits(conversation: Conversation) -> str:
    """What the person is told of the cache."""
    conversation.value()
    (line,) = [line for line in conversation.headlines if line.startswith("Compiler cache")]
    return line.removeprefix("Compiler cache: ")


def last_journal(system: System) -> journal.Build:
    build = journal.read(journal.files(journal.directory(from_args(system.args()).names))[0])
    assert build is not None
    return build


def warned(conversation: Conversation) -> str:
    """The one warning of a build that has ended well."""
    conversation.value()
    (text,) = conversation.warnings
    return text


def test_what_one_engine_has_compiled_another_finds(host: str, make_system: MakeSystem, store: Store) -> None:
    first = make_system()
    directory = Path(tempfile.mkdtemp(prefix="ndp-"))
    directory.chmod(0o755)
    with blind_engine(host, [NEW, OLD]) as engine, Recorder(directory, engine.host) as recorder:
        second = make_system(host=recorder.host)
        for system in (first, second):
            add_program(system, files=FILES, functions=6)
        address = f"redis://127.0.0.1:{store.port}"
        filled = build(first, **remote(store))
        found = build(second, **remote(store))
        assert hits(filled) == f"0 % hits (0 of {FILES}, 0 of them from {address})"
        assert hits(found) == f"100 % hits ({FILES} of {FILES}, {FILES} of them from {address})"
        assert filled.warnings == found.warnings == []
        assert last_journal(second).ccache == journal.Ccache(FILES, 0, FILES)
    shutil.rmtree(directory)


@pytest.mark.parametrize("image", [NEW, OLD])
def test_each_place_of_the_cache(make_system: MakeSystem, store: Store, image: str) -> None:
    system = make_system(image=image, platform_version={NEW: "1.34.0", OLD: "1.27.1"}[image])
    add_program(system, files=FILES, functions=7 if image == NEW else 8)
    assert hits(build(system, DIR="true")) == f"0 % hits (0 of {FILES})"
    assert hits(build(system, DIR="true")) == f"100 % hits ({FILES} of {FILES})"
    assert (system.root / "ccache").is_dir()
    # What is in the directory already is not in the store; what comes from the store is put into the directory.
    here = f", 0 of them from redis://127.0.0.1:{store.port})"
    assert hits(build(system, DIR="true", **remote(store))) == f"100 % hits ({FILES} of {FILES}{here}"
    assert hits(build(system, **remote(store))) == f"0 % hits (0 of {FILES}{here}"
    shutil.rmtree(system.root / "ccache")
    there = f", {FILES} of them from redis://127.0.0.1:{store.port})"
    assert hits(build(system, DIR="true", **remote(store))) == f"100 % hits ({FILES} of {FILES}{there}"
    assert hits(build(system, DIR="true")) == f"100 % hits ({FILES} of {FILES})"


def test_a_defconfig_that_names_another_place_for_the_cache(system: System) -> None:
    """That place would be in the container, or in the build volume, where no other build finds it."""
    system.write("my_system/nerves_defconfig", 'BR2_x86_64=y\nBR2_CCACHE=y\nBR2_CCACHE_DIR="/home/nerves/cache"\n')
    build(system, DIR="true").value()
    assert any((system.root / "ccache").iterdir())
    assert hits(build(system, DIR="true")) == f"100 % hits ({FILES} of {FILES})"


def test_a_store_that_is_only_read(system: System, store: Store) -> None:
    for _ in range(2):
        assert hits(build(system, READ_ONLY="true", **remote(store))).startswith("0 % hits")
    build(system, **remote(store))
    assert hits(build(system, READ_ONLY="true", **remote(store))).startswith("100 % hits")


def test_an_http_store_with_a_user(system: System, root: Path) -> None:
    with web_dav(root / "dav", "me", PASSWORD) as store:
        address = f"http://127.0.0.1:{store.port}/cache"
        login = {"REMOTE": address.replace("//", "//me@"), "PASSWORD": PASSWORD}
        assert hits(build(system, **login)) == f"0 % hits (0 of {FILES}, 0 of them from {address})"
        assert hits(build(system, **login)) == f"100 % hits ({FILES} of {FILES}, {FILES} of them from {address})"
        for path in (root / "dav/files").rglob("*"):
            path.chmod(0o555)
        (system.package / "src/f0.c").write_text("int other;\n")
        assert f"{address} failed for 1 of {FILES} compilations" in warned(build(system, **login))
        for wrong in ({**login, "PASSWORD": "wrong"}, {"REMOTE": address}):
            text = warned(build(system, **wrong))
            assert f"The compile cache {address} refuses this build" in text
            assert "401" in text


@pytest.mark.parametrize("password", [{"PASSWORD": "wrong"}, {}])
def test_a_wrong_password(system: System, store: Store, password: dict[str, str]) -> None:
    ended = build(system, REMOTE=f"redis://127.0.0.1:{store.port}", **password)
    assert f"The compile cache redis://127.0.0.1:{store.port} refuses this build" in warned(ended)
    assert not any("Compiler cache" in line for line in ended.headlines)


def test_a_store_that_is_stopped_before(system: System) -> None:
    address = f"redis://127.0.0.1:{free_port()}"
    assert f"The compile cache {address} does not answer in the container" in warned(build(system, REMOTE=address))
    # The directory is of use all the same.
    build(system, DIR="true", REMOTE=address)
    assert hits(build(system, DIR="true", REMOTE=address)).startswith("100 % hits")


@pytest.mark.parametrize("how", ["stop", "hold"])
def test_a_store_that_is_lost_during_a_build(system: System, how: str) -> None:
    system.write(
        "my_system/in_compile.sh", "touch begun; while [ ! -e /nerves/env/my_system/go ]; do sleep 0.1; done\n"
    )
    with redis() as store, system.helper() as helper:
        args = system.args(make_args=[RUN], env=variables(REMOTE=f"redis://127.0.0.1:{store.port}"))
        helper.start("build", args)
        conversation = helper.follow(until_stage="make")
        getattr(store, how)()
        system.write("my_system/go", "")
        ended = helper.follow(conversation)
    text = warned(ended)
    assert "stopped answering during the build" in text or f"failed for {FILES} of {FILES} compilations" in text
    assert hits(ended).startswith("0 % hits")


def test_a_store_that_comes_back_is_used_again(system: System) -> None:
    """The compilation waits for the program that watches to notice each change."""
    conf = "/nerves-docker-port/tmp/ccache-conf"
    wait = f"while grep -q remote_storage {conf}; do sleep 0.1; done; touch /nerves/env/my_system/lost; "
    wait += f"until grep -q remote_storage {conf}; do sleep 0.1; done"
    system.write("my_system/in_compile.sh", wait)
    with redis() as store, system.helper() as helper:
        args = system.args(make_args=[RUN], env=variables(REMOTE=f"redis://127.0.0.1:{store.port}"))
        helper.start("build", args)
        conversation = helper.follow(until_stage="make")
        store.stop()
        assert wait_until((system.package / "lost").exists)
        store.start()
        ended = helper.follow(conversation)
        assert "stopped answering during the build" in warned(ended)
        system.write("my_system/in_compile.sh", "")
        assert hits(build(system, REMOTE=f"redis://127.0.0.1:{store.port}")).startswith("100 % hits")


def test_a_store_that_is_slow(system: System, store: Store) -> None:
    with slow(store.port, 0.2) as port:
        text = warned(build(system, REMOTE=f"redis://127.0.0.1:{port}", PASSWORD=PASSWORD))
    assert f"The compile cache redis://127.0.0.1:{port} took " in text


def test_a_container_without_network(system: System, store: Store) -> None:
    env = {**variables(**remote(store)), "NERVES_DOCKER_NETWORK": "none"}
    assert "does not answer in the container" in warned(system.run("build", make_args=[RUN], env=env))


def test_a_system_that_does_not_turn_the_cache_on(make_system: MakeSystem, store: Store) -> None:
    system = make_system()
    add_program(system, files=1, functions=1, on=False)
    for setting in (remote(store), {"DIR": "true"}):
        text = warned(build(system, **setting))
        assert f"BR2_CCACHE=y is not in {system.package / 'nerves_defconfig'}" in text


def test_a_build_that_fails_says_what_the_cache_has_brought(system: System, store: Store) -> None:
    build(system, **remote(store))
    (system.package / "src/f99.c").write_text("no C\n")
    failed = build(system, **remote(store))
    assert failed.error is not None
    assert failed.error["code"] == "step_failed"
    assert [line for line in failed.headlines if line.startswith("Compiler cache: 100 % hits")]


def test_the_size_of_the_cache_is_limited(system: System) -> None:
    system.write("my_system/in_compile.sh", "ccache --get-config max_size\n")
    build(system, DIR="true", MAX_SIZE="20G").value()
    assert re.search(r"^(20\.0 ?Gi|21\.5 ?G)B?$", system.build_log.read_text(), re.MULTILINE)


def test_no_password_of_a_store_is_in_anything_that_is_written_or_shown(
    system: System, root: Path, store: Store, client: docker.DockerClient
) -> None:
    """Not in the log either, where a build prints its environment, its arguments and ccache's own log."""
    show = "env; ps axww -o args; ccache --show-stats; export CCACHE_DEBUG=1 CCACHE_DEBUGDIR=$PWD/debug; sleep 3"
    system.write("my_system/in_compile.sh", f"{show}\n")
    begun = int(time.time())
    seen: list[str] = []
    with web_dav(root / "dav", "me", PASSWORD) as web:
        http = f"http://127.0.0.1:{web.port}/cache"
        for settings in (
            remote(store),
            {"REMOTE": f"redis://default:wr0ngPlanted@127.0.0.1:{store.port}"},
            {"REMOTE": f"redis://wr0ngPlanted@127.0.0.1:{store.port}"},
            {"REMOTE": http.replace("//", "//me@"), "PASSWORD": PASSWORD},
            {"REMOTE": http.replace("//", f"//me:{quote(PASSWORD, safe='')}@")},
            {"REMOTE": http, "PASSWORD": PASSWORD},
            {"REMOTE": f"{http}|header=X-Key=wr0ngPlanted"},
        ):
            with system.helper() as helper:
                helper.start("build", system.args(make_args=[RUN], env=variables(**settings)))
                conversation = helper.follow(until_stage="make")
                assert wait_until(lambda: client.containers.list(filters={"volume": system.volume}), 10)
                containers = client.containers.list(all=True, filters={"volume": system.volume})
                seen += [json.dumps(container.attrs) for container in containers]
                ended = helper.follow(conversation)
                ended.value()
                seen.append(repr(ended))
            for op in ("doctor", "report"):
                seen.append(repr(system.run(op, env=variables(**settings))))
    for wrong in (
        "https://user:wr0ngPlanted@cache",
        "http://cache/x?token=wr0ngPlanted",
        "http://me:1/wr0ngPlanted@c/",
    ):
        seen.append(repr(build(system, REMOTE=wrong)))
        seen.append(repr(system.run("build", env={"NERVES_DOCKER_CCACHE": wrong})))
    seen += [path.read_bytes().decode("latin-1") for path in system.root.rglob("*") if path.is_file()]
    seen.append(json.dumps(client.volumes.get(system.volume).attrs))
    seen += [json.dumps(event) for event in client.events(since=begun, until=int(time.time()) + 1, decode=True)]
    seen.append(content_of_volume(client, system.volume))
    for expected in ("CCACHE_STATSLOG", "remote_storage = http://me:********@", "nerves-docker-port.volume"):
        assert any(expected in text for text in seen), expected
    basic = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    for secret in (PASSWORD, "pla%3Anted", "Cache%20", basic, "wr0ngPlanted"):
        assert [text[:200] for text in seen if secret in text] == [], secret
