"""Windows over the screens: asking before something is changed, and help made from the bindings."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.await_complete import AwaitComplete
from textual.binding import Binding
from textual.command import CommandPalette
from textual.containers import Vertical
from textual.screen import ModalScreen

from semid_tui.render.spans import Line, line
from semid_tui.render.text import fit
from semid_tui.widgets.cell_widget import CellWidget


class Choices(CellWidget, can_focus=True):
    """A question, with an answer to a line."""

    def __init__(self, question: str, answers: Sequence[str]) -> None:
        super().__init__()
        self.question, self.answers, self.at = question, answers, 0

    def lines(self, width: int, height: int) -> list[Line]:
        drawn = [line((fit(self.question, width), "title")), ()]
        for number, answer in enumerate(self.answers):
            style = "cursor" if number == self.at else "text"
            drawn.append(line((f"{number + 1} ", "key"), (fit(answer, width - 2), style)))
        return [*drawn, (), line(("enter", "key"), " yes   ", ("esc", "key"), " no, change nothing")]


class ChoiceScreen(ModalScreen[int | None]):
    """Gives the number of the answer chosen, or None."""

    BINDINGS = [
        Binding("escape,q,n", "dismiss_none", "No"),
        Binding("enter,y", "choose", "Yes"),
        Binding("up,k", "move(-1)", "Up"),
        Binding("down,j", "move(1)", "Down"),
        *(Binding(str(number), f"pick({number})", show=False) for number in range(1, 10)),
    ]

    def __init__(self, question: str, answers: Sequence[str]) -> None:
        super().__init__()
        self._choices = Choices(question, answers)

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog"):
            yield self._choices

    def on_mount(self) -> None:
        self._choices.styles.height = len(self._choices.answers) + 4
        self._choices.focus()

    def _answer(self, number: int | None) -> None:
        if self.is_current:  # a second key may come before the first has closed it
            self.dismiss(number)

    def action_dismiss_none(self) -> None:
        self._answer(None)

    def action_choose(self) -> None:
        self._answer(self._choices.at)

    def action_pick(self, number: int) -> None:
        if number <= len(self._choices.answers):
            self._answer(number - 1)

    def action_move(self, by: int) -> None:
        self._choices.at = (self._choices.at + by) % len(self._choices.answers)
        self._choices.redraw()


class Palette(CommandPalette):
    """Finds actions by name. A second key may come before the first has closed it."""

    def dismiss(self, result: None = None) -> AwaitComplete:
        return super().dismiss(result) if self.is_current else AwaitComplete.nothing()  # type: ignore[no-untyped-call]


class HelpText(CellWidget, can_focus=True):
    """Keys and what they do."""

    def __init__(self, sections: Sequence[tuple[str, Sequence[tuple[str, str]]]]) -> None:
        super().__init__()
        self.top = 0
        self._lines: list[Line] = []
        for title, keys in sections:
            self._lines.append(line((title, "title")))
            self._lines += [line((f"{key:>12}", "key"), f"  {what}") for key, what in keys]
            self._lines.append(())

    def lines(self, width: int, height: int) -> list[Line]:
        self.top = max(0, min(self.top, len(self._lines) - height))
        return self._lines[self.top : self.top + height]


class HelpScreen(ModalScreen[None]):
    """What every key does, here and everywhere."""

    BINDINGS = [
        Binding("escape,q,question_mark,enter", "close", "Close"),
        Binding("up,k", "scroll(-1)", "Up"),
        Binding("down,j,space", "scroll(1)", "Down"),
        Binding("pageup", "scroll(-10)", show=False),
        Binding("pagedown", "scroll(10)", show=False),
    ]

    def __init__(self, sections: Sequence[tuple[str, Sequence[tuple[str, str]]]]) -> None:
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
