"""Every configuration key: its effect inside a real container, and a wrong value before there is one."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from integration.host import apt_install

from nerves_docker_port.port.wire import Atom, Term
from support import hostile
from support.images import NEW, OLD
from support.port import Conversation
from support.requests import keyword
from support.system import System, owner

MakeSystem = Callable[..., System]

# Fault 18 as it is met: a key that only its owner may read, a configuration from a Mac, a nested directory, a link that
# leads nowhere in a container.
SSH_CONFIG = """\
Host *
  UseKeychain yes
  AddKeysToAgent yes
  IdentityFile ~/.ssh/keys/id_ed25519
Include extra.conf
"""

CONTAINERS = pytest.mark.parametrize(
    ("uid", "image", "version"),
    [(1000, NEW, "1.34.0"), (1005, NEW, "1.34.0"), (0, NEW, "1.34.0"), (1000, OLD, "1.27.0"), (0, OLD, "1.27.0")],
    ids=["new-1000", "new-1005", "new-root", "old-1000", "old-root"],
)


def build(
    system: System,
    probe: str,
    config: list[Term] | None = None,
    *,
    variables: dict[str, str] | None = None,
    **environ: Any,
) -> Conversation:
    """Build with this configuration; the steps `create_build` and `make_system` run the shell lines of ``probe``."""
    # In a pipeline of its own: whatever the probe does, the step goes on.
    for step in ("create_build", "make_system"):
        system.write(f"{system.package_name}/in_{step}.sh", f"({probe}\n) | sed 's/^/{step}: /'\n")
    with system.helper(**environ) as helper:
        return helper.request("build", system.args(runner_config=config, env=variables))


def said(system: System, *args: Any, **options: Any) -> list[str]:
    """What the probe said in a build that ended well: the same in both steps."""
    build(system, *args, **options).value()
    log = system.build_log.read_text()
    steps = {step: re.findall(rf"^{step}: (.*)$", log, re.MULTILINE) for step in ("create_build", "make_system")}
    assert steps["create_build"] == steps["make_system"]
    return steps["make_system"]


def refused(system: System, *args: Any, **options: Any) -> dict[str, Any]:
    """The error of a build that was refused before any container ran."""
    conversation = build(system, "echo ran", *args, **options)
    assert conversation.error is not None
    assert conversation.error["code"] == "bad_request"
    assert ("create_build", "started") not in conversation.stages
    return conversation.error


def test_env_is_set_in_every_step(system: System) -> None:
    config = keyword(env=keyword(GREETING="a  b'c\"$é", NUMBER=3, TERM="vt100"))
    lines = said(system, 'echo "$GREETING|$NUMBER|$TERM|$NERVES_BR_DL_DIR"', config)
    assert lines == ["a  b'c\"$é|3|vt100|/nerves/dl"]
    assert said(system, 'echo "$GREETING|$MORE"', config, variables={"NERVES_DOCKER_ENV": "MORE=x"}) == ["|x"]


@CONTAINERS
def test_env_may_have_the_names_that_a_script_would_take(
    make_system: MakeSystem, uid: int, image: str, version: str
) -> None:
    system = make_system(uid=uid, image=image, platform_version=version)
    names = ("name", "status", "step", "token", "words", "stopped", "uid", "gid", "home", "found", "owner", "line")
    config = keyword(env=keyword(**dict.fromkeys(names, "mine")))
    probe = "".join(f'echo "{name}=${name}"\n' for name in names)
    assert said(system, probe, config) == [f"{name}=mine" for name in names]


@pytest.mark.parametrize(("image", "version"), [(NEW, "1.34.0"), (OLD, "1.27.0")], ids=["new", "old"])
def test_a_build_ends_well_whatever_the_environment_says(make_system: MakeSystem, image: str, version: str) -> None:
    system = make_system(image=image, platform_version=version)
    variables = hostile.VARIABLES if image == NEW else hostile.HARMLESS_FOR_STOCK
    # The tar of the build itself would fail.
    config = keyword(env=keyword(**{name: value for name, value in variables.items() if name != "TAR_OPTIONS"}))
    with system.helper() as helper:
        conversation = helper.request("build", system.args(runner_config=config))
        assert system.built_by() == 1000
        again = helper.request("archive", system.args(runner_config=config))
    assert conversation.error is None
    assert again.headlines[-1].startswith("Reusing artifact archive")


def test_pass_env_brings_variables_of_the_host(system: System) -> None:
    config = keyword(pass_env=["MY_TOKEN", "NOT_SET"])
    probe = 'echo "$MY_TOKEN|${NOT_SET-unset}|${OTHER-unset}"'
    assert said(system, probe, config, MY_TOKEN="s3cret, and = more", OTHER="x") == ["s3cret, and = more|unset|unset"]
    variables = {"NERVES_DOCKER_PASS_ENV": "OTHER"}
    assert said(system, probe, config, variables=variables, MY_TOKEN="y", OTHER="x") == ["|unset|x"]


@CONTAINERS
def test_mounts_are_there_for_the_build_user(make_system: MakeSystem, uid: int, image: str, version: str) -> None:
    system = make_system(uid=uid, image=image, platform_version=version)
    system.write("patches, 'all'/one.patch", "one")
    system.write("out/.keep", "")
    config = keyword(
        mounts=[("../patches, 'all'", "/patches", Atom("ro")), (str(system.root / "out"), "/home/nerves/a/b")]
    )
    lines = said(
        system,
        "cat /patches/one.patch; echo; touch /patches/two 2>/dev/null || echo read-only; touch /home/nerves/a/b/made",
        config,
    )
    assert lines == ["one", "read-only"]
    assert owner(system.root / "out/made") == (uid, uid)
    variables = {"NERVES_DOCKER_MOUNTS": f"{system.root}/out:/elsewhere:ro"}
    assert said(system, "ls /patches /elsewhere 2>/dev/null", config, variables=variables) == ["/elsewhere:", "made"]


def test_a_mount_of_somebody_else_s_directory_leaves_it_theirs(system: System) -> None:
    shared = system.root.parent / "shared"
    shared.mkdir(mode=0o777)
    shared.chmod(0o777)
    os.chown(shared, 1234, 1234)
    said(system, "touch /home/nerves/shared/x", keyword(mounts=[(str(shared), "/home/nerves/shared")]))
    assert owner(shared) == (1234, 1234)


def test_a_mount_of_what_is_not_there_is_refused(system: System) -> None:
    error = refused(system, keyword(mounts=[("../none", "/none")]))
    assert f"given was {system.root}/none" in error["message"]
    assert "/none" in error["message"]


NESTED: dict[str, tuple[list[Term], str | None]] = {
    "below a read-only mount": (
        [("../d", "/x", Atom("ro")), ("../e", "/x/sub")],
        "there is no such directory {}/d/sub",
    ),
    "below a file": ([("../f", "/x"), ("../e", "/x/sub")], "there is no such directory {}/f/sub"),
    "a file on a directory": ([("../d", "/x"), ("../f", "/x/inner")], "there is no such file {}/d/inner"),
    "a directory on a file": ([("../d", "/x"), ("../e", "/x/file")], "there is no such directory {}/d/file"),
    "the nearest counts": (
        [("../d", "/x"), ("../e", "/x/inner", Atom("ro")), ("../f", "/x/inner/sub")],
        "there is no such file {}/e/sub",
    ),
    "a mount point that is there": ([("../e", "/x/inner"), ("../d", "/x", Atom("ro"))], None),
    "a mount point that is made": ([("../d", "/x"), ("../e", "/x/sub")], None),
}


@pytest.mark.parametrize("case", NESTED)
def test_a_mount_below_another_needs_a_mount_point(system: System, case: str) -> None:
    mounts, said = NESTED[case]
    system.write("d/inner/.keep", "")
    system.write("d/file", "")
    system.write("e/.keep", "")
    system.write("f", "")
    if said is None:
        build(system, "ls /x", keyword(mounts=mounts)).value()
    else:
        assert said.format(system.root) in refused(system, keyword(mounts=mounts))["message"]


@pytest.mark.parametrize("mount", [("../f", "/tmp"), ("../d", "/etc/hostname"), ("../d", "/etc/shells")])
def test_a_mount_over_something_of_another_kind_is_told(system: System, mount: tuple[str, str]) -> None:
    system.write("d/.keep", "")
    system.write("f", "")
    error = refused(system, keyword(mounts=[mount]))
    assert "not a directory" in error["message"]
    assert "Choose another target" in error["hint"]


@CONTAINERS
def test_ccache_lasts_between_builds_in_buildroot_s_place(
    make_system: MakeSystem, uid: int, image: str, version: str
) -> None:
    system = make_system(uid=uid, image=image, platform_version=version)
    probe = 'cat ~/.buildroot-ccache/stats 2>/dev/null; id -u > ~/.buildroot-ccache/stats; touch ~/mine && echo "home"'
    first = build(system, probe, keyword(ccache=True))
    first.value()
    assert (system.root / "ccache" / "stats").read_text() == f"{uid}\n"
    assert owner(system.root / "ccache") == (uid, uid)
    assert owner(system.root / "ccache" / "stats") == (uid, uid)
    assert said(system, probe, keyword(ccache=True)) == [str(uid), "home"]
    # Off unless asked for; another place; a variable.
    assert said(system, "ls -d ~/.buildroot-ccache 2>/dev/null || echo none") == ["none"]
    build(system, probe, keyword(ccache="../cc"), variables={"NERVES_DOCKER_CCACHE": str(system.root / "deep/cc")})
    assert (system.root / "deep/cc/stats").read_text() == f"{uid}\n"


def test_a_ccache_directory_that_cannot_be_made_is_refused(system: System) -> None:
    system.write("file", "")
    error = refused(system, keyword(ccache=str(system.root / "file/cc")))
    assert f"The ccache directory {system.root}/file/cc cannot be written" in error["message"]


# The limits as the kernel has them, with cgroup 1 and 2.
CPUS = """
  if [ -e /sys/fs/cgroup/cpu.max ]; then cat /sys/fs/cgroup/cpu.max; else
  echo $(cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us); fi
