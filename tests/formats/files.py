"""Small files of every format, written by the libraries that producers use."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import safetensors.numpy
import torch

from semid_daemon.base.types import EmbeddingBatch
from semid_daemon.formats import open_source

Vectors = npt.NDArray[np.float32]
Writer = Callable[[Vectors, Sequence[str]], bytes]


def write_npz(vectors_ND: Vectors, ids: Sequence[str]) -> bytes:
    out = io.BytesIO()
    np.savez(out, embeddings=vectors_ND, item_ids=np.array(ids, str))
    return out.getvalue()


def write_npz_deflated(vectors_ND: Vectors, ids: Sequence[str]) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, embeddings=vectors_ND, item_ids=np.array(ids, str))
    return out.getvalue()


def write_npz_fortran(vectors_ND: Vectors, ids: Sequence[str]) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, embeddings=np.asfortranarray(vectors_ND), item_ids=np.array(ids, str))
    return out.getvalue()


def write_safetensors(vectors_ND: Vectors, ids: Sequence[str]) -> bytes:
    return safetensors.numpy.save({"embeddings": vectors_ND}, {"item_ids": json.dumps(list(ids))})


def write_pt(vectors_ND: Vectors, ids: Sequence[str]) -> bytes:
    out = io.BytesIO()
    torch.save({"embeddings": torch.from_numpy(vectors_ND), "item_ids": list(ids)}, out)
    return out.getvalue()


def write_pt_transposed(vectors_ND: Vectors, ids: Sequence[str]) -> bytes:
    out = io.BytesIO()
    tensor = torch.from_numpy(np.ascontiguousarray(vectors_ND.T)).t()
    torch.save({"embeddings": tensor, "item_ids": list(ids)}, out)
    return out.getvalue()


def table(vectors_ND: Vectors, ids: Sequence[str], *, fixed: bool) -> pa.Table:
    numbers = pa.array(vectors_ND.reshape(-1))
    vectors = pa.FixedSizeListArray.from_arrays(numbers, vectors_ND.shape[1])
    if not fixed:
        vectors = vectors.cast(pa.list_(pa.float32()))
    return pa.table({"item_id": pa.array(ids, pa.string()), "embedding": vectors})


def write_parquet(vectors_ND: Vectors, ids: Sequence[str]) -> bytes:
    out = io.BytesIO()
    pq.write_table(table(vectors_ND, ids, fixed=False), out, row_group_size=7, write_page_checksum=True)
    return out.getvalue()


def write_parquet_fixed(vectors_ND: Vectors, ids: Sequence[str]) -> bytes:
    out = io.BytesIO()
    pq.write_table(table(vectors_ND, ids, fixed=True), out, row_group_size=7, write_page_checksum=True)
    return out.getvalue()


def write_arrow(vectors_ND: Vectors, ids: Sequence[str]) -> bytes:
    out = io.BytesIO()
    pa.feather.write_feather(table(vectors_ND, ids, fixed=False), out, chunksize=5)
    return out.getvalue()


def write_arrow_plain(vectors_ND: Vectors, ids: Sequence[str]) -> bytes:
    out = io.BytesIO()
    whole = table(vectors_ND, ids, fixed=True)
    with pa.ipc.new_file(out, whole.schema) as writer:
        writer.write_table(whole, max_chunksize=6)
    return out.getvalue()


WRITERS: dict[str, tuple[str, Writer]] = {
    "npz": ("a.npz", write_npz),
    "npz-deflated": ("a.npz", write_npz_deflated),
    "npz-fortran": ("a.npz", write_npz_fortran),
    "safetensors": ("a.safetensors", write_safetensors),
    "pt": ("a.pt", write_pt),
    "pt-transposed": ("a.pth", write_pt_transposed),
    "parquet": ("a.parquet", write_parquet),
    "parquet-fixed": ("a.parquet", write_parquet_fixed),
    "feather": ("a.feather", write_arrow),
    "arrow": ("a.arrow", write_arrow_plain),
}


def read_all(data: bytes, name: str, chunk_rows: int = 1000, start_row: int = 0) -> list[EmbeddingBatch]:
    return list(open_source(io.BytesIO(data), name).batches(chunk_rows, start_row))


def example(rows: int = 20, dim: int = 3) -> tuple[Vectors, list[str]]:
    values = np.arange(rows * dim, dtype=np.float32).reshape(rows, dim) / 4 - 2
    return values, [f"item-é{row}" for row in range(rows)]
