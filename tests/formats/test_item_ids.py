"""Where item IDs come from, in files as their writers make them."""

from __future__ import annotations

import collections
import decimal
import io
import uuid

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import torch

from semid_daemon.base.errors import BadFileError
from semid_daemon.formats import open_source
from tests.formats.files import read_all

VECTORS = np.arange(24, dtype=np.float32).reshape(8, 3) + 1
TEXTS = [f"B{row:09d}" for row in range(8)]
LISTS = pa.array(VECTORS.tolist(), pa.list_(pa.float32()))


def parquet(**columns: object) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table({**columns, "emb": LISTS}), stream)
    return stream.getvalue()


def npz(**arrays: object) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, embeddings=VECTORS, **arrays)
    return stream.getvalue()


def saved(content: object) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def ids_and_vectors(data: bytes, name: str) -> list[str]:
    (batch,) = read_all(data, name)
    np.testing.assert_array_equal(batch.embeddings_ND, VECTORS)
    return batch.item_ids


@pytest.mark.parametrize(
    "name", ["_id", "ID", "ITEM_ID", "itemId", "parent_asin", "docid", "doc_id", "product_id", "movieId", "sku", "key"]
)
def test_known_names_in_any_case(name: str) -> None:
    assert ids_and_vectors(parquet(title=["t"] * 8, **{name: TEXTS}), "a.parquet") == TEXTS
    assert ids_and_vectors(npz(**{name: np.array(TEXTS)}), "a.npz") == TEXTS
    assert ids_and_vectors(saved({name: TEXTS, "embeddings": torch.from_numpy(VECTORS)}), "a.pt") == TEXTS


def test_a_column_that_may_be_item_ids_is_refused_by_name() -> None:
    for data, name in (
        (parquet(handle=TEXTS, title=["t"] * 8), "a.parquet"),
        (npz(handle=np.array(TEXTS)), "a.npz"),
        (saved({"handle": TEXTS, "embeddings": torch.from_numpy(VECTORS)}), "a.pt"),
        (safetensors.numpy.save({"embeddings": VECTORS, "handle": np.arange(8)}), "a.safetensors"),
        (safetensors.numpy.save({"embeddings": VECTORS}, {"handle": str(list(range(8)))}), "a.safetensors"),
    ):
        with pytest.raises(BadFileError, match="handle looks like it.*ingest.id_field = 'handle'"):
            read_all(data, name)
    with pytest.raises(BadFileError, match="may be in title"):
        read_all(parquet(title=["t"] * 8, brand=["b"] * 8), "a.parquet")


def test_made_up_ids_are_of_path_content_and_row_and_are_announced() -> None:
    stream = io.BytesIO()
    np.save(stream, VECTORS)
    source = open_source(stream, "day=1/part-0.npy", content=lambda: "0123456789abcdef")
    (batch,) = source.batches(10)
    assert batch.item_ids[:2] == ["day=1/part-0.npy@0123456789ab:0", "day=1/part-0.npy@0123456789ab:1"]
    assert "has no item IDs" in (source.remark or "")
    (batch,) = open_source(stream, "d/" * 2_000 + "a.npy", content=lambda: "0").batches(10)
    assert len(batch.item_ids) == 8


def test_a_row_number_is_no_item_id_beside_a_real_one() -> None:
    source = open_source(io.BytesIO(parquet(id=list(range(8)), asin=TEXTS)), "a.parquet")
    assert (source.id_name, "only numbers the rows" in (source.remark or "")) == ("asin", True)
    source = open_source(io.BytesIO(parquet(id=[5, 9, 1, 2, 3, 4, 6, 7], asin=TEXTS)), "a.parquet")
    assert (source.id_name, "not from asin" in (source.remark or "")) == ("id", True)


def test_the_index_of_a_data_frame() -> None:
    metadata = {b"pandas": b'{"index_columns": ["__index_level_0__"]}'}

    def indexed(values: list[object]) -> bytes:
        stream = io.BytesIO()
        table = pa.table({"emb": LISTS, "__index_level_0__": values}).replace_schema_metadata(metadata)
        pq.write_table(table, stream)
        return stream.getvalue()

    assert ids_and_vectors(indexed(list(TEXTS)), "a.parquet") == TEXTS
    with pytest.raises(BadFileError, match="__index_level_0__ looks like it"):
        read_all(indexed([3, 4, 9, 1, 2, 5, 6, 7]), "a.parquet")


