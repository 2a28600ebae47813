"""Items, their siblings, and lists of matches."""

from __future__ import annotations

from rich.cells import cell_len

from semid_daemon.store.read.search import Item, Match, SearchResult
from semid_tui.render.lookup import item_lines, match_lines, matches_tsv, result_lines
from semid_tui.render.spans import length, plain

AT = "2026-01-01T00:00:00.000Z"
ITEM = Item("item-7", "12-250-7", 1, [12, 250, 7], 2, "a.parquet", AT, ["データ", "b", "c"])


def test_nothing_typed_shows_examples():
    assert "12-250-*    those whose ID begins so" in plain(result_lines(None, 0, 0, 80, 20, "braille"))


def test_an_item_with_its_siblings_and_former_ids():
    found = SearchResult("item-7", ITEM, ((2, "active", "12-250-7", 1), (1, "retired", "3-4-5", 0)), (), False)
    heading, ids, source, former, _, siblings = result_lines(found, 0, 0, 60, 20, "braille")
    assert plain([heading]).startswith("─item-7─")
    assert plain([ids]) == "semantic ID  12-250-7  suffix 1  generation 2"
    assert [span.style for span in ids if span.text in ("12", "250", "7")] == ["layer-0", "layer-1", "layer-2"]
    assert plain([source]).startswith("from         a.parquet  ")
    assert plain([former]) == "in g1        3-4-5  suffix 0  retired"
    assert plain([siblings]) == "  データ  b       c"  # columns as wide as the widest, in cells


def test_siblings_never_leave_the_width():
    siblings = ["漢字" * 12, *(f"sibling-{number}" for number in range(9))]
    item = Item("x", "1-2", 0, [1, 2], 1, "a", AT, siblings)
    assert all(length(drawn) <= 44 for drawn in item_lines(item, (), 44, "braille")[4:])


def test_matches_are_aligned_and_the_one_on_the_cursor_marked():
    found = SearchResult("1-*", None, (), (Match("漢字", "1-2", 0), Match("ab", "1-3", 2)), True)
    heading, first, second = match_lines(found, 1, 0, 60, 9, "ascii")
    assert plain([heading]).startswith("-matches · 2+ · enter shows one-")
    columns = [cell_len(plain([drawn]).partition("1-")[0]) for drawn in (first, second)]
    assert columns[0] == columns[1]
    assert second[0].style == "selected"
    assert plain([second]).endswith("1-3  suffix 2")
    assert "nothing is called x\\x1b" in plain(
        match_lines(SearchResult("x\x1b", None, (), (), False), 0, 0, 60, 9, "ascii")
    )


def test_matches_as_a_table():
    one = SearchResult("item-7", ITEM, (), (), False)
    assert matches_tsv(one) == "item_id\tsemantic_id\tsuffix\nitem-7\t12-250-7\t1\n"
    several = SearchResult("1-*", ITEM, (), (Match("a", "1-2", 0),), False)
    assert matches_tsv(several) == "item_id\tsemantic_id\tsuffix\na\t1-2\t0\n"
