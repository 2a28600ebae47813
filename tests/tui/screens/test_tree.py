"""The tree screen."""

from __future__ import annotations

import re

from semid_daemon.config import Config
from tests.tui.recorded import CODES, AppDriver, drive


def test_tree_unfolds_lazily_and_leads_to_lookup(recorded: Config):
    async def script(ui: AppDriver) -> None:
        await ui.press("6")
        await ui.until(lambda: ui.text.count("▸") == CODES)
        await ui.press("l")
        await ui.until(lambda: "▾" in ui.text and re.search(r"  ▸ \d+-\d+ ", ui.text))
        await ui.press("j", "l", "j", "l", "j")
        await ui.until(lambda: re.search(r"      · \S+", ui.text))
        leaf = re.search(r"      · (\S+)", ui.text)[1]
        await ui.press("enter")
        await ui.sees(f"─{leaf}─" if len(leaf) < 70 else leaf, "semantic ID")
        await ui.press("escape", "6", "h", "h", "h", "h", "h", "h")
        await ui.until(lambda: "▾" not in ui.text)

    drive(recorded, script)
