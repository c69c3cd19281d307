"""The first frame, and the descriptors that it goes through, before anything that takes time to import.

And the last one, where what takes time to import cannot be imported.

The shim waits for the hello; the messages proper (protocol.py, wire.py) take three times as long to import as Python
itself takes to start. So this imports neither, nor `dataclasses`, `typing` or `re`, and writes the one term by hand.
"""

from __future__ import annotations

import os
import signal
import sys

from nerves_docker_port import __version__

FD_IN = 3
FD_OUT = 4

PROTOCOL_VERSION = 1


def secure_descriptors() -> None:
    """Keep the protocol's descriptors to ourselves, and everything else away from them.

    Descriptors 3 and 4 are not inherited by what libraries start (credential helpers, ssh). Standard output goes where
    standard error goes, so that a stray ``print`` is seen and harms nothing. Raises ``OSError`` if 3 or 4 is not open.
    """
    for fd in (FD_IN, FD_OUT):
        os.set_inheritable(fd, False)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)


def say_hello() -> None:
    """Write the first frame. A peer that has gone already is the session's business: it reads the end of the file."""
    # Until the session takes the signals there is nothing to put in order.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: os._exit(0))
    try:
        os.write(FD_OUT, frame(__version__, sys.version.split()[0], os.getpid()))
    except OSError:
        return


def frame(version: str, python: str, os_pid: int) -> bytes:
    """``{:hello, map}`` of docs/protocol.md with its length, in the external term format (its tags are cited there)."""
    fields = (("protocol", _integer(PROTOCOL_VERSION)), ("version", _text(version)), ("python", _text(python)))
    pairs = b"".join(_atom(name) + value for name, value in (*fields, ("os_pid", _integer(os_pid))))
    term = b"\x83" + b"h\x02" + _atom("hello") + b"t" + (4).to_bytes(4, "big") + pairs
    return len(term).to_bytes(4, "big") + term


def say_failure(message: str, hint: str) -> None:
    """Write the outcome of a helper that cannot go on: `{:done, 0, {:error, %{code: :internal, ...}}}`."""
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