"""
MEMORY = "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes"
SWAP = """
  if [ -e /sys/fs/cgroup/memory.swap.max ]; then cat /sys/fs/cgroup/memory.swap.max; else
  cd /sys/fs/cgroup/memory; echo $(($(cat memory.memsw.limit_in_bytes) - $(cat memory.limit_in_bytes))); fi
"""


def test_cpus_limits_the_container(system: System) -> None:
    assert said(system, CPUS, keyword(cpus=1.5)) == ["150000 100000"]
    assert said(system, CPUS, keyword(cpus=1.5), variables={"NERVES_DOCKER_CPUS": "0.5"}) == ["50000 100000"]


def test_more_cpus_than_there_are_means_all(system: System, client: docker.DockerClient) -> None:
    """A package's configuration is shared by machines of many sizes; the engine would refuse it."""
    there = client.info()["NCPU"]
    assert said(system, CPUS, keyword(cpus=1000)) == [f"{there}00000 100000"]


def test_memory_limits_the_container(system: System, client: docker.DockerClient) -> None:
    assert said(system, MEMORY, keyword(memory="512M")) == [str(512 * 1024**2)]
    assert said(system, MEMORY, keyword(memory="512M"), variables={"NERVES_DOCKER_MEMORY": "1G"}) == [str(1024**3)]
    (limit,) = said(system, MEMORY, keyword(memory=Atom("host")))
    assert limit == "max" or int(limit) >= client.info()["MemTotal"]


