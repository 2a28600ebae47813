"""The ledger's files."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from semid_tui.render.files import column_line, detail_lines, file_line, files_tsv, head_lines
from semid_tui.render.spans import length, plain
from tests.tui.render.values import file_row

COUNTS = {"done": 3, "rejected": 1, "pending": 200_000}


def test_the_head_names_order_filter_and_counts():
    heading, statuses, columns = head_lines(COUNTS, 7, "name", "rejected", "a\x1b[b]", 120, "braille")
    assert plain([heading]).startswith("─files · by name · with “a\\x1b[b]” · 7 shown─")
    assert plain([statuses]) == " all 200k   pending 200k   loading 0   done 3   rejected 1   deferred 0"
    assert [span.style for span in statuses if span.click == "pick('rejected')"] == ["tab-active"]
    assert [span.style for span in statuses if span.click == "pick('loading')"] == ["dim"]
    assert columns == column_line(120)
    assert "shown" not in plain(head_lines(COUNTS, 7, "name", "", "", 120, "braille"))
    assert plain(head_lines(COUNTS, None, "name", "", "", 40, "ascii")).startswith("-files · by name---")


@pytest.mark.parametrize("width", [60, 80, 100, 160])
@pytest.mark.parametrize("name", ["a.npz", "a-very-long-name-" * 5 + ".npz", "データ" * 20 + ".npz", "👍🏽❤\ufe0f.npz"])
def test_a_row_has_the_width_of_its_heads(width: int, name: str):
    row = file_row(name=name, status="rejected", reason="wrong dimension: 512, expected 768", rows_rejected=12)
    drawn = file_line(row, width, selected=False, marker="braille")
    assert length(drawn) == width
    text = plain([drawn])
    assert text.startswith("✗ rejected ")
    assert cell_len(text[: text.index("1,000") + 5]) == cell_len(plain([column_line(width)]).partition("rows")[0]) + 4
    assert ("wrong dim" in text) == (width >= 100)
    assert {span.style for span in file_line(row, width, selected=True, marker="ascii")} == {"selected"}


def test_a_file_in_progress_shows_how_far_it_is():
    drawn = plain([file_line(file_row(status="loading", rows_done=250, finished_at=None), 80, False, "ascii")])
    assert drawn.startswith("> loading")
    assert "250/1,000" in drawn


def test_the_detail_of_a_file():
    reason = "a long reason that does not fit into a single line of forty cells"
    row = file_row(status="deferred", attempts=2, rows_kept=5, rows_rejected=1, reason=reason, retry_at=None)
    heading, figures, *reasons = detail_lines(row, 40, 9, "braille")
    assert plain([heading]).startswith("─a.npz deferred─")
    assert plain([figures]).startswith("1,000 of 1,000 rows, 2.0 kB, 2 attempts, 5 had an ID, 1 left out, seen ")
    assert plain(reasons).replace("\n", " ") == reason
    assert len(detail_lines(row, 40, 3, "braille")) == 3
    assert "no file" in plain(detail_lines(None, 40, 4, "braille"))


def test_files_as_a_table():
    head, row, end = files_tsv([file_row(name="a\tb.npz", rows=None)]).split("\n")
    assert head.split("\t")[:3] == ["name", "status", "rows"]
    assert row.split("\t")[:4] == ["a\\tb.npz", "done", "", "1000"]
    assert end == ""
