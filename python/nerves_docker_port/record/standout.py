"""Buildroot's headlines as the terminals of the world show them.

Buildroot writes `$(TERM_BOLD)>>> name version Step$(TERM_RESET)` (support/misc/utils.mk; `MESSAGE` in
package/pkg-utils.mk). Both come from `tput smso` and `tput rmso`, the standout mode of the container's TERM. For most
terminals these are control sequences of ECMA-48; the others are listed here, as they are in the terminfo database
(ncurses 6.4 to 6.6, `infocmp`). tests/unit/terminfo-standout.tsv has all of them.
"""

from __future__ import annotations

import re

from nerves_docker_port.printing import from_output

# What terminals send that ECMA-48 does not know, by what it begins with: blanks are part of it.
_OTHERS = rb"""
    \x1b(?: &[a-z]\d*[@-Z] | 0[PQ@] | [01]n | 4[A@] | 4!a | 4>b | 6[$\x20] | 9P | A[AE] | AR[NF] | [BC]I | f3;
          | G[0146<t] | G1@A | M[$\x20] | MT[12] | O[1o0] | No | R[D@] | START\r | 70,[06]\r | END\r | [UV]!
          | _[13] | `[67] | [ab][$] | b[02] | d[P@] | g[014] | s[5IR] | [yz]Q | \x1bS[01] | \[8ZZ
          | \[%gh%\{4\}%\^%Ph%gh%dZZ )
  | \x01[Cc]\d, | \x03[DE\x20] | \x0e[FG] | [\x0e\x0f]o | \x16[$#][,\x20] | \x16\x01p | \x1a[23] | \x1c[HI]`
  | [\x1d\x1f]\x20 | \x1e[DE] | \x1f[P@!] | \x1fatt\x20[es]\r | ~[\x19\x1f] | \x20(?=\x1b[Rd]) | (?<=\x1b\[7m)\x20
"""
# ECMA-48, a single control that moves nothing to the right, and padding (terminfo(5), "Delays and Padding"): as it
# stands in the database, for a tput that does not replace it.
_COMMON = rb"""
    (?:\x1b\[|\x9b)[0-?]*[\x20-/]*[@-~] | \x1b[]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\) | \x1b[\x20-/]*[0-~]?
  | [\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f] | \$<[\d.]+[*/]*>
"""
_SEQUENCES = rb"(?: %s | %s ){1,12}" % (_OTHERS, _COMMON)
# The look ahead keeps the search fast: nearly no line begins so and has the mark.
_MARKED = rb"(?= [\x20~]? [\x00-\x08\x0b-\x1f\x7f-\x9f] [^\n]* >>> ) %s >>>" % _SEQUENCES

HEADLINE = re.compile(rb"(?: >>> | \x1b\[7m>>> | %s ) [^\n]*" % _MARKED, re.VERBOSE)
"""A headline, where it begins its line: `>>>`, or control sequences and `>>>`."""

# `re` finds a pattern's first byte with memchr: six times as fast as `^` at every byte.
NEXT_HEADLINES = re.compile(rb"\n( >>>[^\n]* | \x1b\[7m>>>[^\n]* | %s[^\n]* )" % _MARKED, re.VERBOSE)
"""Those that follow a line."""

LONGEST_START = 256
"""Bytes before `>>>` that are looked at in a line that has not ended yet."""

_START = re.compile(
    rb"(?:>{0,2} | [\x20~]? | [\x20~]?[\x00-\x08\x0b-\x1f\x7f-\x9f][^\n]{0,%d} ) \Z" % LONGEST_START, re.VERBOSE
)
_BEGINNING = re.compile(rb"%s(?=>>>)" % _SEQUENCES, re.VERBOSE)
_END = re.compile(rb"%s[\x20\r]*\Z" % _SEQUENCES, re.VERBOSE)
_USUAL = bytes([*b"\t\n", *range(0x20, 0x7F)])


def may_become_headline(line: bytes) -> bool:
    """Whether a line that has not ended yet is a headline, or can still become one."""
    return _START.match(line) is not None or HEADLINE.match(line) is not None


def shown(lines: list[bytes]) -> list[bytes]:
    """Headlines as they are shown: no control of any kind, no surrounding blanks."""
    if not lines:
        return []
    # Together they take a fraction of the time where they hold no sequences but the usual ones.
    text = b"\n".join(lines).replace(b"\x1b[7m", b"").replace(b"\x1b[27m", b"").replace(b"\r", b"")
    # `translate` finds a byte that is not usual much faster than `re` does.
    if text.translate(None, _USUAL) or b"$<" in text:
        return [_shown(line) for line in lines]
    return [line.strip() for line in text.split(b"\n")]


def _shown(line: bytes) -> bytes:
    beginning = _BEGINNING.match(line)
    return from_output(_END.sub(b"", line[beginning.end() if beginning else 0 :])).strip().encode()
