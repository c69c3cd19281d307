"""The hello, which is the helper's first frame, and the file descriptors of the port.

The shim waits for the hello. To import the modules for all other messages (protocol.py, wire.py) takes three times as
long as Python takes to start. So this module imports neither of them, nor `dataclasses`, `typing` or `re`, and it
encodes its terms by hand. For the same reason it can report that those modules cannot be imported.
"""

from __future__ import annotations

import os
import signal
import sys

from nerves_docker_port import __version__

FD_IN = 3
FD_OUT = 4

PROTOCOL_VERSION = 1


def secure_descriptors() -> int:
    """Make sure that only the protocol uses descriptors 3 and 4; return another descriptor of the standard output.

    Programs that libraries start (credential helpers, ssh) do not inherit them. Standard input becomes ``/dev/null``.
    Standard output becomes a copy of standard error, so a stray ``print`` is visible and does no harm. What it was is
    for the output of a command that a person has asked for. Raises ``OSError`` if 3 or 4 is not open.
    """
    for fd in (FD_IN, FD_OUT):
        os.set_inheritable(fd, False)
    null = os.open(os.devnull, os.O_RDWR)
    try:
        output = os.dup(1)
    except OSError:
        output = os.dup(null)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return output


def say_hello() -> None:
    """Write the first frame.

    If the shim has already closed the port, nothing is raised: the session reads the end of file and ends.
    """
    # Until the session handles these signals there is nothing to clean up, so they end the process at once.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: os._exit(0))
    try:
        os.write(FD_OUT, frame(__version__, sys.version.split()[0], os.getpid()))
    except OSError:
        return


def frame(version: str, python: str, os_pid: int) -> bytes:
    """Return the frame of ``{:hello, map}`` (docs/protocol.md), with its length, in the external term format."""
    fields = (("protocol", _integer(PROTOCOL_VERSION)), ("version", _text(version)), ("python", _text(python)))
    pairs = b"".join(_atom(name) + value for name, value in (*fields, ("os_pid", _integer(os_pid))))
    term = b"\x83" + b"h\x02" + _atom("hello") + b"t" + (4).to_bytes(4, "big") + pairs
    return len(term).to_bytes(4, "big") + term


def say_failure(message: str, hint: str) -> None:
    """Write `{:done, 0, {:error, %{code: :internal, ...}}}`: the helper cannot serve any request."""
    pairs = _atom("code") + _atom("internal") + _atom("message") + _text(message) + _atom("hint") + _text(hint)
    error = b"t" + (4).to_bytes(4, "big") + pairs + _atom("log") + _atom("nil")
    term = b"\x83h\x03" + _atom("done") + b"a\x00" + b"h\x02" + _atom("error") + error
    try:
        os.write(FD_OUT, len(term).to_bytes(4, "big") + term)
    except OSError:
        return


def _atom(name: str) -> bytes:
    return b"w" + bytes([len(name)]) + name.encode()


def _text(text: str) -> bytes:
    data = text.encode()
    return b"m" + len(data).to_bytes(4, "big") + data


def _integer(number: int) -> bytes:
    return b"b" + number.to_bytes(4, "big", signed=True)
