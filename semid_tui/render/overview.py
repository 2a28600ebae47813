"""The parts of the overview, as its screen and `semid-tui --once` show them. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len

from semid_daemon.base.text import escape
from semid_daemon.store.read.files import FileRow
from semid_daemon.store.read.monitor import Event, Overview, Usage
from semid_daemon.store.records import LayerHealth
from semid_tui.context import Marker
from semid_tui.render.bars import bar, rank_profile, sparkline
from semid_tui.render.spans import Line, Part, Span, length, line, rule
from semid_tui.render.status import gauge
from semid_tui.render.text import clock, count, duration, fit, loss, percent, short, size
from semid_tui.render.theme import LEVEL_STYLES, STATUS_STYLES, layer_style

_UNIQUE_ENOUGH, _UNIQUE_FEW = 0.9, 0.5  # shares of unique IDs


def work_lines(overview: Overview, width: int, height: int, marker: Marker) -> list[Line]:
    """The file or the training in progress, with a bar and the time left."""
    state = overview.state
    live = overview.liveness() in ("live", "stale")
    title = (
        state
        if live
        else f"{state} · not now: the daemon {'is silent' if overview.liveness() == 'silent' else 'is off'}"
    )
    drawn = [rule(width, (title, "title" if live else "warn"), marker=marker)]
    gauges = overview.gauges
    if live and state == "training" and gauge(overview, "training_steps_most"):
        steps, most = gauge(overview, "training_steps") or 0.0, gauge(overview, "training_steps_most") or 1.0
        drawn.append(line(escape(overview.detail), (f"  step {steps:,.0f} of at most {most:,.0f}", "dim")))
        drawn.append(_bar_line(steps / most, width, marker, "until the loss settles"))
    elif live and gauge(overview, "file_rows"):
        rows, done = gauge(overview, "file_rows") or 1.0, gauge(overview, "file_rows_done") or 0.0
        rate, left = gauge(overview, "rows_per_s"), gauge(overview, "file_eta_s")
        figures = f"  {done:,.0f}/{rows:,.0f} rows" + (f"  {short(rate)} rows/s" if rate else "")
        name = escape(str(gauges.get("file", "")))
        drawn.append(
            line(fit(name, min(cell_len(name), max(8, width - len(figures))), keep_end=True), (figures, "dim"))
        )
        drawn.append(_bar_line(done / rows, width, marker, duration(left) if left is not None else ""))
    else:
        detail = escape(overview.detail) if live else "start it with `semid run`"
        drawn.append(line((detail or "waiting for files in the drop directory", "text" if live else "dim")))
        if live and state == "idle":
            done = overview.files.get("done", 0)
            drawn.append(line((f"{done:,} files done, nothing waits", "dim")))
    return drawn[:height]


def quality_lines(
    overview: Overview, width: int, marker: Marker, drift_limit: float, divergence_limit: float
) -> list[Line]:
    """Whether the IDs are good: share of unique ones, error and drift, then what can be done, a line each.

    `drift_limit` and `divergence_limit` are those of semid.toml from which on a refresh is recommended.
    """
    quality, active = overview.quality, overview.active
    if active is None or active.unique_rate is None:
        return []
    unique = active.unique_rate
    drifted = quality.drift is not None and quality.drift > drift_limit
    diverged = quality.divergence is not None and quality.divergence > divergence_limit
    style = "good" if unique >= _UNIQUE_ENOUGH else "warn" if unique >= _UNIQUE_FEW else "bad"
    parts: list[Part] = [("unique ", "dim"), (f"{unique:.1%}", style)]
    if quality.error is not None:
        parts += [("   error ", "dim"), loss(quality.error)]
    if quality.drift is None:
        parts.append(("   drift not measured yet", "dim"))
    else:
        parts += [("   drift ", "dim"), (f"{quality.drift - 1:+.1%}", "warn" if drifted else "good")]
        parts.append((f" error, limit {drift_limit - 1:+.1%}", "dim"))
    if quality.divergence is not None:
        parts += [("   code use ", "dim"), (f"{quality.divergence:.3f} bits", "warn" if diverged else "good")]
    drawn = [rule(width, ("quality", "title"), (f" · g{active.generation}", "dim"), marker=marker), line(*parts)]
    if overview.next_generation is not None:
        state = "is ready" if overview.next_ready else "is being prepared"
        moved = "" if quality.next_moved is None else f": {quality.next_moved:.1%} of IDs would move"
        drawn.append(line((fit(f"generation {overview.next_generation} {state}{moved} (key 7)", width), "accent")))
    elif drifted or diverged:
        drawn.append(line((fit("refresh recommended: T prepares a generation and changes no ID", width), "warn")))
    return drawn


def _bar_line(share: float, width: int, marker: Marker, note: str) -> Line:
    share = min(1.0, share)
    tail = f" {share:4.0%}  {note}" if note else f" {share:4.0%}"
    return line(*bar(share, max(4, width - max(14, len(tail)) - 1), marker, "accent"), (tail, "text"))


def all_files_lines(overview: Overview, width: int, marker: Marker) -> list[Line]:
    """All files together: how many are done, how much is left, how long it takes."""
    counts = overview.files
    total = sum(counts.values())
    done = counts.get("done", 0) + counts.get("rejected", 0)
    left, eta = gauge(overview, "bytes_left"), gauge(overview, "eta_s")
    live = overview.liveness() == "live"
    words: list[Part] = [f"{done:,} of {total:,} files", (f"  {size(left)} left" if left else "", "dim")]
    if live and left:
        words.append((f"  ETA {duration(eta)}" if eta else "", "text"))
    drawn = [rule(width, ("all files", "title"), marker=marker), line(*words)]
    if total:
        drawn.append(_bar_line(done / total, width, marker, ""))
    return drawn if live else _not_live(overview, drawn)


def _not_live(overview: Overview, drawn: Sequence[Line]) -> list[Line]:
    """Lines under a rule, of figures that the daemon reported some time ago: the age in the rule, all of it dim."""
    age = overview.heartbeat_age_s()
    title = Span(f" · {duration(age)} ago" if age is not None else " · not live", "warn")
    heading, *rest = drawn
    bar = heading[-1]
    heading = (*heading[:-1], title, bar._replace(text=bar.text[: max(0, len(bar.text) - cell_len(title.text))]))
    return [heading, *(tuple(span._replace(style="dim") for span in spans) for spans in rest)]


def codebook_lines(
    overview: Overview, usage: Usage | None, width: int, height: int, marker: Marker, trend: bool = False
) -> list[Line]:
    """Each layer: coverage, dead codes, perplexity, rank profile."""
    active = overview.active
    if active is None:
        return [
            rule(width, ("codebooks", "title"), marker=marker),
            line(("none yet: they come with the first training", "dim")),
        ]
    unique = f" · unique {active.distinct_ids / active.items:.2%}" if active.items else ""
    drawn = [
        rule(
            width,
            ("codebooks", "title"),
            (
                f" g{active.generation} · {active.layers}×{active.codebook_size} · {count(active.items)} items{unique}",
                "dim",
            ),
            (" · rank profile" if width >= 70 else "", "faint"),
            marker=marker,
        )
    ]
    layers = (
        list(overview.layers)[: height - 1]
        if len(overview.layers) <= height - 1
        else list(overview.layers)[: height - 2]
    )
    for health in layers:
        drawn.append(layer_line(health, usage, active.codebook_size, width, marker))
        if trend and usage is not None and height >= 1 + 2 * len(overview.layers):
            drawn.append(trend_line(usage, health.layer, width, marker))
    if len(layers) < len(overview.layers):
        drawn.append(line((f"… {len(overview.layers) - len(layers)} more layers: 3 Codes", "dim")))
    return drawn


def layer_line(health: LayerHealth, usage: Usage | None, codebook_size: int, width: int, marker: Marker) -> Line:
    digits = len(str(codebook_size))
    style = layer_style(health.layer)
    parts = line(
        (f"L{health.layer:<2}", style),
        (f"{percent(health.coverage):>6}", "text" if health.coverage > 0.9 else "warn"),
        (" dead ", "dim"),
        (f"{health.dead_codes:>{digits}}", "bad" if health.dead_codes else "dim"),
        (" ppl ", "dim"),
        (f"{health.perplexity:>{digits}.0f}", "text"),
        (f"/{codebook_size} ", "dim"),
    )
    if usage is None or health.layer >= len(usage.layers):
        return parts
    return (*parts, *rank_profile(usage.layers[health.layer], width - length(parts), marker, style))


def trend_line(usage: Usage, layer: int, width: int, marker: Marker) -> Line:
    """Perplexity over the growth of the catalogue."""
    history = usage.history[layer] if layer < len(usage.history) else ()
    if len(history) < 2:
        return ()
    values = [health.perplexity for _, health in history]
    words = f"    perplexity {values[0]:.0f} → {values[-1]:.0f}  "
    return line((words, "faint"), (sparkline(values, width - len(words), marker), "faint"))


def file_count_line(overview: Overview) -> Line:
    parts: list[Part] = []
    for name in ("pending", "loading", "done", "rejected", "deferred"):
        number = overview.files.get(name, 0)
        if number or name != "deferred":
            parts += [(f"{name} ", "dim"), Span(f"{number:,}", STATUS_STYLES[name] if number else "dim"), "  "]
    return line(*parts)


def trouble_lines(
    overview: Overview, troubled: Sequence[FileRow], width: int, height: int, marker: Marker
) -> list[Line]:
    """Files by status, then the rejected and the deferred ones with their reasons."""
    drawn = [rule(width, ("files", "title"), marker=marker), file_count_line(overview)]
    for file in troubled[: max(0, height - 2)]:
        drawn.append(trouble_line(file, width, marker))
    return drawn


def trouble_line(file: FileRow, width: int, marker: Marker) -> Line:
    sign = ("x" if marker == "ascii" else "✗") if file.status == "rejected" else ("~" if marker == "ascii" else "↻")
    name = escape(file.name)
    reason = escape(file.reason or "")
    if file.retry_at and file.status == "deferred":
        reason = f"again {clock(file.retry_at)}: {reason}"
    name_width = min(cell_len(name), max(12, width // 2 - 4))
    return line(
        (f"{sign} ", STATUS_STYLES[file.status]),
        fit(name, name_width, keep_end=True),
        (f"  {fit(reason, max(0, width - name_width - 4))}", "dim"),
    )


def event_lines(events: Sequence[Event], width: int, height: int, marker: Marker) -> list[Line]:
    """The latest events, the newest at the bottom."""
    shown = list(events[: max(0, height - 1)])[::-1]
    return (
        [
            rule(width, ("events", "title"), marker=marker),
            *(event_line(event, width) for event in shown),
        ]
        if shown
        else [rule(width, ("events", "title"), marker=marker), line(("none yet", "dim"))]
    )


def event_line(event: Event, width: int) -> Line:
    return line(
        (f"{clock(event.at)} ", "dim"),
        (f"{event.level[:4].upper():<5}", LEVEL_STYLES.get(event.level, "text")),
        fit(escape(event.message), width - len(clock(event.at)) - 6),
    )


def host_lines(overview: Overview, width: int, height: int, marker: Marker) -> list[Line]:
    """Processor, memory, GPU, disk, and the share of each stage in the time of ingesting."""
    drawn = [rule(width, ("host", "title"), (f" · {escape(overview.device or '')}", "dim"), marker=marker)]

    def meter(name: str, share: float | None, words: str, scarce: bool = False) -> None:
        if share is not None:
            room = max(4, width - 7 - 5 - 26)
            style = "bar" if not scarce or share <= 0.85 else "warn" if share <= 0.95 else "bad"
            drawn.append(
                line((f"{name:<7}", "dim"), *bar(share, room, marker, style), f"{share:5.0%}", (f" {words}", "dim"))
            )

    def share(used: float | None, total: float | None) -> float | None:
        return used / total if used is not None and total else None

    if not overview.gauges:
        return [*drawn, line(("no figures recorded yet", "dim"))]
    gpu_used, gpu_total = gauge(overview, "gpu_memory_used_bytes"), gauge(overview, "gpu_memory_total_bytes")
    heat, watts = gauge(overview, "gpu_celsius"), gauge(overview, "gpu_watts")
    gpu_words = " ".join([f"{heat:.0f} °C" if heat else "", f"{watts:.0f} W" if watts else ""])
    gpu_percent = gauge(overview, "gpu_percent")
    meter("gpu", gpu_percent / 100 if gpu_percent is not None else None, gpu_words)
    meter("gpu mem", share(gpu_used, gpu_total), f"{size(gpu_used or 0)} of {size(gpu_total or 0)}", scarce=True)
    cpu, own = gauge(overview, "cpu_percent"), gauge(overview, "process_cpu_percent") or 0.0
    meter(
        "cpu",
        cpu / 100 if cpu is not None else None,
        f"semid {own:.0f}% of {gauge(overview, 'cpu_count') or 0:.0f} cores",
    )
    used, total = gauge(overview, "memory_used_bytes"), gauge(overview, "memory_total_bytes")
    own_memory = size(gauge(overview, "process_rss_bytes") or 0)
    meter("memory", share(used, total), f"semid {own_memory} of {size(total or 0)}", scarce=True)
    stages = stage_line(overview, width)
    if stages:
        drawn.append(stages)
    free = gauge(overview, "disk_free_bytes")
    if free is not None:
        drawn.append(line(("disk   ", "dim"), (f"{size(free)} free", "bad" if free < 2**30 else "text")))
    return drawn[:height] if overview.liveness() == "live" else _not_live(overview, drawn[:height])


def stage_line(overview: Overview, width: int) -> Line:
    """`stages bottleneck encode 61% commit 27% read 12%`, from the gauges of the ingest pipeline."""
    times = {
        name.removeprefix("stage_").removesuffix("_s"): float(value)
        for name, value in overview.gauges.items()
        if name.startswith("stage_") and isinstance(value, (int, float))
    }
    whole = sum(times.values())
    bottleneck = overview.gauges.get("bottleneck")
    if not whole:
        return ()
    parts: list[Part] = [("stages ", "dim")]
    for name, value in sorted(times.items(), key=lambda stage: -stage[1]):
        is_bottleneck = name == bottleneck
        parts += [("bottleneck " if is_bottleneck else "", "warn"), (f"{escape(name)} ", "dim")]
        parts += [(f"{value / whole:.0%} ", "warn" if is_bottleneck else "text")]
    return line(*parts)
