"""Finds Buildroot's headlines between the control sequences with which a terminal highlights them.

Buildroot writes `$(TERM_BOLD)>>> name version Step$(TERM_RESET)` (support/misc/utils.mk; `MESSAGE` in
package/pkg-utils.mk). Both come from `tput smso` and `tput rmso`, the standout mode of the container's TERM. For most
terminals these are control sequences of ECMA-48; the others are listed here, as they are in the terminfo database
(ncurses 6.4 to 6.6, `infocmp`). tests/unit/terminfo-standout.tsv has all of them.
"""

from __future__ import annotations

import re

from nerves_docker_port.printing import from_output

# Sequences of terminals that do not follow ECMA-48. Blanks are part of some of them.
_OTHERS = rb"""
    \x1b(?: &[a-z]\d*[@-Z] | 0[PQ@] | [01]n | 4[A@] | 4!a | 4>b | 6[$\x20] | 9P | A[AE] | AR[NF] | [BC]I | f3;
          | G[0146<t] | G1@A | M[$\x20] | MT[12] | O[1o0] | No | R[D@] | START\r | 70,[06]\r | END\r | [UV]!
          | _[13] | `[67] | [ab][$] | b[02] | d[P@] | g[014] | s[5IR] | [yz]Q | \x1bS[01] | \[8ZZ
          | \[%gh%\{4\}%\^%Ph%gh%dZZ )
  | \x01[Cc]\d, | \x03[DE\x20] | \x0e[FG] | [\x0e\x0f]o | \x16[$#][,\x20] | \x16\x01p | \x1a[23] | \x1c[HI]`
  | [\x1d\x1f]\x20 | \x1e[DE] | \x1f[P@!] | \x1fatt\x20[es]\r | ~[\x19\x1f] | \x20(?=\x1b[Rd]) | (?<=\x1b\[7m)\x20
"""
# Sequences of ECMA-48, control characters except tab and newline, and padding as it is written in the terminfo database
# (terminfo(5), "Delays and Padding"), because not every `tput` replaces it.
_COMMON = rb"""
    (?:\x1b\[|\x9b)[0-?]*[\x20-/]*[@-~] | \x1b[]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\) | \x1b[\x20-/]*[0-~]?
  | [\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f] | \$<[\d.]+[*/]*>
"""
_SEQUENCES = rb"(?: %s | %s ){1,12}" % (_OTHERS, _COMMON)
# The look ahead keeps the search fast, because hardly any line begins with a control character and contains `>>>`.
_MARKED = rb"(?= [\x20~]? [\x00-\x08\x0b-\x1f\x7f-\x9f] [^\n]* >>> ) %s >>>" % _SEQUENCES

HEADLINE = re.compile(rb"(?: >>> | \x1b\[7m>>> | %s ) [^\n]*" % _MARKED, re.VERBOSE)
"""A headline at the beginning of a line: `>>>`, or control sequences and `>>>`."""

# The pattern begins with a newline, because `re` finds it with memchr. That is six times as fast as testing `^`.
NEXT_HEADLINES = re.compile(rb"\n( >>>[^\n]* | \x1b\[7m>>>[^\n]* | %s[^\n]* )" % _MARKED, re.VERBOSE)
"""A newline and the headline that follows it."""

USUAL_MARK = b"\x1b[7m>>> "
"""The beginning of headlines on nearly every terminal. If several packages are built at once, a headline can follow the
unfinished line of another package (`checking for pipe... `). In such a line, only this form is searched for."""

_INSERTED = re.compile(rb"^(?!\x1b\[7m>>> )([^\n]*?)(?=\x1b\[7m>>> )", re.MULTILINE)

LONGEST_START = 256
"""The most bytes before `>>>` for which an unfinished line may still become a headline."""

_START = re.compile(
    rb"(?:>{0,2} | [\x20~]? | [\x20~]?[\x00-\x08\x0b-\x1f\x7f-\x9f][^\n]{0,%d} ) \Z" % LONGEST_START, re.VERBOSE
)
_BEGINNING = re.compile(rb"%s(?=>>>)" % _SEQUENCES, re.VERBOSE)
_END = re.compile(rb"%s[\x20\r]*\Z" % _SEQUENCES, re.VERBOSE)
_USUAL = bytes([*b"\t\n", *range(0x20, 0x7F)])


def may_become_headline(line: bytes) -> bool:
    """Return whether an unfinished line is a headline or can still become one."""
    return _START.match(line) is not None or HEADLINE.match(line) is not None


def with_headlines_on_own_lines(data: bytes) -> bytes:
    """Return ``data`` with a newline before each headline that follows other text in its line.

    ``data`` must begin at the beginning of a line.
    """
    return _INSERTED.sub(rb"\1\n", data)


def shown(lines: list[bytes]) -> list[bytes]:
    """Return the headlines as they are shown, without control characters and surrounding blanks."""
    if not lines:
        return []
    # If the lines contain only the most common sequences, it is much faster to clean them all at once.
    text = b"\n".join(lines).replace(b"\x1b[7m", b"").replace(b"\x1b[27m", b"").replace(b"\r", b"")
    # `translate` finds a byte that is not usual much faster than `re` does.
    if text.translate(None, _USUAL) or b"$<" in text:
        return [_shown(line) for line in lines]
    return [line.strip() for line in text.split(b"\n")]


def _shown(line: bytes) -> bytes:
    beginning = _BEGINNING.match(line)
    return from_output(_END.sub(b"", line[beginning.end() if beginning else 0 :])).strip().encode()
