"""Faults 37 to 49 and 65: files that are wrong inside. Each ends with a reason, and harms nothing else.

The formats' own tests go deeper; here every fault goes through the whole daemon.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from semid_daemon.codebooks.files import load_codebooks
from semid_daemon.config import Config
from tests.catalogues import Rows, drop_npz, ids
from tests.faults.tools import assert_sound, configured, files_of, items, query, reason_of, run, trained_catalogue


@pytest.fixture
def trained(tmp_path: Path, clustered: Rows) -> Config:
    """A catalogue with a generation and 70 items. What is cut short is rejected at once."""
    return trained_catalogue(tmp_path, clustered)


def rejected(config: Config, name: str, content: bytes) -> str:
    """Drop the content beside a good file; the reason why it was rejected."""
    (config.drop_dir / name).write_bytes(content)
    while files_of(config).get(name) != "rejected":
        run(config)
        assert files_of(config).get(name) in (None, "rejected")
    assert (config.rejected_dir / f"{name}.reason.txt").read_text().strip() == reason_of(config, name)
    assert_sound(config, 70)
    return reason_of(config, name)


def npy_bytes(array: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def test_fault_37_pickles(trained: Config, tmp_path: Path, monkeypatch):
    """pickle and object arrays: rejected, never executed"""
    monkeypatch.chdir(tmp_path)
    assert "pickle" in rejected(trained, "a.npy", pickle.dumps(Bomb()))
    assert "object" in rejected(trained, "b.npy", npy_bytes(np.array([Bomb()]), allow_pickle=True))
    buffer = io.BytesIO()
    torch.save({"embeddings": Bomb()}, buffer)
    assert rejected(trained, "c.pt", buffer.getvalue())
    assert not Path("executed").exists()


def test_fault_38_header_that_claims_too_much(trained: Config):
    """header that claims more than the file holds: rejected before allocating"""
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 16), }"
    header += b" " * (117 - len(header)) + b"\n"
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 640
    assert rejected(trained, "a.npy", content)


def test_fault_39_giant_or_nested_header(trained: Config):
    """giant or nested header"""
    nested = b"(" * 50_000 + b"\n"
    assert rejected(trained, "a.npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", len(nested)) + nested)
    giant = b'{"' + b"a" * 150_000_000 + b'":1}'
    assert rejected(trained, "b.safetensors", struct.pack("<Q", len(giant)) + giant)


def test_fault_40_trailing_bytes(trained: Config, clustered: Rows):
    """trailing bytes after the array"""
    assert rejected(trained, "a.npy", npy_bytes(clustered(10, 16)) + b"more")


def test_fault_41_kinds_of_numbers(trained: Config, clustered: Rows):
    """big-endian, Fortran order, float64, float16: converted; int8, 0-d, datetime: rejected, by name"""
    rows_ND = clustered(5, 16, seed=7)
    good = {
        "big": rows_ND.astype(">f4"),
        "fortran": np.asfortranarray(rows_ND),
        "double": rows_ND.astype(np.float64),
    }
    for name, array in good.items():
        np.save(trained.drop_dir / f"{name}.npy", array)
    np.save(trained.drop_dir / "half.npy", rows_ND.astype(np.float16))
    buffer = io.BytesIO()
    torch.save(torch.from_numpy(rows_ND).bfloat16(), buffer)
    (trained.drop_dir / "brain.pt").write_bytes(buffer.getvalue())
    run(trained)
    assert_sound(trained, 95)
    first = {
        query(trained, f"SELECT semantic_id FROM semantic_ids WHERE item_id GLOB '{name}.npy@*:0'")[0] for name in good
    }
    assert len(first) == 1
    for name, array, says in (
        ("int", np.zeros((5, 16), np.int8), "int8"),
        ("scalar", np.float32(1), ""),
        ("time", np.zeros((5, 16), "datetime64[s]"), ""),
    ):
        np.save(trained.drop_dir / f"{name}.npy", array)
        run(trained)
        assert files_of(trained)[f"{name}.npy"] == "rejected"
        assert says in reason_of(trained, f"{name}.npy")


@pytest.mark.parametrize("policy", ["reject", "encode"])
def test_fault_42_rows_without_meaning(trained: Config, clustered: Rows, policy: str):
    """NaN/Inf rows: left out and counted; zero rows: policy, counted"""
    config = configured(trained.root, ("ingest", f'on_zero = "{policy}"'))
    rows_ND = clustered(20, 16, seed=3)
    rows_ND[2, 3], rows_ND[4, 0] = np.nan, np.inf
    rows_ND[[6, 7, 8]] = 0
    drop_npz(config.drop_dir, "a.npz", ids("a", 20), rows_ND)
    run(config)
    ((rows_rejected, rows_zero, reason),) = query(
        config, "SELECT rows_rejected, rows_zero, reason FROM files WHERE file = 'a.npz'"
    )
    assert rows_zero == 3
    if policy == "reject":
        assert (rows_rejected, reason) == (5, "not finite: 2, zero vector: 3")
    else:
        assert (rows_rejected, reason) == (2, "not finite: 2")
        assert query(config, "SELECT exact_duplicates FROM _generations") == [(2,)]
    assert_sound(config, 90 - rows_rejected)


def test_fault_43_wrong_dimension(trained: Config, clustered: Rows):
    """wrong dimension: rejected, codebooks untouched"""
    ((fingerprint,),) = query(trained, "SELECT fingerprint FROM generations")
    assert "wrong dimension: 17, expected 16" in rejected(trained, "a.npy", npy_bytes(clustered(10, 17)))
    load_codebooks(trained.codebooks_dir, fingerprint)


def zip_bytes(*members: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def test_fault_44_npz_bomb(trained: Config):
    """npz bomb"""
    bomb = zip_bytes(("embeddings.npy", b"\0" * (256 << 20)), compression=zipfile.ZIP_DEFLATED)
    assert len(bomb) < 1 << 20
    assert rejected(trained, "a.npz", bomb)


def test_fault_45_npz_names(trained: Config, clustered: Rows):
    """npz with ../ or duplicate keys"""
    content = npy_bytes(clustered(10, 16))
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = zip_bytes(("embeddings.npy", content), ("embeddings.npy", content))
    assert rejected(trained, "twice.npz", twice)
    (trained.drop_dir / "up.npz").write_bytes(zip_bytes(("../embeddings.npy", content)))
    run(trained)
    assert files_of(trained)["up.npz"] == "rejected"
    assert not (trained.root / "embeddings.npy").exists()


def test_fault_46_pt_bombs(trained: Config):
    """.pt expand bomb, sparse, meta, quantized: rejected"""
    tensors = {
        "expand": torch.zeros(1).expand(10**6, 10**6),
        "sparse": torch.zeros(5, 16).to_sparse(),
        "meta": torch.zeros(5, 16, device="meta"),
        "int": torch.zeros(5, 16, dtype=torch.int8),
    }
    for name, tensor in tensors.items():
        buffer = io.BytesIO()
        torch.save({"embeddings": tensor}, buffer)
        assert rejected(trained, f"{name}.pt", buffer.getvalue())


def test_fault_47_parquet_with_flipped_bits(trained: Config, clustered: Rows):
    """parquet with flipped bits: no row of a page whose checksum is wrong"""
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(clustered(200, 16).reshape(-1)), 16)
    table = pa.table({"item_id": ids("p", 200), "embedding": vectors})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, write_page_checksum=True, compression="none", use_dictionary=False)
    content = bytearray(buffer.getvalue())
    content[len(content) // 2] ^= 0x10
    assert rejected(trained, "a.parquet", bytes(content))


def safetensors_bytes(header: bytes, data: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def test_fault_48_safetensors_that_contradict_themselves(trained: Config):
    """safetensors overlap, hole, duplicate key"""
    entry = '{"dtype":"F32","shape":[2,16],"data_offsets":[%d,%d]}'
    overlap = f'{{"embeddings":{entry % (0, 128)},"other":{entry % (64, 192)}}}'
    hole = f'{{"embeddings":{entry % (0, 128)},"other":{entry % (160, 288)}}}'
    twice = f'{{"embeddings":{entry % (0, 128)},"embeddings":{entry % (0, 128)}}}'
    for name, header, size in (("overlap", overlap, 192), ("hole", hole, 288), ("twice", twice, 128)):
        assert rejected(trained, f"{name}.safetensors", safetensors_bytes(header.encode(), b"\1" * size))


@pytest.mark.parametrize("policy", ["keep", "replace"])
def test_fault_49_duplicate_item_ids(trained: Config, clustered: Rows, policy: str):
    """duplicate item IDs in one file, within a chunk and across chunks: by policy, counted"""
    config = configured(trained.root, ("ingest", f'on_existing = "{policy}"'))
    names = ids("a", 60)
    names[5], names[55] = "a0", "a0"  # chunks of 50
    drop_npz(config.drop_dir, "a.npz", names, clustered(60, 16, seed=5))
    run(config)
    assert_sound(config, 128)
    counts = query(config, "SELECT rows_repeated, rows_kept, rows_replaced FROM files WHERE file = 'a.npz'")
    assert counts == [(2, 2, 0) if policy == "keep" else (2, 0, 2)]


def test_fault_65_odd_item_ids(trained: Config, clustered: Rows):
    """item ID that is empty, 1 MB long, or not text"""
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(clustered(5, 16).reshape(-1)), 16)
    odd = pa.array([b"", b"x" * (1 << 20), b"\xff\xfe", b"fine", b"with\0nul"], pa.binary())
    pq.write_table(pa.table({"item_id": odd, "embedding": vectors}), trained.drop_dir / "a.parquet")
    run(trained)
    assert_sound(trained, 71)
    reason = reason_of(trained, "a.parquet")
    for fault in ("empty item ID", "item ID too long", "item ID is not text", "item ID has a NUL character"):
        assert f"{fault}: 1" in reason
    assert items(trained) == 71
    assert json.dumps(query(trained, "SELECT item_id FROM semantic_ids WHERE item_id = 'fine'")) == '[["fine"]]'
