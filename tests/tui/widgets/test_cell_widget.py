"""The widget that repaints changed cells only, under an app of its own."""

from __future__ import annotations

import asyncio

from textual.app import App, ComposeResult
from textual.geometry import Region

from semid_tui.render.spans import Line, Span, line
from semid_tui.widgets.cell_widget import CellWidget
from semid_tui.widgets.theme import DARK_THEME, LIGHT_THEME, make_palette


class Words(CellWidget):
    """Two lines; the second can be clicked."""

    text = "loss 0.214"

    def lines(self, width: int, height: int) -> list[Line]:
        return [line(self.text), line(Span("漢字 tab", "tab", "app.choose"))]


class Small(App[None]):
    """An app with a palette and one widget."""

    CSS = "Words { height: 3; width: 20; }"

    def __init__(self) -> None:
        super().__init__()
        self.register_theme(DARK_THEME)
        self.theme = DARK_THEME.name
        self.palette = make_palette(self.get_css_variables())
        self.chosen = 0

    def compose(self) -> ComposeResult:
        yield Words()

    def action_choose(self) -> None:
        self.chosen += 1


def test_changed_cells_are_repainted_and_clicks_act(monkeypatch):
    async def run() -> None:
        app = Small()
        async with app.run_test() as pilot:
            words = app.query_one(Words)
            assert [words.render_line(y).text for y in range(4)] == [
                f"{'loss 0.214':<20}", f"{'漢字 tab':<18}", " " * 20, " " * 20,
            ]  # fmt: skip
            refreshed: list[Region] = []
            monkeypatch.setattr(words, "refresh", lambda *regions: refreshed.extend(regions))
            words.text = "loss 0.219"
            words.redraw()
            assert refreshed == [Region(9, 0, 1, 1)]
            words.redraw()
            assert len(refreshed) == 1
            await pilot.click(Words, offset=(1, 1))  # the second cell of a wide character
            await pilot.click(Words, offset=(1, 0))
            assert app.chosen == 1

    asyncio.run(run())


def test_both_themes_have_a_style_for_every_name():
    class Themed(App[None]):
        pass

    palettes = []
    for theme in (DARK_THEME, LIGHT_THEME):
        app = Themed()
        app.register_theme(theme)
        app.theme = theme.name
        palettes.append(make_palette(app.get_css_variables()))
    dark, light = palettes
    assert dark.keys() == light.keys()
    assert {"text", "layer-0", "envelope-3", "heat-7", "selected", "tab-active"} <= dark.keys()
    assert dark["text"].color != light["text"].color
