"""Real stores for ccache: a redis-server, nginx with WebDAV, and a proxy that makes a store slow."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from integration.host import apt_install

from support.port import wait_until

if TYPE_CHECKING:
    from typing_extensions import Self

NGINX = """\
daemon off;
user {user};
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  server {{
    listen 127.0.0.1:{port};
    root {directory}/files;
    location / {{
      dav_methods PUT DELETE;
      create_full_put_path on;
      client_max_body_size 100m;
      auth_basic cache;
      auth_basic_user_file {directory}/users;
    }}
  }}
}}
"""


@dataclass
class Store:
    """A server that a test can stop, or make hang."""

    port: int
    command: list[str]
    process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server, and wait until it accepts connections."""
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert wait_until(self.answers), self.command

    def answers(self) -> bool:
        """Return whether the server accepts connections."""
        with suppress(OSError), closing(socket.create_connection(("127.0.0.1", self.port), timeout=1)):
            return True
        return False

    def stop(self) -> None:
        """End the server if it runs."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            self.process.wait(30)
            self.process = None

    def hold(self) -> None:
        """Make the server hang: it still accepts connections, but does not answer."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)


def free_port() -> int:
    """Return a port of loopback that nobody uses."""
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def redis(password: str | None = None) -> Iterator[Store]:
    """Run a redis-server that keeps everything in memory."""
    apt_install(["redis-server"], "the compile cache is tested with a real store")
    port = free_port()
    words = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with Store(port, [*words, *([] if password is None else ["--requirepass", password])]) as store:
        yield store


@contextmanager
def web_dav(directory: Path, user: str, password: str) -> Iterator[Store]:
    """Run an nginx that keeps files in ``directory`` for this user."""
    apt_install(["nginx-light"], "the compile cache is tested with a real store")
    (directory / "files").mkdir(parents=True)
    hashed = subprocess.run(["openssl", "passwd", "-apr1", password], capture_output=True, text=True, check=True)
    (directory / "users").write_text(f"{user}:{hashed.stdout}")
    server = getpass.getuser()
    if os.getuid() == 0:
        # If nginx is started by root, it changes to another user.
        server = "www-data"
        shutil.chown(directory / "files", server)
        for path in (directory, *directory.parents[:-1]):
            path.chmod(path.stat().st_mode | 0o005)
    port = free_port()
    configuration = directory / "nginx.conf"
    configuration.write_text(NGINX.format(directory=directory, port=port, user=server))
    with Store(port, ["nginx", "-c", str(configuration)]) as store:
        yield store


@contextmanager
def slow(port: int, seconds: float) -> Iterator[int]:
    """Yield a port that forwards to ``port`` and delays each part of an answer by ``seconds``."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        threading.Thread(target=_accept, args=(listener, port, seconds), daemon=True).start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, port: int, seconds: float) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_serve, args=(client, port, seconds), daemon=True).start()


def _serve(client: socket.socket, port: int, seconds: float) -> None:
    with client, socket.create_connection(("127.0.0.1", port)) as server:
        asking = threading.Thread(target=_pass_on, args=(client, server, 0.0), daemon=True)
        asking.start()
        _pass_on(server, client, seconds)
        asking.join()


def _pass_on(source: socket.socket, target: socket.socket, pause: float) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            time.sleep(pause)
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
