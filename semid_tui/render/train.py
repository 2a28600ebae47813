"""A training run in figures. Pure functions; the chart is in `chart`."""

from __future__ import annotations

from semid_daemon.base.text import escape
from semid_daemon.store.read.loss import LossCurve, smooth
from semid_daemon.store.read.monitor import Overview
from semid_tui.context import Marker
from semid_tui.render.chart import run_number, value_at
from semid_tui.render.spans import Line, line, rule
from semid_tui.render.text import loss, tsv
from semid_tui.render.theme import layer_style


def run_lines(
    curve: LossCurve,
    overview: Overview | None,
    layer: int | None,
    window: int,
    crosshair: int | None,
    width: int,
    marker: Marker,
) -> list[Line]:
    """The run, the step under the crosshair or the training in progress, and the table of layers.

    `layer` None is all layers, `window` 0 all steps.
    """
    layers = "all layers" if layer is None else f"layer {layer}"
    steps = f"last {window:,} steps" if window else "all steps"
    number = curve.runs.index(curve.run) + 1
    heading = rule(
        width,
        ("run", "title"),
        (f" {run_number(curve.run)} ({number} of {len(curve.runs)}) · {layers} · {steps} · by {curve.span}", "dim"),
        marker=marker,
    )
    return [heading, crosshair_line(curve, crosshair) or training_line(overview), *layer_table(curve, width)]


def crosshair_line(curve: LossCurve, crosshair: int | None) -> Line:
    """The loss at the crosshair; empty where there is none."""
    found = value_at(curve, crosshair) if crosshair is not None else None
    if found is None:
        return ()
    layer, point, smoothed = found
    steps = f"{point.step:,}" if point.steps == 1 else f"{point.step:,}–{point.step + point.steps - 1:,}"
    return line(
        ("crosshair  ", "dim"),
        (f"L{layer} ", layer_style(layer)),
        f"step {steps}  loss {loss(point.mean)}",
        (f"  {loss(point.low)}…{loss(point.high)}  smoothed {loss(smoothed)}", "dim"),
    )


def training_line(overview: Overview | None) -> Line:
    """The training in progress, or a hint at the crosshair."""
    training = overview is not None and overview.state == "training" and overview.liveness() == "live"
    state = escape(overview.detail) if overview is not None and training else ""
    return line((state or "← → put a crosshair on the chart", "accent" if state else "faint"))


def layer_marks(curve: LossCurve) -> tuple[tuple[int, str], ...]:
    """The first step of every layer, with its name."""
    return tuple((points[0].step, f"L{layer}") for layer, points in sorted(curve.layers.items()) if points)


def last_step(curve: LossCurve | None) -> int:
    """The last step of a run; 1 where nothing is recorded."""
    return max((points[-1].step for points in curve.layers.values() if points), default=1) if curve else 1


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


def loss_tsv(curve: LossCurve) -> str:
    """Every point of a run."""
    return tsv(
        ("run", "layer", "step", "steps", "low", "high", "mean"),
        (
            (curve.run, layer, point.step, point.steps, point.low, point.high, point.mean)
            for layer, points in sorted(curve.layers.items())
            for point in points
        ),
    )
