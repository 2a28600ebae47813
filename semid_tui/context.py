"""How the UI runs, the commands it has sent, and what a widget may ask of the app."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from rich.style import Style

from semid_daemon.config import Config
from semid_daemon.store.read.connection import UnavailableError
from semid_daemon.store.read.monitor import Overview

Marker = Literal["braille", "block", "ascii"]
Answer = tuple[str, str, dict[str, Any], str]  # text, command, arguments, what the command is about


@dataclass(frozen=True, slots=True)
class Mode:
    """The mode of the UI: read-only, with the screen frozen, in ASCII."""

    readonly: bool = False
    frozen: bool = False
    ascii_only: bool = False


@dataclass(frozen=True, slots=True)
class SentCommand:
    """A command sent from here, and its state: queued, accepted, done or failed. Times are monotonic."""

    name: str
    command: str
    about: str
    sent_s: float
    state: str = "queued"
    state_s: float = 0.0
    answer: str = ""

    @property
    def is_open(self) -> bool:
        return self.state in ("queued", "accepted")


class MonitorContext(Protocol):
    """The app as widgets and screens see it."""

    @property
    def config(self) -> Config: ...

    @property
    def marker(self) -> Marker: ...

    @property
    def mode(self) -> Mode: ...

    @property
    def palette(self) -> Mapping[str, Style]:
        """The style of every name that a `Span` may carry."""

    @property
    def shown(self) -> int:
        """The number of the screen that is shown, from 1."""

    @property
    def overview(self) -> Overview | None:
        """The latest overview; None before the first."""

    @property
    def unavailable(self) -> UnavailableError | None:
        """Why the database cannot be read; None while it can."""

    @property
    def sent_commands(self) -> Sequence[SentCommand]:
        """The commands sent from here, oldest first."""

    def subscribe(self, again: bool = False) -> None:
        """Read what the shown screen queries; with `again` read it though nothing has changed."""

    def confirm(self, question: str, answers: Sequence[Answer], details: Sequence[str] = ()) -> None:
        """Ask the user before the daemon changes something, and send the command of the chosen answer.

        `details` say what will happen, in figures.
        """

    async def look_up(self, text: str) -> None:
        """Show an item, or the items that a pattern of codes matches."""

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: Literal["information", "warning", "error"] = "information",
        timeout: float | None = None,
        markup: bool = True,
    ) -> None:
        """Show a message for a few seconds."""

    def copy_to_clipboard(self, text: str) -> None:
        """Put a text into the terminal's clipboard, by OSC 52."""

    def save_screenshot(self, filename: str | None = None, path: str | None = None) -> str:
        """Save the screen as SVG. Returns the path of the file."""
