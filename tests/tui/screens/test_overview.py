"""The overview."""

from __future__ import annotations

import re

import pytest

from semid_daemon.config import Config
from tests.tui.recorded import AppDriver, ago, drive, execute


@pytest.mark.parametrize("light", [False, True], ids=["dark", "light"])
def test_the_overview_in_both_themes(recorded: Config, light: bool):
    async def script(ui: AppDriver) -> None:
        text = await ui.sees("loss · run 1", "codebooks g2", "××", "↻ disk.npz")
        assert "L0 100.0% dead  0" in text
        assert re.search(r"L1  62\.5% dead  6 ppl .*×{2,}", text)  # the dead share, at the end of the profile
        assert "100/1,000 rows" in text
        assert "48.1k rows/s" in text
        assert "1m30s" in text
        before = dict(ui.app.palette)
        await ui.press("t")
        await ui.until(lambda: ui.app.palette != before)
        strips = ui.app.screen._compositor.render_strips()
        colours = {
            segment.style.color.name for strip in strips for segment in strip if segment.style and segment.style.color
        }
        old = {style.color.name for style in before.values() if style.color}
        new = {style.color.name for style in ui.app.palette.values() if style.color}
        assert colours & new
        assert not colours & (old - new)  # no strip keeps a colour of the old theme

    drive(recorded, script, light=light)


@pytest.mark.parametrize(
    ("age_s", "state", "says"),
    [
        (12, "encoding", r"semid ▲ 1\ds old ENCODING"),
        (95, "encoding", r"semid ▲ daemon silent 1m3\ds was ENCODING"),
        (95, "stopped", r"semid ○ STOPPED 1m3\ds ago"),
    ],
)
def test_old_data_never_looks_live(recorded: Config, age_s: float, state: str, says: str):
    execute(recorded, "UPDATE _daemon SET heartbeat_at = ?, state = ?", ago(age_s), state)

    async def script(ui: AppDriver) -> None:
        await ui.sees("codebooks g2", "events")
        status = ui.text.splitlines()[0]
        assert re.match(says, status), status
        assert "48.1k/s" not in status
        assert "ETA" not in status
        if age_s > 30:
            assert "rows/s" not in ui.text

    drive(recorded, script)
