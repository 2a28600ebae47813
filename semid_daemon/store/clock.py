"""Times as the database keeps them: ISO-8601 UTC text."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_now() -> str:
    """Now, as `2026-01-31T12:04:51.123Z`: sorts as text, and SQLite's date functions read it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
