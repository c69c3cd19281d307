"""Starts engines of every kind that a Nerves user may have, each with directories of its own.

An engine runs in a mount namespace and a process namespace of its own. In there, its files and its users are mounted
over those of the machine, so nothing on the machine is changed. The first process of the namespace ends together with
the supervisor, and then the kernel ends all other processes in the namespace. The programs are Debian packages. The
images are copied from the engine that `engine()` provides.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from integration.blind import HIDDEN, copy_images
from integration.blind import NAME as FAR
from integration.build_images import ensure_image, ensure_root
from integration.elixir import shared_directories
from integration.engine import (
    START_SECONDS,
    Api,
    Places,
    Started,
    die_with_parent,
    dockerd_command,
    engine,
    forget_networks,
    install_engine,
    places,
    private_engine,
    variables,
)
from integration.host import WorldError, apt_install, descendants, is_root

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PERSON = 1000
"""The uid of the user who builds and who runs a rootless engine."""
SUBORDINATE_IDS = "person:200000:65536\n"
"""The content of `/etc/subuid`: the ids that the rootless engines and `--userns-remap` give to containers."""
TRIXIE_PACKAGES = ("docker.io", "iptables", "podman", "runc", "netavark", "nftables", "python3-minimal", "xz-utils")
PODMAN_PACKAGES = ("podman", "runc", "netavark", "uidmap", "slirp4netns", "iproute2")
TRIXIE = "trixie"
GATEWAY = "10.0.2.2"
"""The address that slirp4netns connects with this machine's loopback interface."""


@dataclass(frozen=True)
class Kind:
    """One kind of engine."""

    title: str
    """The name that messages use."""
    program: str
    """`dockerd` or `podman`."""
    packages: tuple[str, ...] = ()
    suite: str = ""
    """The Debian release in whose root file system the engine runs; empty for the root file system of this machine."""
    rootless: bool = False
    maps_users: bool = False
    tls: bool = False
    ssh: bool = False
    blind: bool = False
    """Whether the engine sees none of the directories in which people have their projects."""

    @property
    def has_network(self) -> bool:
        """Whether the engine runs in a network namespace of its own.

        In the machine's own namespace, its bridge and its packet filter rules would remain after it has stopped. Podman
        always makes them. Docker 26 needs a bridge, because without one it does not rename a running container.
        """
        return (self.program == "podman" and not self.rootless) or bool(self.suite)

    @property
    def loopback(self) -> str:
        """The address at which the engine reaches servers on this machine's loopback interface."""
        return GATEWAY if self.has_network or (self.rootless and self.program == "dockerd") else "127.0.0.1"

    @property
    def user(self) -> int:
        """The uid of the user who builds with it. With ssh it is root, because this machine must know the user."""
        return 0 if self.ssh else PERSON


KINDS = {
    "docker": Kind("Docker 20.10", "dockerd"),
    "docker-trixie": Kind("Docker of trixie", "dockerd", ("slirp4netns", "iproute2"), suite=TRIXIE),
    "rootless": Kind("rootless Docker", "dockerd", ("rootlesskit", "uidmap", "slirp4netns"), rootless=True),
    "userns": Kind("Docker with userns-remap", "dockerd", maps_users=True),
    "podman": Kind("Podman 4.3", "podman", PODMAN_PACKAGES),
    "podman-rootless": Kind("rootless Podman 4.3", "podman", PODMAN_PACKAGES, rootless=True),
    "podman-trixie": Kind("Podman of trixie", "podman", PODMAN_PACKAGES, suite=TRIXIE),
    "tls": Kind("Docker with TLS", "dockerd", ("openssl",), tls=True),
    "ssh": Kind("Docker behind ssh", "dockerd", ("openssh-server", "openssh-client"), ssh=True, blind=True),
    "ssh-podman": Kind(
        "Podman behind ssh", "podman", (*PODMAN_PACKAGES, "openssh-server", "openssh-client"), ssh=True, blind=True
    ),
    "blind": Kind("Docker that sees no files of ours", "dockerd", blind=True),
}


@dataclass(frozen=True)
class RunningEngine:
    """A running engine."""

    kind: Kind
    host: str
    """The DOCKER_HOST with which root reaches the engine directly, to inspect it."""
    variables: dict[str, str]
    """The environment variables with which the user who builds reaches the engine."""


