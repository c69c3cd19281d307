"""Reads times in the form in which engines write them, and writes times and sizes for the user."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

_RFC_3339 = re.compile(
    r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ](?P<minute>[0-9]{2}:[0-9]{2}):(?P<second>[0-9]{2})"
    r"(?:\.(?P<fraction>[0-9]+))?(?:[Zz]|(?P<sign>[+-])(?P<hours>[0-9]{2}):(?P<minutes>[0-9]{2}))"
)

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def parse_time(moment: str) -> int | None:
    """Return an RFC 3339 time as nanoseconds since 1970. Return ``None`` if it is not such a time, or means "never".

    Docker writes nanoseconds and a ``Z``; Podman writes an offset. Both are written in Go, where a time that was never
    set is ``0001-01-01T00:00:00Z`` (https://pkg.go.dev/time#Time.IsZero). ``datetime.fromisoformat`` reads neither
    nanoseconds nor a ``Z`` before Python 3.11, and only microseconds from 3.11 on.
    """
    match = _RFC_3339.fullmatch(moment)
    if match is None:
        return None
    # A leap second is written as second 60, which datetime does not accept.
    second = "59" if match["second"] == "60" else match["second"]
    try:
        local = datetime.fromisoformat(f"{match['date']}T{match['minute']}:{second}").replace(tzinfo=timezone.utc)
        offset = timedelta(hours=int(match["hours"] or 0), minutes=int(match["minutes"] or 0))
        whole = local + offset if match["sign"] == "-" else local - offset
    except (ValueError, OverflowError):
        return None
    if local.year == 1:
        return None
    since = whole - _EPOCH
    nanoseconds = int((match["fraction"] or "0")[:9].ljust(9, "0"))
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + nanoseconds


def ago(seconds: float) -> str:
    """Return how long ago something was, in the largest unit that fits: ``3 days ago``.

    Return ``just now`` for less than a minute, and also for a time in the future, because the engine's clock may differ
    from the host's clock.
    """
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        count = int(seconds // length)
        if count > 0:
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    return "just now"


def duration(seconds: float) -> str:
    """Return a duration for the user: ``0.4 s``, ``13 s``, ``12 min 3 s``, ``1 h 2 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def size(count: float) -> str:
    """Return a number of bytes for the user, in units that are powers of 1024, as in Docker's memory options."""
    for unit in ("B", "KB", "MB", "GB"):
        if abs(count) < 1024:
            return (
                f"{count:.0f} {unit}" if unit == "B" or count >= 100 or count == int(count) else f"{count:.1f} {unit}"
            )
        count /= 1024
    return f"{count:.1f} TB"
