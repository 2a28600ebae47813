"""2 Train: the loss of a run, of all layers or one, with log scale, window, crosshair and what was published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textual.app import ComposeResult
from textual.binding import Binding

from semid_daemon.store.read.monitor import LossCurve, Overview
from semid_tui.data.queries import LossQuery, Query
from semid_tui.render.chart import View, loss_lines, run_number, smooth, value_at
from semid_tui.render.spans import Line, line, rule
from semid_tui.render.status import liveness
from semid_tui.render.text import clean, loss
from semid_tui.render.theme import layer_style
from semid_tui.widgets.cell_widget import CellWidget
from semid_tui.widgets.pane import Pane

_WINDOWS = (0, 10_000, 1_000, 100)


def layer_table(curve: LossCurve, width: int) -> list[Line]:
    """Steps and losses of each layer."""
    drawn = [line((f"{'layer':<8}{'steps':>10}{'first':>10}{'last':>10}{'least':>10}{'change':>9}", "dim"))]
    for layer, points in sorted(curve.layers.items()):
        if not points:
            continue
        first, last = points[0].mean, smooth(points)[-1]
        steps = sum(point.steps for point in points)
        change = (last - first) / first if first else 0.0
        drawn.append(
            line(
                (f"L{layer:<7}", layer_style(layer)),
                f"{steps:>10,}{loss(first):>10}{loss(last):>10}{loss(min(point.low for point in points)):>10}",
                (f"{change:>+9.1%}", "good" if change < 0 else "warn"),
            )
        )
    return drawn


class TrainChart(CellWidget, can_focus=True):
    """The chart and what the crosshair is on."""

    BINDINGS = [
        Binding("left,h", "crosshair(-1)", "Crosshair", key_display="← →"),
        Binding("right", "crosshair(1)", show=False),
        Binding("shift+left", "crosshair(-10)", show=False),
        Binding("shift+right", "crosshair(10)", show=False),
        Binding("escape", "no_crosshair", show=False),
    ]

    @property
    def pane(self) -> TrainPane:
        assert isinstance(self.parent, TrainPane)
        return self.parent

    def lines(self, width: int, height: int) -> list[Line]:
        pane = self.pane
        view = View(
            log=pane.log_scale,
            marker=self.monitor.marker,
            layer=pane.shown_layer,
            window=_WINDOWS[pane.window],
            crosshair=pane.crosshair,
            marks=pane.marks(),
        )
        return loss_lines(pane.curve, width, height, view)

    def action_crosshair(self, by: int) -> None:
        self.pane.move_crosshair(by * max(1, self.pane.steps_shown() // max(self.size.width - 7, 1)))

    def action_no_crosshair(self) -> None:
        self.pane.crosshair = None
        self.pane.redraw()


class TrainTable(CellWidget):
    """The run in figures."""

    def lines(self, width: int, height: int) -> list[Line]:
        pane = self.parent
        assert isinstance(pane, TrainPane)
        curve = pane.curve
        if curve is None:
            return []
        shown = "all layers" if pane.shown_layer is None else f"layer {pane.shown_layer}"
        window = f"last {_WINDOWS[pane.window]:,} steps" if _WINDOWS[pane.window] else "all steps"
        at = curve.runs.index(curve.run) + 1
        drawn = [
            rule(
                width,
                ("run", "title"),
                (f" {run_number(curve.run)} ({at} of {len(curve.runs)}) · {shown} · {window} · by {curve.span}", "dim"),
                marker=self.monitor.marker,
            )
        ]
        found = value_at(curve, pane.crosshair) if pane.crosshair is not None else None
        if found is not None:
            layer, point, smoothed = found
            steps = f"{point.step:,}" if point.steps == 1 else f"{point.step:,}–{point.step + point.steps - 1:,}"
            drawn.append(
                line(
                    ("crosshair  ", "dim"),
                    (f"L{layer} ", layer_style(layer)),
                    f"step {steps}  loss {loss(point.mean)}",
                    (f"  {loss(point.low)}…{loss(point.high)}  smoothed {loss(smoothed)}", "dim"),
                )
            )
        else:
            overview = pane.overview
            state = (
                clean(overview.detail)
                if overview and overview.state == "training" and liveness(overview) == "live"
                else ""
            )
            drawn.append(line((state or "← → put a crosshair on the chart", "accent" if state else "faint")))
        return [*drawn, *layer_table(curve, width)]


class TrainPane(Pane):
    """One run at a time."""

    BINDINGS = [
        Binding("l", "log", "Log y"),
        Binding("left_square_bracket", "layer(-1)", "Layer", key_display="[ ]"),
        Binding("right_square_bracket", "layer(1)", show=False),
        Binding("z", "window", "Window"),
        Binding("less_than_sign,comma", "run(-1)", "Run", key_display="< >"),
        Binding("greater_than_sign,full_stop", "run(1)", show=False),
        Binding("space", "follow", "Follow"),
    ]

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.curve: LossCurve | None = None
        self.run: str | None = None
        self.shown_layer: int | None = None
        self.log_scale = False
        self.window = 0
        self.crosshair: int | None = None

    def compose(self) -> ComposeResult:
        yield TrainChart(id="train-chart")
        yield TrainTable(id="train-table")

    def queries(self) -> Mapping[str, Query]:
        return {"loss": LossQuery(self.run)}

    def on_overview(self, overview: Overview) -> None:
        self.query_one(TrainTable).redraw()

    def on_result(self, slot: str, query: Query, result: Any) -> None:
        self.curve = result
        if result is not None:
            self.query_one(TrainTable).styles.height = min(3 + len(result.layers), max(4, self.size.height // 2))
        self.redraw()

    def marks(self) -> tuple[tuple[int, str], ...]:
        """Where each layer was done."""
        if self.curve is None or self.shown_layer is not None:
            return ()
        return tuple(
            (points[0].step, f"L{layer}")
            for layer, points in sorted(self.curve.layers.items())
            if points and points[0].step > 1
        )

    def steps_shown(self) -> int:
        layers = [points for layer, points in self.curve.layers.items() if points] if self.curve else []
        steps = max((points[-1].step for points in layers), default=1)
        return min(steps, _WINDOWS[self.window] or steps)

    def move_crosshair(self, by: int) -> None:
        steps = (
            max((points[-1].step for points in self.curve.layers.values() if points), default=1) if self.curve else 1
        )
        start = self.crosshair if self.crosshair is not None else steps + (1 if by < 0 else 0)
        self.crosshair = max(1, min(steps, start + by))
        self.redraw()

    def action_log(self) -> None:
        self.log_scale = not self.log_scale
        self.redraw()

    def action_window(self) -> None:
        self.window = (self.window + 1) % len(_WINDOWS)
        self.redraw()

    def action_layer(self, by: int) -> None:
        if self.curve is None:
            return
        choices: list[int | None] = [None, *sorted(self.curve.layers)]
        at = choices.index(self.shown_layer) if self.shown_layer in choices else 0
        self.shown_layer = choices[(at + by) % len(choices)]
        self.redraw()

    def action_run(self, by: int) -> None:
        if self.curve is None:
            return
        at = self.curve.runs.index(self.curve.run) + by
        if 0 <= at < len(self.curve.runs):
            self.run = self.curve.runs[at]
            self.crosshair = None
            self.subscribe()

    def action_follow(self) -> None:
        self.run, self.crosshair = None, None
        self.subscribe()
        self.redraw()

    def copied_text(self) -> str | None:
        found = value_at(self.curve, self.crosshair) if self.curve and self.crosshair else None
        return f"{found[1].step}\t{found[1].mean}" if found else None

    def saved_text(self) -> tuple[str, str]:
        if self.curve is None:
            return super().saved_text()
        rows = [
            f"{self.curve.run}\t{layer}\t{point.step}\t{point.steps}\t{point.low}\t{point.high}\t{point.mean}"
            for layer, points in sorted(self.curve.layers.items())
            for point in points
        ]
        return "tsv", "\n".join(["run\tlayer\tstep\tsteps\tlow\thigh\tmean", *rows]) + "\n"
