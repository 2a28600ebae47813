"""Windows over the screens: a question before the daemon changes something, the palette, the help."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.await_complete import AwaitComplete
from textual.binding import Binding
from textual.command import CommandPalette
from textual.containers import Vertical
from textual.geometry import Size
from textual.screen import ModalScreen

from semid_tui.render.dialogs import Sections, choice_lines, help_lines
from semid_tui.render.spans import Line
from semid_tui.widgets.cell_widget import CellWidget


class Choices(CellWidget, can_focus=True):
    """A question, and one answer a line with a cursor."""

    def __init__(self, question: str, details: Sequence[str], answers: Sequence[str]) -> None:
        super().__init__()
        self.question, self.details, self.answers = question, details, answers
        self.cursor = len(answers)  # on the one that changes nothing

    def lines(self, width: int, height: int) -> list[Line]:
        return choice_lines(self.question, self.details, self.answers, self.cursor, width)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self.lines(width, 0))


class ChoiceScreen(ModalScreen[int | None]):
    """Returns the number of the chosen answer, or None, which is the default."""

    BINDINGS = [
        Binding("escape,q,n", "dismiss_none", "No"),
        Binding("enter", "choose", "Choose"),
        Binding("y", "yes", "Yes"),
        Binding("up,k", "move(-1)", "Up"),
        Binding("down,j", "move(1)", "Down"),
        *(Binding(str(number), f"pick({number})", show=False) for number in range(1, 10)),
    ]

    def __init__(self, question: str, details: Sequence[str], answers: Sequence[str]) -> None:
        super().__init__()
        self._choices = Choices(question, details, answers)

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog"):
            yield self._choices

    def on_mount(self) -> None:
        self._choices.focus()

    def _answer(self, number: int | None) -> None:
        if self.is_current:  # a second key may come before the first has closed it
            self.dismiss(number)

    def action_dismiss_none(self) -> None:
        self._answer(None)

    def action_choose(self) -> None:
        cursor = self._choices.cursor
        self._answer(cursor if cursor < len(self._choices.answers) else None)

    def action_yes(self) -> None:
        """Yes to a question with one answer; where there are several, to the one on the cursor."""
        if len(self._choices.answers) == 1:
            self._answer(0)
        elif self._choices.cursor < len(self._choices.answers):
            self.action_choose()

    def action_pick(self, number: int) -> None:
        if number <= len(self._choices.answers):
            self._answer(number - 1)

    def action_move(self, by: int) -> None:
        self._choices.cursor = (self._choices.cursor + by) % (len(self._choices.answers) + 1)
        self._choices.redraw()


class Palette(CommandPalette):
    """Finds actions by name. A second key may come before the first has closed it."""

    def dismiss(self, result: None = None) -> AwaitComplete:
        return super().dismiss(result) if self.is_current else AwaitComplete.nothing()  # type: ignore[no-untyped-call]


class HelpText(CellWidget, can_focus=True):
    """The keys with their descriptions, scrolled to `top`."""

    def __init__(self, sections: Sections) -> None:
        super().__init__()
        self.top = 0
        self._lines = help_lines(sections)

    def lines(self, width: int, height: int) -> list[Line]:
        self.top = max(0, min(self.top, len(self._lines) - height))
        return self._lines[self.top : self.top + height]


class HelpScreen(ModalScreen[None]):
    """All keys with their descriptions: of this screen, then of every screen."""

    BINDINGS = [
        Binding("escape,q,question_mark,enter", "close", "Close"),
        Binding("up,k", "scroll(-1)", "Up"),
        Binding("down,j,space", "scroll(1)", "Down"),
        Binding("pageup", "scroll(-10)", show=False),
        Binding("pagedown", "scroll(10)", show=False),
    ]

    def __init__(self, sections: Sections) -> None:
        super().__init__()
        self._text = HelpText(sections)

    def compose(self) -> ComposeResult:
        with Vertical(id="help"):
            yield self._text

    def on_mount(self) -> None:
        self._text.focus()

    def action_close(self) -> None:
        if self.is_current:  # a second key may come before the first has closed it
            self.dismiss(None)

    def action_scroll(self, by: int) -> None:
        self._text.top += by
        self._text.redraw()