def prepare(name: str) -> Places:
    """Install what this kind of engine needs; return its places. Raises `WorldError`."""
    kind = KINDS[name]
    if not is_root():
        raise WorldError(f"{kind.title} can only be started by root")
    install_engine()
    apt_install(kind.packages, f"{kind.title} is to be started")
    if kind.suite:
        ensure_root(kind.suite, TRIXIE_PACKAGES)
    return places(name)


@contextlib.contextmanager
def running(name: str, images: Sequence[str] = ()) -> Iterator[RunningEngine]:
    """Provide an engine of this kind while the block runs, with builder images of these kinds.

    Raises `WorldError` if it cannot be started here.
    """
    with private_engine(prepare(name)) as where:
        if images:
            bring_images(where, images)
        yield RunningEngine(KINDS[name], where.host, variables(where))


def bring_images(where: Places, images: Sequence[str]) -> list[str]:
    """Copy builder images of these kinds to the engine if it does not have them; return the tags of all of them."""
    with engine() as source:
        tags = [ensure_image(image, source) for image in images]
        here, there = Api(source), Api(where.host)
        missing = [tag for tag in tags if _image_id(here, tag) != _image_id(there, tag)]
        if missing:
            copy_images(source, where.host, missing)
    return tags


def _image_id(api: Api, tag: str) -> str | None:
    image = api.json(f"/images/{tag}/json")
    return None if image is None else str(image["Id"]).removeprefix("sha256:")


# --- for the supervisor ---------------------------------------------------------------------------------------------


def start(where: Places) -> Started:
    """Start the engine in these directories. It writes to the standard output and error of this process."""
    kind = KINDS[where.kind]
    where.data.mkdir(parents=True, exist_ok=True)
    forget_networks(where.data)
    own = where.run / "own"
    own.mkdir()
    for name in ("root", "runroot", "tmp", "home"):
        (own.parent / name).mkdir()
    # The user who runs a rootless engine must be able to write to these directories.
    person = PERSON if kind.rootless else 0
    for path in (where.run, where.data, *(path for path in where.run.iterdir() if path.is_dir())):
        os.chown(path, person, person)
    leads = {"DOCKER_HOST": where.host}
    lines = ["set -e"]
    # Otherwise dockerd would use a containerd that the machine runs, which would not end together with the engine.
    lines.append("if [ -d /run/containerd ]; then mount -t tmpfs none /run/containerd; fi")
    lines.append(f"mount --bind {_words(where.cache, own)}")
    lines += _users(where)
    command = _podman(where, own) if kind.program == "podman" else dockerd_command(_inside(where, own))
    if kind.has_network:
        command = [word for word in command if word != "--bridge=none"]
    if kind.program == "dockerd" and kind.loopback == GATEWAY:
        command.append(f"--insecure-registry={GATEWAY}/32")
    if kind.maps_users:
        command.append("--userns-remap=person")
    if kind.tls:
        port = _free_port()
        leads = {
            "DOCKER_HOST": f"tcp://127.0.0.1:{port}",
            "DOCKER_TLS_VERIFY": "1",
            "DOCKER_CERT_PATH": str(_certificates(where, kind.user)),
        }
        files = where.run / "server"
        command += [f"--host=tcp://127.0.0.1:{port}", "--tlsverify", f"--tlscacert={files}/ca.pem"]
        command += [f"--tlscert={files}/cert.pem", f"--tlskey={files}/key.pem"]
    if kind.ssh:
        leads = _ssh(where, lines)
    if kind.rootless:
        command = _as_person(where, command, kind)
    if kind.has_network:
        network = where.run / "network"
        network.touch()
        lines += [f"unshare --net={_words(network)} ip link set lo up"]
        lines += [f"slirp4netns --configure --mtu=65520 --netns-type=path {_words(network)} tap0 &"]
        command = ["nsenter", f"--net={network}", *command]
    if kind.suite:
        lines += _other_root(ensure_root(kind.suite, TRIXIE_PACKAGES), where)
    if kind.blind:
        lines.append(f"hostname {FAR}")
        lines += [f"mount -t tmpfs none {_words(path)}" for path in sorted({*HIDDEN, tempfile.gettempdir()})]
    # The first process of a process namespace must wait for orphaned processes, which bash does. The kernel sends it
    # only those signals for which it has a handler, so there is a trap for TERM.
    lines += [
        '"$@" & daemon=$!',
        "trap 'kill \"$daemon\"' TERM",
        'while kill -0 "$daemon"; do wait "$daemon" || :; done',
    ]
    unshare = ["unshare", "--mount", "--uts", "--pid", "--propagation=private", "--fork", "--kill-child"]
    daemon = subprocess.Popen(
        [*unshare, "--mount-proc", "bash", "-c", "\n".join(lines), "bash", *command],
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=sys.stdout.fileno(),
        stderr=sys.stderr.fileno(),
        # unshare ignores SIGTERM. If it is killed, its child is killed, too.
        preexec_fn=functools.partial(die_with_parent, signal.SIGKILL),  # noqa: PLW1509 - this process has one thread
    )
    return Started(daemon, leads, owner=None if kind.rootless else kind.user, process=_first_child(daemon))


