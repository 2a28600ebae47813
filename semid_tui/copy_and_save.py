"""What a screen shows, copied to the clipboard, saved as a file, or saved as a picture."""

from __future__ import annotations

import os
import time
from pathlib import Path

from semid_daemon.base.text import escape
from semid_tui.context import MonitorContext
from semid_tui.widgets.pane import Pane


def copy(monitor: MonitorContext, pane: Pane | None) -> None:
    """Copy the text under the cursor to the clipboard of the terminal."""
    text = pane.copied_text() if pane else None
    if not text:
        monitor.notify("nothing to copy here: it is on Codes, Files, Lookup and Tree", timeout=3)
        return
    monitor.copy_to_clipboard(text)
    hint = ""
    if os.environ.get("TMUX"):
        hint = "\nIf it did not arrive: tmux set -s set-clipboard on"
    elif os.environ.get("SSH_TTY"):
        hint = "\nIf it did not arrive: the terminal must allow OSC 52"
    monitor.notify(f"copied {escape(text)[:60]}{hint}", markup=False)


def save(monitor: MonitorContext, pane: Pane | None) -> None:
    """Save the content of the screen as a file in the working directory."""
    if pane is None:
        return
    suffix, text = pane.saved_text()
    path = Path.cwd() / f"semid-{pane.id}-{_now()}.{suffix}"
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        monitor.notify(f"{path}: {error.strerror}", severity="error", markup=False)
        return
    monitor.notify(f"written: {path}", markup=False)


def save_picture(monitor: MonitorContext) -> None:
    """Save the terminal as an SVG in the working directory."""
    try:
        path = monitor.save_screenshot(f"semid-{_now()}.svg", path=str(Path.cwd()))
    except OSError as error:
        monitor.notify(f"{Path.cwd()}: {error.strerror}", severity="error", markup=False)
        return
    monitor.notify(f"written: {path}", markup=False)


def _now() -> str:
    return time.strftime("%Y%m%d-%H%M%S")
