"""The tree of prefixes, as far as it is unfolded and read. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from semid_daemon.base.text import escape
from semid_daemon.store.read.monitor import Overview
from semid_daemon.store.read.search import Branch
from semid_tui.context import Marker
from semid_tui.render.bars import blocks
from semid_tui.render.spans import Line, Part, line, rule
from semid_tui.render.text import fit, tsv
from semid_tui.render.theme import layer_style

PAGE = 500  # children of a prefix that are read at a time

Children = Mapping[str, tuple[tuple[Branch, ...], int]]


@dataclass(frozen=True, slots=True)
class TreeRow:
    """A line of the unfolded tree. `share` is of the fullest sibling; `more` children of `branch` are not shown."""

    branch: Branch
    depth: int
    share: float
    unfolded: bool
    parent: str
    more: int = 0


def unfolded_rows(children: Children, unfolded: frozenset[str], prefix: str = "", depth: int = 0) -> list[TreeRow]:
    """The lines of the tree, as far as it is unfolded and read."""
    branches, total = children.get(prefix, ((), 0))
    fullest = max((branch.items for branch in branches), default=1)
    rows: list[TreeRow] = []
    for branch in branches:
        is_unfolded = not branch.leaf and branch.prefix in unfolded
        rows.append(TreeRow(branch, depth, branch.items / fullest, is_unfolded, prefix))
        if is_unfolded:
            rows += unfolded_rows(children, unfolded, branch.prefix, depth + 1)
    if total > len(branches) > 0:
        rows.append(TreeRow(Branch(prefix, 0), depth, 0.0, False, prefix, more=total - len(branches)))
    return rows


def head_lines(overview: Overview | None, width: int, marker: Marker) -> list[Line]:
    """The active generation and its size."""
    active = overview.active if overview else None
    words = f" · g{active.generation} · {active.items:,} items in {active.distinct_ids:,} IDs" if active else ""
    return [rule(width, ("tree", "title"), (words, "dim"), marker=marker)]


def row_lines(rows: Sequence[TreeRow], cursor: int, top: int, width: int, height: int, marker: Marker) -> list[Line]:
    """The rows from `top` on, each with a bar against the fullest sibling."""
    if not rows:
        return [line(("no items yet", "dim"))]
    return [row_line(row, width, number == cursor, marker) for number, row in enumerate(rows[top : top + height], top)]


def row_line(row: TreeRow, width: int, selected: bool, marker: Marker) -> Line:
    """A prefix or an item, its number of items, and the bar."""
    indent = "  " * row.depth
    if row.more:
        text = f"{indent}  more… {row.more:,} ({PAGE} at a time)"
        return line((fit(text, width), "selected" if selected else "accent"))
    closed, opened, leaf = (">", "v", "-") if marker == "ascii" else ("▸", "▾", "·")
    sign = leaf if row.branch.leaf else opened if row.unfolded else closed
    name = f"{indent}{sign} {escape(row.branch.prefix)}"
    style = "text" if row.branch.leaf else layer_style(row.depth)
    bar_width = max(8, min(40, width // 3))
    name_width = max(10, width - bar_width - 14)
    parts: list[Part] = [(fit(name, name_width), "selected" if selected else style)]
    if not row.branch.leaf:
        parts += [(f" {row.branch.items:>11,} ", "selected" if selected else "text")]
        parts += [(blocks(row.share, bar_width, marker), style if not selected else "bar")]
    return line(*parts)


def tree_tsv(rows: Sequence[TreeRow]) -> str:
    """The unfolded prefixes and items with their counts."""
    return tsv(("prefix", "items"), ((row.branch.prefix, row.branch.items) for row in rows if not row.more))