def _first_child(daemon: subprocess.Popen[bytes]) -> int:
    deadline = time.monotonic() + START_SECONDS
    while not (children := descendants(daemon.pid)):
        if daemon.poll() is not None or time.monotonic() > deadline:
            raise WorldError("unshare does not start a process")
        time.sleep(0.01)
    return children[0]


def _inside(where: Places, own: Path) -> Places:
    """Return the directories as a process in the engine's namespace sees them, under paths that any user can reach."""
    return Places(cache=own, run=where.run, kind=where.kind)


def _users(where: Places) -> list[str]:
    """Return the lines that mount another user database over the machine's.

    It has the user who builds, and a root who may log in by ssh.
    """
    files = {
        "passwd": f"root:x:0:0:root:/root:/bin/bash\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n"
        f"person:x:{PERSON}:{PERSON}::{where.run}/home:/bin/sh\n",
        "group": f"root:x:0:\nnogroup:x:65534:\nperson:x:{PERSON}:\n",
        "shadow": "root:*:19000:0:99999:7:::\nperson:*:19000:0:99999:7:::\n",
        "subuid": SUBORDINATE_IDS,
        "subgid": SUBORDINATE_IDS,
    }
    lines = []
    for name, content in files.items():
        (where.run / name).write_text(content)
        lines += [f"touch /etc/{name}", f"mount --bind {_words(where.run / name)} /etc/{name}"]
    return lines


def _as_person(where: Places, command: list[str], kind: Kind) -> list[str]:
    person = f"--reuid={PERSON} --regid={PERSON} --clear-groups".split()
    environment = [f"HOME={where.run}/home", f"XDG_RUNTIME_DIR={where.run}", f"PATH={os.environ['PATH']}"]
    if kind.program == "dockerd":
        # The same as dockerd-rootless.sh of the package, but the engine can reach this machine's loopback interface.
        script = 'rm -f /run/docker /run/containerd /run/xtables.lock; exec "$@"'
        network = ["--net=slirp4netns", "--mtu=65520", "--slirp4netns-sandbox=false", "--slirp4netns-seccomp=false"]
        ups = ["--copy-up=/etc", "--copy-up=/run", "--propagation=rslave"]
        command = ["rootlesskit", *network, *ups, "sh", "-c", script, "sh", *command]
    return ["setpriv", *person, "env", "-i", *environment, *command]


def _podman(where: Places, own: Path) -> list[str]:
    """Return the command line of a Podman service that shares nothing with the Podman of the machine."""
    # The wrapper removes the limits that Podman asks for, because without CAP_SYS_RESOURCE they cannot be raised. It
    # runs runc, because crun refuses hybrid cgroups.
    wrapper = where.cache / "runtime"
    wrapper.write_text(
        "#!/usr/bin/python3\n"
        "import json, os, sys\n"
        'bundle = sys.argv[sys.argv.index("--bundle") + 1] if "--bundle" in sys.argv else None\n'
        "if bundle:\n"
        '    path = os.path.join(bundle, "config.json")\n'
        "    config = json.load(open(path))\n"
        '    config["process"].pop("rlimits", None)\n'
        '    json.dump(config, open(path, "w"))\n'
        'os.execv("/usr/sbin/runc", ["runc", *sys.argv[1:]])\n'
    )
    wrapper.chmod(0o755)
    conf = where.run / "containers.conf"
    conf.write_text(f'[engine]\nruntime = "own"\n[engine.runtimes]\nown = ["{own}/runtime"]\n')
    registries = where.run / "registries.conf"
    insecure = "".join(f'[[registry]]\nlocation = "{address}"\ninsecure = true\n' for address in ("127.0.0.1", GATEWAY))
    registries.write_text(f"unqualified-search-registries = []\n{insecure}")
    return [
        "env",
        f"CONTAINERS_CONF={conf}",
        f"CONTAINERS_REGISTRIES_CONF={registries}",
        "podman",
        f"--root={own}/data",
        f"--runroot={where.run}/runroot",
        f"--tmpdir={where.run}/tmp",
        "--cgroup-manager=cgroupfs",
        "--events-backend=file",
        "--storage-driver=overlay",
        "system",
        "service",
        "--time=0",
        where.host,
    ]


