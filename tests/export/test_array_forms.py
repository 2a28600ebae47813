"""Arrays and tensors, one row per item, read back as their consumers do."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from semid_daemon.store.read.export_items import Selection
from tests.export.published import K, Published, numbered, row_map, write


def test_grid(packages: Published, tmp_path: Path):
    """snap-research/GRID src/data/loading/components/pre_processing.py, map_sparse_id_to_semantic_id:
    `id_map[:num_hierarchies].t()[v].view(-1)`; the last row as src/utils/tensor_utils.py:122,
    deduplicate_rows_in_tensor, makes it in the compact form. NVIDIA/recsys-examples
    examples/sid_gr/data/disk_sequence_dataset.py:92-108 checks the shape, its __iter__ takes columns by index_select.
    """
    out = tmp_path / "merged_predictions_tensor.pt"
    write(packages, "grid", out)
    rows = packages.expected()
    assert row_map(out) == [row.item_id for row in rows]

    id_map = torch.load(out)  # as both load it: weights_only, its default
    assert isinstance(id_map, torch.Tensor)
    assert (id_map.dtype, id_map.shape) == (torch.int64, (4, len(rows)))
    expected = [[*row.codes, row.suffix] for row in rows]
    v = torch.arange(len(rows))
    assert id_map[:4].t()[v].view(-1).tolist() == [code for each in expected for code in each]
    assert torch.index_select(id_map, dim=1, index=v).transpose(0, 1).contiguous().tolist() == expected
    assert torch.equal(torch.load(out, mmap=True), id_map)

    # What GRID itself would have appended, up to who comes first in a bucket.
    write(packages, "grid", out, compact=True)
    id_map = torch.load(out)
    assert id_map[3].tolist() == [row.suffix + 1 if row.bucket > 1 else 0 for row in rows]
    data = id_map[:3].t()
    _, inverse, counts = torch.unique(data, dim=0, return_inverse=True, return_counts=True)
    for bucket in range(len(counts)):
        last = sorted(id_map[3, inverse == bucket].tolist())
        assert last == ([0] if counts[bucket] == 1 else list(range(1, int(counts[bucket]) + 1)))


def test_grid_in_several_chunks_and_empty(packages: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(packages, "grid", tmp_path / "at-once.pt")
    monkeypatch.setattr("semid_daemon.store.read.export_items._CHUNK_ROWS", 500)
    write(packages, "grid", tmp_path / "chunks.pt")
    assert (tmp_path / "chunks.pt").read_bytes() == (tmp_path / "at-once.pt").read_bytes()
    write(packages, "grid", tmp_path / "none.pt", Selection(since="2999-01-01"))
    assert torch.load(tmp_path / "none.pt").shape == (4, 0)


def test_grid_warns_of_more_suffixes_than_codes(small, tmp_path: Path):
    published = small(numbered(count=6), [[1, 1]] * 6)
    (warning,) = write(published, "grid", tmp_path / "a.pt").warnings
    assert "goes up to 5, beyond the 4 codes" in warning


def test_where_items_share_ids_by_policy_nothing_tells_them_apart(small, tmp_path: Path):
    published = small(["a", "b", "c"], [[1, 1], [1, 1], [2, 0]], collisions="shared")
    write(published, "grid", tmp_path / "a.pt")
    assert torch.load(tmp_path / "a.pt").tolist() == [[1, 1, 2], [1, 1, 0], [0, 0, 0]]
    write(published, "grid", tmp_path / "b.pt", compact=True)
    assert torch.equal(torch.load(tmp_path / "a.pt"), torch.load(tmp_path / "b.pt"))
    write(published, "index-json", tmp_path / "i.json")
    tokens = ["<a_1>", "<b_1>"]
    assert json.loads((tmp_path / "i.json").read_text()) == {"0": tokens, "1": tokens, "2": ["<a_2>", "<b_0>"]}
    write(published, "tokens", tmp_path / "t.json")
    assert json.loads((tmp_path / "t.json").read_text())["trie"] == {"<a_1>": {"<b_1>": {}}, "<a_2>": {"<b_0>": {}}}


def test_grid_pickle(packages: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """snap-research/GRID src/utils/inference_utils.py, LocalPickleWriter._merge_files: `pickle.load(f)` gives the
    rows, and src/utils/tensor_utils.py:73, merge_list_of_keyed_tensors_to_single_tensor, takes each by its keys.
    """
    monkeypatch.setattr("semid_daemon.store.read.export_items._CHUNK_ROWS", 1001)
    out = tmp_path / "merged_predictions.pkl"
    write(packages, "grid-pickle", out)
    with out.open("rb") as file:
        data = pickle.load(file)
    assert data == [{"item_id": row.item_id, "cluster_ids": row.codes} for row in packages.expected()]


def test_grid_pickle_of_numbered_items_becomes_grids_tensor(small, tmp_path: Path):
    """The same merge, whose index is the item ID: `output_tensor[index] = torch.tensor(value)`."""
    codes = [[number % 4, number // 10] for number in range(40)]
    published = small(numbered(), codes)
    write(published, "grid-pickle", tmp_path / "a.pkl")
    data = pickle.loads((tmp_path / "a.pkl").read_bytes())
    output_tensor = torch.zeros((len(data), *torch.tensor(data[0]["cluster_ids"]).size()))
    for row in data:
        assert row["item_id"] < len(data)
        output_tensor[row["item_id"]] = torch.tensor(row["cluster_ids"])
    assert output_tensor.tolist() == codes


def test_npy(packages: Published, tmp_path: Path):
    """XiaoLongtaoo/TIGER model/dataset.py:75-93, item2code: `np.load(code_path, allow_pickle=True)`, row i is item
    i + 1, codes shifted by `c + i * codebook_size + 1`.
    """
    out = tmp_path / "packages_t5_rqvae.npy"
    write(packages, "npy", out)
    rows = packages.expected()
    assert row_map(out) == [row.item_id for row in rows]
    data = np.load(out, allow_pickle=True)
    assert (data.dtype, data.shape) == (np.int64, (len(rows), 4))
    code_to_item = {}
    for index, code in enumerate(data):
        offsets = [c + i * K + 1 for i, c in enumerate(code)]
        code_to_item[tuple(offsets)] = index + 1
    assert len(code_to_item) == len(rows)  # the suffix tells all apart
    assert data.tolist() == [[*row.codes, row.suffix] for row in rows]
