"""The training screen."""

from __future__ import annotations

from semid_daemon.config import Config
from tests.tui.recorded import AppDriver, drive


def test_train_layers_window_log_crosshair(recorded: Config):
    async def script(ui: AppDriver) -> None:
        await ui.press("2")
        await ui.sees("┊L1", "┊L2", "all layers · all steps")
        await ui.press("right_square_bracket")
        text = await ui.sees("layer 0 · all steps", "step 400 · L0 smoothed")
        assert "┊" not in text
        await ui.press("l")
        await ui.sees("· log")
        await ui.press("z", "z", "z")
        await ui.sees("last 120 steps")
        await ui.press("left")
        await ui.sees("crosshair  L")
        await ui.press("escape", "z", "z", "left_square_bracket")
        await ui.sees("all layers · all steps", "← → put a crosshair")

    drive(recorded, script)
