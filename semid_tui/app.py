"""The terminal UI: one screen that follows the catalogue's status."""

from __future__ import annotations

from pathlib import Path

from rich.text import Text
from textual.app import App, ComposeResult
from textual.widgets import Footer, Static

from semid_daemon.errors import StoreError
from semid_daemon.store.reader import Reader, Status


class MonitorApp(App[None]):
    """Reads the database once a second and shows what it says; explains itself while there is none."""

    BINDINGS = [("q", "quit", "Quit")]

    def __init__(self, database: Path) -> None:
        super().__init__()
        self._database = database

    def compose(self) -> ComposeResult:
        yield Static(id="status")
        yield Footer()

    def on_mount(self) -> None:
        self.refresh_status()
        self.set_interval(1.0, self.refresh_status)

    def refresh_status(self) -> None:
        try:
            with Reader(self._database) as reader:
                text = status_text(reader.status())
        except StoreError as error:
            text = f"{error}\n\nThis screen tries again every second."
        # Text, not a string: names from files must not be read as markup.
        self.query_one("#status", Static).update(Text(text))


def status_text(status: Status) -> str:
    """The status as lines of text."""
    files = "  ".join(f"{name} {count:,}" for name, count in status.files.items())
    lines = [
        f"daemon      {status.state}  {status.detail}",
        f"heartbeat   {status.heartbeat_at or '-'}",
        f"device      {status.device or '-'}",
        f"files       {files}",
        f"generation  {status.generation or 'none yet'}",
        f"items       {status.items:,}",
    ]
    for layer in status.layers:
        lines.append(
            f"layer {layer.layer}     coverage {layer.coverage:6.1%}  dead {layer.dead_codes:4}"
            f"  perplexity {layer.perplexity:7.1f}"
        )
    return "\n".join(lines)
