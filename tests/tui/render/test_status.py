"""The lines around the screens."""

from __future__ import annotations

import pytest

from semid_tui.context import SentCommand
from semid_tui.render.spans import plain
from semid_tui.render.status import SCREENS, command_line, tab_line


@pytest.mark.parametrize("cells", [60, 64, 72, 80, 81, 100, 160])
def test_tabs_fit_and_lead_to_their_screens(cells: int):
    spans = tab_line(3, cells)
    assert sum(len(span.text) for span in spans) <= cells
    tabs = [span for span in spans if span.click]
    assert [span.click for span in tabs] == [f"app.show({number})" for number in range(1, len(SCREENS) + 1)]
    assert [span.style for span in tabs].index("tab-active") == 2


def test_the_life_of_a_command():
    sent = SentCommand("1.json", "retry", "a[b].npz", 100.0, state_s=100.0)
    assert plain([command_line(sent, 100.3, 80)]) == "retry a[b].npz · queued 0.3s"
    assert "waits until a daemon runs" in plain([command_line(sent, 120.0, 80)])
    accepted = SentCommand("1.json", "train", "", 100.0, "accepted", 100.2)
    assert plain([command_line(accepted, 160.0, 80)]) == "train · queued → accepted 1m00s"
    failed = SentCommand("1.json", "train", "", 100.0, "failed", 100.5, "no\x1bt now " * 20)
    text = plain([command_line(failed, 160.0, 60)])
    assert text.startswith("train · queued → accepted → failed after 0.5s: no\\x1bt")
    assert len(text) <= 60
