"""Makes text safe to print, and prints it even if the reader has gone.

Text from an engine, a registry, a log or a credential helper can contain escape sequences, and a terminal obeys them.
They can set the window's title or the clipboard, hide text, or change the order of a line. So every text for the user
passes through ``printable`` once: the messages for the port in protocol.py, and all other text before the helper prints
it. The shim does the same (`NervesDockerPort.Console`).
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

# The sequences of ECMA-48: control sequences (CSI), control strings (OSC, DCS, SOS, PM, APC) with their end, and all
# other escape sequences. Each can begin with ESC or with a single C1 control. A control string without an end does not
# match, so the text after its beginning is kept.
_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-~]"
)
# C0 except tab and newline, DEL, C1, and characters that change the direction of text (Unicode Standard Annex 9).
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")

_REPLACEMENT = "\ufffd"


def printable(text: str) -> str:
    """Return ``text`` without escape sequences. Every other control except tab and newline becomes U+FFFD.

    A byte of a path that is not UTF-8 (a lone surrogate, see PEP 383) is written as an escape, so that the result can
    be encoded.
    """
    harmless = without_controls(text.replace("\r\n", "\n"), _REPLACEMENT)
    return harmless.encode("utf-8", "backslashreplace").decode()


def without_controls(text: str, replacement: str = "") -> str:
    """Return ``text`` without escape sequences. ``replacement`` replaces all other controls except tab and newline."""
    return _CONTROL.sub(replacement, _SEQUENCE.sub("", text))


def from_output(data: bytes) -> str:
    """Return the output of a program as text without controls except tab and newline.

    A byte from 0x80 to 0x9F that is not a part of UTF-8 counts as a C1 control, as on an eight-bit terminal. Every
    other byte that is not UTF-8 becomes U+FFFD.
    """
    text = _LONE_C1.sub(lambda match: chr(ord(match[0]) - 0xDC00), data.decode("utf-8", "surrogateescape"))
    return without_controls(text).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


_LONE_C1 = re.compile("[\udc80-\udc9f]")


class Outputs:
    """Replaces standard output and standard error, so that a command can always print.

    If the reader has ended (`doctor | head`) or the descriptor is closed (`doctor >&-`), the text is lost, and the exit
    status does not change. If the text cannot be written because of another error, such as a full disk, that is
    reported once at the end.
    """

    def __enter__(self) -> Self:
        # If descriptor 0, 1 or 2 is closed, open it, so that no file or connection gets its number later.
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
        """Return 0, or report the error and return 1 if a part of the standard output could not be written."""
        sys.stdout.flush()
        if self._output.failure is None:
            return 0
        print(errors.output_not_written(self._output.failure).message, file=sys.stderr)  # noqa: T201
        return 1


class _Output(io.RawIOBase):
    """One of the descriptors 1 and 2. A write never raises; ``failure`` keeps the text of the error."""

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
