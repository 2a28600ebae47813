"""What was exported of an item stays the same in every later export."""

from __future__ import annotations

import json
import pickle
import sqlite3
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from semid_daemon.base.errors import SemidError
from semid_daemon.base.types import EmbeddingBatch
from semid_daemon.store.write.store import Store
from tests.export.published import Published, read_back, row_map, write


def add(published: Published, name: str, item_ids: list[str], codes: list[list[int]]) -> Published:
    """A further file of new items; each row has an embedding of its own."""
    random = np.random.default_rng(len(item_ids))
    with Store(published.database) as store:
        ledger = store.files.record_sighting(name, "sig", name, 1)
        rows = len(item_ids)
        ledger = store.files.begin_loading(ledger.id, rows=rows, dim=2, generation=1, chunk_rows=rows)
        batch = EmbeddingBatch(0, rows, item_ids, random.normal(size=(rows, 2)).astype(np.float32))
        store.chunks.commit(ledger, batch, np.array(codes, dtype=np.int32))
    return read_back(published.database, published.codebooks, published.embeddings_ND)


def grid(out: Path) -> list[Any]:
    return list(zip(row_map(out), torch.load(out).t().tolist(), strict=True))


def npy(out: Path) -> list[Any]:
    return list(zip(row_map(out), np.load(out).tolist(), strict=True))


def index_json(out: Path) -> list[Any]:
    return list(zip(row_map(out), json.loads(out.read_text()).items(), strict=True))


def parquet(out: Path) -> list[Any]:
    return pq.read_table(out).to_pylist()


def torcheasyrec(out: Path) -> list[Any]:
    return pq.read_table(out / "item_to_sid").to_pylist()


def tokens(out: Path) -> list[Any]:
    """Every path of the trie."""

    def paths(trie: dict[str, Any], above: str = "") -> list[str]:
        return [path for token, below in trie.items() for path in paths(below, above + token)] if trie else [above]

    return paths(json.loads(out.read_text())["trie"])


# Forms whose rows are in the order of assignment: earlier rows are the beginning of later exports. Others: a part.
APPENDED: dict[str, Callable[[Path], list[Any]]] = {
    "grid": grid,
    "grid-pickle": lambda out: pickle.loads(out.read_bytes()),
    "npy": npy,
    "index-json": index_json,
    "onerec": parquet,
    "csv": lambda out: out.read_text().splitlines(),
    "rpg": lambda out: list(json.loads(out.read_text()).items()),
    "parquet": parquet,
}
PARTS = {"torcheasyrec": torcheasyrec, "tokens": tokens}


def test_earlier_items_are_the_same_after_appends_and_twins(small, tmp_path: Path):
    forms = {**APPENDED, **PARTS}

    def exported(published: Published, when: str) -> dict[str, list[Any]]:
        (tmp_path / when).mkdir()
        for name in forms:
            write(published, name, tmp_path / when / name)
        return {name: read(tmp_path / when / name) for name, read in forms.items()}

    published = small(["m", "z", "q"], [[0, 1], [0, 2], [3, 3]])
    exports = [exported(published, "first")]
    # A twin of every item, with item IDs that sort before; then new codes, and twins again.
    published = add(published, "b.npz", ["a", "b", "c"], [[0, 1], [0, 2], [3, 3]])
    exports.append(exported(published, "second"))
    published = add(published, "c.npz", ["0", "d", "zz"], [[1, 1], [0, 1], [0, 1]])
    exports.append(exported(published, "third"))
    for before, after in pairwise(exports):
        for name in APPENDED:
            assert after[name][: len(before[name])] == before[name], name
        for name in forms:
            assert [row for row in before[name] if row not in after[name]] == [], name
            assert len(after[name]) > len(before[name])


def test_the_compact_forms_change_and_say_so(small, tmp_path: Path):
    published = small(["m", "z"], [[0, 1], [0, 2]])
    for name, what in (("grid", "changes from 0 to 1"), ("index-json", "one token more"), ("tokens", "one token more")):
        (warning,) = write(published, name, tmp_path / name, compact=True).warnings
        assert what in warning
    assert torch.load(tmp_path / "grid")[2].tolist() == [0, 0]
    published = add(published, "b.npz", ["a"], [[0, 1]])
    write(published, "grid", tmp_path / "grid", compact=True)
    assert torch.load(tmp_path / "grid")[2].tolist() == [1, 0, 2]
    assert json.loads((tmp_path / "grid.semid.json").read_text())["compact"] is True
    with pytest.raises(SemidError, match="csv has no compact form"):
        write(published, "csv", tmp_path / "x", compact=True)


def test_torcheasyrecs_index_is_the_suffix_and_the_capacity_covers_it(small, tmp_path: Path):
    published = small(["a", "b", "c"], [[0, 1], [0, 1], [0, 1]])
    with closing(sqlite3.connect(published.database, isolation_level=None)) as connection:
        connection.execute("DELETE FROM _items WHERE item_id = 'a'")
        connection.execute("UPDATE _generations SET items = 2")
    write(published, "torcheasyrec", tmp_path / "v1")
    assert [(row["item_id"], row["index"]) for row in torcheasyrec(tmp_path / "v1")] == [("b", 2), ("c", 3)]
    manifest = json.loads((tmp_path / "v1" / "manifest.json").read_text())
    assert (manifest["capacity"], manifest["max_observed_items_per_sid"]) == (3, 2)
    (warning,) = write(published, "torcheasyrec", tmp_path / "v2", compact=True).warnings
    assert "is replaced" in warning
    assert [row["index"] for row in torcheasyrec(tmp_path / "v2")] == [1, 2]


def test_rows_by_item_id_are_for_forms_without_an_order(small, tmp_path: Path):
    published = add(small(["b"], [[0, 1]]), "b.npz", ["a"], [[0, 1]])
    (warning,) = write(published, "npy", tmp_path / "a.npy", by_item_id=True).warnings
    assert "changes their rows" in warning
    assert npy(tmp_path / "a.npy") == [("a", [0, 1, 1]), ("b", [0, 1, 0])]
    with pytest.raises(SemidError, match="has an order of its own"):
        write(published, "tokens", tmp_path / "x", by_item_id=True)
