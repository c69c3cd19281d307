"""Finds out which modes of the user's terminal a program has changed, so that they can be restored.

For that, it reads the program's output on its way to the terminal. It must know neither the terminal's file descriptor
nor the modes that the kernel keeps for a terminal (termios).

The sequences are from xterm's list, https://invisible-island.net/xterm/ctlseqs/ctlseqs.html. Only the keyboard protocol
is from https://sw.kovidgoyal.net/kitty/keyboard-protocol/.
"""

from __future__ import annotations

import mmap
import re

_ALTERNATE_SCREEN = (b"1049", b"1047", b"47")

# The DEC private modes, and whether each is on by default. Off are application cursor keys,
# reverse video, origin mode, the mouse (X10), a blinking cursor, reverse wraparound, the application keypad, left and
# right margins, mouse and focus events, the mouse's encodings, bracketed paste, synchronized output, and reports of a
# new colour scheme and of a new size. On are autowrap and the cursor.
_OFF = b"1 5 6 9 12 45 66 69 1000 1001 1002 1003 1004 1005 1006 1015 1016 2004 2026 2031 2048".split()
_MODES = {**dict.fromkeys(_OFF, False), b"7": True, b"25": True}
_PRIVATE_MODES = {**dict.fromkeys(_ALTERNATE_SCREEN, False), **_MODES}

# The ANSI modes keyboard locked, insert, local echo off, and newline, and whether each is on by default.
_ANSI_MODES = {b"2": False, b"4": False, b"12": True, b"20": False}

_COLOURS = (b"4", b"10", b"11", b"12", b"17", b"19")
"""Operating system commands that set colours: the palette, text, background, cursor, selection. The command that resets
a colour has a number that is higher by 100."""


def _set_back(mode: bytes, *, to: bool, private: bytes = b"?") -> bytes:
    return b"\x1b[%s%s%s" % (private, mode, b"h" if to else b"l")


_UNDO: dict[bytes, bytes] = {
    b"=u": b"\x1b[=0u",
    **{b"?" + mode: _set_back(mode, to=sane) for mode, sane in _PRIVATE_MODES.items()},
    # Setting the margins moves the cursor, so the cursor is saved before and restored after.
    b"margins": b"\x1b7\x1b[r\x1b8",
    # Setting origin mode moves the cursor. Restoring a saved cursor would restore origin mode, too, so the cursor is
    # moved to the last line, where the user's shell goes on.
    b"?6": b"\x1b[?6l\x1b[999H",
    **{mode: _set_back(mode, to=sane, private=b"") for mode, sane in _ANSI_MODES.items()},
    **{b"charset" + place: b"\x1b" + place + b"B" for place in (b"(", b")", b"*", b"+")},
    b"shift": b"\x0f",
    b"keypad": b"\x1b>",
    b"cursor": b"\x1b[0 q",
    **{b"]" + colour: b"\x1b]%d\x1b\\" % (100 + int(colour)) for colour in _COLOURS},
    b"keys": b"\x1b[>4m",
    b"text": b"\x1b[0m",
}
"""The modes that a program can change, each with the sequence that resets it. They are reset in this order."""

_PLACES = {name: place for place, name in enumerate(_UNDO)}
"""The index of each mode's flags in the shared memory."""

_PUSHED = len(_PLACES)
"""The index of the number of keyboard modes that were pushed and not popped."""

_UNFINISHED = _PUSHED + 1
"""The index of the flag that the output ends within a sequence, so that the terminal would not show what follows."""
_IN_STRING, _IN_OTHER = 1, 2

_SET_BY_LINE_EDITORS = frozenset((b"?1", b"?66", b"?2004", b"keypad"))

_CHANGED, _TOUCHED, _SAVED_BY_PROGRAM = 1, 2, 4

_SEQUENCE = re.compile(
    rb"\x1b\[(?P<private>[?>=<]?)(?P<numbers>[0-9;:]{0,60})(?P<final> ?[@-~])"
    rb"|\x1b\](?P<command>[0-9]{1,3})(?:;(?P<value>[^\x07\x1b]{0,60}))?(?:\x07|\x1b\\)"
    rb"|\x1b(?P<place>[()*+])(?P<charset>[ -~])"
    rb"|\x1b(?P<single>[=>c])"
    rb"|(?P<shift>[\x0e\x0f])"
)
_LONGEST_SEQUENCE = 80
"""Bytes of the longest sequence that is read."""

_STRING = re.compile(rb"\x1b[]PX^_][^\x07\x1b\x18\x1a]*")
"""A command that contains a text, without the end of the text: OSC, DCS, SOS, PM, APC."""
_END_OF_STRING = re.compile(rb"[\x07\x1b\x18\x1a]")
_BEGINNING = re.compile(rb"\x1b(?:\[[0-?]*)?[ -/]*")
"""Another sequence without its end."""
_SEQUENCE_END = b"\x1b\\"
"""The string terminator. It ends a string. The escape character in it also ends every other sequence."""


