"""The colours of both themes, and the names of styles. Plain data: the widgets make styles of them."""

from __future__ import annotations

from typing import TypedDict


class Colours(TypedDict):
    """The colours of a theme, as `#rrggbb`."""

    primary: str
    secondary: str
    accent: str
    success: str
    warning: str
    error: str
    foreground: str
    background: str
    surface: str
    panel: str


DARK: Colours = {
    "primary": "#7aa2f7",
    "secondary": "#bb9af7",
    "accent": "#7dcfff",
    "success": "#9ece6a",
    "warning": "#e0af68",
    "error": "#f7768e",
    "foreground": "#c8d0e8",
    "background": "#16161e",
    "surface": "#1a1b26",
    "panel": "#24283b",
}
LIGHT: Colours = {
    "primary": "#2f5fc4",
    "secondary": "#7a3fb5",
    "accent": "#00708f",
    "success": "#3f7a1f",
    "warning": "#8f5a00",
    "error": "#b8223f",
    "foreground": "#22283a",
    "background": "#f7f8fc",
    "surface": "#f7f8fc",
    "panel": "#e3e7f2",
}
LAYERS = ("primary", "success", "secondary", "warning")  # colours of layers 0, 1, 2, 3, and so on round
HEATS = 8
LEVEL_STYLES = {"info": "dim", "warning": "warn", "error": "bad"}  # of events
STATUS_STYLES = {"done": "good", "rejected": "bad", "deferred": "warn", "loading": "accent", "pending": "text"}


def layer_style(layer: int) -> str:
    """The style of a layer's lines and bars."""
    return f"layer-{layer % len(LAYERS)}"


def envelope_style(layer: int) -> str:
    return f"envelope-{layer % len(LAYERS)}"
