"""A connection to the engine that has become a bare stream of bytes, both ways: an attached terminal.

Knows sockets, TLS and the pipes of ssh; neither the engine's API nor what the bytes mean.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import requests

_READ_SIZE = 64 * 1024


class Stream:
    """The stream under an answered request. Reading and writing never wait: ``fileno`` is to be waited for.

    The SDK gives the bare socket for this, past what the HTTP client has read already, so bytes that arrive with the
    headers are lost. Here they come first.
    """

    def __init__(self, response: requests.Response) -> None:
        # Closes the connection when it is collected, so it lives as long as we do.
        self._response = response
        http: Any = response.raw._fp  # noqa: SLF001  # there is no other way to what was read beyond the headers
        buffered = http.fp
        ssh = getattr(getattr(buffered, "channel", None), "proc", None)
        self._socket: socket.socket | None = None
        if ssh is None:
            connection: socket.socket = buffered.raw._sock  # noqa: SLF001
            connection.setblocking(False)
            if connection.family != socket.AF_UNIX:
                # A shell may be silent for a day; a connection that is dead is to be noticed.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._socket = connection
            self.read_fd = self.write_fd = connection.fileno()
        else:
            # `ssh HOST docker system dial-stdio`: two pipes.
            self.read_fd, self.write_fd = buffered.fileno(), ssh.stdin.fileno()
            os.set_blocking(self.read_fd, False)
            os.set_blocking(self.write_fd, False)
        self.take_out: Callable[[bytes], bytes] | None = None
        """Gets what arrives, and gives back what ``read`` is to give of it."""
        self._early = b""
        # Nothing there is None here and an exception there; what has ended ends at the next read, too.
        with suppress(OSError, ValueError):
            self._early = bytes(buffered.read(len(buffered.peek())) or b"")

    @property
    def has_early(self) -> bool:
        """Whether ``read`` has something that waiting for ``read_fd`` does not tell of."""
        return bool(self._early)

    def read(self) -> bytes | None:
        """What has arrived, ``None`` if nothing has, and nothing (``b""``) at the end, be it a good or a bad one."""
        data = self._read()
        return self.take_out(data) or None if data and self.take_out is not None else data

    def _read(self) -> bytes | None:
        if self._early:
            early, self._early = self._early, b""
            return early
        try:
            if self._socket is not None:
                return self._socket.recv(_READ_SIZE)
            return os.read(self.read_fd, _READ_SIZE)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except OSError:
            return b""

    def write(self, data: bytes) -> int:
        """Write what fits in of ``data``; how much that was. A broken stream takes everything; reading tells of it."""
        try:
            if self._socket is not None:
                return self._socket.send(data)
            return os.write(self.write_fd, data)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0
        except OSError:
            return len(data)

    def close(self) -> None:
        """Hang up."""
        with suppress(OSError, ValueError):
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_RDWR)
        with suppress(OSError, ValueError):
            self._response.close()
