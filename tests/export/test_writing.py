"""What all forms share: selections, row maps, and files that are there whole or not at all."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from semid_daemon.base.errors import SemidError
from semid_daemon.base.types import EmbeddingBatch
from semid_daemon.export.forms import FORMS, form_named
from semid_daemon.store.read.export_items import Catalogue, Selection
from semid_daemon.store.write.store import Store
from tests.export.published import Published, numbered, row_map, write


def test_every_form_is_there():
    assert [form_named(name).name for name in FORMS] == list(FORMS)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FORMS if name != "faiss"])
def test_a_selection_that_is_empty(packages: Published, tmp_path: Path, name: str):
    exported = write(packages, name, tmp_path / "x", Selection(since="2999"))
    assert exported.rows == 0
    assert (tmp_path / "x").exists()


def test_prefix_and_since_select(packages: Published, tmp_path: Path):
    prefix = "-".join(map(str, packages.rows[0].codes[:2]))
    exported = write(packages, "rpg", tmp_path / "p", Selection(prefix=prefix))
    expected = {row.item_id for row in packages.rows if row.codes[:2] == packages.rows[0].codes[:2]}
    assert json.loads((tmp_path / "p").read_text()).keys() == expected
    assert exported.rows == len(expected)

    latest = max(row.assigned_at for row in packages.rows)
    write(packages, "rpg", tmp_path / "s", Selection(since=latest))
    expected = {row.item_id for row in packages.rows if row.assigned_at >= latest}
    assert 0 < len(expected) < len(packages.rows)
    assert json.loads((tmp_path / "s").read_text()).keys() == expected
    origin = json.loads((tmp_path / "s.semid.json").read_text())
    assert (origin["latest"], origin["rows"], origin["since"]) == (latest, len(expected), latest)
    assert origin["fingerprint"]


def test_rows_can_be_item_numbers_where_items_are_numbered(small, tmp_path: Path):
    """Whatever the order in which they came: 0…N-1, as numbers and not as text."""
    ids = numbered()[::-1]
    published = small(ids, [[int(item_id) % 4, int(item_id) // 10] for item_id in ids])
    write(published, "npy", tmp_path / "a.npy", by_item_id=True)
    assert np.load(tmp_path / "a.npy")[:, :2].tolist() == [[number % 4, number // 10] for number in range(40)]
    assert row_map(tmp_path / "a.npy") == numbered()


def test_rows_of_a_tensor_without_ids_come_in_its_order(small, tmp_path: Path):
    """GRID's own embeddings (a 2-D tensor, row = item) get IDs from file name and row."""
    ids = numbered("merged_predictions_tensor:")[::-1]
    published = small(ids, [[0, 0]] * 40)
    write(published, "npy", tmp_path / "a.npy")
    assert row_map(tmp_path / "a.npy") == ids[::-1]


def test_a_gap_among_numbered_items_is_told(small, tmp_path: Path):
    ids = [item_id for item_id in numbered() if item_id != "7"]
    published = small(ids, [[0, 0]] * 39)
    (warning,) = write(published, "npy", tmp_path / "a.npy").warnings
    assert "rows are not item numbers" in warning


def test_integers_are_refused_where_ids_are_text(packages: Published, tmp_path: Path):
    with pytest.raises(SemidError, match="not every item ID"):
        write(packages, "parquet", tmp_path / "x", id_type="integer")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_and_a_bundle_is_not(packages: Published, tmp_path: Path):
    (tmp_path / "x").write_text("old")
    write(packages, "csv", tmp_path / "x")
    assert (tmp_path / "x").read_text().startswith("item_id")
    with pytest.raises(SemidError, match="is there already"):
        write(packages, "torcheasyrec", tmp_path / "x")
    write(packages, "torcheasyrec", tmp_path / "v1")
    with pytest.raises(SemidError, match="is there already"):
        write(packages, "torcheasyrec", tmp_path / "v1")
    with pytest.raises(SemidError, match="is a directory"):
        write(packages, "csv", tmp_path / "v1")
    with pytest.raises(SemidError, match="no such directory"):
        write(packages, "csv", tmp_path / "nowhere" / "x")


def test_an_export_that_fails_leaves_what_was_there(packages: Published, tmp_path: Path):
    (tmp_path / "x").write_text("old")

    def fail(rows: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(SemidError, match="No space left"):
        write(packages, "csv", tmp_path / "x", advance=fail)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_text() == "old"


def test_a_database_whose_count_is_wrong_is_not_exported(small, tmp_path: Path):
    published = small(["a", "b"], [[0, 1], [0, 2]])
    with closing(sqlite3.connect(published.database, isolation_level=None)) as connection:
        connection.execute("UPDATE _generations SET items = 3")
    with pytest.raises(SemidError, match="3 items are counted, 2 are there; run `semid doctor`"):
        write(published, "grid", tmp_path / "x")
    assert not list(tmp_path.glob("*x*"))


def test_what_the_snapshot_says_does_not_change_under_it(small, tmp_path: Path):
    published = small(["a", "b"], [[0, 1], [0, 2]])
    with Catalogue(published.database) as catalogue:
        with Store(published.database) as store:
            ledger = store.files.record_sighting("b.npz", "sig", "other", 1)
            ledger = store.files.begin_loading(ledger.id, rows=1, dim=2, generation=1, chunk_rows=4)
            batch = EmbeddingBatch(0, 1, ["c"], np.ones((1, 2), np.float32))
            store.chunks.commit(ledger, batch, np.array([[3, 3]], np.int32))
        assert catalogue.count(Selection()) == 2
        assert [items.item_ids for items in catalogue.items(Selection())] == [["a", "b"]]


def test_generations_that_are_not_there(small, tmp_path: Path):
    published = small(["a"], [[0, 1]])
    with pytest.raises(SemidError, match="no generation 7; there are: 1"), Catalogue(published.database, 7):
        pass
    with closing(sqlite3.connect(published.database, isolation_level=None)) as connection:
        connection.execute("UPDATE _generations SET status = 'preparing'")
    with pytest.raises(SemidError, match="generation 1 is being prepared"), Catalogue(published.database, 1):
        pass
    Store(tmp_path / "other.db").close()
    with pytest.raises(SemidError, match="nothing is published yet"), Catalogue(tmp_path / "other.db"):
        pass
