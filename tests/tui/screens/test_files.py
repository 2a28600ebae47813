"""The files screen."""

from __future__ import annotations

import re

import pytest

from semid_daemon.config import Config
from tests.tui.recorded import AppDriver, drive


@pytest.mark.slow
def test_files_status_order_filter_and_detail(recorded: Config):
    async def script(ui: AppDriver) -> None:
        await ui.press("4")
        await ui.sees("disk.npz", "No space left on device")
        for _ in range(4):
            await ui.press("right_square_bracket")
        text = await ui.sees("2 shown", "broken.npz")
        assert "items-a" not in text
        await ui.press("left_square_bracket")
        await ui.sees("items-a.parquet", "first.npz")
        await ui.press("left_square_bracket", "left_square_bracket", "left_square_bracket", "o")
        await ui.sees("by name")
        rows = [line for line in ui.text.splitlines() if re.match(r"[·▸✓✗↻] ", line)]
        assert [row.split()[2] for row in rows][:3] == ["broken.npz", "disk.npz", "…il[red]\\x1b[31m\\nname\\u202e.npz"]
        await ui.press("slash", *"dimension")
        text = await ui.sees("with “dimension” · 1 shown", "wrong dimension: 512, expected 768")
        await ui.press("escape")
        await ui.sees("items-b.parquet")

    drive(recorded, script)
