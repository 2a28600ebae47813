"""Windows over the screens."""

from __future__ import annotations

from semid_daemon.config import Config
from semid_tui.widgets.dialogs import Palette
from tests.tui.recorded import AppDriver, drive


def test_the_palette_is_closed_once(recorded: Config):
    async def script(ui: AppDriver) -> None:
        await ui.press("ctrl+p")
        palette = ui.app.screen
        assert isinstance(palette, Palette)
        palette.dismiss()
        await ui.until(lambda: ui.app.screen is not palette)
        palette.dismiss()
        await ui.press("8")
        await ui.sees("the disk is nearly full")

    drive(recorded, script)
