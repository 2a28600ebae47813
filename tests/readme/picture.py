"""README's picture of the terminal UI: `python tests/readme/picture.py CATALOGUE` writes docs/overview.svg.

CATALOGUE is a directory with semid.toml; the picture is the more alive the more its daemon does meanwhile.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from semid_daemon.config import load_config
from semid_tui.app import MonitorApp

PICTURE = Path(__file__).parents[2] / "docs" / "overview.svg"


async def draw(catalogue: Path) -> None:
    app = MonitorApp(load_config(catalogue / "semid.toml"))
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause(4)
        PICTURE.parent.mkdir(exist_ok=True)
        PICTURE.write_text(app.export_screenshot(title="semid-tui"))


if __name__ == "__main__":
    asyncio.run(draw(Path(sys.argv[1])))
