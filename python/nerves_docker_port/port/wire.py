"""{packet, 4} frames and Erlang external terms (ETF) <-> plain Python values.

Responsible for the sections *Transport* and *Values* of docs/protocol.md: their limits, their table of
types, and that whatever is malformed, in either direction, is a `WireError` and nothing else. Knows no
message (that is protocol.py).

The decoding and encoding proper is erlang_py's, which trusts its input. So `_Scan` looks through the bytes
first: it does not recurse, allocates nothing on the word of a header, and stops at the first thing that is
out of bounds. What it lets through, erlang_py can read. It also rewrites what erlang_py 2.0.7 gets wrong:

- A map becomes a tuple behind a marker. As maps, erlang_py merges keys that Python finds equal (1, 1.0,
  True), mangles keys that hold maps or lists, and raises AttributeError where an atom's hash is a charlist's.
- What is carried as `Opaque` becomes a pointer to its bytes, so that it goes back bit for bit.
- So does an integer of more than 255 bytes: erlang_py takes quadratic time, 6 s for 200 kB.

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
"""Bytes of one frame, without its length."""
MAX_DEPTH: Final = 512
"""Non-empty lists, tuples and maps around a term."""
MAX_TERMS: Final = 1_000_000
"""Terms in a term: itself, elements, keys and values, at every level."""


class WireError(Exception):
    """A frame or a term that the protocol does not allow, whichever side made it."""


@dataclass(frozen=True, slots=True)
class Atom:
    """An atom other than nil, true and false, which are None, True and False."""

    name: str


@dataclass(frozen=True, slots=True)
class Opaque:
    """A term that Python has no value for, as its bytes: made by `decode`, given back as it was by `encode`.

    An improper list, pid, port, reference, function or bitstring; and a map's key that Python cannot hash,
    because it is, or holds, a list or a map.
    """

    etf: bytes  # without the version byte


Term: TypeAlias = (
    bool | int | float | str | bytes | Atom | Opaque | list["Term"] | tuple["Term", ...] | dict["Term", "Term"] | None
)


def decode(data: bytes) -> Term:
    """The value of one term in the external format, version byte included."""
    try:
        return _value(erlang.binary_to_term(bytes(_Scan(data).out)), data)
    except _LEAKS as error:
        raise _refused(error) from error


def encode(term: Term) -> bytes:
    """One term in the external format, version byte included, as `minor_version: 2` writes it."""
    try:
        data: bytes = erlang.term_to_binary(_Encoder().erlang(term, 0))
    except _LEAKS as error:
        raise _refused(error) from error
    _Scan(data)  # what we send is within the limits that we set the other side
    return data


# --- What is wrong -----------------------------------------------------------------------------------------


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


def _refused(error: BaseException) -> WireError:
    return WireError(f"malformed term ({type(error).__name__})")


# What erlang_py raises on its own. After `_Scan` nothing should come, but its next release may surprise.
_LEAKS: Final = (
    ValueError,  # UnicodeError too
    TypeError,  # erlang.OutputException too
    SyntaxError,  # erlang.ParseException is one
    LookupError,
    ArithmeticError,
    AttributeError,
    RecursionError,
    struct.error,
)

# --- Frames ------------------------------------------------------------------------------------------------

_U16: Final = struct.Struct(">H")
_U32: Final = struct.Struct(">I")
_CHUNK: Final = 64 * 1024  # what a Linux pipe holds


class FrameReader:
    """Reads frames from a blocking descriptor, never a byte beyond one: `select` on it is right."""

    def __init__(self, fd: int) -> None:
        self.fd: Final = fd

    def read_frame(self) -> bytes | None:
        """The next frame without its length; None at the end of file. An end within a frame is a WireError.

        What the operating system refuses stays an OSError. EINTR is Python's business (PEP 475).
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
        """`size` bytes, fewer at the end of file. Grows with what arrives, not with what was announced."""
        data = bytearray()
        while len(data) < size:
            chunk = os.read(self.fd, min(size - len(data), _CHUNK))
            if not chunk:
                break
            data += chunk
        return bytes(data)


