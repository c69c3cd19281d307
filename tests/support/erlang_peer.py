"""A real Erlang at the other end of a {packet, 4} pipe, which decides whether wire.py encodes and decodes correctly.

Its frames (a command byte and raw bytes) are read and written here only with `struct`, so that a fault in wire.py
cannot hide itself. If Erlang is not installed or does not answer, the test fails; it is never skipped.
"""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from types import TracebackType

_SCRIPT: Final = Path(__file__).with_suffix(".escript")


@final
class ErlangPeer:
    """An Erlang process that runs during the `with` block."""

    def __init__(self) -> None:
        to_erlang, self._out = os.pipe()
        self._in, from_erlang = os.pipe()
        try:
            self._process = subprocess.Popen(
                ["escript", str(_SCRIPT), str(to_erlang), str(from_erlang)],
                pass_fds=(to_erlang, from_erlang),
                stdin=subprocess.DEVNULL,
            )
        except OSError:
            os.close(self._out)
            os.close(self._in)
            raise
        finally:
            os.close(to_erlang)
            os.close(from_erlang)

    def __enter__(self) -> ErlangPeer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._out)
        os.close(self._in)
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def echo(self, etf: bytes) -> bytes:
        """Return the same term as Erlang encodes it. Raises AssertionError if Erlang cannot decode it."""
        return self._call(b"E", etf)

    def generate(self, seed: int, count: int) -> bytes:
        """Return a list of random terms, which Erlang keeps for `assert_is_kept`."""
        return self._call(b"G", struct.pack(">II", seed, count))

    def keep(self, etf: bytes) -> None:
        """Let Erlang decode a term, and keep it for `assert_is_kept`."""
        self._call(b"K", etf)

    def assert_is_kept(self, etf: bytes) -> None:
        """Raise AssertionError unless the term is equal (`=:=`) to the one that Erlang keeps."""
        self._call(b"C", etf)

    def compare(self, first: bytes, second: bytes) -> bool:
        """Return whether Erlang can decode `first`. Raises AssertionError if `second` is not equal (`=:=`) to it."""
        return self._call(b"S", struct.pack(">I", len(first)) + first + second) != b"refused"

    def _call(self, command: bytes, argument: bytes) -> bytes:
        rest = memoryview(struct.pack(">I", 1 + len(argument)) + command + argument)
        while rest:
            rest = rest[os.write(self._out, rest) :]
        (size,) = struct.unpack(">I", self._read(4))
        answer = self._read(size)
        assert answer[0] == 0, f"Erlang: {answer[1:].decode(errors='replace')[:2000]}"
        return answer[1:]

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            chunk = os.read(self._in, size - len(data))
            assert chunk, "Erlang has ended"
            data += chunk
        return data
