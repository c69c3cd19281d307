"""A stream of bytes in both directions over a connection to the engine, for an attached terminal.

This module knows sockets and TLS. It must know neither the engine's API nor the meaning of the bytes.
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
    """The stream after the answer to a request.

    A read or a write never waits. The caller must wait for ``read_fd`` or ``write_fd``.
    The SDK only gives the socket, and loses the bytes that arrive together with the headers, because the HTTP client
    has already read them into its buffer. This class returns these bytes first.
    """

    def __init__(self, response: requests.Response) -> None:
        # The response closes the connection when it is garbage-collected, so this object must keep it.
        self._response = response
        http: Any = response.raw._fp  # noqa: SLF001  # there is no other way to the bytes in the HTTP client's buffer
        buffered = http.fp
        self._socket: socket.socket = buffered.raw._sock  # noqa: SLF001
        self._socket.setblocking(False)
        if self._socket.family != socket.AF_UNIX:
            # A shell can be silent for a day. Only these probes of the kernel then notice that the connection is dead.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.read_fd = self.write_fd = self._socket.fileno()
        self._is_broken = False
        self.take_out: Callable[[bytes], bytes] | None = None
        """A function that gets all bytes that arrive, and returns those of them that ``read`` returns."""
        self._buffered = b""
        self._pushed_back = b""
        # If there is nothing to read, some kinds of socket raise an exception. An end or an error shows at the next
        # read.
        with suppress(OSError, ValueError):
            self._buffered = bytes(buffered.read(len(buffered.peek())) or b"")

    @property
    def has_early(self) -> bool:
        """Whether ``read`` returns bytes or the end although ``read_fd`` is not ready."""
        return bool(self._buffered or self._pushed_back) or self._is_broken

    def push_back(self, data: bytes) -> None:
        """Make the next ``read`` return these bytes, unchanged."""
        self._pushed_back = data

    def read(self) -> bytes | None:
        """Return the bytes that have arrived, ``None`` if there are none, or ``b""`` at the end or after an error."""
        if self._pushed_back:
            pushed_back, self._pushed_back = self._pushed_back, b""
            return pushed_back
        data = self._read()
        return self.take_out(data) or None if data and self.take_out is not None else data

    def _read(self) -> bytes | None:
        if self._buffered:
            buffered, self._buffered = self._buffered, b""
            return buffered
        try:
            return self._socket.recv(_READ_SIZE)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return b"" if self._is_broken else None
        except OSError:
            return b""

    def write(self, data: bytes) -> int:
        """Write as much of ``data`` as the socket accepts. Return the number of bytes.

        If the connection is broken, return 0. After that ``read`` returns the bytes that have arrived, and then the
        end.
        """
        try:
            return self._socket.send(data)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0
        except OSError:
            self._is_broken = True
            return 0

    def close(self) -> None:
        """Close the connection."""
        with suppress(OSError, ValueError):
            self._socket.shutdown(socket.SHUT_RDWR)
        with suppress(OSError, ValueError):
            self._response.close()
