"""The lines of a question and of the help. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from semid_tui.render.spans import Line, line
from semid_tui.render.text import fit

Sections = Sequence[tuple[str, Sequence[tuple[str, str]]]]  # titles, and the keys of each with their descriptions


def choice_lines(question: str, answers: Sequence[str], cursor: int, width: int) -> list[Line]:
    """A question, its numbered answers, and the keys that end it."""
    drawn = [line((fit(question, width), "title")), ()]
    for number, answer in enumerate(answers):
        style = "cursor" if number == cursor else "text"
        drawn.append(line((f"{number + 1} ", "key"), (fit(answer, width - 2), style)))
    return [*drawn, (), line(("enter", "key"), " yes   ", ("esc", "key"), " no, change nothing")]


def help_lines(sections: Sections) -> list[Line]:
    """Every key with its description."""
    drawn: list[Line] = []
    for title, keys in sections:
        drawn.append(line((title, "title")))
        drawn += [line((f"{key:>12}", "key"), f"  {description}") for key, description in keys]
        drawn.append(())
    return drawn