class Screen:
    """Knows which modes the output has changed so far.

    The flags are in memory that the helper shares with the guardian, which reads them if the helper was killed.
    """

    save = b"\x1b[?%ss" % b";".join(_MODES)
    """The sequence that makes a terminal remember its modes (XTSAVE), to be written before the first output. xterm,
    kitty, foot, iTerm2 and the terminals built on VTE can do that. Other terminals ignore the sequence."""

    def __init__(self) -> None:
        self._state = mmap.mmap(-1, len(_PLACES) + 2)
        self._tail = b""

    def note(self, data: bytes) -> None:
        """Read ``data``, which is written to the terminal."""
        self._note_unfinished(data)
        data = self._tail + data
        end = 0
        for match in _SEQUENCE.finditer(data):
            end = match.end()
            self._read_sequence(match)
        # The end of ``data`` may be the beginning of a sequence that goes on in the next call.
        start = data.find(b"\x1b", max(end, len(data) - _LONGEST_SEQUENCE))
        self._tail = data[start:] if start >= 0 else b""

    def undo(self, *, has_line_editor: bool = False) -> bytes:
        """Return the sequences that reset the modes that the program has changed.

        A mode that the program never set is left alone. A mode that differs from its default now is set to the default.
        After that, a terminal that remembers its modes (``save``) restores each mode that the program has set.

        With ``has_line_editor``, the user's shell already uses the terminal. Then the modes that a shell's line editor
        sets are left alone.
        """
        kept = _SET_BY_LINE_EDITORS if has_line_editor else frozenset()
        flags = {name: self._state[place] for name, place in _PLACES.items() if name not in kept}
        pushed = self._state[_PUSHED]
        # Each screen has keyboard modes of its own, so these are reset before the alternate screen is left.
        undone = _SEQUENCE_END if self._state[_UNFINISHED] else b""
        undone += b"\x1b[<%du" % pushed if pushed else b""
        undone += b"".join(_UNDO[name] for name, flag in flags.items() if flag & _CHANGED)
        # Origin mode is not restored, because that would move the cursor.
        touched = [mode for mode in _MODES if mode != b"6" and flags.get(b"?" + mode, 0) & ~_CHANGED == _TOUCHED]
        return undone + (b"\x1b[?%sr" % b";".join(touched) if touched else b"")

    def _note_unfinished(self, data: bytes) -> None:
        """Note whether the output ends within a sequence now, of which ``data`` can be the middle."""
        last = data.rfind(b"\x1b")
        before = self._state[_UNFINISHED]
        if last < 0:
            if before == _IN_STRING and _END_OF_STRING.search(data) is None:
                return
            data = self._tail + data if before == _IN_OTHER else b""
            last = max(0, data.rfind(b"\x1b"))
        if _STRING.fullmatch(data, last):
            self._state[_UNFINISHED] = _IN_STRING
        else:
            self._state[_UNFINISHED] = _IN_OTHER if _BEGINNING.fullmatch(data, last) else 0

    def _read_sequence(self, match: re.Match[bytes]) -> None:
        if match["final"] is not None:
            self._read_control(match["private"], match["numbers"], match["final"])
        elif match["command"] is not None:
            self._read_command(match["command"], match["value"] or b"")
        elif match["place"] is not None:
            self._set(b"charset" + match["place"], changed=match["charset"] != b"B")
        elif match["shift"] is not None:
            self._set(b"shift", changed=match["shift"] == b"\x0e")
        elif match["single"] == b"c":
            self._reset()
        else:
            self._set(b"keypad", changed=match["single"] == b"=")

    def _read_control(self, private: bytes, numbers: bytes, final: bytes) -> None:
        if final in (b"h", b"l") and private in (b"", b"?"):
            sane = _ANSI_MODES if private == b"" else _PRIVATE_MODES
            for mode in numbers.split(b";"):
                if mode in sane:
                    self._set(private + mode, changed=(final == b"h") != sane[mode])
        elif final == b"s" and private == b"?":
            for mode in numbers.split(b";"):
                if mode in _MODES:
                    self._state[_PLACES[b"?" + mode]] |= _SAVED_BY_PROGRAM
        elif final == b"m" and private == b"":
            self._set(b"text", changed=numbers not in (b"", b"0"))
        elif final == b"m" and private == b">":
            resource, _, value = numbers.partition(b";")
            if resource in (b"", b"4"):
                self._set(b"keys", changed=value not in (b"", b"0"))
        elif final == b"r" and private == b"":
            self._set(b"margins", changed=numbers.strip(b";0") != b"")
        elif final == b" q" and private == b"":
            self._set(b"cursor", changed=numbers not in (b"", b"0"))
        elif final == b"u":
            self._read_keyboard(private, numbers)

    def _read_keyboard(self, private: bytes, numbers: bytes) -> None:
        pushed = self._state[_PUSHED]
        if private == b">":
            self._state[_PUSHED] = min(pushed + 1, 255)
        elif private == b"<":
            self._state[_PUSHED] = max(pushed - (int(numbers) if numbers.isdigit() else 1), 0)
        elif private == b"=":
            self._set(b"=u", changed=numbers.partition(b";")[0] not in (b"", b"0"))

    def _read_command(self, command: bytes, value: bytes) -> None:
        if command in _COLOURS:
            # With a question mark as the value, the command only asks for the colour.
            if b"?" not in value:
                self._set(b"]" + command, changed=True)
        elif (set_by := b"%d" % (int(command) - 100)) in _COLOURS:
            self._set(b"]" + set_by, changed=False)

    def _set(self, name: bytes, *, changed: bool) -> None:
        place = _PLACES[name]
        self._state[place] = self._state[place] & ~_CHANGED | _TOUCHED | (_CHANGED if changed else 0)

    def _reset(self) -> None:
        """Note a full reset of the terminal (RIS), which has set every mode to its default."""
        for place in _PLACES.values():
            self._state[place] = self._state[place] & ~_CHANGED | _TOUCHED
        self._state[_PUSHED] = 0
