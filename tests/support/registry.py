"""A real registry on loopback (Debian's `docker-registry`), and a relay that can break a transfer in the middle."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from integration.host import apt_install

if TYPE_CHECKING:
    from typing_extensions import Self

USER, PASSWORD = "me", "secret"
# The bcrypt hash of the password, computed once: the registry accepts only bcrypt, which Python does not have.
_HTPASSWD = "me:$2b$04$.bH06dpGSDfRWdvmV/GU3OLykOdbAOesE43CMgyscm6/GccS2eqJq\n"

INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class Registry:
    """A registry with its own storage, which runs during the ``with`` block. Tags for it begin with ``host``."""

    def __init__(self, *, private: bool = False) -> None:
        self._private = private

    def __enter__(self) -> Self:
        apt_install(["docker-registry"], "the tests pull from a registry on loopback")
        self._directory = Path(tempfile.mkdtemp(prefix="ndp-registry-"))
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        config: dict[str, Any] = {
            "version": "0.1",
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": str(self._directory / "storage")}},
            "http": {"addr": self.host},
        }
        if self._private:
            (self._directory / "htpasswd").write_text(_HTPASSWD)
            config["auth"] = {"htpasswd": {"realm": "test", "path": str(self._directory / "htpasswd")}}
        # Every JSON text is also YAML.
        (self._directory / "config.yml").write_text(json.dumps(config))
        with (self._directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                ["docker-registry", "serve", self._directory / "config.yml"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 60
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return self
            log_text = (self._directory / "log").read_text()
            assert self._process.poll() is None, log_text
            assert time.monotonic() < deadline, log_text
            time.sleep(0.05)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=60)
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            shutil.rmtree(self._directory)

    def put_blob(self, repository: str, content: bytes) -> dict[str, Any]:
        """Store a blob, and return its descriptor."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        location = self._ask("POST", f"/v2/{repository}/blobs/uploads/").headers["Location"]
        url = location if location.startswith("http") else f"http://{self.host}{location}"
        path = url.removeprefix(f"http://{self.host}")
        self._ask("PUT", f"{path}{'&' if '?' in path else '?'}digest={digest}", content, "application/octet-stream")
        return {"digest": digest, "size": len(content)}

    def put_manifest(self, repository: str, reference: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Store a manifest or a manifest list, and return its descriptor."""
        content = json.dumps(manifest).encode()
        self._ask("PUT", f"/v2/{repository}/manifests/{reference}", content, manifest["mediaType"])
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        return {"mediaType": manifest["mediaType"], "digest": digest, "size": len(content)}

    def put_image(self, repository: str, reference: str, layer: bytes, architecture: str) -> dict[str, Any]:
        """Store an image with one layer (a tar file), and return the descriptor of its manifest."""
        config = {
            "architecture": architecture,
            "os": "linux",
            "config": {"Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                **self.put_blob(repository, json.dumps(config).encode()),
            },
            "layers": [
                {
                    "mediaType": "application/vnd.docker.image.rootfs.diff.tar",
                    **self.put_blob(repository, layer),
                }
            ],
        }
        return self.put_manifest(repository, reference, manifest)

    def _ask(self, method: str, path: str, content: bytes = b"", kind: str = "application/json") -> Any:
        request = urllib.request.Request(
            f"http://{self.host}{path}", data=content, method=method, headers={"Content-Type": kind}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            response.read()
            return response


class Relay:
    """Forwards connections to a registry until the registry has sent ``limit`` bytes. Then the relay fails.

    If ``stalls`` is false, it closes every connection and accepts no new one. If ``stalls`` is true, the connections
    stay open, but the registry's bytes are no longer forwarded. ``rate`` is in bytes per second for each connection.
    """

    def __init__(
        self, registry: Registry, *, limit: int = 1 << 60, stalls: bool = False, rate: float = float("inf")
    ) -> None:
        self._upstream = registry.port
        self._left = limit
        self._rate = rate
        self._stalls = stalls
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    @property
    def is_spent(self) -> bool:
        """Whether the limit was reached."""
        return self._left <= 0

    def _end(self) -> None:
        with suppress(OSError):
            # This makes a blocked `accept` return; `close` alone does not.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            connections, self._open = self._open, set()
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            upstream = socket.create_connection(("127.0.0.1", self._upstream))
            with self._lock:
                self._open |= {client, upstream}
            threading.Thread(target=self._pump, args=(client, upstream, False), daemon=True).start()
            threading.Thread(target=self._pump, args=(upstream, client, True), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if is_answer:
                    self._left -= len(data)
                    if self._left <= 0:
                        if not self._stalls:
                            self._end()
                        # A stalling relay forwards nothing more, and closes nothing.
                        return
                    time.sleep(len(data) / self._rate)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


def free_port() -> int:
    """Return a TCP port on loopback on which no process listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
