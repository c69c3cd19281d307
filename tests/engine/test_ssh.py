"""An engine behind ssh: a private ssh server on loopback, users of its own, and the engine's socket on the far side."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
import pytest

from nerves_docker_port.engine import tunnel as tunnel_module
from nerves_docker_port.engine.client import Engine
from nerves_docker_port.engine.tunnel import Tunnel
from nerves_docker_port.errors import Code, RunnerError
from support.sshd import Sshd
from support.system import System

PATIENCE = 60
"""Seconds; only ends a hang."""


@pytest.fixture(scope="module")
def server() -> Iterator[Sshd]:
    """A server that allows everything."""
    with Sshd() as server:
        yield server


@pytest.fixture(scope="module")
def strict_server() -> Iterator[Sshd]:
    """A server that forbids to forward sockets."""
    with Sshd(AllowStreamLocalForwarding="no") as server:
        yield server


@pytest.fixture
def near(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory of whoever is here, with room for everything that a tunnel makes."""
    with tempfile.TemporaryDirectory(prefix="ndp-") as name:
        runtime = Path(name) / "run"
        runtime.mkdir(mode=0o700)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
        yield Path(name)


@pytest.fixture
def far_socket(host: str) -> str:
    """The engine's socket, by its path."""
    return host.removeprefix("unix://")


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE} s: {what}"
        time.sleep(0.02)


def left(near: Path) -> list[str]:
    """What is left of tunnels: their directories, and processes that name them."""
    found = [str(path) for path in (near / "run").iterdir()]
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"{near}/run/" in (process / "cmdline").read_bytes().decode(errors="replace"):
                found.append(process.name)
    return found


def refused(environ: dict[str, str]) -> RunnerError:
    with pytest.raises(RunnerError) as caught:
        Engine.connect(environ)
    assert caught.value.hint
    return caught.value


def root(server: Sshd, path: str = "") -> str:
    return f"ssh://root@127.0.0.1:{server.port}{path}"


def test_an_engine_behind_ssh_is_an_engine(
    server: Sshd, near: Path, far_socket: str, client: docker.DockerClient
) -> None:
    url = root(server, far_socket)
    engine = Engine.connect({**server.client(near / "me"), "DOCKER_HOST": url})
    assert engine.endpoint.url == url
    assert engine.capabilities.engine_version == client.version()["Version"]
    assert (near / "run").stat().st_mode & 0o777 == 0o700
    (directory,) = (near / "run").iterdir()
    assert directory.stat().st_mode & 0o777 == 0o700
    # Other requests, some of them at once, need no other login.
    logins = len(server.sessions())
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(engine.api.info())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(answers) == 8
    assert len(server.sessions()) == logins
    engine.close()
    wait_until(lambda: left(near) == [], "everything of the tunnel is gone")


def test_a_system_is_built_on_it(server: Sshd, near: Path, far_socket: str, make_system: Callable[..., System]) -> None:
    """The far side is this host, so it sees the same directories."""
    system = make_system(uid=0)
    environ: dict[str, Any] = {**server.client(near / "me"), "DOCKER_HOST": root(server, far_socket)}
    with system.helper(**environ, XDG_RUNTIME_DIR=str(near / "run")) as helper:
        helper.request("build", system.args()).value()
    assert system.artifact.exists()
    wait_until(lambda: left(near) == [], "everything of the tunnel is gone")


def test_a_context_may_name_it(server: Sshd, near: Path, far_socket: str) -> None:
    environ = server.client(near / "me")
    meta = near / "me" / ".docker" / "contexts" / "meta" / hashlib.sha256(b"far").hexdigest()
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text(json.dumps({"Endpoints": {"docker": {"Host": root(server, far_socket)}}}))
    engine = Engine.connect({**environ, "DOCKER_CONTEXT": "far"})
    assert engine.api.ping()
    assert engine.endpoint.origin == 'DOCKER_CONTEXT "far"'
    engine.close()
    wait_until(lambda: left(near) == [], "everything of the tunnel is gone")


def test_the_persons_configuration_counts(server: Sshd, near: Path, far_socket: str) -> None:
    """An alias with a port and a user; and a command, a forwarded port and a master of the person's own sessions."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = f"""
