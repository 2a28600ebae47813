"""The colours of both themes can be told from what is behind them."""

from __future__ import annotations

import pytest
from rich.color import Color
from rich.style import Style
from textual.theme import Theme

from semid_tui.widgets.theme import DARK_THEME, LIGHT_THEME, make_palette

TEXT, LINES = 4.5, 3.0  # WCAG 2.1: 1.4.3 and 1.4.11


def luminance(color: Color) -> float:
    """Relative luminance, as WCAG 2.1 defines it."""
    assert color.triplet is not None
    parts = [part / 255 for part in color.triplet]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(style: Style, background: Color) -> float:
    assert style.color is not None
    pair = sorted([luminance(style.color), luminance(style.bgcolor or background)])
    return (pair[1] + 0.05) / (pair[0] + 0.05)


@pytest.mark.parametrize("theme", [DARK_THEME, LIGHT_THEME], ids=lambda theme: str(theme.name))
def test_contrast(theme: Theme):
    variables = theme.to_color_system().generate()
    background = Color.parse(variables["background"])
    low = {}
    for name, style in make_palette(variables).items():
        least = LINES if name.startswith(("rule", "track", "envelope-", "heat-")) else TEXT
        found = contrast(style, background)
        if found < least:
            low[name] = round(found, 2)
    assert low == {}
