"""A Unix socket in front of the engine that forwards everything and records the requests, with all new containers.

A test could not use the engine instead. Its events contain neither environment nor mounts, and the containers are
removed before a test can inspect them.
"""

from __future__ import annotations

import json
import re
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class Asked:
    """One request to the engine."""

    method: str
    path: str
    """The path without the API version."""
    query: str
    body: Any


class Recorder:
    """Listens during the ``with`` block. ``host`` is for ``DOCKER_HOST``, and ``asked`` has the requests in order."""

    def __init__(
        self,
        directory: Path,
        upstream: str,
        *,
        stall: str | None = None,
        slow: tuple[str, float] | None = None,
        slow_up: float = 0.0,
    ) -> None:
        """Record the requests to the engine ``upstream``.

        The answer to a request whose path ends with ``stall`` stops after its first 64 KiB; a shorter answer is
        complete. ``slow`` is the end of a path, and the seconds that each 64 KiB of the answer take. ``slow_up`` are
        the seconds that each full 64 KiB to the engine take.
        """
        self._slow_up = slow_up
        self._stall = stall
        self._slow = slow
        self.stalled = threading.Event()
        self._resume = threading.Event()
        self._upstream = upstream.removeprefix("unix://")
        path = directory / "e.sock"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        path.chmod(0o666)
        self._listener.listen(64)
        self.host = f"unix://{path}"
        self.asked: list[Asked] = []
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._is_cut = False

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._resume.set()
        self._listener.close()

    def created(self, *, started: bool = True) -> list[dict[str, Any]]:
        """Return the bodies of the requests that made containers, in order.

        With ``started``, the containers that only reserve a volume are left out, because they never start.
        """
        return [
            {**asked.body, "Name": asked.query.partition("name=")[2]}
            for asked in self.asked
            if asked.method == "POST"
            and asked.path == "/containers/create"
            and not (started and asked.body["Entrypoint"] == ["true"])
        ]

    def cut(self) -> None:
        """Break every connection, and every new one at once, as if the network were lost."""
        with self._lock:
            self._is_cut = True
            connections = list(self._open)
        for connection in connections:
            # The connection may already have ended.
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Forward new connections again."""
        with self._lock:
            self._is_cut = False

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._is_cut:
                    client.close()
                    continue
                engine = socket.socket(socket.AF_UNIX)
                engine.connect(self._upstream)
                self._open |= {client, engine}
            threading.Thread(target=self._connection, args=(client, engine), daemon=True).start()

    def _connection(self, client: socket.socket, engine: socket.socket) -> None:
        requests = _Requests(self._keep)
        back = threading.Thread(target=self._pump_back, args=(engine, client, requests), daemon=True)
        back.start()
        self._pump(client, engine, requests)
        back.join()
        with self._lock:
            self._open -= {client, engine}
        client.close()
        engine.close()

    def _keep(self, asked: Asked) -> None:
        with self._lock:
            self.asked.append(asked)

    def _pump_back(self, engine: socket.socket, client: socket.socket, requests: _Requests) -> None:
        with suppress(OSError):
            asked, size = -1, 0
            while data := engine.recv(65536):
                if asked != requests.count:
                    asked, size = requests.count, 0
                size += len(data)
                client.sendall(data)
                if self._slow is not None and requests.last.endswith(self._slow[0]):
                    requests.ended.wait(self._slow[1] * len(data) / 65536)
                if self._stall is not None and requests.last.endswith(self._stall) and size >= 65536:
                    self.stalled.set()
                    while not (self._resume.wait(0.05) or requests.ended.is_set()):
                        pass
                    engine.close()
        with suppress(OSError):
            client.shutdown(socket.SHUT_WR)

    def _pump(self, source: socket.socket, sink: socket.socket, requests: _Requests | None) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if requests is not None:
                    requests.feed(data)
                    requests.ended.wait(self._slow_up * (len(data) // 65536))
                sink.sendall(data)
        if requests is not None:
            requests.ended.set()
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


class _Requests:
    """Parses the HTTP/1.1 requests of one connection, until a request turns the connection into a stream of bytes."""

    def __init__(self, keep: Any) -> None:
        self._keep = keep
        self._pending = b""
        self._bare = False
        self.ended = threading.Event()
        self.last = ""
        """The path of the last request."""
        self.count = 0
        """The number of requests so far."""

    def feed(self, data: bytes) -> None:
        if self._bare:
            return
        self._pending += data
        while b"\r\n\r\n" in self._pending:
            head, _, rest = self._pending.partition(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
            length = int(headers.get("content-length", "0"))
            if len(rest) < length:
                return
            self._pending = rest[length:]
            method, target, _version = lines[0].split(" ")
            path, _, query = target.partition("?")
            body = json.loads(rest[:length]) if length and "json" in headers.get("content-type", "") else None
            self.last = path
            self.count += 1
            self._keep(Asked(method, re.sub(r"^/v[\d.]+", "", path), query, body))
            if path.endswith("/attach") or "upgrade" in headers:
                self._bare = True
                return
