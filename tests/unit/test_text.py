"""Times as engines write them; ages and sizes as a person reads them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerves_docker_port.text import ago, parse_time, size

NOON = int(datetime(2026, 11, 25, 12, tzinfo=timezone.utc).timestamp()) * 1_000_000_000


@pytest.mark.parametrize(
    ("moment", "since_noon"),
    [
        ("2026-11-25T12:00:00Z", 0),
        ("2026-11-25T12:00:00.123456789Z", 123_456_789),
        ("2026-11-25T12:00:00.5Z", 500_000_000),
        ("2026-11-25T12:00:00.1234567891Z", 123_456_789),
        ("2026-11-25T14:00:00.000000001+02:00", 1),
        ("2026-11-25T06:30:00-05:30", 0),
        ("2026-11-25T12:00:00-00:00", 0),
        ("2026-11-25t12:00:00z", 0),
        ("2026-11-25 12:00:00Z", 0),
        ("2026-11-25T11:59:60Z", -1_000_000_000),
    ],
)
def test_the_times_of_every_engine_are_read(moment: str, since_noon: int) -> None:
    assert parse_time(moment) == NOON + since_noon


@given(
    st.datetimes(min_value=datetime(2, 1, 2), max_value=datetime(9999, 12, 30)),  # noqa: DTZ001  # it gets an offset
    st.integers(min_value=-23 * 60, max_value=23 * 60),
)
def test_what_python_writes_is_read_exactly(moment: datetime, offset: int) -> None:
    written = moment.replace(tzinfo=timezone(timedelta(minutes=offset)))
    exact = (written - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(microseconds=1)
    assert parse_time(written.isoformat()) == exact * 1000


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00+00:00", "0001-01-01T01:00:00+01:00"])
def test_what_go_writes_for_never_is_no_time(moment: str) -> None:
    assert parse_time(moment) is None


@pytest.mark.parametrize(
    "moment",
    [
        "",
        "None",
        "2026-11-25",
        "2026-11-25T12:00:00",
        "2026-13-25T12:00:00Z",
        "2026-02-30T12:00:00Z",
        "2026-11-25T25:00:00Z",
        "2026-11-25T12:00:61Z",
        "0000-01-01T00:00:00Z",
        "9999-12-31T23:59:59-23:59",
        "2026-11-25T12:00:00Z and more",
        "٢٠٢٦-11-25T12:00:00Z",  # digits, but not RFC 3339's
    ],
)
def test_what_is_no_time_is_none(moment: str) -> None:
    assert parse_time(moment) is None


@given(st.text())
def test_no_text_breaks_it(moment: str) -> None:
    assert parse_time(moment) is None or moment


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3600, "just now"),
        (0, "just now"),
        (59.9, "just now"),
        (60, "1 minute ago"),
        (39 * 60 + 20, "39 minutes ago"),
        (3600, "1 hour ago"),
        (47 * 3600, "1 day ago"),
        (400 * 86_400, "400 days ago"),
    ],
)
def test_an_age_is_told_in_its_largest_unit(seconds: float, words: str) -> None:
    assert ago(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (2 * 1024**2, "2 MB"),
        (3_000_000, "2.9 MB"),
        (150.5 * 1024**3, "150 GB"),
        (1.5 * 1024**4, "1.5 TB"),
    ],
)
def test_a_size_is_told_in_units_of_1024(count: float, words: str) -> None:
    assert size(count) == words
