"""The terminal UI: eight screens over one poller, and every action by key, palette and footer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from rich.style import Style
from textual.app import App, ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.filter import Monochrome, NoColor
from textual.message import Message
from textual.screen import Screen

from semid_daemon.base.errors import SemidError
from semid_daemon.base.text import escape
from semid_daemon.config import Config
from semid_daemon.store.read.connection import UnavailableError
from semid_daemon.store.read.monitor import Overview
from semid_tui import copy_and_save
from semid_tui.bindings import COMMAND_ACTIONS, help_sections, palette_commands
from semid_tui.context import Answer, Marker, Mode, SentCommand
from semid_tui.data.commands import CommandGateway
from semid_tui.data.poller import DatabaseUnavailable, OverviewRead, Poller, QueryAnswered, Report
from semid_tui.data.queries import CommandsQuery, Query
from semid_tui.render.generations import training_effects
from semid_tui.render.text import duration
from semid_tui.screens.codes import CodesPane
from semid_tui.screens.events import EventsPane
from semid_tui.screens.files import FilesPane
from semid_tui.screens.generations import GenerationsPane
from semid_tui.screens.lookup import LookupPane
from semid_tui.screens.overview import OverviewPane
from semid_tui.screens.train import TrainPane
from semid_tui.screens.tree import TreePane
from semid_tui.widgets.chrome import CommandLine, KeyBar, StatusLine, TabLine
from semid_tui.widgets.dialogs import ChoiceScreen, HelpScreen, Palette
from semid_tui.widgets.pane import Pane
from semid_tui.widgets.theme import DARK_THEME, LIGHT_THEME, make_palette
from semid_tui.widgets.unavailable import UnavailableNote

_LOOKUP = 5
_REFRESHES = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
# Absent in read-only mode: what commands the daemon, and what writes files.
_WRITING_ACTIONS = COMMAND_ACTIONS | {"write", "screenshot"}

PANES: tuple[tuple[str, type[Pane]], ...] = (
    ("overview", OverviewPane),
    ("train", TrainPane),
    ("codes", CodesPane),
    ("files", FilesPane),
    ("lookup", LookupPane),
    ("tree", TreePane),
    ("generations", GenerationsPane),
    ("events", EventsPane),
)


class PollerReport(Message):
    """A report of the poller's thread, in the app's own."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self.report = report


