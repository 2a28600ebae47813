"""safetensors: what its header may say."""

from __future__ import annotations

import io
import json
import struct

import numpy as np
import pytest
import safetensors.torch
import torch

from semid_daemon.base.errors import BadFileError, IncompleteFileError
from semid_daemon.formats import open_source
from tests.formats.files import read_all

F32 = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
DATA = np.array([[1, 2], [3, 4]], "<f4").tobytes()


def made(header: object, data: bytes = DATA) -> bytes:
    text = header if isinstance(header, str) else json.dumps(header)
    return struct.pack("<Q", len(text)) + text.encode() + data


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("id_dtype", [torch.int8, torch.uint8, torch.int32, torch.int64, torch.uint64])
def test_dtypes(dtype: torch.dtype, id_dtype: torch.dtype) -> None:
    values = torch.tensor([[1.5, -2.0, 3.25], [0.0, 0.0, 100.0]])
    data = safetensors.torch.save({"emb": values.to(dtype), "ids": torch.tensor([7, 9]).to(id_dtype)})
    source = open_source(io.BytesIO(data), "a.safetensors")
    assert (source.dtype, source.vector_name, source.id_name) == (str(dtype).removeprefix("torch."), "emb", "ids")
    (batch,) = source.batches(10)
    assert batch.embeddings_ND.tolist() == values.tolist()
    assert batch.item_ids == ["7", "9"]


def test_ids_in_the_metadata() -> None:
    header = {"__metadata__": {"item_ids": '["a", 5]'}, "x": F32}
    (batch,) = read_all(made(header), "a.safetensors")
    assert batch.item_ids == ["a", "5"]
    header["__metadata__"] = {"item_ids": '["\\ud800", null]'}
    (batch,) = read_all(made(header), "a.safetensors")
    assert batch.rejected == {"item ID is not text": 2}
    for ids, message in (
        ('["a"]', "1 item IDs for 2 rows"),
        ('["a", 1.5]', "holds a float at row 1"),
        ('["a", true]', "bool"),
        ('{"a": 1}', "no JSON list"),
        ("[" * 100_000, "damaged"),
        ("[NaN, 1]", "NaN"),
    ):
        header["__metadata__"] = {"item_ids": ids}
        with pytest.raises(BadFileError, match=message):
            read_all(made(header), "a.safetensors")


def test_no_ids() -> None:
    (batch,) = read_all(made({"x": F32}), "sub/b.safetensors")
    assert batch.item_ids == ["sub/b.safetensors@:0", "sub/b.safetensors@:1"]


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"x": F32, "y": {"dtype": "F32", "shape": [2, 2], "data_offsets": [8, 24]}}, DATA + DATA, "overlaps"),
        ({"x": F32, "y": {"dtype": "F32", "shape": [1], "data_offsets": [20, 24]}}, DATA + DATA, "hole"),
        ({"x": {**F32, "data_offsets": [4, 20]}}, DATA + b"1234", "hole"),
        ({"x": {**F32, "data_offsets": [0, 15]}}, DATA, "15 bytes for F32"),
        ({"x": {**F32, "data_offsets": [16, 0]}}, DATA, "bytes for F32"),
        ({"x": {**F32, "shape": [2, -2]}}, DATA, "wrongly"),
        ({"x": {**F32, "shape": [2**62, 2**62]}}, DATA, "bytes for F32"),
        ({"x": {**F32, "more": 1}}, DATA, "wrongly"),
        ({"x": F32}, DATA + b"!", "1 bytes follow"),
        ('{"x": 1, "x": 2}', DATA, "twice"),
        ('{"x": ' + "[" * 100_000, DATA, "damaged"),
        ("[1]", DATA, "begins with"),
        ({"__metadata__": {"a": 1}, "x": F32}, DATA, "metadata"),
        ({"x": {"dtype": "I8", "shape": [2, 2], "data_offsets": [0, 4]}}, DATA[:4], "is I8"),
        ({"x": {"dtype": "F8_E4M3", "shape": [2, 2], "data_offsets": [0, 4]}}, DATA[:4], "is F8_E4M3"),
        ({"x": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, DATA, "1-dimensional"),
        ({"x": {"dtype": "F32", "shape": [4, 0], "data_offsets": [0, 0]}}, b"", "length 0"),
        ({"weights": F32}, DATA, "weights looks like the vectors"),
        ({"x": F32, "id": {"dtype": "F32", "shape": [1], "data_offsets": [16, 20]}}, DATA + b"1234", "id is F32"),
    ],
)
def test_headers_at_fault(header: object, data: bytes, message: str) -> None:
    with pytest.raises(BadFileError, match=message):
        read_all(made(header, data), "a.safetensors")


def test_short_files() -> None:
    with pytest.raises(IncompleteFileError, match="declares 16 bytes of tensors, holds 12"):
        read_all(made({"x": F32}, DATA[:12]), "a.safetensors")
    with pytest.raises(IncompleteFileError, match="header of 5,000 bytes"):
        read_all(struct.pack("<Q", 5000) + b"{}", "a.safetensors")
    with pytest.raises(BadFileError, match="more than 100,000,000"):
        read_all(struct.pack("<Q", 1 << 60) + b"{}", "a.safetensors")


def test_names_are_escaped() -> None:
    with pytest.raises(BadFileError) as caught:
        read_all(made({"a\nb\u202e\x1b[31m": F32}), "a.safetensors")
    assert "a\\nb\\u202e\\x1b[31m" in str(caught.value)
    assert str(caught.value).isprintable()
