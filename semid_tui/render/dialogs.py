"""The lines of a question and of the help. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from semid_tui.render.spans import Line, Span, line
from semid_tui.render.text import fit, wrap

Sections = Sequence[tuple[str, Sequence[tuple[str, str]]]]  # titles, and the keys of each with their descriptions


def choice_lines(question: str, details: Sequence[str], answers: Sequence[str], cursor: int, width: int) -> list[Line]:
    """A question, the details that it rests on, its numbered answers, and the one that changes nothing.

    All of them are wrapped. A cursor behind the last answer stands on the one that changes nothing.
    """
    drawn = [line((text, "title")) for text in wrap(question, width)]
    drawn += [line(text) for detail in details for text in wrap(detail, width)]
    drawn.append(())
    for number, answer in enumerate([*answers, "no, change nothing"]):
        style = "cursor" if number == cursor else "text"
        key, action = (f"{number + 1} ", f"screen.pick({number + 1})")
        if number == len(answers):
            key, action = "n ", "screen.dismiss_none"
        for row, text in enumerate(wrap(answer, max(1, width - 2))):
            drawn.append(line(Span("  " if row else key, "key", action), Span(fit(text, width - 2), style, action)))
    return drawn


def help_lines(sections: Sections) -> list[Line]:
    """Every key with its description."""
    drawn: list[Line] = []
    for title, keys in sections:
        drawn.append(line((title, "title")))
        drawn += [line((f"{key:>12}", "key"), f"  {description}") for key, description in keys]
        drawn.append(())
    return drawn
