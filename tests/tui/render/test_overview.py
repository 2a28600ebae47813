"""The parts of the overview."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from rich.cells import cell_len

from semid_daemon.store.read.monitor import CatalogueQuality, Event
from semid_tui.render.overview import (
    all_files_lines,
    codebook_lines,
    event_lines,
    host_lines,
    quality_lines,
    trouble_lines,
    work_lines,
)
from semid_tui.render.spans import length, plain
from tests.tui.render.values import ACTIVE, USAGE, file_row, overview

LONG_AGO = "2026-01-01T00:00:00.000Z"


def test_the_file_in_progress_with_the_time_left():
    title, words, bar = work_lines(overview(), 60, 3, "braille")
    assert plain([title]).startswith("─encoding─")
    assert plain([words]) == "b.npz  250/1,000 rows  500 rows/s"
    assert plain([bar]).endswith(" 25%  1m30s")


def test_work_of_a_silent_daemon_is_not_live():
    text = plain(work_lines(overview(heartbeat_at=LONG_AGO), 60, 3, "braille"))
    assert "encoding · not now: the daemon is silent" in text
    assert "rows/s" not in text
    text = plain(work_lines(overview(state="stopped", heartbeat_at=LONG_AGO), 60, 3, "braille"))
    assert "the daemon is off" in text
    assert "start it with `semid run`" in text


def test_a_wide_file_name_is_cut_at_its_beginning():
    (words,) = work_lines(overview(gauges={**overview().gauges, "file": "漢" * 40 + ".npz"}), 60, 3, "braille")[1:2]
    assert length(words) == 60
    assert "漢.npz  250/1,000 rows" in plain([words])


def test_all_files_together():
    text = plain(all_files_lines(overview(gauges={"bytes_left": 1 << 30, "eta_s": 60}), 60, "braille"))
    assert "4 of 6 files  1.0 GB left  ETA 1m00s" in text
    assert "67%" in text


def test_codebooks_with_their_dead_codes():
    heading, first, second = codebook_lines(overview(), USAGE, 80, 3, "braille")
    assert "codebooks g2 · 2×4 · 100 items · unique 90.00% · rank profile" in plain([heading])
    assert plain([first]).startswith("L0 100.0% dead 0 ppl 4/4 ")
    assert second[-1].style == "dead"
    assert set(second[-1].text) == {"×"}
    assert (length(first), length(second)) == (80, 80)
    assert plain(codebook_lines(overview(), USAGE, 80, 2, "braille")).endswith("… 2 more layers: 3 Codes")
    assert "none yet" in plain(codebook_lines(overview(active=None), None, 80, 3, "braille"))


def test_troubled_files_with_their_reasons():
    rows = [
        file_row(name="漢字" * 30 + "c.npz", status="rejected", reason="bad\x1b[2J " * 9),
        file_row(name="b.npz", status="deferred", reason="disk full", retry_at=LONG_AGO),
    ]
    _, counts, first, second = trouble_lines(overview(), rows, 80, 4, "braille")
    assert plain([counts]) == "pending 2  loading 0  done 3  rejected 1"
    assert length(first) <= 80
    assert cell_len(plain([first]).partition("  bad")[0]) == 2 + 36
    assert "c.npz  bad\\x1b[2J" in plain([first])
    assert plain([second]).startswith("↻ b.npz  again ")
    assert len(trouble_lines(overview(), rows, 80, 3, "braille")) == 3


def test_the_latest_events():
    events = [Event(2, LONG_AGO, "warning", "second"), Event(1, LONG_AGO, "info", "first")]
    _, first, second = event_lines(events, 60, 3, "braille")
    assert plain([first]).split()[-2:] == ["INFO", "first"]
    assert plain([second]).split()[-2:] == ["WARN", "second"]
    assert len(event_lines(events, 60, 2, "braille")) == 2
    assert "none yet" in plain(event_lines([], 60, 3, "braille"))


def test_the_host():
    gauges = {
        "memory_used_bytes": 15 << 30,
        "memory_total_bytes": 16 << 30,
        "disk_free_bytes": 1 << 29,
        "stage_read_s": 1.0,
        "stage_encode_s": 3.0,
        "bottleneck": "encode",
    }
    drawn = host_lines(overview(gauges=gauges), 80, 9, "braille")
    assert "memory" in plain(drawn)
    assert "94%" in plain(drawn)
    assert "stages bottleneck encode 75% read 25%" in plain(drawn)
    assert drawn[-1][-1] == ("512 MB free", "bad", "")
    assert "gpu" not in plain(drawn)
    assert "no figures recorded yet" in plain(host_lines(overview(gauges={}), 80, 9, "braille"))


def styles(drawn) -> dict[str, str]:
    return {span.text.strip(): span.style for spans in drawn for span in spans}


def test_quality_is_coloured_by_its_limits_and_says_what_to_do():
    good = quality_lines(overview(quality=CatalogueQuality(0.25, 1.01, 0.01)), 80, "braille", 1.04, 0.1)
    assert plain(good[1:]) == "unique 90.0%   error 0.25   drift +1.0% error, limit +4.0%   code use 0.010 bits"
    assert [styles(good)[text] for text in ("90.0%", "+1.0%", "0.010 bits")] == ["good", "good", "good"]
    bad = overview(active=replace(ACTIVE, distinct_ids=30), quality=CatalogueQuality(0.25, 1.2, 0.2))
    drawn = quality_lines(bad, 80, "braille", 1.04, 0.1)
    assert [styles(drawn)[text] for text in ("30.0%", "+20.0%", "0.200 bits")] == ["bad", "warn", "warn"]
    assert plain(drawn[2:]) == "refresh recommended: T prepares a generation and changes no ID"
    ready = replace(bad, next_generation=3, next_ready=True, quality=CatalogueQuality(0.25, 1.2, 0.2, 0.124))
    drawn = quality_lines(ready, 80, "braille", 1.04, 0.1)
    assert plain(drawn[2:]) == "generation 3 is ready: 12.4% of IDs would move (key 7)"
    assert quality_lines(overview(active=None), 80, "braille", 1.04, 0.1) == []


@pytest.mark.parametrize("state", ["live", "stopped", "killed"])
def test_figures_that_are_not_live_are_dim(state: str):
    gauges = {"cpu_percent": 99.0, "cpu_count": 2, "disk_free_bytes": 5.0, "bytes_left": 5e6, "stage_read_s": 1.0}
    old = (datetime.now(UTC) - timedelta(seconds=90)).isoformat()
    changes = {"live": {}, "stopped": {"state": "stopped", "heartbeat_at": old}, "killed": {"heartbeat_at": old}}
    value = overview(gauges={**gauges, "bottleneck": "read"}, **changes[state])
    for drawn in (host_lines(value, 80, 12, "braille"), all_files_lines(value, 80, "braille")):
        bright = {span.style for spans in drawn[1:] for span in spans} - {"dim"}
        assert bool(bright) == (state == "live")
        assert (" ago" in plain(drawn[:1])) == (state != "live")
        assert sum(len(span.text) for span in drawn[0]) == 80
