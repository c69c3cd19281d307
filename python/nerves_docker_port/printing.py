"""What may be printed, and printing where nobody may be reading.

Text of an engine, a registry, a log or a credential helper may hold anything, and a terminal obeys it: it may set the
window's title or the clipboard, hide what was printed, or show a line in another order. Whatever goes to a person
passes through ``printable`` once: messages where they are made for the port (protocol.py), and what the helper prints
on a terminal itself. The shim does the same (`NervesDockerPort.Console`).
"""

from __future__ import annotations

import io
import os
import re
import sys
from typing import TYPE_CHECKING

from nerves_docker_port import errors

if TYPE_CHECKING:
    from typing_extensions import Buffer, Self  # in the standard library from Python 3.12 and 3.11 on

# ECMA-48: control sequences (CSI), control strings (OSC, DCS, SOS, PM, APC) with their end, and all other escape
# sequences. Each may begin with ESC or with a single C1 control. A string without an end is no sequence: what follows
# its beginning is kept, because it may be what matters.
_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-~]"
)
# C0 but for tab and newline, DEL, C1, and what changes the direction of writing (Unicode Standard Annex 9).
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")

_REPLACEMENT = "\ufffd"


def printable(text: str) -> str:
    """``text`` without escape sequences; every other control but tab and newline becomes U+FFFD.

    A byte of a path that is not UTF-8 (a lone surrogate, see PEP 383) is written as an escape, so that what comes out
    can be encoded.
    """
    harmless = without_controls(text.replace("\r\n", "\n"), _REPLACEMENT)
    return harmless.encode("utf-8", "backslashreplace").decode()


def without_controls(text: str, replacement: str = "") -> str:
    """``text`` without escape sequences, and ``replacement`` for every other control but tab and newline."""
    return _CONTROL.sub(replacement, _SEQUENCE.sub("", text))


def from_output(data: bytes) -> str:
    """What a program wrote, as text without any control but tab and newline. What is not UTF-8 becomes U+FFFD.

    A byte from 0x80 to 0x9F that is no part of UTF-8 is a C1 control of a terminal with eight bits.
    """
    text = _LONE_C1.sub(lambda match: chr(ord(match[0]) - 0xDC00), data.decode("utf-8", "surrogateescape"))
    return without_controls(text).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


_LONE_C1 = re.compile("[\udc80-\udc9f]")


class Outputs:
    """Standard output and error that a command can print on whatever becomes of them.

    Where nobody reads on (`doctor | head`) or where they are closed (`doctor >&-`), what is printed is lost, and the
    exit status is what it would have been. A full disk is an error, and is said once, at the end.
    """

    def __enter__(self) -> Self:
        # A file or a connection that is opened later must not become one of the three.
        while (fd := os.open(os.devnull, os.O_RDWR)) < 3:
            os.set_inheritable(fd, True)
        os.close(fd)
        self._output = _Output(1)
        sys.stdout, sys.stderr = (
            io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", errors="backslashreplace", line_buffering=True)
            for raw in (self._output, _Output(2))
        )
        return self

    def __exit__(self, *_exception: object) -> None:
        sys.stdout.flush()
        sys.stderr.flush()

    def failed(self) -> int:
        """1 if something could not be written although somebody wanted it, and says so; else 0."""
        sys.stdout.flush()
        if self._output.failure is None:
            return 0
        print(errors.output_not_written(self._output.failure).message, file=sys.stderr)  # noqa: T201
        return 1


class _Output(io.RawIOBase):
    """One of the process's own descriptors; takes everything."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self.failure: str | None = None

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer) -> int:
        view = memoryview(data).cast("B")
        written = 0
        try:
            while written < len(view):
                written += os.write(self._fd, view[written:])
        except BrokenPipeError:
            pass
        except OSError as error:
            self.failure = os.strerror(error.errno or 0)
        return len(view)
