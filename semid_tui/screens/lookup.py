"""5 Lookup: which ID an item has, who its siblings are, and what any prefix or pattern of codes holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding
from textual.widgets import Input

from semid_daemon.store.read.search import SearchResult
from semid_tui.data.queries import ItemSearchQuery, Query
from semid_tui.render.spans import Line, Marker, Span, line, rule
from semid_tui.render.text import clean, clock, fit
from semid_tui.render.theme import layer_style
from semid_tui.widgets.cell_widget import CellWidget
from semid_tui.widgets.pane import Pane

_HINT = (
    ("numpy", "an item by its ID, or the beginning of one"),
    ("12-250-7", "the items of a semantic ID"),
    ("12-250-*", "those whose ID begins so"),
    ("12-*-7", "any code in a layer"),
)


def coloured_id(semantic_id: str) -> list[Span]:
    """A semantic ID, each code in its layer's colour."""
    spans: list[Span] = []
    for layer, code in enumerate(semantic_id.split("-")):
        spans += [*([Span("-", "dim")] if layer else []), Span(code, layer_style(layer))]
    return spans


def result_lines(
    found: SearchResult | None, cursor: int, top: int, width: int, height: int, marker: Marker
) -> list[Line]:
    """The item, its siblings by shared prefix, earlier generations; then the list of matches."""
    if found is None or not found.text:
        head = [rule(width, ("lookup", "title"), marker=marker), ()]
        return [*head, *(line((f"  {example:<10}", "accent"), (f"  {what}", "dim")) for example, what in _HINT)]
    drawn: list[Line] = []
    if found.item is not None:
        drawn += item_lines(found, width, marker)
    if found.item is None or len(found.matches) > 1:
        drawn += match_lines(found, cursor, top, width, max(3, height - len(drawn)), marker)
    return drawn[:height]


def item_lines(found: SearchResult, width: int, marker: Marker) -> list[Line]:
    item = found.item
    assert item is not None
    drawn = [
        rule(width, (fit(clean(item.item_id), width - 4).rstrip(), "title"), marker=marker),
        line(
            ("semantic ID  ", "dim"),
            *coloured_id(item.semantic_id),
            ("  suffix ", "dim"),
            str(item.suffix),
            ("  generation ", "dim"),
            str(item.generation),
        ),
        line(
            ("from         ", "dim"),
            fit(f"{clean(item.file)}", max(4, width - 36), keep_end=True).rstrip(),
            (f"  {clock(item.assigned_at)}", "dim"),
        ),
    ]
    for generation, status, semantic_id, suffix in found.generations:
        if generation != item.generation:
            drawn.append(
                line(
                    (f"in g{generation:<9}", "dim"), *coloured_id(semantic_id), (f"  suffix {suffix}  {status}", "dim")
                )
            )
    if item.siblings:
        drawn.append(line(("siblings     ", "dim"), ("of its bucket, then of the longest shared prefix", "faint")))
        texts = [clean(sibling) for sibling in item.siblings]
        drawn += [line(f"  {text}") for text in _columns(texts, width - 2)]
    else:
        drawn.append(line(("siblings     none: no other item shares its first code", "dim")))
    return drawn


