"""Generations: the list of them, two compared, and the drift of the active one. Pure functions."""

from __future__ import annotations

from semid_daemon.base.text import escape
from semid_daemon.store.read.generations import Difference, GenerationRow, GenerationsSnapshot
from semid_daemon.store.read.monitor import Overview
from semid_tui.context import Marker
from semid_tui.render.bars import sparkline
from semid_tui.render.spans import Line, Part, line, rule
from semid_tui.render.text import clock, count, figure, fit, loss, percent
from semid_tui.render.theme import layer_style

STATUS_STYLES = {"active": "good", "ready": "accent", "preparing": "warn", "retired": "dim"}
_ORIGINS = {"first": "first rows", "anew": "all rows", "candidate": "candidate"}
_BETTER_LOW = ("error", "dead", "bucket", "churn", "moved", "collision")


def generation_line(row: GenerationRow, width: int, selected: bool) -> Line:
    """One generation: number, status, items, share of unique IDs, time, origin."""
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
    """The list of generations from `top` on, the one on the cursor marked."""
    heading: list[Part] = [("generations", "title")]
    if snapshot is not None and snapshot.candidate is not None:
        steps, rows = snapshot.candidate
        heading.append((f" · the candidate has learned {steps:,} steps from {rows:,} rows", "dim"))
    drawn = [rule(width, *heading, marker=marker)]
    if snapshot is None or not snapshot.generations:
        return [*drawn, line(("none yet: the first comes once training.min_rows rows have gathered", "dim"))]
    shown = snapshot.generations[top : top + height - 1]
    return [*drawn, *(generation_line(row, width, number == cursor) for number, row in enumerate(shown, top))]


def difference_line(difference: Difference, width: int) -> Line:
    """`layer 1 perplexity  703 → 721  +2.6%`, the better direction in green."""
    name = difference.name.replace("_", " ") + ("" if difference.layer is None else f" L{difference.layer}")
    parts: list[Part] = [
        (fit(name, min(26, width // 3)), "text" if difference.layer is None else layer_style(difference.layer))
    ]
    values = [figure(value) if value is not None else "-" for value in (difference.old, difference.new)]
    parts.append(f"{values[0]:>10} → {values[1]:<10}")
    if difference.old and difference.new is not None:
        change = (difference.new - difference.old) / abs(difference.old)
        lower_is_better = any(word in difference.name for word in _BETTER_LOW)
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
            escape(row.fingerprint),
            (f"  collisions {row.collisions}", "dim"),
            (f"  largest bucket {row.max_bucket:,}", "dim"),
        ),
    ]
    comparison = next((pair for pair in snapshot.comparisons if row.generation in (pair.old, pair.new)), None)
    if comparison is not None:
        pair_text = f" · g{comparison.old} → g{comparison.new}"
        drawn.append(rule(width, ("comparison", "title"), (pair_text, "dim"), marker=marker))
        drawn += [difference_line(difference, width) for difference in comparison.differences]
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
        if name == "drift_error_ratio" and snapshot.drift_base:
            drawn.append(
                line(
                    fit("error, times that without drift", len(text)),
                    f"{loss(values[-1] / snapshot.drift_base):>9}  ",
                    (f"{loss(snapshot.drift_base)} times that of training is no drift", "dim"),
                )
            )
        drawn.append(
            line(
                (text, "dim" if layer is None else layer_style(layer)),
                f"{loss(values[-1]):>9}  ",
                (sparkline(values, room, marker), "accent" if layer is None else layer_style(layer)),
            )
        )
    return drawn


def training_effects(overview: Overview) -> list[str]:
    """What preparing another generation does, in figures."""
    texts = []
    if overview.active is not None:
        texts.append(f"{overview.active.items:,} items are encoded with it, beside generation {overview.generation}.")
    if overview.next_generation is not None:
        state = "is ready" if overview.next_ready else "is being prepared"
        texts.append(f"Generation {overview.next_generation} {state} already.")
    return texts


def switch_effects(snapshot: GenerationsSnapshot, row: GenerationRow) -> list[str]:
    """What changes for the users of the IDs when a generation becomes the active one, as it was measured."""
    active = next((other for other in snapshot.generations if other.status == "active"), None)
    if active is None:
        return []
    numbers = {active.generation, row.generation}
    pair = next((pair for pair in snapshot.comparisons if {pair.old, pair.new} == numbers), None)
    churn = {} if pair is None else {change.layer: change.new for change in pair.differences if change.name == "churn"}
    moved = churn.get(None)
    if pair is None or moved is None:
        return [
            f"How many IDs move was not measured: `semid compare {active.generation} {row.generation}` counts them."
        ]
    items = max(0, active.items - row.behind)
    layers = ", ".join(
        f"L{layer} {share:.1%}" for layer, share in churn.items() if layer is not None and share is not None
    )
    texts = [
        f"{moved:.1%} of the IDs move: {round(moved * items):,} of {items:,}."
        + (f" By layer: {layers}." if layers else "")
    ]
    measured = []
    for change in pair.differences:
        before, after = (change.old, change.new) if pair.new == row.generation else (change.new, change.old)
        if change.name in ("error", "neighbour_recall") and before is not None and after is not None:
            layer = "" if change.layer is None else f" L{change.layer}"
            measured.append(f"{change.name.replace('_', ' ')}{layer} {figure(before)} → {figure(after)}")
    if measured:
        texts.append("On the same rows: " + ", ".join(measured) + ".")
    if row.behind:
        texts.append(f"{row.behind:,} items do not have an ID of it yet.")
    return texts
