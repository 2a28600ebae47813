"""`semid encode`: the IDs that the daemon would give, whole files or nothing."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.catalogues import Rows, drop_npz, ids
from tests.cli.tools import invoke, query


def test_encode_gives_what_the_daemon_gave(encoded: Path, tmp_path: Path, clustered: Rows):
    drop_npz(tmp_path, "a.npz", ids("a", 170), clustered(170, 16, seed=1))
    (codebooks,) = (encoded / "state" / "codebooks").glob("*.safetensors")
    out = tmp_path / "ids.parquet"
    by_file = invoke("encode", tmp_path / "a.npz", "--codebooks", codebooks, "-o", out, "--device", "cpu")
    assert by_file.exit_code == 0, by_file.stderr
    assert f"170 rows by codebooks {codebooks.stem}" in by_file.stderr
    table = pq.read_table(out)
    expected = dict(query(encoded, "SELECT item_id, semantic_id FROM semantic_ids"))
    assert dict(zip(table["item_id"].to_pylist(), table["semantic_id"].to_pylist(), strict=True)) == expected
    assert ["-".join(map(str, codes)) for codes in table["codes"].to_pylist()] == table["semantic_id"].to_pylist()

    again = tmp_path / "again.parquet"
    by_catalogue = invoke("encode", "-c", encoded / "semid.toml", tmp_path / "a.npz", tmp_path / "a.npz", "-o", again)
    assert by_catalogue.exit_code == 0, by_catalogue.stderr
    assert pq.read_table(again).num_rows == 340


def test_encode_writes_all_or_nothing(encoded: Path, tmp_path: Path, clustered: Rows, rows: Path):
    drop_npz(tmp_path, "a.npz", ids("a", 60), clustered(60, 16))
    drop_npz(tmp_path, "b.npz", ids("b", 60), clustered(60, 8))
    out = tmp_path / "ids.parquet"
    out.write_text("old")
    config = ["-c", encoded / "semid.toml"]
    before = sorted(os.listdir(tmp_path))
    for given, says in [
        ([tmp_path / "a.npz", tmp_path / "b.npz"], "b.npz: wrong dimension: 8, expected 16"),
        ([tmp_path / "a.npz", rows], "rows.npz: no field named"),
        ([tmp_path / "nowhere.npz"], "No such file"),
        ([tmp_path / "a.npz", "--generation", "9"], "no generation 9"),
    ]:
        refused = invoke("encode", *config, *given, "-o", out)
        assert refused.exit_code == 1
        assert says in refused.stderr
        assert "Traceback" not in refused.stderr
    assert (out.read_text(), sorted(os.listdir(tmp_path))) == ("old", before)
    np.savez(tmp_path / "z.npz", embeddings=np.vstack([np.zeros(16), np.ones(16)]))
    done = invoke("encode", *config, tmp_path / "z.npz", "-o", out)
    assert "1 rows by codebooks" in done.stderr
    assert "1 rows left out (zero vector: 1)" in done.stderr


def test_sigterm_leaves_nothing_half_written(
    encoded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clustered: Rows
):
    monkeypatch.setattr(
        "semid_daemon.cli.parquet_encoder.semantic_ids_of", lambda *_: os.kill(os.getpid(), signal.SIGTERM)
    )
    drop_npz(encoded, "rows.npz", ids("a", 60), clustered(60, 16))
    done = invoke("encode", "-c", encoded / "semid.toml", encoded / "rows.npz", "-o", tmp_path / "ids.parquet")
    assert done.exit_code == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []
