"""{packet, 4} frames and Erlang external terms (ETF) <-> plain Python values.

This module implements the sections *Transport* and *Values* of docs/protocol.md: the limits and the table
of types. Every malformed input, in either direction, raises a `WireError` and no other exception. The
module knows no messages (see protocol.py).

erlang_py does the decoding and encoding, but it trusts its input. So `_Scan` checks the bytes first: it
does not recurse, it allocates no memory for a size that a header merely announces, and it stops at the first
violation. erlang_py can read everything that passes the scan. The scan also rewrites three kinds of terms
that erlang_py 2.0.7 handles badly:

- A map becomes a tuple that begins with a marker. For a map, erlang_py merges keys that Python considers
  equal (1, 1.0, True), corrupts keys that contain maps or lists, and raises AttributeError when an atom and a
  charlist have the same hash.
- A term that is carried as `Opaque` becomes a pointer to its bytes, so that it is returned bit for bit.
- An integer of more than 255 bytes becomes a pointer, too, because erlang_py takes quadratic time for it
  (6 s for 200 kB).

Format: https://www.erlang.org/doc/apps/erts/erl_ext_dist.html
"""

from __future__ import annotations

import os
import struct
import sys
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import erlang

MAX_FRAME: Final = 16 * 1024 * 1024
"""The most bytes in one frame, without the four bytes of its length."""
MAX_DEPTH: Final = 512
"""The most non-empty lists, tuples and maps that may be nested around a term."""
MAX_TERMS: Final = 1_000_000
"""The most terms in one term: the term itself and its elements, keys and values at every level."""


class WireError(Exception):
    """The protocol does not allow this frame or term. Reading and writing both raise it."""


@dataclass(frozen=True, slots=True)
class Atom:
    """An atom. Not used for nil, true and false, which are None, True and False in Python."""

    name: str


@dataclass(frozen=True, slots=True)
class Opaque:
    """The bytes of a term that has no Python value. `decode` makes it, and `encode` writes the same bytes again.

    Such a term is an improper list, pid, port, reference, function or bitstring, or a key of a map that Python
    cannot hash, because it is a list or a map or contains one.
    """

    etf: bytes  # without the version byte


Term: TypeAlias = (
    bool | int | float | str | bytes | Atom | Opaque | list["Term"] | tuple["Term", ...] | dict["Term", "Term"] | None
)


def decode(data: bytes) -> Term:
    """Return the Python value of one term in the external term format, version byte included.

    Raises `WireError` if `data` is not exactly one term, or the term exceeds a limit.
    """
    try:
        return _to_python(erlang.binary_to_term(bytes(_Scan(data).out)), data)
    except _ERLANG_PY_ERRORS as error:
        raise _malformed(error) from error


def encode(term: Term) -> bytes:
    """Return `term` in the external term format (`minor_version: 2`), version byte included.

    Raises `WireError` if the protocol has no type for a value, or the term exceeds a limit.
    """
    try:
        data: bytes = erlang.term_to_binary(_Encoder().to_erlang_py(term, 0))
    except _ERLANG_PY_ERRORS as error:
        raise _malformed(error) from error
    _Scan(data)  # The same limits hold for what we send and for what we receive.
    return data


# --- Errors ------------------------------------------------------------------------------------------------


def _too_long(what: str, size: int) -> WireError:
    return WireError(f"{what} of {size} bytes; at most {MAX_FRAME} are allowed")


def _too_many() -> WireError:
    return WireError(f"a term of more than {MAX_TERMS} terms")


def _too_deep() -> WireError:
    return WireError(f"a term nested more than {MAX_DEPTH} levels deep")


def _truncated() -> WireError:
    return WireError("truncated term")


def _unknown_type(what: str, name: object) -> WireError:
    return WireError(f"a type that the protocol does not have ({what} {name})")


def _malformed(error: BaseException) -> WireError:
    return WireError(f"malformed term ({type(error).__name__})")


# The exceptions of erlang_py. With 2.0.7, none is expected after `_Scan`; a later release may behave differently.
_ERLANG_PY_ERRORS: Final = (
    ValueError,  # includes UnicodeError
    TypeError,  # includes erlang.OutputException
    SyntaxError,  # includes erlang.ParseException
    LookupError,
    ArithmeticError,
    AttributeError,
    RecursionError,
    struct.error,
)

# --- Frames ------------------------------------------------------------------------------------------------

_U16: Final = struct.Struct(">H")
_U32: Final = struct.Struct(">I")
_CHUNK: Final = 64 * 1024  # the capacity of a Linux pipe (pipe(7))


class FrameReader:
    """Reads frames from a blocking file descriptor.

    It never reads beyond the end of a frame. So no frame is hidden in a buffer, and `select` on the
    descriptor tells whether another frame is there.
    """

    def __init__(self, fd: int) -> None:
        self.fd: Final = fd

    def read_frame(self) -> bytes | None:
        """Return the next frame without its length, or None at the end of file.

        Raises `WireError` if the file ends within a frame or the frame is too long, and `OSError` if reading
        fails. Python itself repeats a read that a signal interrupted (PEP 475).
        """
        header = self._read(_U32.size)
        if not header:
            return None
        if len(header) < _U32.size:
            raise WireError("end of file in the middle of a frame's length")
        (size,) = _U32.unpack(header)
        if size > MAX_FRAME:
            raise _too_long("frame", size)
        frame = self._read(size)
        if len(frame) < size:
            raise WireError("end of file in the middle of a frame")
        return frame

    def _read(self, size: int) -> bytes:
        """Return `size` bytes, or fewer at the end of file. Memory grows with the bytes that have arrived."""
        data = bytearray()
        while len(data) < size:
            chunk = os.read(self.fd, min(size - len(data), _CHUNK))
            if not chunk:
                break
            data += chunk
        return bytes(data)


def write_frame(fd: int, data: bytes) -> None:
    """Write one whole frame to a blocking file descriptor. Only one thread may write to a descriptor.

    Raises `WireError` if the frame is too long, and `OSError` if writing fails (`BrokenPipeError` if the peer has
    closed its end).
    """
    if len(data) > MAX_FRAME:
        raise _too_long("frame", len(data))
    rest = memoryview(_U32.pack(len(data)) + data)
    while rest:
        rest = rest[os.write(fd, rest) :]


# --- The scan ----------------------------------------------------------------------------------------------

_VERSION: Final = 131
_COMPRESSED: Final = 80
_SMALL_INTEGER: Final = 97
_INTEGER: Final = 98
_NEW_FLOAT: Final = 70
_SMALL_BIG: Final = 110
_LARGE_BIG: Final = 111
_ATOM: Final = 100
_SMALL_ATOM: Final = 115
_ATOM_UTF8: Final = 118
_SMALL_ATOM_UTF8: Final = 119
_BINARY: Final = 109
_STRING: Final = 107
_NIL: Final = 106
_LIST: Final = 108
_SMALL_TUPLE: Final = 104
_LARGE_TUPLE: Final = 105
_MAP: Final = 116
_BIT_BINARY: Final = 77
_NEW_FUN: Final = 112
_EXPORT: Final = 113
_NEW_REFERENCE: Final = 114
_NEWER_REFERENCE: Final = 90
# The tag, and the number of bytes that follow the name of the node. OTP releases before 23 send the shorter forms.
_PIDS_AND_PORTS: Final = {88: 12, 103: 9, 89: 8, 102: 5, 120: 12}

# These tags are not listed and therefore refused: FLOAT_EXT (only written with minor version 0), ATOM_CACHE_REF
# (only used between nodes), LOCAL_EXT (only the node that wrote it knows its length), and REFERENCE_EXT and
# FUN_EXT (no OTP release that Nerves supports writes them).

_CONTAINERS: Final = frozenset({_LIST, _SMALL_TUPLE, _LARGE_TUPLE, _MAP})
_ATOMS: Final = frozenset({_ATOM, _SMALL_ATOM, _ATOM_UTF8, _SMALL_ATOM_UTF8})
_KEPT_AS_BYTES: Final = frozenset(
    {_LARGE_BIG, _BIT_BINARY, _NEW_FUN, _EXPORT, _NEW_REFERENCE, _NEWER_REFERENCE, *_PIDS_AND_PORTS}
)

# What the scan writes in place of a map or of a term that is kept as bytes. Neither can occur in an accepted
# term: the marker of a map is a reference to entry 0 of the atom cache, and a pointer is a function of 8 bytes
# that contains the positions where the term begins and ends in the original data.
_MAP_MARKER: Final = b"N\0"
_POINTER: Final = struct.Struct(">BIII")
_POINTER_SIZE: Final = 12

