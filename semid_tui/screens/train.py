"""2 Train: the loss of a run, of all layers or one, with log scale, window, crosshair and the published generation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textual.app import ComposeResult
from textual.binding import Binding

from semid_daemon.store.read.loss import LossCurve
from semid_daemon.store.read.monitor import Overview
from semid_tui.data.queries import LossQuery, Query
from semid_tui.render.chart import View, loss_lines, value_at
from semid_tui.render.spans import Line
from semid_tui.render.train import last_step, layer_marks, loss_tsv, run_lines
from semid_tui.widgets.pane import Pane, PanePart

_WINDOW_SHARES = (1, 2, 5, 10, 50)  # the whole run, its last half, fifth, tenth, fiftieth


class TrainChart(PanePart["TrainPane"], can_focus=True):
    """The loss chart with a crosshair."""

    BINDINGS = [
        Binding("left,h", "crosshair(-1)", "Crosshair", key_display="← →"),
        Binding("right", "crosshair(1)", show=False),
        Binding("shift+left", "crosshair(-10)", show=False),
        Binding("shift+right", "crosshair(10)", show=False),
        Binding("escape", "no_crosshair", show=False),
    ]

    def lines(self, width: int, height: int) -> list[Line]:
        pane = self.pane
        view = View(
            log=pane.log_scale,
            marker=self.monitor.marker,
            layer=pane.shown_layer,
            window=pane.window_steps,
            crosshair=pane.crosshair,
            marks=pane.marks(),
        )
        return loss_lines(pane.curve, width, height, view)

    def action_crosshair(self, by: int) -> None:
        self.pane.move_crosshair(by * max(1, self.pane.steps_shown() // max(self.size.width - 7, 1)))

    def action_no_crosshair(self) -> None:
        self.pane.crosshair = None
        self.pane.redraw()


class TrainTable(PanePart["TrainPane"]):
    """The run in figures."""

    def lines(self, width: int, height: int) -> list[Line]:
        pane, marker = self.pane, self.monitor.marker
        if pane.curve is None:
            return []
        return run_lines(pane.curve, pane.overview, pane.shown_layer, pane.window_steps, pane.crosshair, width, marker)


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
        yield TrainChart(self, id="train-chart")
        yield TrainTable(self, id="train-table")

    def queries(self) -> Mapping[str, Query]:
        return {"loss": LossQuery(self.run)}

    def on_overview(self, overview: Overview) -> None:
        self.query_one(TrainTable).redraw()

    def on_result(self, slot: str, query: Query, result: Any) -> None:
        self.curve = result
        if result is not None:
            self.query_one(TrainTable).styles.height = min(3 + len(result.layers), max(4, self.size.height // 2))
        self.redraw()

    @property
    def window_steps(self) -> int:
        """The last steps that are shown; 0 for all."""
        share = _WINDOW_SHARES[self.window]
        return max(2, last_step(self.curve) // share) if share > 1 else 0

    def marks(self) -> tuple[tuple[int, str], ...]:
        """The first steps of the layers, while all of them are shown."""
        return layer_marks(self.curve) if self.curve is not None and self.shown_layer is None else ()

    def steps_shown(self) -> int:
        """The number of steps across the chart."""
        steps = last_step(self.curve)
        return min(steps, self.window_steps or steps)

    def move_crosshair(self, by: int) -> None:
        """Move the crosshair by so many steps; the first move begins at the end of the run."""
        steps = last_step(self.curve)
        start = self.crosshair if self.crosshair is not None else steps + (1 if by < 0 else 0)
        self.crosshair = max(1, min(steps, start + by))
        self.redraw()

    def action_log(self) -> None:
        self.log_scale = not self.log_scale
        self.redraw()

    def action_window(self) -> None:
        self.window = (self.window + 1) % len(_WINDOW_SHARES)
        self.redraw()

    def action_layer(self, by: int) -> None:
        if self.curve is None:
            return
        choices: list[int | None] = [None, *sorted(self.curve.layers)]
        number = choices.index(self.shown_layer) if self.shown_layer in choices else 0
        self.shown_layer = choices[(number + by) % len(choices)]
        self.redraw()

    def action_run(self, by: int) -> None:
        if self.curve is None:
            return
        number = self.curve.runs.index(self.curve.run) + by
        if 0 <= number < len(self.curve.runs):
            self.run = self.curve.runs[number]
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
        return "tsv", loss_tsv(self.curve)
