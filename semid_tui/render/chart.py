"""The loss chart: envelope of every bucket of steps, a smoothed line on top, quantized axes. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from semid_daemon.store.read.loss import LossCurve, LossPoint, smooth
from semid_tui.context import Marker
from semid_tui.render.canvas import Canvas
from semid_tui.render.spans import Line, Part, Span, line, rule
from semid_tui.render.text import fit, loss, short
from semid_tui.render.theme import envelope_style, layer_style

_AXIS = 7  # cells left of the plot: labels of values
_USUAL_SHARE, _HEADROOM = 0.95, 0.25  # of the values, and of their range, that the value axis holds
_TICK_CELLS = 14  # between two labels of the axis of steps, at least


@dataclass(frozen=True, slots=True)
class View:
    """How a curve is shown: the last `window` steps of it (0 for all), of one `layer` (None for all)."""

    log: bool = False
    marker: Marker = "braille"
    layer: int | None = None
    window: int = 0
    crosshair: int | None = None  # a step
    marks: tuple[tuple[int, str], ...] = ()  # steps with a text, such as the first of a layer


@dataclass(frozen=True, slots=True)
class Bucket:
    """Points that share a column of dots."""

    low: float
    high: float
    smoothed: float
    steps: int


def nice(value: float) -> float:
    """The next of 1, 2, 5, 10, 20, 50…"""
    if value <= 0:
        return 1.0
    size = 10.0 ** math.floor(math.log10(value))
    return next(size * factor for factor in (1, 2, 5, 10) if size * factor >= value * (1 - 1e-9))


def shown_layers(curve: LossCurve, view: View) -> dict[int, tuple[LossPoint, ...]]:
    """The layers and points that the view asks for."""
    layers = {layer: points for layer, points in curve.layers.items() if view.layer in (None, layer)}
    last = max((points[-1].step for points in layers.values() if points), default=0)
    first = last - view.window + 1 if view.window else 0
    return {
        layer: kept
        for layer, points in layers.items()
        if (kept := tuple(point for point in points if point.step + point.steps > first and _finite(point)))
    }


def _finite(point: LossPoint) -> bool:
    return math.isfinite(point.low) and math.isfinite(point.high)


def buckets_of(points: Sequence[LossPoint], origin: int, size: float) -> dict[int, Bucket]:
    """Points by columns of dots, each `size` steps wide."""
    found: dict[int, Bucket] = {}
    for point, smoothed in zip(points, smooth(points), strict=True):
        number = int((point.step - origin) // size)
        before = found.get(number)
        if before is None:
            found[number] = Bucket(point.low, point.high, smoothed, point.steps)
        else:
            found[number] = Bucket(
                min(before.low, point.low), max(before.high, point.high), smoothed, before.steps + point.steps
            )
    return found


def value_range(layers: dict[int, tuple[LossPoint, ...]], log: bool) -> tuple[float, float]:
    """Quantized bounds of the value axis: they change seldom, and by whole ticks."""
    low = min(point.low for points in layers.values() for point in points)
    highs = sorted(point.high for points in layers.values() for point in points)
    # The first steps after a start are far above all others: beyond the axis they are drawn at its end.
    usual = highs[int(_USUAL_SHARE * (len(highs) - 1))]
    high = min(highs[-1], usual + (usual - low) * _HEADROOM) if usual > low else highs[-1]
    if log and low > 0:
        bottom = 10.0 ** math.floor(math.log10(low))
        for factor in (5, 2):
            if bottom * factor <= low:
                bottom *= factor
                break
        return bottom, max(nice(high), bottom * 2)
    step = nice((high - low) / 4 or abs(high) / 4 or 1)
    bottom = math.floor(low / step) * step
    # Zero is worth showing where the values are near it.
    bottom = 0.0 if 0 < bottom <= high * 0.15 else bottom
    top = math.ceil(high / step) * step
    return bottom, top if top > bottom else bottom + step


def ticks(bottom: float, top: float, most: int, log: bool) -> list[float]:
    """The values of the labels, `most` of them at most."""
    if log and bottom > 0:
        found = [
            size * 10.0**power
            for power in range(math.floor(math.log10(bottom)), math.ceil(math.log10(top)) + 1)
            for size in (1, 2, 5)
            if bottom * (1 - 1e-9) <= size * 10.0**power <= top * (1 + 1e-9)
        ]
        while len(found) > max(most, 2):
            found = found[:1] + found[2:-1:2] + found[-1:] if len(found) > 3 else found[:: len(found) - 1]
        return found
    # Round steps of which a whole number fits, so that both ends have a label.
    for factor in (1.0, 1.5):
        for steps in range(max(most - 1, 1), 1, -1):
            step = (top - bottom) / steps
            if math.isclose(step, nice(step / factor) * factor, rel_tol=1e-6):
                return [bottom + number * step for number in range(steps + 1)]
    return [bottom, top]


def draw_loss(curve: LossCurve, width: int, height: int, view: View) -> list[Line]:
    """The chart, `height` lines of at most `width` cells, the last of them the axis of steps."""
    layers = shown_layers(curve, view)
    plot_wide, plot_high = width - _AXIS, height - 1
    if not layers or plot_wide < 4 or plot_high < 1:
        return [line(("no loss recorded yet", "dim"))]
    canvas = Canvas(plot_wide, plot_high, view.marker)
    last = max(points[-1].last_step for points in layers.values())
    first = max(min(points[0].step for points in layers.values()) - 1, 0)
    size = max(1.0, nice((last - first) / canvas.dots_wide))
    if size * canvas.dots_wide < last - first:
        size = nice(size * 1.01)
    origin = math.floor(first / size) * int(size)
    dots_per_step = max(1, int(canvas.dots_wide // max(1, last - origin))) if size == 1.0 else 1
    bottom, top = value_range(layers, view.log)
    log = view.log and bottom > 0

    def height_of(value: float) -> int:
        share = (
            (math.log(max(value, bottom)) - math.log(bottom)) / (math.log(top) - math.log(bottom))
            if log
            else (value - bottom) / (top - bottom)
        )
        return min(canvas.dots_high - 1, max(0, round((1 - share) * (canvas.dots_high - 1))))

    labels = {height_of(value) // canvas.down: value for value in ticks(bottom, top, max(2, plot_high // 2), log)}
    for layer, points in layers.items():
        _draw_layer(canvas, layer, buckets_of(points, origin + 1, size), height_of, dots_per_step)
    for row in labels:
        for column in range(0, plot_wide, 4):
            if canvas.is_empty(column, row):
                canvas.put(column, row, "." if view.marker == "ascii" else "┈", "track")

    def column_of(step: int) -> int:
        return int((step - 1 - origin) // size) * dots_per_step // canvas.across

    upright = "|" if view.marker == "ascii" else "┊"
    published = [(last, f"g{curve.published}")] if curve.published is not None and view.layer is None else []
    for step, text in (*view.marks, *published):
        if step == first + 1 == 1:
            _draw_text(canvas, 0, text, "accent")  # the axis stands there
        elif first < step <= last:
            _draw_upright(canvas, min(column_of(step), plot_wide - 1), upright, "accent", text)
    if view.crosshair is not None and first < view.crosshair <= last:
        _draw_upright(canvas, column_of(view.crosshair), "|" if view.marker == "ascii" else "│", "strong", "")
    drawn = []
    for row in range(plot_high):
        label = fit(loss(labels[row]), _AXIS - 1, right=True) if row in labels else " " * (_AXIS - 1)
        tick = ("+" if row in labels else "|") if view.marker == "ascii" else ("┤" if row in labels else "│")
        drawn.append((Span(label, "dim"), Span(tick, "rule"), *canvas.line(row)))
    return [*drawn, _step_axis(plot_wide, origin, size * canvas.across / dots_per_step, view.marker)]


def _draw_layer(
    canvas: Canvas,
    layer: int,
    buckets: dict[int, Bucket],
    height_of: Callable[[float], int],
    dots_per_step: int,
) -> None:
    before: tuple[int, int] | None = None
    for number in sorted(buckets):
        bucket = buckets[number]
        x = number * dots_per_step
        canvas.column(x, height_of(bucket.high), height_of(bucket.low), envelope_style(layer))
        y = height_of(bucket.smoothed)
        for at, level in _between(before, (x, y)):
            canvas.dot(at, level, layer_style(layer), front=True)
        before = (x, y)


def _between(start: tuple[int, int] | None, end: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """The dots of a line from one point (not included) to another."""
    if start is None:
        yield end
        return
    steps = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
    for number in range(1, steps + 1):
        yield (
            start[0] + round((end[0] - start[0]) * number / steps),
            start[1] + round((end[1] - start[1]) * number / steps),
        )


def _draw_upright(canvas: Canvas, column: int, character: str, style: str, text: str) -> None:
    for row in range(canvas.height):
        canvas.put(column, row, character, style)
    _draw_text(canvas, column + 1 if column + 1 + len(text) <= canvas.width else column - len(text), text, style)


def _draw_text(canvas: Canvas, start: int, text: str, style: str) -> None:
    for place, letter in enumerate(text, start):
        canvas.put(place, 0, letter, style)


def _step_axis(width: int, origin: int, steps_per_cell: float, marker: Marker) -> Line:
    corner, bar = ("+", "-") if marker == "ascii" else ("└", "─")
    text = ""
    step = nice(steps_per_cell * _TICK_CELLS)
    value = math.ceil(origin / step) * step
    while True:
        column = round((value - origin) / steps_per_cell)
        label = short(value)
        if column + len(label) > width:
            break
        if column >= len(text) + (1 if text else 0):
            text = f"{text:{bar}<{column}}{label}"
        value += step
    return line((" " * (_AXIS - 1) + corner + f"{text:{bar}<{width}}", "dim"))


# -- in words ----------------------------------------------------------------------------------------


def last_smoothed(curve: LossCurve, layer: int | None = None) -> tuple[int, float, float] | None:
    """(last step, smoothed loss, change of it over the last fifth of the layer's steps) of the layer trained last."""
    layers = {number: points for number, points in curve.layers.items() if points and layer in (None, number)}
    if not layers:
        return None
    points = max(layers.values(), key=lambda points: points[-1].step)
    smoothed = smooth(points)
    last = points[-1].last_step
    back = lookback(last - points[0].step + 1)
    earlier = next(
        (value for point, value in zip(reversed(points), reversed(smoothed), strict=True) if point.step <= last - back),
        smoothed[0],
    )
    return last, smoothed[-1], (smoothed[-1] - earlier) / abs(earlier) if earlier else 0.0


def lookback(steps: int) -> int:
    """The number of steps that a change is measured over: a power of ten, at most a fifth of them."""
    return max(1, int(10 ** math.floor(math.log10(max(steps / 5, 1)))))


def trend_words(curve: LossCurve, layer: int | None = None) -> list[tuple[str, str]]:
    """`step 128,400 · L2 smoothed 0.214 ▼1.2% in 1k steps`, as parts of a heading."""
    found = last_smoothed(curve, layer)
    if found is None:
        return []
    step, value, change = found
    layers = {number: points for number, points in curve.layers.items() if points and layer in (None, number)}
    latest, points = max(layers.items(), key=lambda item: item[1][-1].step)
    back = lookback(step - points[0].step + 1)
    arrow, style = ("▼", "good") if change < -5e-5 else ("▲", "warn") if change > 5e-5 else ("=", "dim")
    return [
        (f" · step {step:,} · L{latest} smoothed ", "dim"),
        (loss(value), "strong"),
        (f" {arrow}{abs(change):.1%} in {short(back)} steps", style),
    ]


def value_at(curve: LossCurve, step: int) -> tuple[int, LossPoint, float] | None:
    """(layer, point, smoothed) at or just before a step."""
    best: tuple[int, LossPoint, float] | None = None
    for layer, points in curve.layers.items():
        for point, smoothed in zip(points, smooth(points), strict=True):
            if point.step <= step and (best is None or point.step > best[1].step):
                best = (layer, point, smoothed)
    return best


def loss_lines(curve: LossCurve | None, width: int, height: int, view: View) -> list[Line]:
    """The loss chart under its heading."""
    if curve is None:
        return [
            rule(width, ("loss", "title"), marker=view.marker),
            line(("no training yet: rows gather until there are training.min_rows of them", "dim")),
        ]
    heading: list[Part] = [
        ("loss", "title"),
        (f" · run {run_number(curve.run)}", "dim"),
        *trend_words(curve, view.layer),
    ]
    if view.log:
        heading.append((" · log", "accent"))
    return [rule(width, *heading, marker=view.marker), *draw_loss(curve, width, height - 1, view)]


def run_number(run: str) -> str:
    """`train-8` as 8."""
    return run.removeprefix("train-")
