"""Explains a failed build from its log: which package, which step, the decisive lines, and what to do.

The last lines of a log often only say what followed from the failure, so the whole log is read. ``explain`` is for
code, ``render`` makes text of its answer, and ``main`` is the command. It imports nothing heavy.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import BinaryIO

from nerves_docker_port import errors
from nerves_docker_port.record.cause import Cause, find_cause, find_cause_in_text, without_escapes
from nerves_docker_port.record.failure import Landmarks, Place, find_place, read_landmarks
from nerves_docker_port.record.signs import KINDS

USAGE = """\
usage: python -m nerves_docker_port explain [--json] LOG

  Finds the cause of a failed build in its log, for example build.log; `-` reads it from standard input.
  --json    print one JSON object on one line: package, step, kind, lines, remedy; null if the build did not fail
"""
EX_USAGE = 64

_PIECE = 1 << 20
"""Bytes of one read from a pipe."""
_NOT_PLAIN = (
    (b"\x1f\x8b", "compressed with gzip", "gzip -dc"),
    (b"\xfd7zXZ", "compressed with xz", "xz -dc"),
    (b"BZh", "compressed with bzip2", "bzip2 -dc"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "zstd -dc"),
    (b"PK\x03\x04", "a zip archive", "unzip -p"),
    (b"\xff\xfe", "UTF-16 text", "iconv -f UTF-16 -t UTF-8"),
    (b"\xfe\xff", "UTF-16 text", "iconv -f UTF-16 -t UTF-8"),
)
"""How a file begins that is a log in another form, what it is, and the command that writes the log from it."""
_LONGEST_MARK = max(len(mark) for mark, _, _ in _NOT_PLAIN)
_TAIL = 64 * 1024
"""Bytes at the end of a log in which the failure of a step without make is looked for."""
_MOST_LINES, _WIDTH = 20, 100
"""The size of the text that ``render`` makes."""
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_OF_PREPARATION = (
    *("disk-full", "permission", "missing-tool", "file-system", "platform", "defconfig"),
    *("download", "download-403", "download-404", "download-certificate", "download-no-network"),
    *("extract-corrupt", "patch-hunk", "patch-malformed"),
)
"""The kinds of failures that nerves_system_br's create-build.sh can have before it runs make."""
_PREPARATION_ENDED = re.compile(
    rb"^Failed to download buildroot |Case-insensitive file system detected!(?!(?s:.)*Build continuing)|"
    rb"^ERROR: (?:Can't find \S+\. Please check|Nerves system images|64-bit Linux required)|"
    rb"^tar: Error is not recoverable: exiting now\s*\Z|^tar: Exiting with failure status[^\n]*\s*\Z",
    re.MULTILINE,
)
"""What create-build.sh, download-buildroot.sh and their tar print last when they fail."""
_WENT_ON = re.compile(rb"^make\[\d+\]: (?!\*\*\*)|/mksystem\.sh ", re.MULTILINE)
"""What a failed outermost make leaves nobody to print: an inner make's remark, the step that packs the system."""
_REMEDY_OF_ARCHIVE = (
    "Delete Buildroot's archive (buildroot-*.tar.gz) from the download directory: it is downloaded again."
)
_REMEDY_OF_DOWNLOAD = (
    "Give the container a network, or put Buildroot's archive, which the log names, into the download directory."
)


def explain(path: Path) -> Cause | None:
    """The cause of the failure that ended the last run in the log at ``path``; ``None`` if that did not fail.

    Reads the file once, a second for 400 MB, and keeps a few megabytes of it. Raises ``RunnerError`` if it cannot be
    read.
    """
    return _explain(str(path), path)


def _explain(name: str, source: Path | int) -> Cause | None:
    try:
        with open(source, "rb", buffering=0, closefd=isinstance(source, Path)) as log:
            return _explain_opened(name, log)
    except OSError as error:
        raise errors.log_unreadable(name, str(error.strerror)) from error


