"""The eight screens over a recorded catalogue: at every size, in both themes, without colours, with every marker."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from semid_daemon.config import Config
from semid_daemon.store.write.store import Store
from tests.tui.recorded import AppDriver, alive, configured, drive

SIZES = [(60, 18), (80, 24), (120, 35), (160, 45)]


SAYS = {
    1: ["loss · run 1 · step 1,200", "encoding", "items-b.parquet", "codebooks g2", "L1", "files", "events"],
    2: ["loss · run 1", "run 1 (1 of 1) · all layers", "first", "least"],
    3: ["codes · g2", "coverage", "dead", "most used", "code 0 of layer 0"],
    4: ["files · by newest", "rejected 2", "✗ rejected", "▸ loading", "disk.npz"],
    5: ["lookup", "12-250-*", "the items of a semantic ID"],
    6: ["tree · g2", "▸ "],
    7: ["generations", "g2", "active", "g1", "retired", "fingerprint"],
    8: ["events", "ERRO", "commands", "retry", "done"],
}


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES, ids="{0[0]}x{0[1]}".format)
def test_every_screen_at_every_size(recorded: Config, size: tuple[int, int]):
    async def script(ui: AppDriver) -> None:
        for number, says in SAYS.items():
            with Store(recorded.database) as store:
                alive(store)
            await ui.press("escape", str(number))
            text = await ui.sees(*says)
            lines = text.splitlines()
            assert len(lines) == size[1]
            assert all(len(line) <= size[0] for line in lines)
            assert re.match(r"semid [●▲] \d", lines[0]), lines[0]  # the heartbeat ages while the machine is slow
            assert "\x1b" not in text
            assert "Traceback" not in text

    drive(recorded, script, size)


def test_no_color_leaves_glyphs(recorded: Config, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_COLOR", "1")

    async def script(ui: AppDriver) -> None:
        for number in ("1", "3", "4"):
            await ui.press(number)
            await ui.sees(*SAYS[int(number)])
            filters = ui.app.get_line_filters()
            for strip in ui.app.screen._compositor.render_strips():
                for line_filter in filters:
                    strip = strip.apply_filter(line_filter, ui.app.screen.styles.background)
                for segment in strip:
                    colours = (segment.style.color, segment.style.bgcolor) if segment.style else ()
                    assert all(colour is None or colour.is_default for colour in colours)
        await ui.press("3", "right_square_bracket")
        await ui.sees("×")

    drive(recorded, script)


@pytest.mark.slow
@pytest.mark.parametrize("marker", ["ascii", "block"])
def test_other_markers(recorded: Config, marker):
    async def script(ui: AppDriver) -> None:
        for number in SAYS:
            await ui.press("escape", str(number))
            await ui.until(lambda: "reading" not in ui.text)
            await ui.pilot.pause(0.1)
            body = "\n".join(ui.text.splitlines()[2:-1])
            unusual = set(re.sub(r"[\x20-\x7e\n]", "", body))
            if marker == "ascii":
                # Words keep their dots and arrows; nothing is drawn with them.
                assert unusual <= set("·→←…▼▲“”×Ünïデータ↑↓✓⏎–"), (number, unusual)
            assert not any("\u2800" <= character <= "\u28ff" for character in unusual)

    drive(recorded, script, marker=marker)


@pytest.mark.slow
def test_names_from_outside_are_escaped_everywhere(recorded: Config):
    async def script(ui: AppDriver) -> None:
        for number in SAYS:
            await ui.press("escape", str(number))
            await ui.sees(*SAYS[number])
            text = ui.text
            assert "\x1b" not in text
            assert "\u202e" not in text
        await ui.press("4")
        await ui.sees("l[red]\\x1b[31m\\nname\\u202e.npz")  # shown as it is: no markup was made of it

    drive(recorded, script, (120, 35))


@pytest.mark.slow
def test_an_empty_catalogue_explains_itself(tmp_path: Path):
    config = configured(tmp_path)
    Store(config.database).close()

    async def script(ui: AppDriver) -> None:
        for number, says in {
            1: ["no training yet", "none yet: they come with the first training"],
            2: ["no training yet"],
            3: ["no codebooks yet"],
            4: ["no files yet: drop some into"],
            5: ["the items of a semantic ID"],
            6: ["no items yet"],
            7: ["none yet"],
            8: ["none"],
        }.items():
            await ui.press("escape", str(number))
            await ui.sees(*says)
        await ui.press("5", "slash", *"numpy")
        await ui.sees("nothing is called numpy")

    drive(config, script)
