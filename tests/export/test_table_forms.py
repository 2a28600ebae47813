"""Tables, read back as their consumers do and compared row by row with the database."""

from __future__ import annotations

import csv
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.export.published import K, Published, numbered, write


def test_onerec(packages: Published, tmp_path: Path):
    """OpenOneRec data/onerec_data/pretrain/video_rec.py:82-83: `dict(zip(df['pid'], df['sid']))`, and :30-31 formats
    `code[0], code[1], code[2]`. `codes` is what its tokenizer writes.
    """
    out = tmp_path / "pid2sid.parquet"
    write(packages, "onerec", out)
    table = pq.read_table(out)
    assert table.column_names == ["pid", "codes", "sid"]
    pid2sid = dict(zip(table["pid"].to_pylist(), table["sid"].to_pylist(), strict=True))
    assert pid2sid == {row.item_id: row.codes for row in packages.rows}
    assert table["codes"].to_pylist() == table["sid"].to_pylist()


def test_onerec_finds_integer_pids(small, tmp_path: Path):
    """The same lookup, `if pid in pid2sid`, with pids that are int64 in the user's own tables."""
    published = small(numbered(first=1000), [[number % 4, number // 10] for number in range(40)])
    write(published, "onerec", tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet")
    pid2sid = dict(zip(table["pid"].to_numpy(), table["sid"].to_pylist(), strict=True))
    assert pid2sid[np.int64(1003)] == [3, 0]
    write(published, "onerec", tmp_path / "b.parquet", id_type="text")
    assert pq.read_table(tmp_path / "b.parquet")["pid"][0].as_py() == "1000"


def test_torcheasyrec(packages: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """TorchEasyRec tzrec/utils/sid/bundle.py:108-137, BundleManifest.from_json, which takes no other keys, and :57-68,
    artifact_read_pattern; tables as tzrec/tools/sid/resolve_sid_collisions.py, _write_map and _write_sid_groups,
    write and _codes_matrix reads them; prompts want `level_offsets[l] + code` from offset_codebook.
    """
    monkeypatch.setattr("semid_daemon.store.read.export_items._CHUNK_ROWS", 7)  # buckets across chunks
    out = tmp_path / "v1"
    write(packages, "torcheasyrec", out)
    payload = json.loads((out / "manifest.json").read_text())
    keys = {"bundle_uuid", "codebook", "capacity", "max_observed_items_per_sid", "artifacts"}
    assert set(payload) == keys
    assert payload["codebook"] == [K] * 3
    largest = max(row.bucket for row in packages.rows)
    assert payload["max_observed_items_per_sid"] == payload["capacity"] == largest
    assert {name: set(entry) for name, entry in payload["artifacts"].items()} == {
        name: {"save_type", "rows", "location"} for name in ("item_to_sid", "sid_to_items")
    }
    tables = {}
    for name, entry in payload["artifacts"].items():
        (part,) = Path(entry["location"]).glob(f"part-*.{entry['save_type']}")
        tables[name] = pq.read_table(part)
        assert tables[name].num_rows == entry["rows"]

    items = tables["item_to_sid"]
    assert items.column_names == ["item_id", "origin_codebook", "codebook", "offset_codebook", "index"]
    codes_NL = np.array(items["codebook"].combine_chunks().flatten()).reshape(-1, 3)
    assert items["origin_codebook"].to_pylist() == codes_NL.tolist()
    assert items["offset_codebook"].to_pylist() == (codes_NL + [0, K, 2 * K]).tolist()
    found = zip(items["item_id"].to_pylist(), codes_NL.tolist(), items["index"].to_pylist(), strict=True)
    assert sorted(found) == sorted((row.item_id, row.codes, row.suffix + 1) for row in packages.rows)

    groups = tables["sid_to_items"]
    assert groups.column_names == ["codebook", "offset_codebook", "itemids"]
    sid_keys = [((a * K) + b) * K + c for a, b, c in groups["codebook"].to_pylist()]
    assert sid_keys == sorted(set(sid_keys))  # one group a bucket, ascending
    by_suffix: dict[tuple[int, ...], list[str]] = {}
    for row in sorted(packages.rows, key=lambda row: row.suffix):
        by_suffix.setdefault(tuple(row.codes), []).append(row.item_id)
    assert {
        tuple(codes): item_ids
        for codes, item_ids in zip(groups["codebook"].to_pylist(), groups["itemids"].to_pylist(), strict=True)
    } == by_suffix


def test_torcheasyrec_capacity_is_the_policys(small, tmp_path: Path):
    published = small(["a", "b"], [[0, 1], [0, 1]])
    with closing(sqlite3.connect(published.database, isolation_level=None)) as connection:
        connection.execute("UPDATE _generations SET collisions = 'next-best', bucket_capacity = 5")
    write(published, "torcheasyrec", tmp_path / "v1")
    manifest = json.loads((tmp_path / "v1" / "manifest.json").read_text())
    assert (manifest["capacity"], manifest["max_observed_items_per_sid"]) == (5, 2)


def test_csv(packages: Published, tmp_path: Path):
    """al_sid (FORGE) SID_generation/generate_candidates_lv3.py, parse_sid_column_for_items: columns `item_id` and
    `SID` of a CSV, the SID split at commas into three; SID_generation/infer_SID.py writes it so.
    """
    out = tmp_path / "inference_results_batch.csv"
    write(packages, "csv", out)
    with out.open(newline="", encoding="utf-8") as file:
        found = {row["item_id"]: [int(part) for part in row["SID"].split(",")] for row in csv.DictReader(file)}
    assert found == {row.item_id: row.codes for row in packages.rows}
    assert '\nnumpy,"' in out.read_text()


def test_parquet(packages: Published, tmp_path: Path):
    """Read as anyone would: every column is what the view says."""
    out = tmp_path / "ids.parquet"
    write(packages, "parquet", out)
    assert pq.read_table(out).to_pylist() == [
        {
            "item_id": row.item_id,
            "semantic_id": "-".join(map(str, row.codes)),
            "suffix": row.suffix,
            "codes": row.codes,
            "generation": 1,
        }
        for row in packages.expected()
    ]
