"""Names of fields from the configuration, in every format that has fields."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import torch

from semid_daemon.base.drop_file import FieldNames
from semid_daemon.base.errors import BadFileError
from semid_daemon.formats import open_source

VECTORS = np.arange(12, dtype=np.float32).reshape(4, 3)
OTHERS = VECTORS + 100
SKUS = ["s0", "s1", "s2", "s3"]
NUMBERS = [7, 8, 9, 10]


def npz() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, clip=VECTORS, embeddings=OTHERS, sku=np.array(SKUS), id=np.array(NUMBERS))
    return stream.getvalue()


def pt() -> bytes:
    stream = io.BytesIO()
    content = {"clip": VECTORS, "embeddings": OTHERS}
    tensors = {name: torch.from_numpy(values) for name, values in content.items()}
    torch.save({**tensors, "sku": SKUS, "id": torch.tensor(NUMBERS)}, stream)
    return stream.getvalue()


def safetensor() -> bytes:
    tensors = {"clip": VECTORS, "embeddings": OTHERS, "id": np.array(NUMBERS)}
    return safetensors.numpy.save(tensors, metadata={"sku": json.dumps(SKUS)})


def table() -> pa.Table:
    vectors, others = (pa.FixedSizeListArray.from_arrays(pa.array(v.reshape(-1)), 3) for v in (VECTORS, OTHERS))
    return pa.table({"clip": vectors, "embeddings": others, "sku": SKUS, "id": NUMBERS})


def parquet() -> bytes:
    stream = io.BytesIO()
    pq.write_table(table(), stream)
    return stream.getvalue()


def arrow() -> bytes:
    stream = io.BytesIO()
    pyarrow.feather.write_feather(table(), stream, compression="uncompressed")
    return stream.getvalue()


FILES = {"a.npz": npz, "a.pt": pt, "a.safetensors": safetensor, "a.parquet": parquet, "a.arrow": arrow}
every_format = pytest.mark.parametrize(("name", "make"), FILES.items(), ids=FILES)


@every_format
def test_configured_names_come_before_those_found(name: str, make: Callable[[], bytes]):
    source = open_source(io.BytesIO(make()), name, fields=FieldNames("clip", "sku"))
    (batch,) = source.batches(10)
    assert (source.vector_name, source.id_name) == ("clip", "sku")
    assert batch.item_ids == SKUS
    assert batch.embeddings_ND.tolist() == VECTORS.tolist()


@every_format
def test_either_name_alone(name: str, make: Callable[[], bytes]):
    (batch,) = open_source(io.BytesIO(make()), name, fields=FieldNames(vectors="clip")).batches(10)
    assert (batch.item_ids, batch.embeddings_ND[0, 0]) == (["7", "8", "9", "10"], 0)
    (batch,) = open_source(io.BytesIO(make()), name, fields=FieldNames(item_ids="sku")).batches(10)
    assert (batch.item_ids, batch.embeddings_ND[0, 0]) == (SKUS, 100)


@every_format
def test_a_configured_name_that_is_not_there_is_refused(name: str, make: Callable[[], bytes]):
    with pytest.raises(BadFileError, match="no field named vec .*ingest.vector_field"):
        open_source(io.BytesIO(make()), name, fields=FieldNames(vectors="vec"))
    with pytest.raises(BadFileError, match="no field named gtin .*ingest.id_field"):
        open_source(io.BytesIO(make()), name, fields=FieldNames(item_ids="gtin"))
    sidecar = io.BytesIO(b"x\ny\nz\nw\n")
    source = open_source(
        io.BytesIO(make()), name, sidecar=sidecar, sidecar_name="a.ids.txt", fields=FieldNames(item_ids="gtin")
    )
    assert next(source.batches(10)).item_ids == ["x", "y", "z", "w"]


def test_a_bare_array_has_no_names():
    stream = io.BytesIO()
    np.save(stream, VECTORS)
    (batch,) = open_source(stream, "a.npy", fields=FieldNames("clip", "sku")).batches(10)
    assert batch.item_ids == [f"a.npy@:{row}" for row in range(4)]