def test_swap_comes_beside_memory(system: System) -> None:
    assert said(system, SWAP, keyword(memory="512M", swap="256M")) == [str(256 * 1024**2)]
    assert said(system, SWAP, keyword(memory="512M", swap="0")) == ["0"]
    assert said(system, SWAP, keyword(memory="512M"), variables={"NERVES_DOCKER_SWAP": "1G"}) == [str(1024**3)]
    # Without a limit of its own, memory is all that the engine has.
    assert said(system, SWAP, keyword(swap="none")) == ["0"]


def test_network(system: System, client: docker.DockerClient) -> None:
    interfaces = "ls /sys/class/net"
    assert said(system, interfaces, keyword(network="none")) == ["lo"]
    namespace = str(Path("/proc/self/ns/net").readlink())
    assert said(system, "readlink /proc/self/ns/net", keyword(network=Atom("host"))) == [namespace]
    network = client.networks.create(f"ndp-{secrets.token_hex(4)}", internal=True)
    try:
        gateway = network.attrs["IPAM"]["Config"] or client.networks.get(str(network.id)).attrs["IPAM"]["Config"]
        subnet = gateway[0]["Subnet"].rpartition(".")[0]
        probe = f"grep -c '^{subnet}[.]' /etc/hosts"
        variables = {"NERVES_DOCKER_NETWORK": str(network.name)}
        assert said(system, probe, keyword(network="none"), variables=variables) == ["1"]
    finally:
        network.remove()


