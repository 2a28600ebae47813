"""Columns of parquet and arrow files: types, nulls, sizes."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from semid_daemon.base.errors import BadFileError, IncompleteFileError
from semid_daemon.formats import open_source
from semid_daemon.formats.parquet_footer import row_groups
from tests.formats.files import example, read_all, write_arrow_plain, write_parquet

Write = Callable[[pa.Table], bytes]


def parquet(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def arrow(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pa.feather.write_feather(table, out)
    return out.getvalue()


BOTH = pytest.mark.parametrize(("name", "write"), [("a.parquet", parquet), ("a.arrow", arrow)])
ROWS = [[1.5, -2.0], [0.0, 3.25], [4.0, 5.0]]


@BOTH
@pytest.mark.parametrize("number", [pa.float16(), pa.float32(), pa.float64()])
@pytest.mark.parametrize("kind", [pa.list_, pa.large_list, lambda t: pa.list_(t, 2)])
def test_vector_types(name: str, write: Write, number: pa.DataType, kind: Callable[[pa.DataType], pa.DataType]) -> None:
    table = pa.table({"pid": [7, 8, 9], "vectors": pa.array(ROWS, kind(number)), "more": ["x", "y", "z"]})
    source = open_source(io.BytesIO(write(table)), name)
    wanted = {"halffloat": "float16", "float": "float32", "double": "float64"}[str(number)]
    assert (source.rows, source.dim, source.dtype) == (3, 2, wanted)
    assert (source.vector_name, source.id_name) == ("vectors", "pid")
    (batch,) = source.batches(10)
    assert batch.embeddings_ND.tolist() == ROWS
    assert batch.item_ids == ["7", "8", "9"]


@BOTH
@pytest.mark.parametrize(
    "type_",
    [
        pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(),
        pa.dictionary(pa.int32(), pa.string()),
    ],
)  # fmt: skip
def test_id_types(name: str, write: Write, type_: pa.DataType) -> None:
    ids = pa.array(["a", "ü", None], pa.string()).cast(type_)
    (batch,) = read_all(write(pa.table({"id": ids, "x": pa.array(ROWS)})), name)
    assert batch.item_ids == ["a", "ü"]
    assert batch.rejected == {"item ID is not text": 1}


@BOTH
def test_integer_ids_with_null_and_undecodable_ones(name: str, write: Write) -> None:
    (batch,) = read_all(write(pa.table({"id": pa.array([2**63, None, 1], pa.uint64()), "x": pa.array(ROWS)})), name)
    assert batch.item_ids == ["9223372036854775808", "1"]
    (batch,) = read_all(write(pa.table({"id": pa.array([b"a", b"\xff", b"a\0b"]), "x": pa.array(ROWS)})), name)
    assert batch.rejected == {"item ID is not text": 1, "item ID has a NUL character": 1}


@BOTH
@pytest.mark.parametrize("fixed", [False, True])
def test_rows_at_fault(name: str, write: Write, fixed: bool) -> None:
    rows = [None, [1.0, 2.0], [None, 3.0], None, [float("inf"), 0.0], [5.0, 6.0]]
    if not fixed:
        rows += [[], [1.0], [1.0, 2.0, 3.0], [7.0, 8.0]]
    vectors = pa.array(rows, pa.list_(pa.float32(), 2) if fixed else pa.list_(pa.float32()))
    source = open_source(io.BytesIO(write(pa.table({"x": vectors}))), name)
    assert source.dim == 2
    batches = list(source.batches(4))
    rejected = {reason: sum(b.rejected.get(reason, 0) for b in batches) for b in batches for reason in b.rejected}
    kept = [row for b in batches for row in b.embeddings_ND.tolist()]
    if fixed:
        assert kept == [[1, 2], [5, 6]]
        assert rejected == {"null embedding": 2, "not finite": 2}
    else:
        assert kept == [[1, 2], [5, 6], [7, 8]]
        assert rejected == {"null embedding": 2, "not finite": 2, "wrong length": 3}
        assert [i for b in batches for i in b.item_ids] == [f"{name}@:{row}" for row in (1, 5, 9)]


@BOTH
@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"x": pa.array([[1, 2]])}, "list<"),
        ({"x": pa.array([1.0])}, "x is double"),
        ({"x": pa.array([["a"]])}, "string"),
        ({"x": pa.array([[[1.0]]])}, "list<"),
        ({"feats": pa.array(ROWS), "b": pa.array([1, 2, 3])}, "found feats, b.*feats looks like"),
        ({"x": pa.array(ROWS), "id": pa.array([1.0, 2, 3])}, "id is double"),
        ({"x": pa.array(ROWS), "id": pa.array([True, False, True])}, "id is bool"),
        ({"x": pa.array([None, []], pa.list_(pa.float32()))}, "only null or empty"),
        ({"x": pa.array([[0.0] * 70_000])}, "70,000"),
    ],
)
def test_refused_by_name(name: str, write: Write, table: dict[str, pa.Array], message: str) -> None:
    with pytest.raises(BadFileError, match=message):
        read_all(write(pa.table(table)), name)


@BOTH
def test_no_rows(name: str, write: Write) -> None:
    for type_, dim in ((pa.list_(pa.float32()), 0), (pa.list_(pa.float32(), 5), 5)):
        source = open_source(io.BytesIO(write(pa.table({"x": pa.array([], type_)}))), name)
        assert (source.rows, source.dim) == (0, dim)
        assert list(source.batches(10)) == []


@BOTH
def test_tensor_extension_type(name: str, write: Write) -> None:
    vectors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.array(ROWS, np.float32))
    (batch,) = read_all(write(pa.table({"x": vectors})), name)
    assert batch.embeddings_ND.tolist() == ROWS


def test_sidecar_beside_parquet() -> None:
    source = open_source(
        io.BytesIO(parquet(pa.table({"x": pa.array(ROWS)}))),
        "a.parquet",
        sidecar=io.BytesIO(b"p\nq\nr\n"),
        sidecar_name="a.ids.txt",
    )
    assert source.id_name == "sidecar"
    assert [b.item_ids for b in source.batches(2)] == [["p", "q"], ["r"]]


def test_missing_footers_are_incomplete() -> None:
    values, ids = example()
    for name, data in (("a.parquet", write_parquet(values, ids)), ("a.arrow", write_arrow_plain(values, ids))):
        with pytest.raises(IncompleteFileError, match="footer at its end"):
            read_all(data[:-3], name)
    with pytest.raises(BadFileError, match="unencrypted"):
        read_all(b"PARE" + b"\0" * 30 + b"PARE", "a.parquet")


def test_every_flipped_bit_of_parquet_pages_is_noticed() -> None:
    values, ids = example(20, 6)
    data = write_parquet(values, ids)
    clean = read_all(data, "a.parquet")[0]
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    for at in range(4, footer, 3):
        damaged = bytearray(data)
        damaged[at] ^= 0x10
        try:
            batches = read_all(bytes(damaged), "a.parquet")
        except BadFileError:
            continue
        # A bit that no reader looks at, such as a page's statistics.
        np.testing.assert_array_equal(batches[0].embeddings_ND, clean.embeddings_ND)
        assert batches[0].item_ids == clean.item_ids


def test_run_length_bomb() -> None:
    rows = 20_000
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(rows * 1000, np.float32)), 1000)
    data = parquet(pa.table({"x": vectors}))
    assert len(data) < 100_000
    with pytest.raises(BadFileError, match="more than 1,000 times"):
        read_all(data, "a.parquet")


def test_footer_facts() -> None:
    data = write_parquet(*example(20, 6))
    size = int.from_bytes(data[-8:-4], "little")
    groups = row_groups(data[-8 - size : -8])
    assert [group.rows for group in groups] == [7, 7, 6]
    assert [(c.field, c.values) for c in groups[2].columns] == [("item_id", 6), ("embedding", 36)]
    metadata = pq.ParquetFile(io.BytesIO(data)).metadata
    wanted = metadata.row_group(2).column(1).total_compressed_size
    assert groups[2].columns[1].compressed_bytes == wanted


def test_duplicate_columns_are_refused() -> None:
    table = pa.Table.from_arrays([pa.array(ROWS), pa.array(ROWS)], ["x", "x"])
    out = io.BytesIO()
    with pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(BadFileError, match="occurs twice"):
        read_all(out.getvalue(), "a.arrow")


def test_large_record_batches_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semid_daemon.formats.arrow._MAX_BATCH_BYTES", 100)
    with pytest.raises(BadFileError, match="max_chunksize"):
        read_all(write_arrow_plain(*example()), "a.arrow")
