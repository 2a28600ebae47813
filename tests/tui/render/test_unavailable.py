"""The screen of a database that cannot be read."""

from __future__ import annotations

from semid_daemon.store.read.connection import UnavailableError
from semid_tui.render.spans import length, plain
from semid_tui.render.unavailable import unavailable_lines


def test_fault_cause_remedy_and_tries():
    error = UnavailableError("No database yet", "/漢字/" + "long" * 30 + "\x1b: no such file", "semid init")
    drawn = unavailable_lines(error, 75.0, 12, 40)
    text = plain(drawn)
    assert drawn[1][0].style == "bad"
    assert "  No database yet" in text
    assert "\\x1b: no such file" in " ".join(text.split())
    assert "  What to do: semid init." in text
    assert "Tried again every second by itself: 12 times in 1m15s." in text
    assert all(length(part) <= 40 for part in drawn[:-1])