def _columns(texts: list[str], width: int) -> list[str]:
    """Texts in columns, read downwards, that fit the width."""
    widest = min(max(map(len, texts)) + 2, max(8, width))
    across = max(1, width // widest)
    down = -(-len(texts) // across)
    return ["".join(fit(text, widest - 1) + " " for text in texts[row::down]).rstrip() for row in range(down)]


def match_lines(found: SearchResult, cursor: int, top: int, width: int, height: int, marker: Marker) -> list[Line]:
    number = f"{len(found.matches)}{'+' if found.more else ''}"
    drawn = [rule(width, ("matches", "title"), (f" · {number} · enter shows one", "dim"), marker=marker)]
    if not found.matches:
        return [*drawn, line((f"nothing is called {clean(found.text)}, begins so, or has such codes", "warn"))]
    name_width = max(10, min(width - 24, max(len(match.item_id) for match in found.matches) + 2))
    for place, match in enumerate(found.matches[top : top + height - 1], top):
        name = fit(clean(match.item_id), name_width)
        suffix = f"  suffix {match.suffix}" if match.suffix else ""
        if place == cursor:
            drawn.append(line((f"{name} {match.semantic_id}{suffix}", "selected")))
        else:
            drawn.append(line(f"{name} ", *coloured_id(match.semantic_id), (suffix, "dim")))
    return drawn


class LookupResult(CellWidget, can_focus=True):
    """What was found."""

    BINDINGS = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup", "move(-10)", show=False),
        Binding("pagedown", "move(10)", show=False),
        Binding("g,home", "move(-100000)", "First", show=False),
        Binding("G,end", "move(100000)", "Last", show=False),
        Binding("enter", "open", "Show"),
    ]

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.cursor = self.top = 0

    @property
    def pane(self) -> LookupPane:
        assert isinstance(self.parent, LookupPane)
        return self.parent

    def lines(self, width: int, height: int) -> list[Line]:
        return result_lines(self.pane.found, self.cursor, self.top, width, height, self.monitor.marker)

    def action_move(self, by: int) -> None:
        found = self.pane.found
        if found is None or not found.matches:
            return
        self.cursor = max(0, min(len(found.matches) - 1, self.cursor + by))
        room = max(1, self.size.height - (len(item_lines(found, self.size.width, "ascii")) if found.item else 0) - 1)
        self.top = max(min(self.top, self.cursor), self.cursor - room + 1)
        self.redraw()

    async def action_open(self) -> None:
        found = self.pane.found
        if found is not None and found.matches:
            await self.monitor.look_up(found.matches[self.cursor].item_id)

    async def on_click(self, event: events.Click) -> None:
        self.focus()


class LookupPane(Pane):
    """An input, and what is found while one types."""

    BINDINGS = [Binding("escape", "back", "Keys/type")]

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.text = ""
        self.found: SearchResult | None = None

    def compose(self) -> ComposeResult:
        yield Input(placeholder="item ID, 12-250-7, 12-250-* or 12-*-7", id="lookup-input")
        yield LookupResult(id="lookup-result")

    def main(self) -> Input:
        return self.query_one(Input)

    def queries(self) -> Mapping[str, Query]:
        return {"find": ItemSearchQuery(self.text)} if self.text else {}

    def on_result(self, slot: str, query: Query, result: Any) -> None:
        if self.found is None or self.found.text != result.text:
            self.query_one(LookupResult).cursor = self.query_one(LookupResult).top = 0
        self.found = result
        self.query_one(LookupResult).redraw()

    def on_error(self, slot: str, query: Query, error: str) -> None:
        self.found = None
        super().on_error(slot, query, error)

    def look_up(self, text: str) -> None:
        box = self.query_one(Input)
        box.value = text
        box.cursor_position = len(text)
        self.screen.set_focus(box)

    def start_filter(self) -> bool:
        box = self.query_one(Input)
        self.screen.set_focus(box)
        box.select_all()
        return True

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self.text = event.value.strip()
        if not self.text:
            self.found = None
            self.query_one(LookupResult).redraw()
        self.subscribe()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.screen.set_focus(self.query_one(LookupResult))

    def on_key(self, event: events.Key) -> None:
        if event.key == "down" and self.query_one(Input).has_focus:
            event.stop()
            self.screen.set_focus(self.query_one(LookupResult))

    def action_back(self) -> None:
        if self.query_one(Input).has_focus:
            self.screen.set_focus(self.query_one(LookupResult))
        else:
            self.start_filter()

    def copied_text(self) -> str | None:
        if self.found is None:
            return None
        if self.found.item is not None:
            return self.found.item.semantic_id
        at = self.query_one(LookupResult).cursor
        return self.found.matches[at].semantic_id if self.found.matches else None

    def saved_text(self) -> tuple[str, str]:
        if self.found is None:
            return super().saved_text()
        rows = [f"{clean(match.item_id)}\t{match.semantic_id}\t{match.suffix}" for match in self.found.matches]
        if self.found.item is not None and not rows:
            item = self.found.item
            rows = [f"{clean(item.item_id)}\t{item.semantic_id}\t{item.suffix}"]
        return "tsv", "\n".join(["item_id\tsemantic_id\tsuffix", *rows]) + "\n"
