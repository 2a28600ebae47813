"""The events screen."""

from __future__ import annotations

from semid_daemon.config import Config
from tests.tui.recorded import AppDriver, drive


def test_events_filter_and_levels(recorded: Config):
    async def script(ui: AppDriver) -> None:
        await ui.press("8")
        await ui.sees("nearly full", "published", '{"all": true}', "2 files are tried again")
        await ui.press("right_square_bracket")
        await ui.until(lambda: "published" not in ui.text and "nearly full" in ui.text)
        await ui.press("left_square_bracket", "slash", *"nearly")
        await ui.until(lambda: "published" not in ui.text and "nearly full" in ui.text)

    drive(recorded, script)
