"""An item with its siblings, and the items that match a search. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len

from semid_daemon.base.text import escape
from semid_daemon.store.read.search import Item, SearchResult
from semid_tui.context import Marker
from semid_tui.render.spans import Line, Span, line, rule
from semid_tui.render.text import clock, fit, tsv
from semid_tui.render.theme import layer_style

_HINTS = (
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
        return [*head, *(line((f"  {example:<10}", "accent"), (f"  {meaning}", "dim")) for example, meaning in _HINTS)]
    drawn: list[Line] = []
    if found.item is not None:
        drawn += item_lines(found.item, found.generations, width, marker)
    if found.item is None or len(found.matches) > 1:
        drawn += match_lines(found, cursor, top, width, max(3, height - len(drawn)), marker)
    return drawn[:height]


def item_lines(item: Item, generations: Sequence[tuple[int, str, str, int]], width: int, marker: Marker) -> list[Line]:
    """An item's ID, file, IDs in other generations (generation, status, semantic ID, suffix), and siblings."""
    drawn = [
        rule(width, (fit(escape(item.item_id), width - 4).rstrip(), "title"), marker=marker),
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
            fit(f"{escape(item.file)}", max(4, width - 36), keep_end=True).rstrip(),
            (f"  {clock(item.assigned_at)}", "dim"),
        ),
    ]
    for generation, status, semantic_id, suffix in generations:
        if generation != item.generation:
            drawn.append(
                line(
                    (f"in g{generation:<9}", "dim"), *coloured_id(semantic_id), (f"  suffix {suffix}  {status}", "dim")
                )
            )
    if item.siblings:
        drawn.append(line(("siblings     ", "dim"), ("of its bucket, then of the longest shared prefix", "faint")))
        texts = [escape(sibling) for sibling in item.siblings]
        drawn += [line(f"  {text}") for text in _columns(texts, width - 2)]
    else:
        drawn.append(line(("siblings     none: no other item shares its first code", "dim")))
    return drawn


def _columns(texts: Sequence[str], width: int) -> list[str]:
    """Texts in columns, read downwards, that fit the width."""
    widest = min(max(map(cell_len, texts)) + 2, max(8, width))
    across = max(1, width // widest)
    down = -(-len(texts) // across)
    return ["".join(fit(text, widest - 1) + " " for text in texts[row::down]).rstrip() for row in range(down)]


def match_lines(found: SearchResult, cursor: int, top: int, width: int, height: int, marker: Marker) -> list[Line]:
    """The list of matches from `top` on, the one on the cursor marked."""
    total = f"{len(found.matches)}{'+' if found.more else ''}"
    drawn = [rule(width, ("matches", "title"), (f" · {total} · enter shows one", "dim"), marker=marker)]
    if not found.matches:
        return [*drawn, line((f"nothing is called {escape(found.text)}, begins so, or has such codes", "warn"))]
    name_width = max(10, min(width - 24, max(cell_len(escape(match.item_id)) for match in found.matches) + 2))
    for number, match in enumerate(found.matches[top : top + height - 1], top):
        name = fit(escape(match.item_id), name_width)
        suffix = f"  suffix {match.suffix}" if match.suffix else ""
        if number == cursor:
            drawn.append(line((f"{name} {match.semantic_id}{suffix}", "selected")))
        else:
            drawn.append(line(f"{name} ", *coloured_id(match.semantic_id), (suffix, "dim")))
    return drawn


def matches_tsv(found: SearchResult) -> str:
    """The items that match; the item itself where nothing else does."""
    rows = [(match.item_id, match.semantic_id, match.suffix) for match in found.matches]
    if found.item is not None and not rows:
        rows = [(found.item.item_id, found.item.semantic_id, found.item.suffix)]
    return tsv(("item_id", "semantic_id", "suffix"), rows)
