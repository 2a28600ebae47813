"""Times as the database keeps them: ISO-8601 UTC text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def utc_now() -> str:
    """Now, as `2026-01-31T12:04:51.123Z`: sorts as text, and SQLite's date functions read it."""
    return utc_text(datetime.now(UTC))


def utc_in(seconds: float) -> str:
    """The time some seconds from now."""
    return utc_text(datetime.now(UTC) + timedelta(seconds=seconds))


def seconds_until(at: str) -> float:
    """How long it is until a time; negative for one that has passed."""
    return (datetime.fromisoformat(at) - datetime.now(UTC)).total_seconds()


def stored_time(text: str) -> str:
    """A time that a person wrote (`2026-01-31`, `2026-01-31 12:04+01:00`), as the database keeps them.

    UTC unless it says otherwise. Raises ValueError when it is none.
    """
    time = datetime.fromisoformat(text)
    return utc_text(time.replace(tzinfo=UTC) if time.tzinfo is None else time)


def utc_text(time: datetime) -> str:
    """A time with a time zone, as the database keeps it."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
