"""The lines around the screens: status, tabs, the last command, keys. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from semid_daemon.base.text import escape
from semid_daemon.store.read.monitor import Overview
from semid_daemon.store.read.status import STALE_S
from semid_tui.context import Mode, SentCommand
from semid_tui.render.spans import Line, Span, ends, length, line
from semid_tui.render.text import duration, fit, loss, short

SCREENS = ("Overview", "Train", "Codes", "Files", "Lookup", "Tree", "Generations", "Events")
_SHORT = ("Over", "Train", "Codes", "Files", "Look", "Tree", "Gens", "Events")


@dataclass(frozen=True, slots=True)
class KeyHint:
    """A key as the bottom line shows it, and the action of a click on it. `kept`: shown however narrow the line is."""

    key: str
    description: str
    click: str
    kept: bool = False


def status_line(overview: Overview | None, width: int, mode: Mode, problem: str | None = None) -> Line:
    """Badge and age of the data first, then the daemon's work and the catalogue, as many parts as fit."""
    parts: list[Line] = [line(("semid", "title"))]
    if mode.readonly:
        parts.append(line(("RO", "badge")))
    if mode.frozen:
        parts.append(line(("FROZEN", "badge")))
    if problem is not None or overview is None:
        parts.append(line((f"{'x' if mode.ascii_only else '✗'} {problem or 'reading…'}", "bad" if problem else "dim")))
        return _joined(parts, width)
    live = overview.liveness()
    parts.append(_state(overview, live, mode))
    generation = overview.active.generation if overview.active else None
    if generation is not None:
        parts.append(line(("g", "dim"), (str(generation), "accent")))
    if live == "live":
        parts += _activity(overview)
    if overview.files.get("rejected"):
        parts.append(line((f"{overview.files['rejected']:,} rejected", "bad")))
    if overview.files.get("deferred"):
        parts.append(line((f"{overview.files['deferred']:,} deferred", "warn")))
    if overview.active:
        parts.append(line((short(overview.active.items), "text"), (" items", "dim")))
    return _joined(parts, width)


def _state(overview: Overview, live: str, mode: Mode) -> Line:
    age = overview.heartbeat_age_s()
    age_text = duration(age) if age is not None and not overview.clock_was_set_back() else ""
    full, hollow, warning = ("*", "o", "!") if mode.ascii_only else ("●", "○", "▲")
    state = overview.state.upper()
    if live == "off":
        return line((f"{hollow} {state}", "dim"), (f" {age_text} ago" if age_text else "", "dim"))
    if live == "silent":
        return line((f"{warning} daemon silent {age_text}".rstrip(), "bad"), (f" was {state}", "dim"))
    if live == "stale":
        return line((f"{warning} {age_text} old", "warn"), (f" {state}", "dim"))
    style = {"PAUSED": "warn", "SOURCE MISSING": "bad", "IDLE": "dim"}.get(state, "good")
    return line((f"{full} {age_text} ", "good"), (_short_state(state), style))


def _short_state(state: str) -> str:
    return {"TRAINING": "TRAIN", "ENCODING": "ENCODE", "GATHERING": "GATHER"}.get(state, state)


def _activity(overview: Overview) -> list[Line]:
    parts = []
    gauges = overview.gauges
    if overview.state == "training" and "loss " in overview.detail:
        parts.append(line(("loss ", "dim"), loss(float(overview.detail.rpartition("loss ")[2]))))
    rate = gauge(overview, "rows_per_s")
    if rate and overview.state not in ("idle", "paused", "training"):
        parts.append(line(short(rate), ("/s", "dim")))
    eta = gauge(overview, "eta_s")
    if eta and "file" in gauges:
        parts.append(line(("ETA ", "dim"), duration(eta)))
    return parts


def gauge(overview: Overview, name: str) -> float | None:
    """A gauge that is a number."""
    value = overview.gauges.get(name)
    return float(value) if isinstance(value, (int, float)) else None


def _joined(parts: Sequence[Line], width: int) -> Line:
    """Parts with a blank between them, as many as fit."""
    joined: list[Span] = []
    used = 0
    for part in parts:
        needed = length(part) + (1 if joined else 0)
        if used + needed > width:
            break
        joined += [*([Span(" ")] if joined else []), *part]
        used += needed
    return tuple(joined)


def tab_line(active: int, width: int) -> Line:
    """The names of the screens with their keys."""
    for names, gap in ((SCREENS, 2), (SCREENS, 1), (_SHORT, 1)):
        texts = [f"{number} {name}" for number, name in enumerate(names, 1)]
        if sum(map(len, texts)) + (len(texts) + 1) * gap <= width:
            break
    else:
        texts, gap = [f"{number}{name}" for number, name in enumerate(_SHORT, 1)], 1
    spans = [Span(" " * (gap - 1))]
    for number, text in enumerate(texts, 1):
        spans += [
            Span(" " if gap == 2 and number == 1 else "", "text"),
            Span(text, "tab-active" if number == active else "tab", f"app.show({number})"),
            Span(" " * gap),
        ]
    return tuple(spans)


def command_line(sent: SentCommand, now: float, width: int) -> Line:
    """`retry part-000377 · queued 0.3s → accepted → done after 0.9s: answer`."""
    elapsed = duration((now if sent.is_open else sent.state_s) - sent.sent_s)
    about = f" {escape(sent.about)}" if sent.about else ""
    parts: list[tuple[str, str]] = [(f"{sent.command}{about}", "strong"), (" · ", "dim")]
    if sent.state == "queued":
        parts.append((f"queued {elapsed}", "warn"))
        if now - sent.sent_s > STALE_S:
            parts.append((", waits until a daemon runs", "dim"))
    elif sent.state == "accepted":
        parts += [("queued → ", "dim"), (f"accepted {elapsed}", "accent")]
    else:
        parts.append(("queued → accepted → ", "dim"))
        parts.append((f"{sent.state} after {elapsed}", "good" if sent.state == "done" else "bad"))
        parts.append((f": {escape(sent.answer)}" if sent.answer else "", "text"))
    text = line(*parts)
    over = length(text) - width
    last = cell_len(text[-1].text)
    if over > 0 and last > over:
        text = (*text[:-1], Span(fit(text[-1].text, last - over), text[-1].style))
    return text


def key_line(hints: Sequence[KeyHint], width: int) -> Line:
    """The keys of the moment: as many as fit, then those that are kept, and the palette's at the right end."""
    kept = [_key(hint) for hint in hints if hint.kept]
    right = line(Span("^p", "key", "app.command_palette"), Span(" palette", "dim", "app.command_palette"))
    room = width - sum(map(length, kept)) - 1
    spans: list[Span] = []
    for hint in hints:
        if hint.kept:
            continue
        if length(tuple(spans)) + length(_key(hint)) > room:
            break
        spans += _key(hint)
    for key in kept:
        spans += key
    return ends(tuple(spans), right, width)


def _key(hint: KeyHint) -> Line:
    return Span(hint.key, "key", hint.click), Span(f" {hint.description}", "dim", hint.click), Span("  ")
