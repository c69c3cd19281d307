"""A long way to the engine: a Unix socket and a TCP port that take as long as a distant network does."""

from __future__ import annotations

import queue
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

_SIZE = 65536


class Link:
    """Listens while the ``with`` block runs; ``host`` and ``tcp_host`` are for ``DOCKER_HOST``.

    Only the time is that of a network. Bandwidth is what the machine has.
    """

    def __init__(self, directory: Path, upstream: str, round_trip: float) -> None:
        """``upstream`` is the ``unix://`` address of the engine, ``round_trip`` in seconds.

        Each direction takes half of the round trip. A new connection carries its first byte only after a whole round
        trip, the handshake of TCP.
        """
        self._upstream = upstream.removeprefix("unix://")
        self._round_trip = round_trip
        path = directory / "link.sock"
        unix = socket.socket(socket.AF_UNIX)
        unix.bind(str(path))
        path.chmod(0o666)
        tcp = socket.socket()
        tcp.bind(("127.0.0.1", 0))
        self._listeners = (unix, tcp)
        self.host = f"unix://{path}"
        self.tcp_host = f"tcp://127.0.0.1:{tcp.getsockname()[1]}"
        self.connections = 0
        """How many were made."""

    def __enter__(self) -> Self:
        for listener in self._listeners:
            listener.listen(64)
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for listener in self._listeners:
            # This also ends `accept` in the other thread.
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                self.connections += 1
                threading.Thread(target=self._connection, args=(client,), daemon=True).start()

    def _connection(self, client: socket.socket) -> None:
        ready = time.monotonic() + self._round_trip
        with client, socket.socket(socket.AF_UNIX) as engine:
            engine.connect(self._upstream)
            back = threading.Thread(target=self._carry, args=(engine, client, ready), daemon=True)
            back.start()
            self._carry(client, engine, ready)
            back.join()

    def _carry(self, source: socket.socket, target: socket.socket, ready: float) -> None:
        """Pass on what comes, each piece when it is due. Nothing leaves before ``ready``."""
        under_way: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
        arriving = threading.Thread(target=_arrive, args=(under_way, target), daemon=True)
        arriving.start()
        with suppress(OSError):
            while data := source.recv(_SIZE):
                under_way.put((max(time.monotonic(), ready) + self._round_trip / 2, data))
        under_way.put((max(time.monotonic(), ready) + self._round_trip / 2, b""))
        arriving.join()


def _arrive(under_way: queue.SimpleQueue[tuple[float, bytes]], target: socket.socket) -> None:
    with suppress(OSError):
        while True:
            due, data = under_way.get()
            time.sleep(max(0.0, due - time.monotonic()))
            if not data:
                break
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
