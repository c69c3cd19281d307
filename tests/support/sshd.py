"""A private ssh server on loopback, with its own users and keys. It does not change the machine's ssh."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from integration.host import apt_install

if TYPE_CHECKING:
    from typing_extensions import Self

START_TIMEOUT = 30
"""Seconds. The limit is only reached if the server hangs."""


class Sshd:
    """The server. The directory ``programs`` is the first one in the PATH of its sessions."""

    def __init__(self, *, path: str = "/usr/bin:/bin", variables: dict[str, str] | None = None, **options: str) -> None:
        """Make keys and a free port.

        ``path`` is the rest of the PATH of sessions, ``variables`` are further variables of sessions, and ``options``
        are options of sshd_config.
        """
        apt_install(["openssh-server", "openssh-client"], "the tests reach an engine through ssh")
        self.directory = Path(tempfile.mkdtemp(prefix="ndp-"))
        self.directory.chmod(0o755)
        self.programs = self.directory / "bin"
        self.programs.mkdir()
        self._options = options
        self._variables = {"PATH": f"{self.programs}:{path}", **(variables or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._users: list[str] = []
        for name in ("host", "client", "other"):
            self._keygen(name)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])

    def __enter__(self) -> Self:
        # Privilege separation wants this directory (sshd(8)); Debian's service makes it.
        Path("/run/sshd").mkdir(exist_ok=True)
        config = {
            "Port": str(self.port),
            "ListenAddress": "127.0.0.1",
            "HostKey": str(self.directory / "host"),
            "AuthorizedKeysFile": str(self.directory / "client.pub"),
            "PidFile": "none",
            "UsePAM": "no",
            "StrictModes": "no",
            "PasswordAuthentication": "no",
            "MaxStartups": "10:30:100",
            "SetEnv": " ".join(f"{name}={value}" for name, value in self._variables.items()),
            **self._options,
        }
        path = self.directory / "sshd_config"
        path.write_text("".join(f"{name} {value}\n" for name, value in config.items()))
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        for user in self._users:
            subprocess.run(["userdel", "--force", user], check=True, capture_output=True)
        shutil.rmtree(self.directory)

    def start(self) -> None:
        """Start the server and wait until it listens."""
        log = (self.directory / "log").open("ab")
        with log:
            self._process = subprocess.Popen(
                ["/usr/sbin/sshd", "-D", "-e", "-f", str(self.directory / "sshd_config")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            assert self._process.poll() is None, (self.directory / "log").read_text()
            assert time.monotonic() < deadline, "sshd does not listen"
            time.sleep(0.02)

    def stop(self) -> None:
        """Kill the server and all its sessions, as a power cut of that host would do."""
        assert self._process is not None
        for pid in [*self.sessions(), self._process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def sessions(self) -> list[int]:
        """Return the ids of the server's processes for connections."""
        assert self._process is not None
        return _descendants(self._process.pid)

    def cut(self) -> None:
        """Break every connection. The server still runs."""
        for pid in self.sessions():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def add_user(self, name: str, *groups: str) -> str:
        """Add a user who may log in with the key ``client``. Return the user's name, which no other server uses."""
        name = f"{name}-{self.port}"
        extra = ["--groups", ",".join(groups)] if groups else []
        # The password `*` matches nothing. A locked account (`!`) could not log in with a key.
        command = ["useradd", "--no-create-home", "--home-dir", str(self.directory), "--shell", "/bin/sh"]
        subprocess.run([*command, "--password", "*", *extra, name], check=True, capture_output=True)
        self._users.append(name)
        return name

    def program(self, name: str, script: str) -> None:
        """Add a program to the far side."""
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def client(self, directory: Path, *, key: str = "client", known: bool = True, config: str = "") -> dict[str, str]:
        """Return the environment of a client whose `ssh` uses its own configuration.

        ssh gets the home directory from the user database and ignores HOME. So the PATH has a script `ssh`, which calls
        ssh with the configuration as the argument of -F.
        """
        directory.mkdir(parents=True, exist_ok=True)
        hosts = directory / "known_hosts"
        public = (self.directory / "host.pub").read_text()
        hosts.write_text(f"[127.0.0.1]:{self.port} {public}" if known else "")
        lines = f"IdentityFile {self.directory}/{key}\nIdentitiesOnly yes\nUserKnownHostsFile {hosts}\n"
        (directory / "config").write_text(f"{config}\nHost *\n{lines}GlobalKnownHostsFile /dev/null\n")
        program = directory / "ssh"
        program.write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {directory}/config "$@"\n')
        program.chmod(0o755)
        return {"PATH": f"{directory}:{os.environ['PATH']}", "HOME": str(directory)}

    def _keygen(self, name: str) -> None:
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(self.directory / name)]
        subprocess.run(command, check=True, capture_output=True)


def _descendants(pid: int) -> list[int]:
    with suppress(OSError):
        children = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return children + [one for child in children for one in _descendants(child)]
    return []
