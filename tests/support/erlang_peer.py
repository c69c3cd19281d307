"""A real Erlang at the other end of a {packet, 4} pipe: the judge of what the wire says.

It speaks frames of its own (a command byte and raw bytes), read and written here with `struct` alone, so that a
fault in wire.py cannot hide itself. Not found, or silent, is a failed test and never a skipped one.
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
    """An Erlang process, alive between `with` and its end."""

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
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def echo(self, etf: bytes) -> bytes:
        """The same term as Erlang encodes it. An AssertionError where Erlang cannot read it."""
        return self._call(b"E", etf)

    def generate(self, seed: int, count: int) -> bytes:
        """A list of random terms that Erlang keeps, to compare with."""
        return self._call(b"G", struct.pack(">II", seed, count))

    def keep(self, etf: bytes) -> None:
        """Has Erlang decode and keep a term, to compare with."""
        self._call(b"K", etf)

    def assert_is_kept(self, etf: bytes) -> None:
        """An AssertionError where the term is not `=:=` to the one that is kept."""
        self._call(b"C", etf)

    def compare(self, first: bytes, second: bytes) -> bool:
        """False where Erlang refuses the first; an AssertionError where the second is not `=:=` to it."""
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
