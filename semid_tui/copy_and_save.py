"""Taking away what a screen shows: to the clipboard, as a file, as a picture."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from semid_tui.render.text import clean

if TYPE_CHECKING:
    from semid_tui.app import MonitorApp


def copy(app: MonitorApp) -> None:
    """What the cursor is on, into the clipboard of the terminal."""
    text = app.pane.copied_text() if app.pane else None
    if not text:
        app.notify("nothing to copy here: it is on Codes, Files, Lookup and Tree", timeout=3)
        return
    app.copy_to_clipboard(text)
    hint = ""
    if os.environ.get("TMUX"):
        hint = "\nIf it did not arrive: tmux set -s set-clipboard on"
    elif os.environ.get("SSH_TTY"):
        hint = "\nIf it did not arrive: the terminal must allow OSC 52"
    app.notify(f"copied {clean(text)[:60]}{hint}", markup=False)


def write(app: MonitorApp) -> None:
    """What the screen holds, as a file in the working directory."""
    if app.pane is None:
        return
    suffix, text = app.pane.saved_text()
    path = Path.cwd() / f"semid-{app.pane.id}-{_now()}.{suffix}"
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        app.notify(f"{path}: {error.strerror}", severity="error", markup=False)
        return
    app.notify(f"written: {path}", markup=False)


def screenshot(app: MonitorApp) -> None:
    """The terminal as a picture, in the working directory."""
    try:
        written = app.save_screenshot(f"semid-{_now()}.svg", path=str(Path.cwd()))
    except OSError as error:
        app.notify(f"{Path.cwd()}: {error.strerror}", severity="error", markup=False)
        return
    app.notify(f"written: {written}", markup=False)


def _now() -> str:
    return time.strftime("%Y%m%d-%H%M%S")