Host far
  HostName 127.0.0.1
  Port {server.port}
  User root
  RemoteCommand echo not this
  RequestTTY force
  LocalForward 127.0.0.1:{taken.getsockname()[1]} 127.0.0.1:1
  ControlMaster auto
  ControlPath {near}/mine-%C
  ControlPersist yes
"""
        environ = server.client(near / "me", config=config)
        engine = Engine.connect({**environ, "DOCKER_HOST": f"ssh://far{far_socket}"})
        assert engine.api.ping()
        engine.close()
    wait_until(lambda: left(near) == [], "everything of the tunnel is gone")
    assert list(near.glob("mine-*")) == []


@pytest.mark.parametrize(
    "option", ["ClearAllForwardings yes", "SessionType none", "StdinNull yes", "ForkAfterAuthentication yes"]
)
def test_what_the_persons_configuration_has_for_other_sessions_does_not_count(
    server: Sshd, near: Path, far_socket: str, option: str
) -> None:
    config = f"Host far\n  HostName 127.0.0.1\n  Port {server.port}\n  User root\n  {option}\n"
    engine = Engine.connect({**server.client(near / "me", config=config), "DOCKER_HOST": f"ssh://far{far_socket}"})
    assert engine.api.ping()
    engine.close()
    wait_until(lambda: left(near) == [], "everything of the tunnel is gone")


@pytest.mark.parametrize("version", ["OpenSSH_8.6p1, LibreSSL 3.3", "OpenSSH_7.4p1", "something else"])
def test_an_older_ssh_is_not_given_options_that_it_does_not_know(
    server: Sshd, near: Path, far_socket: str, version: str
) -> None:
    programs = near / "bin"
    programs.mkdir()
    (programs / "ssh").write_text(
        f'#!/bin/sh\n[ "$1" = -V ] && exec echo "{version}" >&2\n'
        f'case "$*" in *SessionType*) exit 255 ;; esac\nexec {near}/me/ssh "$@"\n'
    )
    (programs / "ssh").chmod(0o755)
    environ = server.client(near / "me")
    path = f"{programs}:{environ['PATH']}"
    engine = Engine.connect({**environ, "PATH": path, "DOCKER_HOST": root(server, far_socket)})
    assert engine.api.ping()
    engine.close()


def test_a_jump_host_is_jumped_over(server: Sshd, near: Path, far_socket: str) -> None:
    hop = f"HostName 127.0.0.1\n  Port {server.port}\n  User root\n"
    config = f"Host far\n  {hop}  ProxyJump hop\nHost hop\n  {hop}"
    engine = Engine.connect({**server.client(near / "me", config=config), "DOCKER_HOST": f"ssh://far{far_socket}"})
    assert engine.api.ping()
    engine.close()
    wait_until(lambda: left(near) == [], "everything of the tunnel is gone")
    wait_until(lambda: server.sessions() == [], "both connections have ended")


def test_a_server_that_allows_one_session_is_enough(near: Path, far_socket: str) -> None:
    with Sshd(MaxSessions="1") as server:
        engine = Engine.connect({**server.client(near / "me"), "DOCKER_HOST": root(server, far_socket)})
        assert engine.api.ping()
        engine.close()
    wait_until(lambda: left(near) == [], "everything of the tunnel is gone")


def test_a_login_shell_that_prints_something_is_no_obstacle(server: Sshd, near: Path, far_socket: str) -> None:
    profile = server.directory / "noise"
    profile.write_text('#!/bin/sh\necho Welcome to this machine\necho up\nexec /bin/sh "$@"\n')
    profile.chmod(0o755)
    user = server.add_user("ndp-noisy", "root")
    subprocess.run(["usermod", "--shell", str(profile), user], check=True, capture_output=True)
    environ = server.client(near / "me")
    error = refused({**environ, "DOCKER_HOST": f"ssh://{user}@127.0.0.1:{server.port}/nowhere.sock"})
    assert "there is no engine's socket there: /nowhere.sock" in error.message


# --- the far socket ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "variables"),
    [
        ('[ "$1 $2" = "context inspect" ] && echo unix://SOCKET', {}),
        ("exit 1", {"DOCKER_HOST": "unix://SOCKET"}),
        ("exit 1", {"XDG_RUNTIME_DIR": "RUNTIME"}),
    ],
    ids=["context", "variable", "rootless"],
)
def test_without_a_path_the_far_side_is_asked(
    near: Path, far_socket: str, script: str, variables: dict[str, str]
) -> None:
    (near / "docker.sock").symlink_to(far_socket)

    def fill(text: str) -> str:
        return text.replace("SOCKET", far_socket).replace("RUNTIME", str(near))

    with Sshd(variables={name: fill(value) for name, value in variables.items()}) as server:
        server.program("docker", fill(script))
        engine = Engine.connect({**server.client(near / "me"), "DOCKER_HOST": root(server)})
        assert engine.api.ping()
        engine.close()
    wait_until(lambda: left(near) == [], "everything of the tunnel is gone")


def test_where_there_is_no_socket_those_that_were_looked_for_are_named(server: Sshd, near: Path) -> None:
    error = refused({**server.client(near / "me"), "DOCKER_HOST": root(server, "/nowhere/docker.sock")})
    assert error.code is Code.ENGINE_UNREACHABLE
    assert error.message.endswith("but there is no engine's socket there: /nowhere/docker.sock")
    server.program("docker", "exit 1")
    user = server.add_user("ndp-nothing")
    error = refused({**server.client(near / "me"), "DOCKER_HOST": f"ssh://{user}@127.0.0.1:{server.port}"})
    assert "/var/run/docker.sock" in error.message
    assert "podman.sock" in error.message
    wait_until(lambda: left(near) == [], "everything of the tunnel is gone")


def test_a_user_without_a_right_to_the_socket_is_told_which(server: Sshd, near: Path) -> None:
    user = server.add_user("ndp-plain")
    path = near / "private.sock"
    near.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o600)
        url = f"ssh://{user}@127.0.0.1:{server.port}{path}"
        error = refused({**server.client(near / "me"), "DOCKER_HOST": url})
    assert error.code is Code.ENGINE_PERMISSION
    assert f"the user {user} may not open the engine's socket {path} there" in error.message
    assert f"usermod -aG docker {user}" in (error.hint or "")
    wait_until(lambda: left(near) == [], "everything of the tunnel is gone")


def test_a_socket_without_an_engine_is_told_in_the_far_sides_words(server: Sshd, near: Path) -> None:
    path = near / "dead.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    server.program("docker", "echo it says connection refused >&2; exit 1")
    error = refused({**server.client(near / "me"), "DOCKER_HOST": root(server, str(path))})
    assert f"no engine answers at {path} there: it says connection refused" in error.message
    wait_until(lambda: left(near) == [], "everything of the tunnel is gone")


# --- ssh's own words -----------------------------------------------------------------------------------------------


def test_an_unknown_host_key_is_told_in_sshs_words(server: Sshd, near: Path, far_socket: str) -> None:
    environ = server.client(near / "me", known=False)
    error = refused({**environ, "DOCKER_HOST": root(server, far_socket)})
    assert error.code is Code.ENGINE_UNREACHABLE
    assert "Host key verification failed." in error.message
    assert f"`ssh -p {server.port} root@127.0.0.1`" in (error.hint or "")
    wait_until(lambda: left(near) == [], "everything of the tunnel is gone")


def test_a_changed_host_key_is_told_in_sshs_words(server: Sshd, near: Path, far_socket: str) -> None:
    environ = server.client(near / "me")
    other = (server.directory / "other.pub").read_text()
    (near / "me" / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {other}")
    error = refused({**environ, "DOCKER_HOST": root(server, far_socket)})
    assert "Host key verification failed." in error.message
    assert "the key has changed" in (error.hint or "")


def test_a_refused_key_is_told_in_sshs_words(server: Sshd, near: Path, far_socket: str) -> None:
    environ = server.client(near / "me", key="other")
    error = refused({**environ, "DOCKER_HOST": root(server, far_socket)})
    assert "Permission denied (publickey" in error.message
    assert "ssh-add" in (error.hint or "")
    wait_until(lambda: left(near) == [], "everything of the tunnel is gone")


@pytest.mark.parametrize(
    ("shell", "told"),
    [("/usr/sbin/nologin", ": This account is currently not available."), ("/bin/false", "")],
)
def test_a_user_who_may_run_nothing_is_told_so(near: Path, shell: str, told: str) -> None:
    with Sshd() as server:
        user = server.add_user("mute")
        subprocess.run(["usermod", "--shell", shell, user], check=True)
        error = refused({**server.client(near), "DOCKER_HOST": f"ssh://{user}@127.0.0.1:{server.port}"})
    assert error.message.endswith(f"the far side runs no commands for this user{told}")
    assert f"`ssh -p {server.port} {user}@127.0.0.1 true` must end without an error" in (error.hint or "")


def test_a_forced_command_is_told_with_what_it_says(near: Path) -> None:
    with Sshd(ForceCommand="echo only git here") as server:
        error = refused({**server.client(near), "DOCKER_HOST": root(server)})
    assert error.message.endswith("the far side runs no commands for this user: only git here")
    assert "ForceCommand" in (error.hint or "")


@pytest.mark.parametrize(
    ("config", "told", "remedy"),
    [
        ("Nonsense yes", "Bad configuration option: nonsense", "Correct that line"),
        ("Host *\nKexAlgorithms diffie-hellman-group1-sha1", "Unable to negotiate", "KexAlgorithms"),
        ("Host *\nProxyCommand false", "Connection closed", "test that host or command alone"),
    ],
)
def test_a_configuration_that_does_not_fit_is_told_with_its_remedy(
    server: Sshd, near: Path, config: str, told: str, remedy: str
) -> None:
    error = refused({**server.client(near, config=config), "DOCKER_HOST": root(server)})
    assert told in error.message
    assert remedy in (error.hint or "")


def test_a_key_that_others_may_read_is_told_with_its_remedy(server: Sshd, near: Path) -> None:
    environ = server.client(near, key="open")
    shutil.copy(server.directory / "client", server.directory / "open")
    (server.directory / "open").chmod(0o644)
    assert "chmod 600" in (refused({**environ, "DOCKER_HOST": root(server)}).hint or "")


def test_a_remedy_quotes_what_a_shell_would_read_otherwise(server: Sshd, near: Path) -> None:
    error = refused({**server.client(near), "DOCKER_HOST": f"ssh://FIRM%5Cme@127.0.0.1:{server.port}"})
    assert f"-p {server.port} 'FIRM\\me@127.0.0.1' true`" in (error.hint or "")


def test_an_ssh_that_does_not_start_is_told(near: Path) -> None:
    (near / "ssh").write_text("#!/no/such/interpreter\n")
    (near / "ssh").chmod(0o755)
    error = refused({"PATH": f"{near}:{os.environ['PATH']}", "HOME": str(near), "DOCKER_HOST": "ssh://far"})
    assert error.message.endswith(f"{near}/ssh does not start: No such file or directory")


def test_a_host_that_is_not_there_is_told_in_sshs_words(server: Sshd, near: Path) -> None:
    environ = server.client(near / "me")
    error = refused({**environ, "DOCKER_HOST": "ssh://nowhere.invalid"})
    assert "Could not resolve hostname nowhere.invalid" in error.message
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        error = refused({**environ, "DOCKER_HOST": f"ssh://127.0.0.1:{free.getsockname()[1]}"})
    assert "Connection refused" in error.message
    assert "ssh://HOST:PORT" in (error.hint or "")
    wait_until(lambda: left(near) == [], "everything of the tunnel is gone")


def test_without_ssh_it_says_what_to_install(near: Path) -> None:
    error = refused({"PATH": str(near), "HOME": str(near), "DOCKER_HOST": "ssh://far"})
    assert "which is not installed here" in error.message


# --- where forwarding is forbidden ---------------------------------------------------------------------------------


def test_where_forwarding_is_forbidden_the_far_cli_is_the_way(
    strict_server: Sshd, near: Path, far_socket: str, client: docker.DockerClient
) -> None:
    docker_cli = shutil.which("docker")
    assert docker_cli is not None
    strict_server.program("docker", f'exec {docker_cli} "$@"')
    engine = Engine.connect({**strict_server.client(near / "me"), "DOCKER_HOST": root(strict_server, far_socket)})
    assert engine.capabilities.engine_version == client.version()["Version"]
    # Connections that stay open do not hold up others.
    events = engine.api.get(engine.url("/events"), stream=True)
    assert all(engine.api.ping() for _ in range(5))
    # The whole answer: the SDK's own way to close a stream of events leaves the connection to the garbage collector.
    events.close()
    strict_server.cut()
    wait_until(lambda: pings(engine), "the engine answers again")
    engine.close()
    wait_until(lambda: left(near) == [], "everything of the tunnel is gone")


def test_where_forwarding_is_forbidden_and_there_is_no_cli_it_says_so(near: Path, open_host: str) -> None:
    with Sshd(path="/nonexistent", AllowStreamLocalForwarding="no") as server:
        for program in ("/usr/bin/id", "/bin/sh", "/bin/cat"):
            (server.programs / Path(program).name).symlink_to(program)
        user, path = server.add_user("ndp-plain"), open_host.removeprefix("unix://")
        url = f"ssh://{user}@127.0.0.1:{server.port}{path}"
        error = refused({**server.client(near / "me"), "DOCKER_HOST": url})
    assert error.code is Code.ENGINE_UNREACHABLE
    assert f"no engine answers at {path} there: channel " in error.message
    assert "open failed" in error.message
    assert "AllowStreamLocalForwarding yes" in (error.hint or "")
    wait_until(lambda: left(near) == [], "everything of the tunnel is gone")


# --- when it breaks ------------------------------------------------------------------------------------------------


def pings(engine: Engine) -> bool:
    try:
        with engine.failures("while it was tested"):
            return bool(engine.api.ping())
    except RunnerError:
        return False


def test_a_tunnel_that_is_cut_in_a_request_is_made_again(server: Sshd, near: Path, far_socket: str) -> None:
    engine = Engine.connect({**server.client(near / "me"), "DOCKER_HOST": root(server, far_socket)})
    ended: list[Exception] = []
    began = threading.Event()

    def follow() -> None:
        try:
            with engine.failures("while it was followed"):
                events = engine.api.events(decode=True)
                began.set()
                for _event in events:
                    pass
        except RunnerError as error:
            ended.append(error)
        else:
            ended.append(RuntimeError("the stream ended"))

    thread = threading.Thread(target=follow)
    thread.start()
    assert began.wait(PATIENCE)
    server.cut()
    thread.join(PATIENCE)
    assert len(ended) == 1
    wait_until(lambda: pings(engine), "the engine answers again")
    # Once more, and this time the host is away for a while.
    server.stop()
    wait_until(lambda: not pings(engine), "the engine is gone")
    wait_until(lambda: (tunnel_of(engine).trouble or "").count("Connection refused"), "ssh says why")
    with pytest.raises(RunnerError, match="Connection refused"), engine.failures("while it was tested"):
        engine.api.ping()
    server.start()
    wait_until(lambda: pings(engine), "the engine answers again")
    wait_until(lambda: tunnel_of(engine).trouble is None, "nothing is wrong any more")
    engine.close()
    wait_until(lambda: left(near) == [], "everything of the tunnel is gone")


def tunnel_of(engine: Engine) -> Tunnel:
    tunnel = engine._tunnel
    assert tunnel is not None
    return tunnel


def test_closing_while_the_far_side_is_away_is_quick_and_leaves_nothing(
    server: Sshd, near: Path, far_socket: str
) -> None:
    engine = Engine.connect({**server.client(near / "me"), "DOCKER_HOST": root(server, far_socket)})
    server.stop()
    wait_until(lambda: tunnel_of(engine).trouble, "ssh says that the far side is away")
    began = time.monotonic()
    engine.close()
    assert time.monotonic() - began < tunnel_module.LOGIN_TIMEOUT / 2
    wait_until(lambda: left(near) == [], "everything of the tunnel is gone")
    server.start()


HOLDER = """
import os, sys, time
from nerves_docker_port.engine.client import Engine
engine = Engine.connect(dict(os.environ))
print("connected", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("kind", ["forwarded", "dial-stdio"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, None])
def test_nothing_is_left_however_the_helper_ends(
    server: Sshd, strict_server: Sshd, near: Path, far_socket: str, kind: str, number: signal.Signals | None
) -> None:
    used = server if kind == "forwarded" else strict_server
    docker_cli = shutil.which("docker")
    assert docker_cli is not None
    used.program("docker", f'exec {docker_cli} "$@"')
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        env={
            **os.environ,
            **used.client(near / "me"),
            "DOCKER_HOST": root(used, far_socket),
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    assert holder.stdout.readline() == "connected\n"
    assert len(left(near)) > 1
    if number is None:
        holder.stdin.close()
    else:
        holder.send_signal(number)
    holder.wait(PATIENCE)
    holder.stdout.close()
    if number is not None:
        holder.stdin.close()
    wait_until(lambda: left(near) == [], "everything of the tunnel is gone")
    wait_until(lambda: used.sessions() == [], "the far side's sessions have ended")
