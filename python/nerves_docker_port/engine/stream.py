"""A connection to the engine that has become a bare stream of bytes, both ways: an attached terminal.

Knows sockets and TLS; neither the engine's API nor what the bytes mean.
"""

from __future__ import annotations

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
        self._socket: socket.socket = buffered.raw._sock  # noqa: SLF001
        self._socket.setblocking(False)
        if self._socket.family != socket.AF_UNIX:
            # A shell may be silent for a day; a connection that is dead is to be noticed.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.read_fd = self.write_fd = self._socket.fileno()
        self._is_broken = False
        self.take_out: Callable[[bytes], bytes] | None = None
        """Gets what arrives, and gives back what ``read`` is to give of it."""
        self._early = b""
        self._pushed_back = b""
        # Nothing there is None here and an exception there; what has ended ends at the next read, too.
        with suppress(OSError, ValueError):
            self._early = bytes(buffered.read(len(buffered.peek())) or b"")

    @property
    def has_early(self) -> bool:
        """Whether ``read`` has something, or the end, that waiting for ``read_fd`` does not tell of."""
        return bool(self._early or self._pushed_back) or self._is_broken

    def push_back(self, data: bytes) -> None:
        """Let ``read`` give these bytes first, as they are."""
        self._pushed_back = data

    def read(self) -> bytes | None:
        """What has arrived, ``None`` if nothing has, and nothing (``b""``) at the end, be it a good or a bad one."""
        if self._pushed_back:
            pushed_back, self._pushed_back = self._pushed_back, b""
            return pushed_back
        data = self._read()
        return self.take_out(data) or None if data and self.take_out is not None else data

    def _read(self) -> bytes | None:
        if self._early:
            early, self._early = self._early, b""
            return early
        try:
            return self._socket.recv(_READ_SIZE)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return b"" if self._is_broken else None
        except OSError:
            return b""

    def write(self, data: bytes) -> int:
        """Write what fits in of ``data``; how much that was.

        A broken stream takes nothing, and ends: ``read`` gives what has arrived, then the end.
        """
        try:
            return self._socket.send(data)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0
        except OSError:
            self._is_broken = True
            return 0

    def close(self) -> None:
        """Hang up."""
        with suppress(OSError, ValueError):
            self._socket.shutdown(socket.SHUT_RDWR)
        with suppress(OSError, ValueError):
            self._response.close()