def _certificates(where: Places, user: int) -> Path:
    """Make a certificate authority, and certificates of the server and the client; return the client's directory."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=where.run, check=True, capture_output=True)

    key = ("-newkey", "rsa:2048", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca-key.pem", "-out", "ca.pem", "-subj", "/CN=authority", "-days", "30")
    for name, extension in (
        ("server", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        ("client", "basicConstraints=CA:FALSE"),
    ):
        directory = where.run / name
        directory.mkdir()
        (directory / "extension").write_text(f"{extension}\n")
        (directory / "ca.pem").write_bytes((where.run / "ca.pem").read_bytes())
        openssl("req", *key, "-keyout", f"{name}/key.pem", "-out", f"{name}/request.pem", "-subj", f"/CN={name}")
        files = ("-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-extfile", f"{name}/extension")
        openssl("x509", "-req", *files, "-in", f"{name}/request.pem", "-out", f"{name}/cert.pem", "-days", "30")
    client = where.run / "client"
    for path in (client, *client.iterdir()):
        os.chown(path, user, user)
    return client


def _ssh(where: Places, lines: list[str]) -> dict[str, str]:
    """Add lines that start an ssh server; return the variables with which the engine is reached through it."""
    port = _free_port()
    for name in ("host", "client"):
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(where.run / name)]
        subprocess.run(make, check=True, capture_output=True)
    configuration = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": where.run / "host",
        "AuthorizedKeysFile": where.run / "client.pub",
        "PidFile": "none",
        "UsePAM": "no",
        "StrictModes": "no",
        "MaxStartups": "10:30:100",
    }
    (where.run / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in configuration.items()))
    lines += ["mkdir -p /run/sshd", f"/usr/sbin/sshd -D -e -f {_words(where.run / 'sshd_config')} &"]
    (where.run / "known_hosts").write_text(f"[127.0.0.1]:{port} {(where.run / 'host.pub').read_text()}")
    # ssh reads its configuration from the home directory in the user database, whatever HOME says. So the options are
    # in a script with the name `ssh` on the PATH.
    programs = where.cache / "bin"
    programs.mkdir(exist_ok=True)
    options = f"-F none -i {where.run}/client -o IdentitiesOnly=yes -o UserKnownHostsFile={where.run}/known_hosts"
    (programs / "ssh").write_text(f'#!/bin/sh\nexec /usr/bin/ssh {options} "$@"\n')
    (programs / "ssh").chmod(0o755)
    socket_path = where.host.removeprefix("unix://")
    return {"DOCKER_HOST": f"ssh://root@127.0.0.1:{port}{socket_path}", "PATH": f"{programs}:{os.environ['PATH']}"}


def _other_root(root: Path, where: Places) -> list[str]:
    """Return the lines that make `root` the root file system, with the directories in which people have their projects.

    A container runtime needs a root file system that is a mount point (pivot_root(2)), so `chroot` does not suffice.
    """
    lines = [f"mount --bind {_words(root, root)}"]
    lines += [
        f"mount --bind {_words(where.run / name)} {_words(f'{root}/etc/{name}')}" for name in ("subuid", "subgid")
    ]
    for path in shared_directories():
        lines += [f"mkdir -p {_words(f'{root}{path}')}", f"mount --rbind {_words(path, f'{root}{path}')}"]
    # The PATH is set, because that of the machine may name other directories.
    return [
        *lines,
        f"cd {_words(root)}",
        "pivot_root . mnt",
        "cd /",
        "umount --lazy /mnt",
        "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _words(*paths: Path | str) -> str:
    return " ".join(shlex.quote(str(path)) for path in paths)