_MAX_ATOM: Final = 255  # characters; the limit of OTP itself
_FUN_HEADER: Final = 29  # bytes: size (4), arity (1), uniq (16), index (4), number of free variables (4)


@dataclass(slots=True)
class _OpenContainer:
    """A list, tuple or map whose end the scan has not reached."""

    tag: int
    remaining: int  # elements that the scan has not begun to read, without the tail of a list
    start: int  # position of the tag in the input
    out_start: int  # position of the tag in the output
    hashable: bool
    tail_due: bool
    improper: bool = False


class _Scan:
    """Checks one encoded term, and rewrites it for erlang_py.

    Raises `WireError` if `data` is malformed or exceeds a limit. `out` is what erlang_py has to read.
    """

    def __init__(self, data: bytes) -> None:
        if len(data) > MAX_FRAME:
            raise _too_long("term", len(data))
        if data[:1] != bytes([_VERSION]):
            raise WireError("not a term: the version byte 131 is missing")
        self.data = data
        self.out = bytearray()
        self.at = 1  # position of the next byte to scan
        self.copied = 0  # `out` contains data[:copied], rewritten
        self.terms_left = MAX_TERMS  # terms that may still come
        self.stack: list[_OpenContainer] = []
        try:
            self._run()
        except (IndexError, struct.error) as error:
            raise _truncated() from error
        self._copy_input()
        if self.at != len(data):
            raise WireError("bytes after the end of the term")

    def _run(self) -> None:
        while True:
            self._copy_input()
            if self.data[self.at] in _CONTAINERS:
                self._open_container()
            else:
                self._scan_leaf()
            if self.terms_left < 0:
                raise _too_many()
            # Close all containers that are complete, up to the first one with elements or a tail to come.
            while self.stack:
                container = self.stack[-1]
                if container.remaining:
                    container.remaining -= 1
                    break
                if container.tail_due:
                    container.tail_due = False
                    if self.data[self.at] != _NIL:
                        container.improper = True
                        break
                    self.at += 1
                self.stack.pop()
                self._finish_term(container.start, container.out_start, container.improper, container.hashable)
            else:
                return

    def _open_container(self) -> None:
        start, out_start = self.at, len(self.out)
        tag = self.data[start]
        count, self.at = _header(self.data, start)
        if count > len(self.data) - self.at:  # each element has at least one byte
            raise _truncated()
        self.terms_left -= 1
        if count > self.terms_left:
            raise _too_many()
        if tag == _MAP:
            self.out.append(_LARGE_TUPLE)
            self.out += _U32.pack(count + 1) + _MAP_MARKER
            self.copied = self.at
        is_tuple = tag in (_SMALL_TUPLE, _LARGE_TUPLE)
        self.stack.append(_OpenContainer(tag, count, start, out_start, hashable=is_tuple, tail_due=tag == _LIST))
        if count:
            _check_depth(len(self.stack))

    def _scan_leaf(self) -> None:
        start, out_start = self.at, len(self.out)
        tag = self.data[start]
        self.at = _leaf_end(self.data, start)
        if self.at > len(self.data):
            raise _truncated()
        self.terms_left -= 1
        if tag == _STRING:  # the short form of a list of bytes: each byte counts as one term
            count = self.at - start - 3
            self.terms_left -= count
            _check_depth(len(self.stack) + bool(count))
        self._finish_term(start, out_start, tag in _KEPT_AS_BYTES, tag not in (_NIL, _STRING))

    def _finish_term(self, start: int, out_start: int, kept: bool, hashable: bool) -> None:
        """Finish the term that ends at `self.at`: if it is `kept` as bytes, write a pointer in its place."""
        if self.stack and not kept and not hashable:
            parent = self.stack[-1]
            parent.hashable = False
            kept = parent.tag == _MAP and parent.remaining % 2 == 1  # an odd number remains: the term is a key
        if kept:
            self.out[out_start:] = _POINTER.pack(_NEW_FUN, _POINTER_SIZE, start, self.at)
            self.copied = self.at

    def _copy_input(self) -> None:
        self.out += self.data[self.copied : self.at]
        self.copied = self.at


def _header(data: bytes, at: int) -> tuple[int, int]:
    """Return how many terms the container at `at` announces, without the tail of a list, and where they begin."""
    if data[at] == _SMALL_TUPLE:
        return data[at + 1], at + 2
    (count,) = _U32.unpack_from(data, at + 1)
    return (2 * count if data[at] == _MAP else count), at + 5


