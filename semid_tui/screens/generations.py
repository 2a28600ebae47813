"""7 Generations: what was published, what is being prepared, how they compare, how far the catalogue has drifted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding

from semid_daemon.store.read.generations import Difference, GenerationRow, GenerationsSnapshot
from semid_tui.data.queries import GenerationsQuery, Query
from semid_tui.render.bars import sparkline
from semid_tui.render.spans import Line, Marker, Part, line, rule
from semid_tui.render.text import clean, clock, count, figure, fit, loss, percent
from semid_tui.render.theme import layer_style
from semid_tui.widgets.cell_widget import CellWidget
from semid_tui.widgets.pane import Pane

STATUS_STYLES = {"active": "good", "ready": "accent", "preparing": "warn", "retired": "dim"}
_ORIGINS = {"first": "first rows", "anew": "all rows", "candidate": "candidate"}
_BETTER_LOW = ("error", "dead", "bucket", "churn", "moved", "collision")


def generation_line(row: GenerationRow, width: int, selected: bool) -> Line:
    unique = percent(row.distinct_ids / row.items) if row.items else "-"
    origin = _ORIGINS.get(row.origin, row.origin) + (f" of g{row.based_on}" if row.origin == "candidate" else "")
    behind = f", {row.behind:,} items behind" if row.behind else ""
    rest = f"{row.layers}×{row.codebook_size}  from {origin}, {row.trained_rows:,} rows{behind}"
    fixed = f"{f'g{row.generation}':<5}{row.status:<10}{count(row.items):>9} items {unique:>6} unique  "
    when = f"{clock(row.published_at or row.created_at):>11}  "
    if selected:
        return line((fit(fixed + when + rest, width), "selected"))
    return line(
        (fixed[:5], "accent"),
        (fixed[5:15], STATUS_STYLES.get(row.status, "dim")),
        fixed[15:],
        (when, "dim"),
        (rest, "dim"),
    )


def table_lines(
    snapshot: GenerationsSnapshot | None, cursor: int, top: int, width: int, height: int, marker: Marker
) -> list[Line]:
    heading: list[Part] = [("generations", "title")]
    if snapshot is not None and snapshot.candidate is not None:
        steps, rows = snapshot.candidate
        heading.append((f" · the candidate has learned {steps:,} steps from {rows:,} rows", "dim"))
    drawn = [rule(width, *heading, marker=marker)]
    if snapshot is None or not snapshot.generations:
        return [*drawn, line(("none yet: the first comes once training.min_rows rows have gathered", "dim"))]
    shown = snapshot.generations[top : top + height - 1]
    return [*drawn, *(generation_line(row, width, place == cursor) for place, row in enumerate(shown, top))]


def difference_line(each: Difference, width: int) -> Line:
    """`layer 1 perplexity  703 → 721  +2.6%`, the better direction in green."""
    name = each.name.replace("_", " ") + ("" if each.layer is None else f" L{each.layer}")
    parts: list[Part] = [(fit(name, min(26, width // 3)), "text" if each.layer is None else layer_style(each.layer))]
    values = [figure(value) if value is not None else "-" for value in (each.old_value, each.new_value)]
    parts.append(f"{values[0]:>10} → {values[1]:<10}")
    if each.old_value and each.new_value is not None:
        change = (each.new_value - each.old_value) / abs(each.old_value)
        lower_is_better = any(word in each.name for word in _BETTER_LOW)
        style = "dim" if abs(change) < 5e-4 else "good" if (change < 0) == lower_is_better else "warn"
        parts.append((f"{change:+.1%}", style))
    return line(*parts)


def detail_lines(snapshot: GenerationsSnapshot, row: GenerationRow | None, width: int, marker: Marker) -> list[Line]:
    """The chosen generation: fingerprint, comparison with another, and the drift of the active one."""
    if row is None:
        return []
    drawn = [
        rule(
            width,
            (f"g{row.generation}", "title"),
            (f" {row.status}", STATUS_STYLES.get(row.status, "dim")),
            marker=marker,
        ),
        line(
            ("fingerprint ", "dim"),
            clean(row.fingerprint),
            (f"  collisions {row.collisions}", "dim"),
            (f"  largest bucket {row.max_bucket:,}", "dim"),
        ),
    ]
    compared = [each for each in snapshot.differences if row.generation in (each.old, each.new)]
    if compared:
        pair = (compared[0].old, compared[0].new)
        drawn.append(rule(width, ("comparison", "title"), (f" · g{pair[0]} → g{pair[1]}", "dim"), marker=marker))
        drawn += [difference_line(each, width) for each in compared if (each.old, each.new) == pair]
    if row.status == "active":
        drawn += drift_lines(snapshot, width, marker)
    return drawn


def drift_lines(snapshot: GenerationsSnapshot, width: int, marker: Marker) -> list[Line]:
    """New rows against those that the active generation was trained on."""
    drawn = [rule(width, ("drift", "title"), (" · recent rows against the training rows", "dim"), marker=marker)]
    if not snapshot.drift:
        return [*drawn, line(("nothing measured yet: it comes with rows that came after the training", "dim"))]
    names = {
        "drift_error_ratio": "error, times that of training",
        "drift_tail_share": "rows beyond its 99th percentile",
        "drift_collision_rate": "rows that share an ID",
        "drift_js": "code use differs, bits, L",
        "drift_dead_alive": "dead codes that came alive, L",
    }
    for (name, layer), values in snapshot.drift.items():
        words = names.get(name, name) + ("" if layer is None else str(layer))
        text = fit(words, min(34, width // 2))
        room = min(40, width - len(text) - 12)
        drawn.append(
            line(
                (text, "dim" if layer is None else layer_style(layer)),
                f"{loss(values[-1]):>9}  ",
                (sparkline(values, room, marker), "accent" if layer is None else layer_style(layer)),
            )
        )
    return drawn


class GenerationsTable(CellWidget, can_focus=True):
    """All generations, the latest first."""

    BINDINGS = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("left_square_bracket", "move(1)", "Generation", key_display="[ ]"),
        Binding("right_square_bracket", "move(-1)", show=False),
        Binding("g,home", "move(-10000)", "First", show=False),
        Binding("G,end", "move(10000)", "Last", show=False),
    ]

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.cursor = self.top = 0

    def lines(self, width: int, height: int) -> list[Line]:
        pane = self.parent
        assert isinstance(pane, GenerationsPane)
        there = len(pane.snapshot.generations) if pane.snapshot else 0
        self.cursor = max(0, min(self.cursor, there - 1))
        self.top = max(min(self.top, self.cursor), self.cursor - max(height - 1, 1) + 1)
        return table_lines(pane.snapshot, self.cursor, self.top, width, height, self.monitor.marker)

    def action_move(self, by: int) -> None:
        pane = self.parent
        assert isinstance(pane, GenerationsPane)
        self.cursor += by
        pane.redraw()

    async def on_click(self, event: events.Click) -> None:
        self.cursor = self.top + event.y - 1
        self.action_move(0)


class GenerationDetail(CellWidget, can_focus=True):
    """The chosen generation; tab goes here, arrows scroll where it is longer than the screen."""

    BINDINGS = [
        Binding("up,k", "scroll(-1)", "Up", show=False),
        Binding("down,j", "scroll(1)", "Down", show=False),
        Binding("pageup", "scroll(-10)", "Page up", show=False),
        Binding("pagedown", "scroll(10)", "Page down", show=False),
    ]

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.top = 0

    def lines(self, width: int, height: int) -> list[Line]:
        pane = self.parent
        assert isinstance(pane, GenerationsPane)
        if pane.snapshot is None:
            return []
        drawn = detail_lines(pane.snapshot, pane.chosen(), width, self.monitor.marker)
        self.top = max(0, min(self.top, len(drawn) - height))
        shown = drawn[self.top : self.top + height]
        below = len(drawn) - self.top - height
        if below > 0:
            shown[-1] = line((f"… {below + 1} more: tab, then arrows", "dim"))
        return shown

    def action_scroll(self, by: int) -> None:
        self.top += by
        self.redraw()

    def on_mouse_scroll_down(self) -> None:
        self.action_scroll(3)

    def on_mouse_scroll_up(self) -> None:
        self.action_scroll(-3)


class GenerationsPane(Pane):
    """Looks, prepares (T), promotes (A) and goes back (B)."""

    BINDINGS = [
        Binding("T", "app.train", "Train"),
        Binding("A", "promote", "Promote"),
        Binding("B", "rollback", "Roll back"),
    ]

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.snapshot: GenerationsSnapshot | None = None

    def compose(self) -> ComposeResult:
        yield GenerationsTable(id="generations-table")
        yield GenerationDetail(id="generations-detail")

    def queries(self) -> Mapping[str, Query]:
        return {"generations": GenerationsQuery()}

    def on_result(self, slot: str, query: Query, result: Any) -> None:
        self.snapshot = result
        there = len(result.generations)
        self.query_one(GenerationsTable).styles.height = max(3, min(there + 2, self.size.height // 2))
        self.redraw()

    def chosen(self) -> GenerationRow | None:
        at = self.query_one(GenerationsTable).cursor
        rows = self.snapshot.generations if self.snapshot else ()
        return rows[at] if at < len(rows) else None

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("promote", "rollback") and self.monitor.gateway.readonly:
            return False
        return super().check_action(action, parameters)

    def _with_status(self, *statuses: str) -> GenerationRow | None:
        """The chosen generation if it is of such a status, else the latest that is."""
        rows = [row for row in (self.snapshot.generations if self.snapshot else ()) if row.status in statuses]
        chosen = self.chosen()
        return chosen if chosen in rows else next(iter(rows), None)

    def action_promote(self) -> None:
        row = self._with_status("ready", "preparing")
        if row is None:
            self.monitor.notify("no generation is ready: T prepares one", timeout=4)
        else:
            self._ask_for(row, "promote", "Make {} the active one? Every item gets its ID of it.", "promote {}")

    def action_rollback(self) -> None:
        row = self._with_status("retired")
        if row is None:
            self.monitor.notify("there is no former generation to go back to", timeout=4)
        else:
            self._ask_for(
                row, "rollback", "Go back to {}? Every item gets the ID again that it had.", "roll back to {}"
            )

    def _ask_for(self, row: GenerationRow, command: str, question: str, answer: str) -> None:
        """Ask before a generation becomes the active one; `{}` stands for it in both texts."""
        about = f"generation {row.generation}"
        arguments = {"generation": row.generation}
        self.monitor.confirm(question.format(about), [(answer.format(about), command, arguments, about)])

    def copied_text(self) -> str | None:
        row = self.chosen()
        return row.fingerprint if row else None
