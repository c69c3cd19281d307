"""A Unix socket on this host that is forwarded to an engine's socket on another host, through OpenSSH.

One ssh process runs as long as the engine is used. It uses the user's own configuration (aliases, ports, jump hosts,
keys, agent). The other host, the far side, needs only an ssh server. The rest of the helper uses the socket like a
local one, and does not know about ssh.

That ssh process is also the master of a control socket, so that all further commands and forwarded connections use it
without another login. If the far side forbids to forward sockets, the helper runs `docker system dial-stdio` there for
each connection, as the docker CLI does.

If the connection breaks, the helper starts ssh again until that succeeds. Meanwhile the socket refuses connections, and
the session retries. ssh ends when this process ends in any way, because its standard input is a pipe from this process.
A shell that reads a second such pipe then removes the directory with the sockets.
"""

from __future__ import annotations

import collections
import errno
import os
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nerves_docker_port import errors, watcher
from nerves_docker_port.engine.endpoint import SOCKET_PATH_LIMIT, Endpoint, SshAddress

LOGIN_TIMEOUT = 60
"""Seconds that ssh may take from its start until it is logged in. A jump host or a slow link takes some of them."""

ANSWER_TIMEOUT = 30
"""Seconds that the far side may take for an answer after the login."""

WORDS_TIMEOUT = 2
"""Seconds that ssh may take to print why it has closed a connection."""

