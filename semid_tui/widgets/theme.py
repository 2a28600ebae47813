"""Textual's themes, and the palette: the style of every name that a `Span` may carry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.style import Style
from textual.color import Color
from textual.theme import Theme

from semid_tui.render.theme import DARK, HEATS, LAYERS, LIGHT

DARK_THEME = Theme(name="semid-dark", dark=True, **DARK)
LIGHT_THEME = Theme(name="semid-light", dark=False, **LIGHT)


def make_palette(variables: Mapping[str, str]) -> dict[str, Style]:
    """The style of each name of a `Span`, from a theme's variables."""

    def color(name: str) -> Color:
        return Color.parse(variables[name])

    background, foreground = color("background"), color("foreground")

    def style(text: Color, behind: Color | None = None, **attributes: Any) -> Style:
        return Style(color=text.rich_color, bgcolor=behind.rich_color if behind else None, **attributes)

    def faded(text: Color, share: float) -> Color:
        return text.blend(background, share)

    palette = {
        "text": style(foreground),
        "strong": style(foreground, bold=True),
        "dim": style(faded(foreground, 0.3)),
        "faint": style(faded(foreground, 0.34)),
        "good": style(color("success")),
        "warn": style(color("warning"), bold=True),
        "bad": style(color("error"), bold=True),
        "accent": style(color("accent")),
        "title": style(color("accent"), bold=True),
        "rule": style(faded(foreground, 0.48)),
        "key": style(color("accent"), bold=True),
        "track": style(faded(foreground, 0.48)),
        "bar": style(color("primary")),
        "dead": style(color("error")),
        "seen": style(color("accent"), underline=True),
        "cursor": style(foreground, reverse=True, bold=True),
        "selected": style(foreground, color("primary").blend(background, 0.68), bold=True),
        "badge": style(color("warning"), bold=True, reverse=True),
        "tab": style(faded(foreground, 0.3)),
        "tab-active": style(color("primary"), bold=True, reverse=True),
    }
    for number, name in enumerate(LAYERS):
        palette[f"layer-{number}"] = style(color(name), bold=True)
        palette[f"envelope-{number}"] = style(faded(color(name), 0.22))
    cold, hot = faded(color("primary"), 0.3), color("accent").blend(color("success"), 0.5)
    for number in range(HEATS):
        palette[f"heat-{number}"] = style(cold.blend(hot, number / (HEATS - 1)))
    return palette
