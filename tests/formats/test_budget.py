"""Files that unfold: what they decode to is known, and reading them stays within a budget of memory and time."""

from __future__ import annotations

import io
import json
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from semid_daemon.base.errors import BadFileError
from semid_daemon.formats import budget, open_source

ROWS = 3000
LONG = "x" * (1 << 20)

READ = """
import json, resource, sys
import numpy, pyarrow.parquet, pyarrow.ipc, zipfile
from semid_daemon.base.errors import BadFileError
from semid_daemon.formats import open_source
held = int(open("/proc/self/statm").read().split()[5]) * resource.getpagesize()
limit = held + int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
rows, left_out = 0, {}
try:
    with open(sys.argv[1], "rb") as stream:
        for batch in open_source(stream, sys.argv[1]).batches(1000):
            rows += batch.rows_read
            for reason, count in batch.rejected.items():
                left_out[reason] = left_out.get(reason, 0) + count
    print(json.dumps([rows, left_out]))
except BadFileError as error:
    print(json.dumps(str(error)))
"""
LIMIT_BYTES = 400 << 20


def vectors(rows: int, dim: int = 4) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ones(rows * dim, np.float32)), dim)


def dictionary(rows: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([LONG]))


def parquet_dictionary(*, store_schema: bool) -> bytes:
    out = io.BytesIO()
    table = pa.table({"item_id": dictionary(ROWS), "embedding": vectors(ROWS)})
    pq.write_table(table, out, compression="zstd", store_schema=store_schema)
    return out.getvalue()


def arrow_file(ids: pa.Array) -> bytes:
    out = io.BytesIO()
    table = pa.table({"item_id": ids, "embedding": vectors(ROWS)})
    with pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


def arrow_views() -> bytes:
    """Every view shows the same text."""
    one = pa.array([LONG], pa.string_view())
    views = np.frombuffer(one.buffers()[1], np.uint8)[:16]
    buffers = [None, pa.py_buffer(np.tile(views, ROWS)), *one.buffers()[2:]]
    return arrow_file(pa.Array.from_buffers(pa.string_view(), ROWS, buffers))


def arrow_zeros() -> bytes:
    out = io.BytesIO()
    rows = 1 << 18
    numbers = pa.array(np.zeros(rows * 512, np.float32))
    table = pa.table({"item_id": np.arange(rows), "embedding": pa.FixedSizeListArray.from_arrays(numbers, 512)})
    pa.feather.write_feather(table, out, compression="zstd", chunksize=rows)
    return out.getvalue()


def parquet_footer() -> bytes:
    """A schema of empty structs, one byte each."""
    count = 20_000_000
    length = bytearray()
    left = count
    while left > 127:
        length.append(left & 127 | 128)
        left >>= 7
    length.append(left)
    footer = b"\x15\x04\x19\xfc" + bytes(length) + bytes(count) + b"\x16\x00\x19\x0c\x00"
    return b"PAR1" + footer + struct.pack("<I", len(footer)) + b"PAR1"


def safetensors(header: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header


def safetensors_twice() -> bytes:
    names = [f'"t{number}":0' for number in range(300_000)]
    return safetensors(f"{{{','.join(names)},{names[-1]}}}".encode())


def npz(ids: np.ndarray, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, array in (("embeddings", np.ones((len(ids), 4), np.float32)), ("item_ids", ids)):
            with archive.open(f"{name}.npy", "w") as member:
                np.save(member, array)
    return out.getvalue()


def pt(data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", data)
    return out.getvalue()


def pt_shapes() -> bytes:
    """One long tuple that many calls take as their shape."""
    start = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nq\x00(" + b"K\x00" * 100_000 + b"tq\x01"
    storage = b"((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x00tQK\x00h\x01h\x01\x89}tq\x02"
    return pt(start + storage + b"h\x00h\x02R" * 100_000 + b".")


def pt_keys() -> bytes:
    """Keys whose hashes are all equal."""
    modulus = sys.hash_info.modulus
    return pt(pickle.dumps({modulus * number: 0 for number in range(1, 40_000)}, protocol=2))


REASON = "REASON"
FILES: dict[str, tuple[str, Callable[[], bytes], object]] = {
    "text": ("a.parquet", lambda: parquet_dictionary(store_schema=False), [ROWS, {"item ID too long": ROWS}]),
    "dictionary": ("a.parquet", lambda: parquet_dictionary(store_schema=True), [ROWS, {"item ID too long": ROWS}]),
    "footer": ("a.parquet", parquet_footer, "its footer takes"),
    "arrow dictionary": ("a.arrow", lambda: arrow_file(dictionary(ROWS)), [ROWS, {"item ID too long": ROWS}]),
    "arrow views": ("a.arrow", arrow_views, [ROWS, {"item ID too long": ROWS}]),
    "arrow zeros": ("a.arrow", arrow_zeros, "more than 1,000 times as much is refused"),
    "wide": ("a.npz", lambda: npz(np.full(2, "", "<U16777216")), "more than 1,000 times as much is refused"),
    "wide, stored": ("a.npz", lambda: npz(np.full(2, "x", "<U2000000"), zipfile.ZIP_STORED), "item IDs may have"),
    "twice": ("a.safetensors", safetensors_twice, "names t299999 twice"),
    "lists": ("a.safetensors", lambda: safetensors(b'{"a":[' + b"[]," * 9_000_000 + b"[]]}"), "its header takes"),
    "objects": ("a.pt", lambda: pt(b"\x80\x02" + b"]" * 60_000_000 + b"."), "its pickle takes"),
    "shapes": ("a.pt", pt_shapes, "damaged"),
    "keys": ("a.pt", pt_keys, "no field named"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", FILES)
def test_files_that_unfold(tmp_path: Path, kind: str):
    """Rows, or a reason, within a limit of the kernel's on memory and on seconds of the processor."""
    name, content, wanted = FILES[kind]
    (tmp_path / name).write_bytes(content())
    command = [sys.executable, "-c", READ, str(tmp_path / name), str(LIMIT_BYTES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found == wanted if isinstance(wanted, list) else wanted in found


def test_a_dictionary_names_rows_as_plain_text_does():
    plain = ["a", "b", "é", "a", None, "", "y" * 2000]
    for encoded in (pa.array(plain), pa.array(plain).dictionary_encode(), pa.array(plain, pa.string_view())):
        table = pa.table({"item_id": encoded, "embedding": vectors(len(plain))})
        out = io.BytesIO()
        with pa.ipc.new_file(out, table.schema) as writer:
            writer.write_table(table)
        (batch,) = open_source(out, "a.arrow").batches(100)
        assert batch.item_ids == ["a", "b", "é", "a"]
        assert batch.rejected == {"item ID is not text": 1, "empty item ID": 1, "item ID too long": 1}


def test_a_small_machine_holds_less(monkeypatch):
    budget.held_bytes.cache_clear()
    monkeypatch.setattr(budget, "_memory_bytes", lambda: 3 << 30)
    assert budget.held_bytes() == (3 << 30) // 5
    with pytest.raises(BadFileError, match="batch 7 takes 2,000,000,000 bytes of memory at once"):
        budget.check_held("batch 7", 2_000_000_000, "write less")
    budget.check_held("batch 7", 600_000_000, "write less")
    budget.held_bytes.cache_clear()