def test_a_network_that_the_engine_does_not_have_is_refused(system: System) -> None:
    error = refused(system, keyword(network="hots"))
    assert 'given was "hots". Did you mean "host"?' in error["message"]
    # Other tests may have networks of their own.
    assert re.search(r"It has host, (.+, )?none\.", error["hint"])


@pytest.fixture
def keys(request: pytest.FixtureRequest) -> Callable[[System], Path]:
    """Puts an ssh directory as people have it into a system's home."""
    if shutil.which("ssh-keygen") is None:
        apt_install(["openssh-client"], "the tests of `ssh:` need real keys and a real agent")

    def make(system: System) -> Path:
        directory = system.root / "home/.ssh"
        (directory / "keys").mkdir(parents=True)
        key = directory / "keys/id_ed25519"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "k", "-f", key], check=True)
        system.write("home/.ssh/config", SSH_CONFIG, mode=0o600)
        system.write("home/.ssh/extra.conf", "usekeychain=no\nHost other.example\n  Port 2222\n", mode=0o600)
        system.write("home/.ssh/known_hosts", "mine.example ssh-ed25519 AAAA-mine", mode=0o600)
        (directory / "link").symlink_to("/nowhere/at/all")
        (directory / "out").symlink_to("/")
        system.own()
        directory.chmod(0o700)
        key.chmod(0o600)
        listener = socket.socket(socket.AF_UNIX)
        request.addfinalizer(listener.close)
        listener.bind(str(directory / "control"))
        return key

    return make


@CONTAINERS
def test_ssh_dir_gives_the_build_user_usable_keys_and_keeps_the_known_hosts(
    make_system: MakeSystem, keys: Callable[[System], Path], uid: int, image: str, version: str
) -> None:
    """Fault 18."""
    system = make_system(uid=uid, image=image, platform_version=version)
    key = keys(system)
    public = key.with_suffix(".pub").read_text().split()[1]
    probe = """
      cd
      ssh-keygen -y -f .ssh/keys/id_ed25519 | cut -d' ' -f2
      ssh -G other.example 2>&1 | grep -iE '^(port |user |identityfile |.*error|.*bad)'
      stat -c '%A %U %n' .ssh .ssh/keys .ssh/keys/id_ed25519 .ssh/config
      cat .ssh/known_hosts
      touch .ssh/written && echo writable
      ls -A .ssh
    """
    lines = said(system, probe)
    name = "root" if uid == 0 and image == OLD else "nerves"
    assert lines[:8] == [
        public,
        f"user {name}",
        "port 2222",
        "identityfile ~/.ssh/keys/id_ed25519",
        f"drwx------ {name} .ssh",
        f"drwx------ {name} .ssh/keys",
        f"-rw------- {name} .ssh/keys/id_ed25519",
        f"-rw------- {name} .ssh/config",
    ]
    assert "mine.example ssh-ed25519 AAAA-mine" in lines
    assert any(line.startswith("github.example ssh-ed25519") for line in lines)
    assert lines[lines.index("writable") + 1 :] == ["config", "extra.conf", "keys", "known_hosts", "written"]
    # Nothing came back to the host, and nothing of it is in what stays.
    assert sorted(path.name for path in (system.root / "home/.ssh").iterdir()) == [
        *("config", "control", "extra.conf", "keys", "known_hosts", "link", "out"),
    ]
    secret = key.read_text().splitlines()[1]
    for file in (system.build_log, system.archive_log, *system.package.rglob("*")):
        assert not file.is_file() or secret not in file.read_text(errors="replace"), file


def test_ssh_keys_do_not_stay_in_the_build_volume(
    system: System, client: docker.DockerClient, keys: Callable[[System], Path]
) -> None:
    keys(system)
    said(system, "test -e ~/.ssh/keys/id_ed25519 && echo there")
    found = client.containers.run(
        NEW,
        ["grep", "-rl", "OPENSSH PRIVATE KEY", "/v"],
        volumes={system.volume: {"bind": "/v"}},
        user="0",
        remove=True,
        entrypoint=["sh", "-c", '"$@" || :', "sh"],
    )
    assert found == b""


@pytest.mark.parametrize("where", ["config", "variable"])
def test_ssh_false_gives_nothing(system: System, keys: Callable[[System], Path], where: str) -> None:
    keys(system)
    config = keyword(ssh=False) if where == "config" else keyword(ssh=Atom("dir"))
    variables = {"NERVES_DOCKER_SSH": "false"} if where == "variable" else {}
    lines = said(
        system,
        "ls -A ~/.ssh; ls -d /nerves/ssh 2>/dev/null || :; grep -c mine ~/.ssh/known_hosts || :",
        config,
        variables=variables,
    )
    assert lines == ["known_hosts", "0"]