class MonitorApp(App[None]):
    """Shows what the daemon writes, and sends it commands as files."""

    TITLE = "semid"
    CSS_PATH = "semid.tcss"
    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(str(number), f"show({number})", name.capitalize(), show=False)
            for number, (name, _) in enumerate(PANES, 1)
        ),
        Binding("slash", "find", "Find", key_display="/"),
        Binding("P", "pause", "Pause/resume"),
        Binding("R", "retry", "Retry"),
        Binding("T", "train", "Train the next generation", show=False),
        Binding("S", "rescan", "Scan the drop directory", show=False),
        Binding("y", "copy", "Copy", show=False),
        Binding("w", "write", "Write to a file", show=False),
        Binding("p", "freeze", "Freeze", show=False),
        Binding("plus,equals_sign", "refresh_by(-1)", "Refresh more often", show=False, key_display="+"),
        Binding("minus", "refresh_by(1)", "Refresh less often", show=False, key_display="-"),
        Binding("m", "maximize", "Maximize", show=False),
        Binding("t", "theme", "Dark or light", show=False),
        Binding("s", "screenshot", "Screenshot", show=False),
        Binding("tab", "app.focus_next", "Next part", show=False),
        Binding("shift+tab", "app.focus_previous", "Previous part", show=False),
        Binding("colon,ctrl+p", "command_palette", "Palette", show=False),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("q", "quit", "Quit"),
    ]

    def __init__(
        self,
        config: Config,
        *,
        readonly: bool = False,
        refresh_s: float = 1.0,
        marker: Marker = "braille",
        light: bool = False,
    ) -> None:
        super().__init__()
        self.config = config
        self.marker: Marker = marker
        self.mode = Mode(readonly=readonly, ascii_only=marker == "ascii")
        self.gateway = CommandGateway(config.commands_dir, readonly=readonly)
        self.overview: Overview | None = None
        self.unavailable: UnavailableError | None = None
        self.shown = 1
        self._live = ""
        self.palette: Mapping[str, Style] = {}
        self._poller = Poller(config.database, self._post, refresh_s)
        self._panes: dict[int, Pane] = {}
        # Held, not looked for: while a dialog is open, another screen is searched.
        self._status, self._tabs = StatusLine(id="status"), TabLine(id="tabs")
        self._pane_area, self._note = Container(id="panes"), UnavailableNote(id="unavailable")
        self._command = CommandLine(id="command")
        self._note.display = self._command.display = False
        # Textual's own filter for NO_COLOR makes greys, which are colours still.
        self._filters = [NoColor() if isinstance(filter_, Monochrome) else filter_ for filter_ in self._filters]
        self.register_theme(DARK_THEME)
        self.register_theme(LIGHT_THEME)
        self.theme = LIGHT_THEME.name if light else DARK_THEME.name

    # -- set up ----------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        yield self._status
        yield self._tabs
        yield self._pane_area
        yield self._note
        yield self._command
        yield KeyBar(id="keys")

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return {}

    def on_mount(self) -> None:
        self._repaint_palette()
        self.theme_changed_signal.subscribe(self, lambda _: self._repaint_palette())
        self.set_interval(1.0, self._tick)
        self._poller.start()

    async def on_ready(self) -> None:
        await self.action_show(1)
        # A user types on at once after /: the input must be mounted by then.
        self.set_timer(0.3, partial(self._prepare, _LOOKUP))

    def on_unmount(self) -> None:
        self._poller.stop()

    def _repaint_palette(self) -> None:
        self.palette = make_palette(self.theme_variables)

    def _watch_theme(self, theme_name: str) -> None:
        # Before anything is painted in the new theme.
        self.palette = make_palette(self.get_css_variables())
        super()._watch_theme(theme_name)

    # -- reports of the poller ---------------------------------------------------------------------

    def _post(self, report: Report) -> None:
        """Called in the poller's thread."""
        self.post_message(PollerReport(report))

    @property
    def sent_commands(self) -> Sequence[SentCommand]:
        return self.gateway.sent

    @property
    def pane(self) -> Pane | None:
        """The screen that is shown."""
        return self._panes.get(self.shown)

    def subscribe(self, again: bool = False) -> None:
        """Give the poller the queries of the screen that is shown."""
        queries: dict[str, Query] = dict(self.pane.queries()) if self.pane else {}
        if any(sent.is_open for sent in self.sent_commands):
            queries["sent"] = CommandsQuery()
        self._poller.subscribe(queries, again)

    def on_poller_report(self, message: PollerReport) -> None:
        if not self._status.is_attached:
            return  # on the way out
        match message.report:
            case OverviewRead(overview):
                self._show_overview(overview)
            case DatabaseUnavailable(error):
                self._show_unavailable(error)
            case QueryAnswered(slot="sent", result=result) if result is not None:
                self._update_commands(result)
            case QueryAnswered(slot, query, result, _, failure):
                pane = self.pane
                if pane is None or pane.queries().get(slot) != query:
                    return  # the screen has moved on to another query
                if failure is None:
                    pane.on_result(slot, query, result)
                else:
                    pane.on_error(slot, query, failure)

    def _show_overview(self, overview: Overview) -> None:
        first = self.overview is None or self.unavailable is not None
        generation = self.overview.active.generation if self.overview and self.overview.active else None
        self.overview, self.unavailable = overview, None
        if first:
            self._note.display = False
            self._pane_area.display = True
        if self.pane is not None:
            self.pane.on_overview(overview)
            if first or (overview.active and overview.active.generation != generation):
                self.subscribe()
        self._status.redraw()

    def _show_unavailable(self, error: UnavailableError) -> None:
        if self.overview is not None and error.title == "No database yet":
            error = UnavailableError(
                "The database is gone",
                f"{self.config.database} was read before, and is not there any more",
                "find out what moved or deleted it; it is shown again once it lies there",
            )
        self.unavailable = error
        self._note.show_error(error)
        self._pane_area.display = False
        self._note.display = True
        self._status.redraw()

    def _update_commands(self, commands: Any) -> None:
        for sent in self.gateway.update(commands):
            if not sent.is_open:
                about = f" {sent.about}" if sent.about else ""
                self.notify(
                    escape(sent.answer or sent.state),
                    title=escape(f"{sent.command}{about}: {sent.state}"),
                    severity="information" if sent.state == "done" else "error",
                    markup=False,
                )
        self._command.update()
        self.subscribe()

    def _tick(self) -> None:
        """Redraw ages, which grow though nothing changes."""
        self._status.redraw()
        self._command.update()
        live = self.overview.liveness() if self.overview is not None else ""
        if live != self._live and self.overview is not None and self.pane is not None:
            self.pane.on_overview(self.overview)  # its figures are no longer live
        self._live = live

    # -- screens -----------------------------------------------------------------------------------

    async def _prepare(self, number: int) -> None:
        """Mount a screen without showing it."""
        name, kind = PANES[number - 1]
        if number not in self._panes:
            pane = self._panes[number] = kind(id=name)
            pane.display = False
            await self._pane_area.mount(pane)

    async def action_show(self, number: int) -> None:
        await self._prepare(number)
        for prepared, pane in self._panes.items():
            pane.display = prepared == number
        self.shown = number
        self.screen.minimize()
        pane = self._panes[number]
        main = pane.main()
        if main is not None:
            self.screen.set_focus(main)  # at once: the next key may have been typed already
        if self.overview is not None:
            pane.on_overview(self.overview)
        self.subscribe(again=True)
        self._tabs.redraw()
        self.call_after_refresh(pane.redraw)

    async def action_find(self) -> None:
        if self.pane is None or not self.pane.start_filter():
            await self.action_show(_LOOKUP)
            self._panes[_LOOKUP].start_filter()

    async def look_up(self, text: str) -> None:
        """Show an item, or the items that a pattern of codes matches."""
        await self.action_show(_LOOKUP)
        self._pane_area.query_one(LookupPane).look_up(text)

    async def action_press(self, key: str) -> None:
        self.simulate_key(key)

    def action_freeze(self) -> None:
        self.mode = replace(self.mode, frozen=not self.mode.frozen)
        self._poller.freeze(self.mode.frozen)
        self._status.redraw()

    def action_refresh_by(self, by: int) -> None:
        current = min(range(len(_REFRESHES)), key=lambda number: abs(_REFRESHES[number] - self._poller.refresh_s))
        self._poller.refresh_s = _REFRESHES[max(0, min(len(_REFRESHES) - 1, current + by))]
        self.notify(f"looks every {duration(self._poller.refresh_s)}", timeout=2)

    def action_theme(self) -> None:
        self.theme = DARK_THEME.name if self.theme == LIGHT_THEME.name else LIGHT_THEME.name

    def action_maximize(self) -> None:
        if self.screen.maximized is not None:
            self.screen.minimize()
        elif self.focused is not None and self.focused.allow_maximize:
            self.screen.maximize(self.focused)

    def action_help(self) -> None:
        self.push_screen(HelpScreen(help_sections(self)))

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """The palette: every action that has a key, and the themes."""
        yield from palette_commands(self, screen)
        yield SystemCommand("Theme", "choose another theme", self.action_change_theme)

    # -- copying and saving ------------------------------------------------------------------------

    def action_copy(self) -> None:
        copy_and_save.copy(self, self.pane)

    def action_write(self) -> None:
        copy_and_save.save(self, self.pane)

    def action_screenshot(self, filename: str | None = None, path: str | None = None) -> None:
        copy_and_save.save_picture(self)

    # -- commands to the daemon --------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in _WRITING_ACTIONS and self.mode.readonly:
            return False
        return super().check_action(action, parameters)

    def confirm(self, question: str, answers: Sequence[Answer], details: Sequence[str] = ()) -> None:
        """Ask the user before the daemon changes something, and send the command of the chosen answer.

        `details` say what will happen, in figures.
        """

        def chosen(number: int | None) -> None:
            if number is not None:
                _, command, arguments, about = answers[number]
                self.send(command, arguments, about)

        if self.mode.readonly:
            self.notify("read-only: nothing is sent to the daemon", severity="warning")
            return
        self.push_screen(
            ChoiceScreen(escape(question), [*map(escape, details)], [escape(answer[0]) for answer in answers]), chosen
        )

    def send(self, command: str, arguments: dict[str, Any], about: str) -> None:
        """Send a command, and follow its state."""
        try:
            self.gateway.send(command, arguments, about)
        except SemidError as error:
            self.notify(escape(str(error)), severity="error", markup=False)
            return
        self._command.update()
        self.subscribe()

    def action_pause(self) -> None:
        if self.overview is not None and self.overview.paused_at is not None:
            self.confirm("Resume the daemon's work?", [("resume", "resume", {}, "")])
        else:
            self.confirm(
                "Pause the daemon after the chunk or step in hand?",
                [("pause; nothing is lost", "pause", {}, "")],
            )

    def action_train(self) -> None:
        self.confirm(
            "Prepare the next generation beside the active one? No published ID changes.",
            [
                ("train, as generations.mode in semid.toml says", "train", {}, ""),
                ("train from the candidate, which learned from the rows since", "train", {"from": "candidate"}, ""),
                ("train anew on the whole catalogue", "train", {"from": "anew"}, ""),
            ],
            training_effects(self.overview) if self.overview is not None else (),
        )

    def action_command_palette(self) -> None:
        if not isinstance(self.screen, Palette):
            self.push_screen(Palette(id="--command-palette"))

    def action_rescan(self) -> None:
        self.confirm("Look at everything in the drop directory anew?", [("rescan", "rescan", {}, "")])

    def action_retry(self) -> None:
        offers = self.pane.retry_offers() if self.pane else []
        if not offers:
            self.notify("nothing here was deferred or rejected", timeout=3)
            return
        self.confirm("Try again?", [(f"retry {files}", "retry", arguments, files) for files, arguments in offers])