def write_frame(fd: int, data: bytes) -> None:
    """Writes one whole frame to a blocking descriptor. Not for two threads at once.

    What the operating system refuses stays an OSError: a BrokenPipeError where the peer is gone.
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
# The tag, and how many bytes follow the name of the node. The short forms come from before OTP 23.
_PIDS_AND_PORTS: Final = {88: 12, 103: 9, 89: 8, 102: 5, 120: 12}

# Not listed, so refused: FLOAT_EXT (text, of minor version 0), ATOM_CACHE_REF (for distribution only),
# LOCAL_EXT (its length is its node's secret), REFERENCE_EXT and FUN_EXT (gone long before any OTP we meet).

_CONTAINERS: Final = frozenset({_LIST, _SMALL_TUPLE, _LARGE_TUPLE, _MAP})
_ATOMS: Final = frozenset({_ATOM, _SMALL_ATOM, _ATOM_UTF8, _SMALL_ATOM_UTF8})
_KEPT_AS_BYTES: Final = frozenset(
    {_LARGE_BIG, _BIT_BINARY, _NEW_FUN, _EXPORT, _NEW_REFERENCE, _NEWER_REFERENCE, *_PIDS_AND_PORTS}
)

# Stand-ins, made of what no accepted term holds: the marker before a map's keys and values is atom 0 of the
# atom cache; a function of 8 bytes holds where a subterm begins and ends in the original.
_MAP_MARKER: Final = b"N\0"
_POINTER: Final = struct.Struct(">BIII")
_POINTER_SIZE: Final = 12

_MAX_ATOM: Final = 255  # characters, OTP's own limit
_FUN_HEADER: Final = 29  # size, arity, uniq, index, number of free variables


@dataclass(slots=True)
class _Open:
    """A container that has been begun."""

    tag: int
    remaining: int  # elements that have not begun; a list's tail is none of them
    start: int  # of the tag in the input
    mark: int  # and in the output
    hashable: bool
    tail_due: bool
    improper: bool = False


class _Scan:
    """Refuses what is malformed or beyond a limit; `out` is what erlang_py is to read instead of `data`."""

    def __init__(self, data: bytes) -> None:
        if len(data) > MAX_FRAME:
            raise _too_long("term", len(data))
        if data[:1] != bytes([_VERSION]):
            raise WireError("not a term: the version byte 131 is missing")
        self.data = data
        self.out = bytearray()
        self.at = 1
        self.copied = 0  # data[:copied] is in out, rewritten
        self.allowed = MAX_TERMS
        self.stack: list[_Open] = []
        try:
            self._run()
        except (IndexError, struct.error) as error:
            raise _truncated() from error
        self._copy()
        if self.at != len(data):
            raise WireError("bytes after the end of the term")

    def _run(self) -> None:
        while True:
            self._copy()
            if self.data[self.at] in _CONTAINERS:
                self._begin()
            else:
                self._leaf()
            if self.allowed < 0:
                raise _too_many()
            # End what is complete, up to a container that still has something to come.
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
                self._end(container.start, container.mark, container.improper, container.hashable)
            else:
                return

    def _begin(self) -> None:
        start, mark = self.at, len(self.out)
        tag = self.data[start]
        count, self.at = _header(self.data, start)
        if count > len(self.data) - self.at:  # an element has a byte at least
            raise _truncated()
        self.allowed -= 1
        if count > self.allowed:
            raise _too_many()
        if tag == _MAP:
            self.out.append(_LARGE_TUPLE)
            self.out += _U32.pack(count + 1) + _MAP_MARKER
            self.copied = self.at
        is_tuple = tag in (_SMALL_TUPLE, _LARGE_TUPLE)
        self.stack.append(_Open(tag, count, start, mark, hashable=is_tuple, tail_due=tag == _LIST))
        if count:
            _check_depth(len(self.stack))

    def _leaf(self) -> None:
        start, mark = self.at, len(self.out)
        tag = self.data[start]
        self.at = _leaf_end(self.data, start)
        if self.at > len(self.data):
            raise _truncated()
        self.allowed -= 1
        if tag == _STRING:  # a list of small integers, in short
            count = self.at - start - 3
            self.allowed -= count
            _check_depth(len(self.stack) + bool(count))
        self._end(start, mark, tag in _KEPT_AS_BYTES, tag not in (_NIL, _STRING))

    def _end(self, start: int, mark: int, kept: bool, hashable: bool) -> None:
        """A term has ended at `at`. Leaves a pointer in its place if it is `kept` as bytes."""
        if self.stack and not kept and not hashable:
            parent = self.stack[-1]
            parent.hashable = False
            kept = parent.tag == _MAP and parent.remaining % 2 == 1  # it is a key, its value comes next
        if kept:
            self.out[mark:] = _POINTER.pack(_NEW_FUN, _POINTER_SIZE, start, self.at)
            self.copied = self.at

    def _copy(self) -> None:
        self.out += self.data[self.copied : self.at]
        self.copied = self.at


def _header(data: bytes, at: int) -> tuple[int, int]:
    """How many terms the container at `at` announces (a list's tail not counted), and where they begin."""
    if data[at] == _SMALL_TUPLE:
        return data[at + 1], at + 2
    (count,) = _U32.unpack_from(data, at + 1)
    return (2 * count if data[at] == _MAP else count), at + 5


def _check_depth(depth: int) -> None:
    if depth > MAX_DEPTH:
        raise _too_deep()
    if depth > _SHALLOW:
        _make_room()


def _leaf_end(data: bytes, at: int) -> int:
    """Where the leaf whose tag stands at `at` ends; that may be beyond the end of the data."""
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
        if data[sign] > 1:  # OTP takes any other for a minus, erlang_py for a plus
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


# --- erlang_py's objects <-> ours --------------------------------------------------------------------------

_SHALLOW: Final = 64
_RECURSION_LIMIT: Final = 4000


def _make_room() -> None:
    """Lets the recursive functions here and in erlang_py (3 frames a level) go down to MAX_DEPTH.

    Only an unusually deep term asks for it. Never lowered again, so that no two threads can disagree.
    """
    if sys.getrecursionlimit() < _RECURSION_LIMIT:
        sys.setrecursionlimit(_RECURSION_LIMIT)


_RESERVED: Final = frozenset({"nil", "true", "false"})


def _value(found: Any, data: bytes) -> Term:
    """The plain value of what erlang_py made of `_Scan(data).out`."""
    if isinstance(found, erlang.OtpErlangBinary):
        return _text_or_bytes(found.value)
    if isinstance(found, erlang.OtpErlangAtom):
        name = found.value if isinstance(found.value, str) else found.value.decode("latin-1")
        return None if name == "nil" else Atom(name)
    if isinstance(found, list):
        return [_value(element, data) for element in found]
    if isinstance(found, tuple):
        if found and isinstance(found[0], erlang.OtpErlangAtom) and found[0].value == _MAP_MARKER[1]:
            return _map(found, data)
        return tuple([_value(element, data) for element in found])
    if isinstance(found, erlang.OtpErlangFunction):
        _, start, end = struct.unpack(">III", found.value)
        return _kept_as_bytes(data[start:end])
    if isinstance(found, bytes):  # STRING_EXT
        return list(found)
    if found is None:  # what erlang_py calls None
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
        result[_value(found[index], data)] = _value(found[index + 1], data)
    if len(result) != len(found) // 2:
        raise WireError("a map with keys that Python cannot tell apart")
    return result


def _kept_as_bytes(etf: bytes) -> Opaque | int:
    if etf[0] != _LARGE_BIG:
        return Opaque(etf)
    magnitude = int.from_bytes(etf[6:], "little")
    return -magnitude if etf[5] else magnitude


class _Encoder:
    """Makes what erlang_py encodes rightly; counts, so that a list that holds itself ends."""

    def __init__(self) -> None:
        self.terms = 0

    def erlang(self, term: Term, depth: int) -> Any:
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
            return [self.erlang(element, depth) for element in term]
        if isinstance(term, tuple):
            return tuple([self.erlang(element, depth) for element in term])
        if isinstance(term, dict):
            pairs = {self.erlang(key, depth): self.erlang(value, depth) for key, value in term.items()}
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
    """erlang_py's way, except for the sizes for which it takes quadratic time."""
    count = (number.bit_length() + 7) // 8
    if count <= 255:
        return number
    if count > MAX_FRAME:
        raise _too_long("integer", count)
    sign = b"\1" if number < 0 else b"\0"
    return erlang.OtpErlangFunction(_LARGE_BIG, _U32.pack(count) + sign + abs(number).to_bytes(count, "little"))