def _check_depth(depth: int) -> None:
    if depth > MAX_DEPTH:
        raise _too_deep()
    if depth > _SHALLOW_DEPTH:
        _raise_recursion_limit()


def _leaf_end(data: bytes, at: int) -> int:
    """Return where the leaf (a term without subterms) at `at` ends. That may be beyond the end of the data."""
    tag = data[at]
    if tag in _ATOMS:
        return _atom_end(data, at)
    if tag == _SMALL_INTEGER:
        return at + 2
    if tag == _INTEGER:
        return at + 5
    if tag == _BINARY:
        return at + 5 + _u32(data, at + 1)
    if tag == _NIL:
        return at + 1
    if tag == _STRING:
        return at + 3 + _u16(data, at + 1)
    if tag == _NEW_FLOAT:
        if data[at + 1] & 0x7F == 0x7F and data[at + 2] & 0xF0 == 0xF0:
            raise WireError("a float that is infinite or not a number")
        return at + 9
    if tag in (_SMALL_BIG, _LARGE_BIG):
        count, sign = (data[at + 1], at + 2) if tag == _SMALL_BIG else (_u32(data, at + 1), at + 5)
        if data[sign] > 1:  # OTP would read it as minus, erlang_py as plus
            raise WireError("an integer with an unknown sign")
        return sign + 1 + count
    return _opaque_end(data, at)


def _opaque_end(data: bytes, at: int) -> int:
    tag = data[at]
    if tag in _PIDS_AND_PORTS:
        return _atom_end(data, at + 1) + _PIDS_AND_PORTS[tag]
    if tag in (_NEW_REFERENCE, _NEWER_REFERENCE):
        creation = 1 if tag == _NEW_REFERENCE else 4
        return _atom_end(data, at + 3) + creation + 4 * _u16(data, at + 1)
    if tag == _BIT_BINARY:
        count, bits = _u32(data, at + 1), data[at + 5]
        if bits > 8 or (bits == 0) != (count == 0):
            raise WireError("a bitstring with an impossible number of bits")
        return at + 6 + count
    if tag == _NEW_FUN:
        count = _u32(data, at + 1)
        if count < _FUN_HEADER:
            raise WireError("a function that is shorter than its header")
        return at + 1 + count
    if tag == _EXPORT:
        arity = _atom_end(data, _atom_end(data, at + 1))
        if data[arity] != _SMALL_INTEGER:
            raise WireError("a function with an impossible arity")
        return arity + 2
    if tag == _COMPRESSED:
        raise WireError("a compressed term; terms are sent as they are")
    raise _unknown_type("tag", tag)


def _atom_end(data: bytes, at: int) -> int:
    tag = data[at]
    if tag in (_SMALL_ATOM_UTF8, _SMALL_ATOM):
        start, count = at + 2, data[at + 1]
    elif tag in (_ATOM_UTF8, _ATOM):
        start, count = at + 3, _u16(data, at + 1)
    else:
        raise WireError("something else where an atom must stand")
    end = start + count
    if end > len(data):
        raise _truncated()
    try:
        name = data[start:end].decode("utf-8" if tag in (_SMALL_ATOM_UTF8, _ATOM_UTF8) else "latin-1")
    except UnicodeDecodeError as error:
        raise WireError("an atom that is not UTF-8") from error
    if len(name) > _MAX_ATOM:
        raise WireError("an atom of more than 255 characters")
    return end


def _u16(data: bytes, at: int) -> int:
    count: int = _U16.unpack_from(data, at)[0]
    return count


def _u32(data: bytes, at: int) -> int:
    count: int = _U32.unpack_from(data, at)[0]
    return count


# --- erlang_py's objects <-> our values --------------------------------------------------------------------

_SHALLOW_DEPTH: Final = 64
"""Levels. Python's default recursion limit is enough for a term that is not nested deeper."""
_RECURSION_LIMIT: Final = 4000
"""Python frames; enough for `MAX_DEPTH` levels."""


def _raise_recursion_limit() -> None:
    """Raise Python's recursion limit, so that the functions here and in erlang_py can recurse to MAX_DEPTH.

    They need up to three Python frames for each level. Only an unusually deep term calls this. The limit is never
    lowered again, because another thread may still need it.
    """
    if sys.getrecursionlimit() < _RECURSION_LIMIT:
        sys.setrecursionlimit(_RECURSION_LIMIT)


