"""The codes screen."""

from __future__ import annotations

import re

from semid_daemon.config import Config
from semid_daemon.store.read.connection import ReadConnection
from semid_daemon.store.read.monitor import MonitorReader
from tests.tui.recorded import CODES, AppDriver, drive


def test_codes_cursor_order_and_samples(recorded: Config):
    async def script(ui: AppDriver) -> None:
        await ui.press("3", "right_square_bracket")
        await ui.sees("62.5%", "dead 6", "code 0 of layer 1")
        await ui.press("end")
        await ui.sees(f"code {CODES - 1} of layer 1", "dead: no item has this code")
        await ui.press("o")  # the code stays under the cursor
        await ui.sees("rank order", f"code {CODES - 1} of layer 1")
        await ui.press("home")
        await ui.until(lambda: re.search(r"rank 1 of 16\n\S+ \d+-\d+-\d+", ui.text))
        with ReadConnection(recorded.database) as connection:
            usage = MonitorReader(connection).usage(2).layers[1]
        most = max(range(CODES), key=usage.__getitem__)
        assert f"code {most} of layer 1" in ui.text
        assert f"{usage[most]:,} items" in ui.text
        await ui.press("enter")
        await ui.sees(f"*-{most}-*", "matches · 7" if usage[most] == 7 else "matches · ")

    drive(recorded, script)
