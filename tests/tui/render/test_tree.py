"""The tree of prefixes."""

from __future__ import annotations

from semid_daemon.store.read.search import Branch
from semid_tui.render.tree import unfolded_rows


def test_the_tree_shows_what_is_unfolded_and_that_there_is_more():
    children = {
        "": ((Branch("3", 8), Branch("1", 2)), 2),
        "3": ((Branch("3-0", 8),), 700),
        "3-0": ((Branch("item", 1, True),), 1),
    }
    rows = unfolded_rows(children, frozenset({"3", "3-0"}))
    assert [(row.branch.prefix, row.depth, row.share, row.more) for row in rows] == [
        ("3", 0, 1.0, 0),
        ("3-0", 1, 1.0, 0),
        ("item", 2, 1.0, 0),
        ("3", 1, 0.0, 699),
        ("1", 0, 0.25, 0),
    ]
    assert unfolded_rows({}, frozenset()) == []
