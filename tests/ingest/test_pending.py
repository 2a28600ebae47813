"""The files that wait."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from semid_daemon.base.drop_file import DropFile, Signature
from semid_daemon.drop.open_file import signature_text
from semid_daemon.ingest.pending import PendingFile, PendingFiles
from semid_daemon.store.write.store import Store


def test_pending_files_are_counted_as_they_change(tmp_path: Path):
    file = DropFile(tmp_path / "a.npz", "a.npz", Signature(1, 2, 3, 4, 5))
    with Store(tmp_path / "semid.db") as store:
        known = store.files.record_sighting("a.npz", signature_text(file), "digest", 3)
    random = np.random.default_rng(0)
    files = PendingFiles()
    for _ in range(2_000):
        file_id = int(random.integers(20))
        if random.random() < 0.3:
            files.pop(file_id, None)
        else:
            rows = [None, 0, 3, 5][int(random.integers(4))]
            ledger = dataclasses.replace(known, id=file_id, rows_usable=rows)
            files[file_id] = PendingFile(file, ledger)
        counted = [pending.ledger.rows_usable for pending in files.values()]
        assert files.rows_usable == sum(rows or 0 for rows in counted)
        uncounted, usable = files.first_uncounted(), files.first_usable()
        assert (uncounted is None) == (None not in counted)
        assert uncounted is None or uncounted.ledger.rows_usable is None
        assert (usable is None) == (not any(counted))
        assert usable is None or usable.ledger.rows_usable
    files.clear()
    assert (len(files), files.rows_usable, files.first_uncounted(), files.first_usable()) == (0, 0, None, None)