STOP_TIMEOUT = 5
"""Seconds that ssh may take to end after it was told to end."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
"""Seconds between two attempts to connect again. Each pause is twice as long as the one before."""

_SSH_FAILED = 255
"""The exit status of ssh for its own errors. Any other status is that of the command on the far side (ssh(1))."""

_MARK = "nerves-docker-port"
_UP = f"{_MARK} up"

_OPTIONS = (
    # ssh must not ask anything, because nobody can answer. It prints an error instead.
    *("-o", "BatchMode=yes", "-o", "LogLevel=INFO", "-o", "ConnectTimeout=30"),
    # ssh notices a dead link after 20 to 30 s. That leaves time to connect again before the patience of a build ends.
    *("-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=2"),
    # These options of the user's configuration are turned off, because they are for the user's own sessions: another
    # command, or forwarded ports, which another session may already use.
    *("-o", "RemoteCommand=none", "-o", "ExitOnForwardFailure=no", "-o", "ControlPersist=no"),
    *("-o", "ClearAllForwardings=no", "-T", "-a", "-x"),
)

_SESSION_OPTIONS = ("-o", "SessionType=default", "-o", "StdinNull=no", "-o", "ForkAfterAuthentication=no")
"""Further options for each ssh command. An older ssh does not know them, and an unknown option is an error for it."""
_SESSION_OPTIONS_SINCE = (8, 7)
"""The version of OpenSSH that brought them (https://www.openssh.com/txt/release-8.7)."""

_SCRIPT = Path(__file__).parent.parent / "scripts" / "far_socket.sh"

_SOCKET, _CONTROL, _WORDS = "e", "c", "w"
# The path ends with `/ndp-xxxxxxxx/c`. ssh first appends a dot and 16 characters to the name of its control socket
# (mux.c).
_LONGEST_NAME = len(f"/ndp-{'x' * 8}/{_CONTROL}.{'x' * 16}")


@dataclass(frozen=True)
class FarSide:
    """The answer of scripts/far_socket.sh on the far side: the user, and the sockets of an engine there."""

    user: str = ""
    has_cli: bool = False
    elsewhere: str = ""
    """The endpoint of the far side's docker CLI, if that is not a Unix socket."""
    usable: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()
    """The sockets that the user may not use."""
    missing: tuple[str, ...] = ()
    """The paths at which there is no socket."""


class Tunnel:
    """The local socket and its ssh process. ``close`` removes both."""

    def __init__(self, endpoint: Endpoint, environ: Mapping[str, str]) -> None:
        """Log in and find the engine's socket on the far side.

        Raises ``RunnerError`` with the code ``:engine_unreachable`` or ``:engine_permission``.
        """
        assert isinstance(endpoint.address, SshAddress)
        self._endpoint = endpoint
        self._address = endpoint.address
        self._environ = dict(environ)
        program = shutil.which("ssh", path=environ.get("PATH"))
        if program is None:
            raise errors.ssh_missing(endpoint.url, endpoint.origin)
        self._ssh = program
        self._options = (*_OPTIONS, *(_SESSION_OPTIONS if _version(program) >= _SESSION_OPTIONS_SINCE else ()))
        self._closing = threading.Event()
        self._master: _Master | None = None
        self._relay: _Relay | None = None
        self._far_path = ""
        self.trouble: str | None = None
        """The message of ssh if the connection could not be made again, or ``None`` while it exists."""
        self._directory = _private_directory()
        self._remover = _remove_at_end(self._directory)
        self._supervisor = threading.Thread(target=self._supervise, name="tunnel", daemon=True)
        try:
            self._log_in()
            self._find_engine()
        except BaseException:
            self.close()
            raise
        self._supervisor.start()

    @property
    def socket_path(self) -> str:
        """The path of the socket on this host."""
        return str(self._directory / _SOCKET)

    def close(self) -> None:
        """End ssh and remove the socket. This closes all connections."""
        self._closing.set()
        if self._relay is not None:
            self._relay.close()
        if self._master is not None:
            self._master.stop()
        while self._supervisor.is_alive():
            # The supervisor may just have started another ssh process.
            self._supervisor.join(0.1)
            if self._master is not None:
                self._master.stop()
        assert self._remover.stdin is not None
        self._remover.stdin.close()
        self._remover.wait()

    # --- the connection ----------------------------------------------------------------------------------------------

    def _log_in(self) -> None:
        """Start ssh and wait until it is logged in. Raises ``RunnerError``."""
        (self._directory / _CONTROL).unlink(missing_ok=True)
        # The login shell may print something before the line `up`. `exec cat` ends when the pipe to ssh is closed.
        try:
            self._master = _Master(self._command("-M", command=f"echo {_UP}; exec cat"), self._environ)
        except OSError as error:
            raise self._failed(f"{self._ssh} does not start: {error.strerror}") from error
        if not self._master.wait_until_up(LOGIN_TIMEOUT):
            status = self._master.status
            self._master.stop()
            words = self._master.words()
            if status not in (None, _SSH_FAILED):
                words = ": ".join(filter(None, (errors.SSH_NO_SHELL, words)))
            raise self._failed(words or errors.NO_ANSWER)

    def _find_engine(self) -> None:
        """Find an engine on the far side, and connect the local socket with it. Raises ``RunnerError``."""
        far = self._ask(self._address.path)
        if far.has_cli and far.elsewhere:
            # The engine is not at a Unix socket there, so only the far side's CLI can connect to it.
            words = ""
        elif far.usable:
            self._far_path = far.usable[0]
            self._forward()
            if self._answers():
                return
            assert self._master is not None
            words = self._master.refusal()
        elif far.forbidden:
            raise errors.ssh_socket_forbidden(*self._where(), far.user, far.forbidden[0])
        else:
            raise errors.ssh_no_socket(*self._where(), dict.fromkeys(far.missing))
        if far.has_cli:
            # The far side may forbid to forward sockets.
            self._use_dial_stdio()
            if self._answers():
                return
            assert self._relay is not None
            words = self._relay.words() or words
        raise errors.ssh_no_engine(*self._where(), self._far_path or far.elsewhere, words)

    def _forward(self) -> None:
        (self._directory / _SOCKET).unlink(missing_ok=True)
        local, far = _for_forwarding(self.socket_path), _for_forwarding(self._far_path)
        ended = self._run(self._command("-O", "forward", "-L", f"{local}:{far}"), "")
        if ended.returncode != 0:
            raise self._failed(ended.stderr.strip())

    def _failed(self, words: str) -> errors.RunnerError:
        return errors.ssh_failed(*self._where(), words)

    def _where(self) -> tuple[str, str, str]:
        """Return the first arguments of each error: endpoint, origin, and the host as it is typed after `ssh`."""
        user = f"{self._address.user}@" if self._address.user else ""
        port = f"-p {self._address.port} " if self._address.port else ""
        return self._endpoint.url, self._endpoint.origin, port + shlex.quote(f"{user}{self._address.host}")

    def _use_dial_stdio(self) -> None:
        host = f" --host {shlex.quote(f'unix://{self._address.path}')}" if self._address.path else ""
        (self._directory / _SOCKET).unlink(missing_ok=True)
        command = self._command("-o", "ControlMaster=no", command=f"docker{host} system dial-stdio")
        self._relay = _Relay(self.socket_path, command, self._environ, self._directory / _WORDS)

    def _answers(self) -> bool:
        """Return whether an engine answers at the local socket.

        To connect alone proves nothing, because ssh accepts every connection, and closes it if there is no engine.
        """
        with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ANSWER_TIMEOUT)
            connection.connect(self.socket_path)
            connection.sendall(b"GET /_ping HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n")
            return bool(connection.recv(1))
        return False

    def _supervise(self) -> None:
        """Connect again each time the connection has ended, until the tunnel is closed."""
        while not self._closing.is_set():
            assert self._master is not None
            self._master.wait()
            self._master.stop()
            pause = _FIRST_PAUSE
            while not self._closing.wait(pause) and not self._connect_again():
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _connect_again(self) -> bool:
        try:
            self._log_in()
            self.trouble = None
            if self._relay is None:
                self._forward()
        except errors.RunnerError as error:
            self.trouble = error.message
            return False
        except OSError as error:
            self.trouble = f"{self._ssh}: {error.strerror}"
            return False
        return True

    # --- command lines of ssh ----------------------------------------------------------------------------------------

    def _command(self, *options: str, command: str | None = None) -> list[str]:
        """Return a command line of ssh for this host, which uses the control socket."""
        address = self._address
        words = [self._ssh, *self._options, "-S", _escaped(str(self._directory / _CONTROL)), *options]
        if address.user:
            words += ["-l", address.user]
        if address.port:
            words += ["-p", address.port]
        return [*words, "--", address.host, *([] if command is None else [command])]

    def _run(self, command: Sequence[str], text: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                command,
                env=self._environ,
                input=text,
                capture_output=True,
                timeout=ANSWER_TIMEOUT,
                encoding="utf-8",
                errors="replace",
                check=False,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired as error:
            raise self._failed(errors.NO_ANSWER) from error

    def _ask(self, path: str) -> FarSide:
        """Ask the far side about the socket ``path``, or about all sockets that an engine can have if that is empty."""
        command = self._command("-o", "ControlMaster=no", command=f"sh -s -- {shlex.quote(path)}")
        ended = self._run(command, _SCRIPT.read_text(encoding="utf-8"))
        lines = re.findall(rf"^{_MARK} (\w+) (.*)$", ended.stdout, re.MULTILINE)
        if not lines:
            raise self._failed(ended.stderr.strip() or errors.SSH_NO_SHELL)
        found: dict[str, list[str]] = collections.defaultdict(list)
        for what, value in lines:
            found[what].append(value)
        return FarSide(
            user="".join(found["user"]),
            has_cli=bool(found["cli"]),
            elsewhere="".join(found["elsewhere"]),
            usable=tuple(found["usable"]),
            forbidden=tuple(found["forbidden"]),
            missing=tuple(found["missing"]),
        )


class _Master:
    """The ssh process that logs in and that the other ssh processes use."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        self._up, self._spoken = threading.Event(), threading.Condition()
        self._words: collections.deque[str] = collections.deque(maxlen=20)
        self._output: collections.deque[str] = collections.deque(maxlen=20)
        self._process = subprocess.Popen(
            command,
            env=dict(environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            # ssh must not get the Ctrl-C of the terminal. Mix decides what Ctrl-C does.
            start_new_session=True,
        )
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read_output, self._read_words)]
        for reader in self._readers:
            reader.start()

    def wait_until_up(self, seconds: float) -> bool:
        """Wait until ssh is logged in or has ended. Return whether it is logged in."""
        return self._up.wait(seconds) and self._process.poll() is None

    def wait(self) -> None:
        """Wait for the end of ssh."""
        self._process.wait()

    @property
    def status(self) -> int | None:
        """The exit status of ssh, or ``None`` while it runs."""
        return self._process.poll()

    def words(self) -> str:
        """Return what ssh, and the far side before the login was complete, printed before ssh ended."""
        for reader in self._readers:
            reader.join(STOP_TIMEOUT)
        return "\n".join([*self._words, *self._output])

    def refusal(self) -> str:
        """Return what ssh printed about a connection that it could not open on the far side. Wait a moment for that."""

        def refusals() -> list[str]:
            return [line for line in self._words if "open failed" in line]

        with self._spoken:
            self._spoken.wait_for(refusals, WORDS_TIMEOUT)
            return "\n".join(refusals()[-1:])

    def stop(self) -> None:
        """End ssh by closing its standard input and by TERM, and kill it after ``STOP_TIMEOUT`` seconds."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for reader in self._readers:
            reader.join(STOP_TIMEOUT)

    def _read_output(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                if line.strip() == _UP:
                    self._up.set()
                elif not self._up.is_set():
                    self._output.append(line.rstrip())
        # Wake the thread that waits for the login. It sees by the status of the process that ssh has ended.
        self._process.wait()
        self._up.set()

    def _read_words(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                with self._spoken:
                    self._words.append(line.rstrip())
                    self._spoken.notify_all()


class _Relay:
    """A local socket. Each of its connections becomes the standard input and output of a command."""

    def __init__(self, path: str, command: Sequence[str], environ: Mapping[str, str], words: Path) -> None:
        self._command = list(command)
        self._environ = dict(environ)
        self._words = words
        self._processes: list[subprocess.Popen[bytes]] = []
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._accept, name="relay", daemon=True)
        self._thread.start()

    def words(self) -> str:
        """Return what the last command printed on standard error."""
        with suppress(OSError):
            return self._words.read_text(encoding="utf-8", errors="replace").strip()
        return ""

    def close(self) -> None:
        """Accept no more connections and end the commands."""
        with suppress(OSError):
            # This wakes the thread that waits for the next connection.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(STOP_TIMEOUT)
        with self._lock:
            for process in self._processes:
                process.terminate()
            for process in self._processes:
                process.wait()

    def _accept(self) -> None:
        while True:
            try:
                connection, _address = self._listener.accept()
            except OSError:
                return
            with connection, self._words.open("wb") as words, self._lock:
                self._processes = [process for process in self._processes if process.poll() is None]
                process = subprocess.Popen(
                    self._command,
                    env=self._environ,
                    stdin=connection.fileno(),
                    stdout=connection.fileno(),
                    stderr=words,
                    start_new_session=True,
                )
                self._processes.append(process)


def _private_directory() -> Path:
    """Make a directory that only this user may enter, and whose path is short enough for the names of sockets."""
    for base in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"):
        if base and os.access(base, os.W_OK | os.X_OK) and len(os.fsencode(base)) + _LONGEST_NAME <= SOCKET_PATH_LIMIT:
            return Path(tempfile.mkdtemp(prefix="ndp-", dir=base))
    raise errors.not_writable(tempfile.gettempdir(), "The directory", os.strerror(errno.EACCES))


def _remove_at_end(directory: Path) -> subprocess.Popen[bytes]:
    """Start a shell that removes the directory when this process ends or closes the pipe to the shell."""
    return watcher.start('cat >/dev/null; rm -rf -- "$0"', str(directory))


def _version(program: str) -> tuple[int, int]:
    """Return the version of OpenSSH that ``program`` belongs to, or ``(0, 0)`` if the program does not tell it."""
    try:
        said = subprocess.run(
            [program, "-V"], stdin=subprocess.DEVNULL, capture_output=True, timeout=ANSWER_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0, 0
    found = re.search(rb"OpenSSH_(\d+)\.(\d+)", said.stdout + said.stderr)
    return (0, 0) if found is None else (int(found[1]), int(found[2]))


def _escaped(text: str) -> str:
    """Return a path in which ssh finds none of its tokens (ssh_config(5), TOKENS)."""
    return text.replace("%", "%%")


def _for_forwarding(path: str) -> str:
    """Return a path for an argument of -L, in which a colon is escaped (OpenSSH, readconf.c, parse_fwd_field)."""
    return _escaped(path).replace("\\", "\\\\").replace(":", "\\:")
