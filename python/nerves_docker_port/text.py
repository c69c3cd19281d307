"""Times and sizes in words, and the one reader of the times that engines write."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone


def parse_time(moment: str) -> float | None:
    """An RFC 3339 time as seconds since 1970; ``None`` where it is something else."""
    match = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)", moment)
    if match is None:
        return None
    whole = datetime.fromisoformat(match[1]).replace(tzinfo=timezone.utc)
    offset = timedelta()
    if match[3] != "Z":
        offset = timedelta(hours=int(match[3][1:3]), minutes=int(match[3][4:6]))
    moment_utc = whole + offset if match[3][0] == "-" else whole - offset
    return moment_utc.timestamp() + float(match[2] or 0)


def ago(seconds: float) -> str:
    """How long ago something was, ``seconds`` back."""
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        count = int(seconds // length)
        if count >= 2:
            return f"{count} {unit}s ago"
    return f"{max(0, round(seconds))} seconds ago"
