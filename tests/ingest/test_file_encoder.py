"""Chunks of long rows, several of which are committed at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from semid_daemon.base.errors import BadFileError
from semid_daemon.config import Config
from semid_daemon.ingest import chunk_stages
from semid_daemon.ingest.file_encoder import FileEncoder
from semid_daemon.ingest.pending import PendingFile
from semid_daemon.runtime.context import Limits
from semid_daemon.store.write.chunks import Chunks
from tests.catalogues import Rows, drop_npz, ids
from tests.faults.tools import assert_sound, assert_sound_after_restart, items, query, run, trained_catalogue

ROWS = 1000


def with_a_file(root: Path, clustered: Rows) -> Config:
    """A catalogue of 70 items, and a file of others to come."""
    root.mkdir()
    settings = (("ingest", "chunk_rows = 256"), ("generations", 'mode = "continual"'))
    config = trained_catalogue(root, clustered, *settings)
    drop_npz(config.drop_dir, "a.npz", ids("a", ROWS), clustered(ROWS, 16))
    return config


# 64 rows are a chunk, and 256 a transaction, however slow the machine is.
WIDE = Limits(chunk_bytes=64 * 16 * 4, commit_s=600.0, patience_s=600.0)


@pytest.fixture
def wide(tmp_path: Path, clustered: Rows) -> Config:
    return with_a_file(tmp_path / "wide", clustered)


def yields(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the steps of files yield from now on, but for what takes long."""
    seen: list[int] = []
    run_file = FileEncoder.run

    def watched(self: FileEncoder, pending: PendingFile, generation: int) -> Iterator[int]:
        for rows in run_file(self, pending, generation):
            seen.append(rows)
            yield rows

    monkeypatch.setattr(FileEncoder, "run", watched)
    return seen


def state(config: Config) -> list[list[tuple]]:
    """All that chunks leave, but for times."""
    return [
        query(config, sql)
        for sql in (
            "SELECT item_id, semantic_id, suffix FROM semantic_ids ORDER BY 1",
            "SELECT file_id, first_row, rows, assigned FROM _chunks ORDER BY id",
            "SELECT layer, code, items FROM _code_usage ORDER BY 1, 2",
            "SELECT * FROM _candidates",
            "SELECT * FROM _candidate_layers ORDER BY layer",
            "SELECT state FROM _drift",
            "SELECT * FROM _spool ORDER BY 1",
        )
    ]


def test_chunks_are_committed_by_the_configured_rows(wide: Config, monkeypatch: pytest.MonkeyPatch):
    seen = yields(monkeypatch)
    run(wide, WIDE)
    assert [rows for rows in seen if rows] == [256, 256, 256, 232]
    assert query(wide, "SELECT max(rows), count(*) FROM _chunks WHERE file_id = 2") == [(64, 16)]
    assert_sound(wide, 70 + ROWS)


def test_what_fails_takes_its_group_back_and_is_done_anew(
    wide: Config, clustered: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The seventh chunk is the third of the second group. Afterwards all is as if nothing had happened."""
    left = [7]
    commit_chunk = Chunks.commit

    def failing(self: Chunks, *arguments: object, **options: object) -> object:
        left[0] -= 1
        tally = commit_chunk(self, *arguments, **options)  # type: ignore[arg-type]
        if left[0] == 0:
            raise OSError("the disk is gone for a moment")
        return tally

    monkeypatch.setattr(Chunks, "commit", failing)
    run(wide, WIDE)
    assert_sound(wide, 70 + 256)
    assert_sound_after_restart(wide, 70 + ROWS)
    undisturbed = with_a_file(tmp_path / "undisturbed", clustered)
    run(undisturbed, WIDE)
    assert state(wide) == state(undisturbed)


def test_chunks_before_one_that_cannot_be_read_are_committed(wide: Config, monkeypatch: pytest.MonkeyPatch):
    usable, left = chunk_stages.usable, [7]

    def damaged(batch: object, settings: object) -> object:
        left[0] -= 1
        if left[0] == 0:
            raise BadFileError("damaged here")
        return usable(batch, settings)  # type: ignore[arg-type]

    monkeypatch.setattr(chunk_stages, "usable", damaged)
    run(wide, WIDE)
    assert query(wide, "SELECT status, reason FROM files WHERE file = 'a.npz'") == [("rejected", "damaged here")]
    assert items(wide) == 70 + 6 * 64
    assert_sound(wide, 70 + 6 * 64)
