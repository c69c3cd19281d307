"""What a program has changed at the person's terminal, besides text, so that it can be changed back.

It reads the program's output on its way to the terminal. It must know neither the terminal's descriptor nor the modes
that the kernel keeps of a terminal (termios).

All sequences are from xterm's list, https://invisible-island.net/xterm/ctlseqs/ctlseqs.html, but for the keyboard
protocol, which is from https://sw.kovidgoyal.net/kitty/keyboard-protocol/.
"""

from __future__ import annotations

import mmap
import re

_ALTERNATE_SCREEN = (b"1049", b"1047", b"47")

# DEC private modes, and whether each is on at a terminal where nothing has set it. Off are application cursor keys,
# reverse video, origin mode, the mouse (X10), a blinking cursor, reverse wraparound, the application keypad, left and
# right margins, mouse and focus events, the mouse's encodings, bracketed paste, synchronized output, and reports of a
# new colour scheme and of a new size. On are autowrap and the cursor.
_OFF = b"1 5 6 9 12 45 66 69 1000 1001 1002 1003 1004 1005 1006 1015 1016 2004 2026 2031 2048".split()
_MODES = {**dict.fromkeys(_OFF, False), b"7": True, b"25": True}
_PRIVATE_MODES = {**dict.fromkeys(_ALTERNATE_SCREEN, False), **_MODES}

# ANSI modes: keyboard locked, insert, local echo off, newline.
_ANSI_MODES = {b"2": False, b"4": False, b"12": True, b"20": False}

_COLOURS = (b"4", b"10", b"11", b"12", b"17", b"19")
"""Operating system commands that set colours: the palette, text, background, cursor, selection. The number of the one
that sets them back is 100 higher."""


def _set_back(mode: bytes, *, to: bool, private: bytes = b"?") -> bytes:
    return b"\x1b[%s%s%s" % (private, mode, b"h" if to else b"l")


_UNDO: dict[bytes, bytes] = {
    b"=u": b"\x1b[=0u",
    **{b"?" + mode: _set_back(mode, to=sane) for mode, sane in _PRIVATE_MODES.items()},
    # Setting the margins moves the cursor, so it is saved before and restored after.
    b"margins": b"\x1b7\x1b[r\x1b8",
    # Restoring the cursor would restore origin mode, too. The last line is where a shell goes on.
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
"""What can be changed, and what changes it back, in the order in which that is done."""

_PLACES = {name: place for place, name in enumerate(_UNDO)}
_PUSHED = len(_PLACES)
"""The place of the number of keyboard modes that were pushed and not popped."""

_SET_BY_LINE_EDITORS = frozenset((b"?1", b"?66", b"?2004", b"keypad"))

_CHANGED, _TOUCHED, _SAVED_BY_PROGRAM = 1, 2, 4

_SEQUENCE = re.compile(
    rb"\x1b\[(?P<private>[?>=<]?)(?P<numbers>[0-9;:]{0,60})(?P<final> ?[@-~])"
    rb"|\x1b\](?P<command>[0-9]{1,3})(?:;(?P<value>[^\x07\x1b]{0,60}))?(?:\x07|\x1b\\)"
    rb"|\x1b(?P<place>[()*+])(?P<charset>[ -~])"
    rb"|\x1b(?P<single>[=>c])"
    rb"|(?P<shift>[\x0e\x0f])"
)
_LONGEST = 80


class Screen:
    """What has been changed by the output so far.

    It is kept in memory that a forked process shares, for whoever survives.
    """

    save = b"\x1b[?%ss" % b";".join(_MODES)
    """What makes a terminal remember its modes (XTSAVE), to be written before the first output. Terminals that cannot
    do that ignore it; xterm, kitty, foot, iTerm2 and those built on VTE can."""

    def __init__(self) -> None:
        self._state = mmap.mmap(-1, len(_PLACES) + 1)
        self._tail = b""

    def note(self, data: bytes) -> None:
        """``data`` is written to the terminal."""
        data = self._tail + data
        end = 0
        for match in _SEQUENCE.finditer(data):
            end = match.end()
            self._note(match)
        # A sequence may be cut by the read.
        start = data.find(b"\x1b", max(end, len(data) - _LONGEST))
        self._tail = data[start:] if start >= 0 else b""

    def undo(self, *, has_line_editor: bool = False) -> bytes:
        """What sets everything back that is not as it was before, as far as that is known.

        A mode that the program never touched is left as it is. One that it touched is set to what it is on a terminal
        on which nothing has set it, and after that to what it was at ``save``, where the terminal can remember.

        With ``has_line_editor``, a shell has the terminal already, and has set those modes that such a one sets.
        """
        kept = _SET_BY_LINE_EDITORS if has_line_editor else frozenset()
        flags = {name: self._state[place] for name, place in _PLACES.items() if name not in kept}
        pushed = self._state[_PUSHED]
        # Each screen has keyboard modes of its own, so they go before the alternate screen does.
        undone = b"\x1b[<%du" % pushed if pushed else b""
        undone += b"".join(_UNDO[name] for name, flag in flags.items() if flag & _CHANGED)
        # Not origin mode, because that moves the cursor.
        touched = [mode for mode in _MODES if mode != b"6" and flags.get(b"?" + mode, 0) & ~_CHANGED == _TOUCHED]
        return undone + (b"\x1b[?%sr" % b";".join(touched) if touched else b"")

    def _note(self, match: re.Match[bytes]) -> None:
        if match["final"] is not None:
            self._note_control(match["private"], match["numbers"], match["final"])
        elif match["command"] is not None:
            self._note_command(match["command"], match["value"] or b"")
        elif match["place"] is not None:
            self._set(b"charset" + match["place"], changed=match["charset"] != b"B")
        elif match["shift"] is not None:
            self._set(b"shift", changed=match["shift"] == b"\x0e")
        elif match["single"] == b"c":
            self._reset()
        else:
            self._set(b"keypad", changed=match["single"] == b"=")

    def _note_control(self, private: bytes, numbers: bytes, final: bytes) -> None:
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
            self._note_keyboard(private, numbers)

    def _note_keyboard(self, private: bytes, numbers: bytes) -> None:
        pushed = self._state[_PUSHED]
        if private == b">":
            self._state[_PUSHED] = min(pushed + 1, 255)
        elif private == b"<":
            self._state[_PUSHED] = max(pushed - (int(numbers) if numbers.isdigit() else 1), 0)
        elif private == b"=":
            self._set(b"=u", changed=numbers.partition(b";")[0] not in (b"", b"0"))

    def _note_command(self, command: bytes, value: bytes) -> None:
        if command in _COLOURS:
            # With a question mark, it asks.
            if b"?" not in value:
                self._set(b"]" + command, changed=True)
        elif (set_by := b"%d" % (int(command) - 100)) in _COLOURS:
            self._set(b"]" + set_by, changed=False)

    def _set(self, name: bytes, *, changed: bool) -> None:
        place = _PLACES[name]
        self._state[place] = self._state[place] & ~_CHANGED | _TOUCHED | (_CHANGED if changed else 0)

    def _reset(self) -> None:
        """A full reset (RIS) has touched everything."""
        for place in _PLACES.values():
            self._state[place] = self._state[place] & ~_CHANGED | _TOUCHED
        self._state[_PUSHED] = 0