def test_whole_decimals_and_uuids_are_exact_text() -> None:
    numbers = [decimal.Decimal(10**30 + row) for row in range(8)]
    assert ids_and_vectors(parquet(item_id=pa.array(numbers, pa.decimal128(38, 0))), "a.parquet") == [
        str(10**30 + row) for row in range(8)
    ]
    keys = [uuid.uuid5(uuid.NAMESPACE_DNS, str(row)) for row in range(8)]
    assert ids_and_vectors(parquet(item_id=pa.array([key.bytes for key in keys], pa.uuid())), "a.parquet") == list(
        map(str, keys)
    )
    with pytest.raises(BadFileError, match="CAST"):
        read_all(parquet(item_id=np.arange(8) / 2), "a.parquet")


def test_object_arrays_of_text_and_integers() -> None:
    mixed = np.array([np.str_("é"), np.int64(-3), np.uint16(7), "x", 5, "", None, float("nan")], object)
    (batch,) = read_all(npz(item_ids=mixed), "a.npz")
    assert batch.item_ids == ["é", "-3", "7", "x", "5"]
    assert batch.rejected == {"empty item ID": 1, "item ID is not text": 2}
    assert ids_and_vectors(npz(item_ids=np.array(TEXTS, object)), "a.npz") == TEXTS
    with pytest.warns(UserWarning, match="pickle"):
        strings = npz(item_ids=np.array(TEXTS, np.dtypes.StringDType()))
    assert ids_and_vectors(strings, "a.npz") == TEXTS
    with pytest.raises(BadFileError, match="object of type .*UUID at row 0.*astype"):
        read_all(npz(item_ids=np.array([uuid.UUID(int=row) for row in range(8)], object)), "a.npz")
    with pytest.raises(BadFileError, match="np.stack"):
        read_all(_objects(), "a.npy")


def _objects() -> bytes:
    stream = io.BytesIO()
    rows = np.empty(8, object)
    rows[:] = list(VECTORS)
    np.save(stream, rows)
    return stream.getvalue()


def test_torch_files_by_item_and_by_row() -> None:
    rows = [row.clone() for row in torch.from_numpy(VECTORS)]
    assert ids_and_vectors(saved(dict(zip(TEXTS, rows, strict=True))), "a.pt") == TEXTS
    assert ids_and_vectors(saved(dict(enumerate(rows))), "a.pt") == list(map(str, range(8)))
    assert ids_and_vectors(saved({"item_ids": TEXTS, "embeddings": rows}), "a.pt") == TEXTS
    assert ids_and_vectors(saved(rows), "a.pt")[0] == "a.pt@:0"
    with pytest.raises(BadFileError, match="different lengths"):
        read_all(saved([torch.ones(3), torch.ones(4)]), "a.pt")
    with pytest.raises(BadFileError, match="no field named"):
        read_all(saved({"norm.weight": torch.ones(3), "norm.bias": torch.ones(3)}), "a.pt")


def test_torch_files_with_more_than_data() -> None:
    x = torch.from_numpy(VECTORS)
    for more in ({"device": torch.device("cpu")}, {"shape": x.shape}, {"dtype": x.dtype}):
        assert ids_and_vectors(saved({"item_ids": TEXTS, "embeddings": x, **more}), "a.pt") == TEXTS
    state = collections.OrderedDict(embeddings=x, item_ids=torch.arange(8))
    state._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    assert ids_and_vectors(saved(state), "a.pt") == list(map(str, range(8)))
    with pytest.raises(BadFileError, match="view with strides .*contiguous"):
        read_all(saved({"item_ids": torch.zeros(8, 2, dtype=torch.int64)[:, 0], "embeddings": x}), "a.pt")


def test_vectors_of_the_usual_length_are_read() -> None:
    odd = pa.array([[1.0], *VECTORS[1:].tolist()], pa.list_(pa.float32()))
    stream = io.BytesIO()
    pq.write_table(pa.table({"id": TEXTS, "emb": odd}), stream)
    (batch,) = read_all(stream.getvalue(), "a.parquet")
    assert (batch.item_ids, batch.rejected) == (TEXTS[1:], {"wrong length": 1})
    (batch,) = open_source(stream, "a.parquet", dim=1).batches(10)
    assert (batch.item_ids, batch.rejected) == (TEXTS[:1], {"wrong length": 7})


def test_a_number_named_x_does_not_hide_the_vectors() -> None:
    stream = io.BytesIO()
    pq.write_table(pa.table({"id": TEXTS, "x": np.zeros(8), "features": LISTS}), stream)
    with pytest.raises(BadFileError, match="features looks like the vectors"):
        read_all(stream.getvalue(), "a.parquet")