def _explain_opened(name: str, log: BinaryIO) -> Cause | None:
    """What comes through a pipe is kept in a file, because it is read in two places. Raises ``OSError``."""
    if not log.seekable():
        with tempfile.TemporaryFile() as kept:
            try:
                shutil.copyfileobj(log, kept, _PIECE)
                kept.seek(0)
            except OSError as error:
                raise errors.log_not_kept(name, tempfile.gettempdir(), str(error.strerror)) from error
            return _explain_opened(name, kept)
    log.seek(0)
    begin = log.read(_LONGEST_MARK)
    for mark, what, command in _NOT_PLAIN:
        if begin.startswith(mark):
            raise errors.log_not_plain(name, what, command)
    log.seek(0)
    return explain_file(log)


def explain_file(log: BinaryIO) -> Cause | None:
    """``explain`` for an open file that can be read at any position. Raises ``OSError``."""
    found = read_landmarks(log)
    cause = _of_preparation(log, found)
    if cause:
        return cause
    place = find_place(found)
    if place is None or _went_on(log, place):
        return None
    return find_cause(log, place)


def _went_on(log: BinaryIO, place: Place) -> bool:
    """Whether the make that seems to be the outermost one was inside something that went on without it."""
    log.seek(place.last.end)
    return not place.last.is_interruption and bool(_WENT_ON.search(log.read(_TAIL)))


def _of_preparation(log: BinaryIO, found: Landmarks) -> Cause | None:
    """The failure of nerves_system_br's create-build.sh before it runs make: then nothing of make comes after it."""
    log.seek(max(0, found.end, found.size - _TAIL))
    end = log.read(_TAIL)
    # Behind the landmarks of an earlier run only the script's own last words count.
    if not _PREPARATION_ENDED.search(end) and (found.end >= 0 or not re.search(rb"uildroot|nerves", end)):
        return None
    cause = find_cause_in_text(end, "Downloading", _OF_PREPARATION)
    if cause and cause.kind.startswith("download"):
        return replace(cause, kind="platform-download", remedy=_REMEDY_OF_DOWNLOAD)
    if cause and cause.kind == "extract-corrupt":
        return replace(cause, remedy=_REMEDY_OF_ARCHIVE)
    return cause


def title(cause: Cause) -> str:
    """One sentence that says what failed and in which way."""
    if cause.package and cause.step:
        return f"{cause.package} failed in the step {cause.step}: {KINDS[cause.kind]}."
    if cause.package or cause.step:
        return f"{cause.package or cause.step} failed: {KINDS[cause.kind]}."
    return f"The build failed: {KINDS[cause.kind]}."


def facts(cause: Cause) -> errors.Facts:
    """``cause`` as a ``RunnerError`` has it, for a program that reads the error."""
    return {"title": title(cause), **asdict(cause)}


def render(cause: Cause) -> str:
    """``cause`` as text for an error message: at most 20 lines of 100 columns, without control characters."""
    remedy = textwrap.wrap(_harmless(f"What to do: {cause.remedy}"), _WIDTH) if cause.remedy else []
    head = textwrap.wrap(_harmless(title(cause)), _WIDTH)
    room = _MOST_LINES - len(head) - len(remedy) - 2
    lines = [_shortened(f"    {_harmless(line)}") for line in cause.lines[:room]]
    return "\n".join([*head, "", *lines, *([""] if remedy else []), *remedy][:_MOST_LINES])


def _harmless(text: str) -> str:
    """No character of ``text`` does anything to a terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", without_escapes(text).expandtabs(4)).rstrip()


def _shortened(line: str) -> str:
    return line if len(line) <= _WIDTH else f"{line[: _WIDTH - 1]}…"


def main(arguments: Sequence[str]) -> int:
    """The command `explain`; its exit status."""
    words = [word for word in arguments if word != "--json"]
    if len(words) != 1 or (words[0].startswith("-") and words[0] != "-"):
        sys.stderr.write(USAGE)
        return EX_USAGE
    try:
        cause = _explain("standard input", 0) if words[0] == "-" else explain(Path(words[0]))
    except errors.RunnerError as error:
        sys.stderr.write(f"nerves_docker_port: {error.message}\n\n{error.hint}\n")
        return 1
    if "--json" in arguments:
        text = json.dumps(asdict(cause) if cause else None)
    else:
        text = render(cause) if cause else "No failure is in this log."
    try:
        print(text, flush=True)  # noqa: T201
    except BrokenPipeError:
        # Whoever reads has gone (`| head`). The interpreter would complain when it flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
