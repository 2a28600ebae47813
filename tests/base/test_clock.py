"""Times as the database keeps them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from semid_daemon.base.clock import seconds_until, stored_time, utc_in, utc_now, utc_text


def test_times_are_utc_with_milliseconds():
    assert utc_text(datetime(2026, 1, 31, 12, 4, 51, 123_999, tzinfo=UTC)) == "2026-01-31T12:04:51.123Z"
    assert utc_text(datetime(2026, 1, 31, 12, 4, 51, tzinfo=UTC)) == "2026-01-31T12:04:51.000Z"
    now = datetime.fromisoformat(utc_now())
    assert now.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - now) < timedelta(seconds=60)


def test_another_zone_is_converted():
    zone = timezone(timedelta(hours=5, minutes=30))
    assert utc_text(datetime(2026, 1, 31, 12, 0, tzinfo=zone)) == "2026-01-31T06:30:00.000Z"


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("2026-01-31", "2026-01-31T00:00:00.000Z"),
        ("2026-01-31 12:04+01:00", "2026-01-31T11:04:00.000Z"),
        ("2026-01-31T12:04:51.123Z", "2026-01-31T12:04:51.123Z"),
    ],
)
def test_times_that_people_write(written: str, stored: str):
    assert stored_time(written) == stored


def test_what_is_no_time_is_refused():
    with pytest.raises(ValueError, match="Invalid isoformat"):
        stored_time("yesterday")


def test_times_ahead():
    assert 3500 < seconds_until(utc_in(3600)) <= 3600
    assert seconds_until("2000-01-01T00:00:00.000Z") < 0