@pytest.fixture
def agent(root: Path, keys: Callable[[System], Path]) -> Iterator[Callable[[System], tuple[str, str]]]:
    """Starts an agent of a system's user that holds a key; gives the socket and the key's public half."""
    agents = []

    def start(system: System) -> tuple[str, str]:
        key = keys(system)
        path = system.root / "agent.sock"
        user = {"user": system.uid, "group": system.uid, "extra_groups": []}
        agents.append(subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL, **user))  # type: ignore[call-overload]
        for _ in range(200):
            if path.is_socket():
                break
            agents[-1].poll()
        environ = {"SSH_AUTH_SOCK": str(path), "PATH": os.environ["PATH"]}
        while subprocess.run(["ssh-add", "-q", key], env=environ, stderr=subprocess.DEVNULL, **user).returncode == 2:  # type: ignore[call-overload]
            assert agents[-1].poll() is None
        return str(path), key.with_suffix(".pub").read_text().split()[1]

    yield start
    for process in agents:
        process.terminate()
        process.wait()


@CONTAINERS
def test_ssh_agent_signs_for_the_build_user(
    make_system: MakeSystem, agent: Callable[[System], tuple[str, str]], uid: int, image: str, version: str
) -> None:
    system = make_system(uid=uid, image=image, platform_version=version)
    path, public = agent(system)
    probe = "ssh-add -L | cut -d' ' -f2; ls -A ~/.ssh; cut -d' ' -f1 ~/.ssh/known_hosts | grep ."
    lines = said(system, probe, keyword(ssh=Atom("agent")), SSH_AUTH_SOCK=path)
    assert lines == [public, "known_hosts", "mine.example", "github.example"]


def test_ssh_agent_without_one_is_refused(system: System) -> None:
    config = keyword(ssh=Atom("agent"))
    assert "SSH_AUTH_SOCK is not set" in refused(system, config, SSH_AUTH_SOCK="")["message"]
    gone = str(system.root / "gone.sock")
    error = refused(system, config, SSH_AUTH_SOCK=gone)
    assert f"SSH_AUTH_SOCK names no socket: {gone}" in error["message"]
    assert "ssh-add" in error["hint"]


def test_record_dir_gets_the_logs_of_build_and_archive(system: System) -> None:
    config = keyword(record_dir="../record/1")
    assert system.run("build", runner_config=config).error is None
    assert system.run("archive", runner_config=config).error is None
    assert b"hello 1.0 Building" in (system.root / "record" / "1" / "build.log").read_bytes()
    assert b"system Packing" in (system.root / "record" / "1" / "archive.log").read_bytes()
    assert not system.build_log.exists()
    assert not system.archive_log.exists()
    kept = [path.suffix for path in (system.root / "record" / "1").iterdir()]
    assert sorted(kept) == [".html", ".log", ".log", ".msgpack", ".msgpack"]
    error = system.run("build", runner_config=config, make_args=["RUN=exit 3"]).error
    assert error is not None
    assert f"See {system.root}/record/1/build.log." in error["message"]


def test_a_record_that_cannot_be_collected_is_a_warning(system: System) -> None:
    config = keyword(record_dir="../record")
    system.write("record/report.html/no_file", "")
    done = system.run("build", runner_config=config)
    assert done.error is None
    assert any("The page" in warning and "report.html" in warning for warning in done.warnings)


@pytest.mark.parametrize(
    ("config", "variables", "text"),
    [
        (keyword(memmory="1G"), {}, "`memmory:` in build_runner_config is not known. Did you mean `memory:`?"),
        ([], {"NERVES_DOCKER_MEMMORY": "1G"}, "Did you mean `NERVES_DOCKER_MEMORY`?"),
        (keyword(memory="much"), {}, 'build_runner_config: [memory: ...] wants a size such as "24G"'),
        ([], {"NERVES_DOCKER_CPUS": "x"}, "The variable NERVES_DOCKER_CPUS wants a number of CPUs above 0"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_made(
    system: System, config: list[Term], variables: dict[str, str], text: str
) -> None:
    assert text in refused(system, config, variables=variables)["message"]
    assert not (system.package / ".nerves").exists()