_RESERVED: Final = frozenset({"nil", "true", "false"})


def _to_python(found: Any, data: bytes) -> Term:
    """Return the plain value of `found`, which erlang_py decoded from `_Scan(data).out`."""
    if isinstance(found, erlang.OtpErlangBinary):
        return _text_or_bytes(found.value)
    if isinstance(found, erlang.OtpErlangAtom):
        name = found.value if isinstance(found.value, str) else found.value.decode("latin-1")
        return None if name == "nil" else Atom(name)
    if isinstance(found, list):
        return [_to_python(element, data) for element in found]
    if isinstance(found, tuple):
        if found and isinstance(found[0], erlang.OtpErlangAtom) and found[0].value == _MAP_MARKER[1]:
            return _map(found, data)
        return tuple([_to_python(element, data) for element in found])
    if isinstance(found, erlang.OtpErlangFunction):
        _, start, end = struct.unpack(">III", found.value)
        return _kept_as_bytes(data[start:end])
    if isinstance(found, bytes):  # erlang_py decodes STRING_EXT as bytes
        return list(found)
    if found is None:  # erlang_py decodes the atom `undefined` as None
        return Atom("undefined")
    number: bool | int | float = found
    return number


def _text_or_bytes(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _map(found: tuple[Any, ...], data: bytes) -> dict[Term, Term]:
    result: dict[Term, Term] = {}
    for index in range(1, len(found), 2):
        result[_to_python(found[index], data)] = _to_python(found[index + 1], data)
    if len(result) != len(found) // 2:
        raise WireError("a map with keys that Python cannot tell apart")
    return result


def _kept_as_bytes(etf: bytes) -> Opaque | int:
    if etf[0] != _LARGE_BIG:
        return Opaque(etf)
    magnitude = int.from_bytes(etf[6:], "little")
    return -magnitude if etf[5] else magnitude


class _Encoder:
    """Makes the objects that erlang_py encodes correctly.

    It counts the terms, so that a list that contains itself raises a `WireError` and not an endless recursion.
    """

    def __init__(self) -> None:
        self.terms = 0

    def to_erlang_py(self, term: Term, depth: int) -> Any:
        self.terms += 1
        if self.terms > MAX_TERMS:
            raise _too_many()
        if isinstance(term, str):
            return erlang.OtpErlangBinary(_utf8(term))
        if isinstance(term, bytes):
            return erlang.OtpErlangBinary(term)
        if isinstance(term, Atom):
            return _atom(term)
        if term is None:
            return erlang.OtpErlangAtom("nil")
        if isinstance(term, (bool, float)):
            return term
        if isinstance(term, int):
            return _integer(term)
        if isinstance(term, Opaque):
            return erlang.OtpErlangFunction(term.etf[0], term.etf[1:])
        if term:
            depth += 1
            _check_depth(depth)
        if isinstance(term, list):
            return [self.to_erlang_py(element, depth) for element in term]
        if isinstance(term, tuple):
            return tuple([self.to_erlang_py(element, depth) for element in term])
        if isinstance(term, dict):
            pairs = {self.to_erlang_py(key, depth): self.to_erlang_py(value, depth) for key, value in term.items()}
            if len(pairs) != len(term):
                raise WireError(
                    "a map with keys that Erlang cannot tell apart, such as text and the same text as bytes"
                )
            return pairs
        raise _unknown_type("Python", type(term).__name__)


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise WireError("text that UTF-8 cannot express; send bytes") from error


def _atom(atom: Atom) -> Any:
    if atom.name in _RESERVED:
        raise WireError("the atoms nil, true and false are None, True and False")
    _utf8(atom.name)
    return erlang.OtpErlangAtom(atom.name)


def _integer(number: int) -> Any:
    """Leave an integer to erlang_py if it has at most 255 bytes. Encode a larger one here, in linear time."""
    count = (number.bit_length() + 7) // 8
    if count <= 255:
        return number
    if count > MAX_FRAME:
        raise _too_long("integer", count)
    sign = b"\1" if number < 0 else b"\0"
    return erlang.OtpErlangFunction(_LARGE_BIG, _U32.pack(count) + sign + abs(number).to_bytes(count, "little"))
