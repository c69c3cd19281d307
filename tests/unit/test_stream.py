"""The raw stream of an attached terminal, tested with a real socket that behaves like engines and proxies."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import pytest

from nerves_docker_port.engine.stream import Stream

UPGRADED = b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\n"
UPGRADED += b"Upgrade: tcp\r\n\r\n"
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"


@contextmanager
def attached(directory: Path, serve: Callable[[socket.socket], None]) -> Iterator[Stream]:
    """Yield a stream whose other end is handled by ``serve``, which is called after the request has been read."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(directory / "s"))
    listener.listen()

    def accept() -> None:
        connection, _ = listener.accept()
        request = b""
        while b"\r\n\r\n" not in request:
            request += connection.recv(4096)
        serve(connection)
        connection.close()

    thread = threading.Thread(target=accept)
    thread.start()
    client = docker.APIClient(base_url=f"unix://{directory}/s", version="1.41")
    headers = {"Connection": "Upgrade", "Upgrade": "tcp"}
    stream = Stream(client.post(f"{client.base_url}/attach", headers=headers, stream=True))
    yield stream
    stream.close()
    thread.join(60)
    listener.close()
    client.close()


def read_all(stream: Stream) -> bytes:
    data = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if not stream.has_early:
            select.select([stream.read_fd], [], [], 60)
        read = stream.read()
        if read == b"":
            return data
        data += read or b""
    raise AssertionError(f"no end after {data[:100]!r}")


@pytest.mark.parametrize("head", [UPGRADED, PLAIN])
@pytest.mark.parametrize("early", [b"", b"x", b"title\r\n" * 1000])
def test_bytes_that_arrive_with_the_headers_are_read_first(tmp_path: Path, head: bytes, early: bytes) -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(head + early)
        connection.sendall(b"and what came later")

    with attached(tmp_path, serve) as stream:
        assert read_all(stream) == early + b"and what came later"


def test_a_read_without_data_is_not_the_end(tmp_path: Path) -> None:
    go = threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.sendall(UPGRADED)
        go.wait(60)

    with attached(tmp_path, serve) as stream:
        assert not stream.has_early
        assert stream.read() is None
        go.set()
        assert read_all(stream) == b""


def test_writing_does_not_wait_for_a_peer_that_does_not_read(tmp_path: Path) -> None:
    go = threading.Event()
    received = bytearray()

    def serve(connection: socket.socket) -> None:
        connection.sendall(UPGRADED)
        go.wait(60)
        connection.settimeout(60)
        while len(received) < sent:
            received.extend(connection.recv(65536))

    with attached(tmp_path, serve) as stream:
        sent, chunk = 0, b"0123456789" * 6000
        while (taken := stream.write(chunk)) > 0:
            sent += taken
        assert sent < 10_000_000
        go.set()
    assert len(received) == sent


def test_a_broken_stream_ends_and_takes_nothing(tmp_path: Path) -> None:
    with attached(tmp_path, lambda connection: connection.sendall(UPGRADED)) as stream:
        assert read_all(stream) == b""
        assert stream.write(b"kept") == 0
        assert stream.read() == b""


def test_a_stream_that_takes_nothing_any_more_ends_after_what_has_arrived(tmp_path: Path) -> None:
    go = threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.sendall(UPGRADED + b"last words")
        connection.shutdown(socket.SHUT_RD)
        go.wait(60)

    with attached(tmp_path, serve) as stream:
        # The other end may not have come to its shutdown yet.
        deadline = time.monotonic() + 60
        while stream.write(b"x") and time.monotonic() < deadline:
            pass
        assert read_all(stream) == b"last words"
        go.set()
