"""Feed every reader damaged files: mutations of valid ones, read to their end as the daemon reads them.

    python benchmarks/fuzz_formats.py --inputs 20000

Allowed are a reason (BadFileError) and rows; of rows only as many as declared, finite, with item IDs that can be
kept. Everything else, like an exception of another kind or a read that takes seconds, is printed and makes the
exit status 1. Prints how many inputs ended in which way.
"""

from __future__ import annotations

import argparse
import io
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import safetensors.numpy
import torch

from semid_daemon.base.errors import BadFileError
from semid_daemon.formats import open_source

ROWS, DIM = 40, 8
SLOW_S = 5.0


def valid_files() -> dict[str, bytes]:
    """Small valid files of every format, by name."""
    rows_ND = np.random.default_rng(1).normal(size=(ROWS, DIM)).astype(np.float32)
    ids = [f"item {row}" for row in range(ROWS)]
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows_ND.reshape(-1)), DIM)
    table = pa.table({"item_id": ids, "embedding": vectors})
    lists = pa.table({"item_id": pa.array(ids).dictionary_encode(), "embedding": rows_ND.tolist()})

    def written(write) -> bytes:
        buffer = io.BytesIO()
        write(buffer)
        return buffer.getvalue()

    return {
        "a.npy": written(lambda file: np.save(file, rows_ND)),
        "f.npy": written(lambda file: np.save(file, np.asfortranarray(rows_ND.astype(">f8")))),
        "a.npz": written(lambda file: np.savez(file, item_ids=np.array(ids), embeddings=rows_ND)),
        "c.npz": written(lambda file: np.savez_compressed(file, item_ids=np.array(ids), embeddings=rows_ND)),
        "a.safetensors": safetensors.numpy.save({"embeddings": rows_ND, "item_ids": np.arange(ROWS)}),
        "a.pt": written(lambda file: torch.save({"embeddings": torch.from_numpy(rows_ND), "item_ids": ids}, file)),
        "t.pt": written(lambda file: torch.save(torch.from_numpy(rows_ND).bfloat16(), file)),
        "a.parquet": written(lambda file: pyarrow.parquet.write_table(table, file, write_page_checksum=True)),
        "l.parquet": written(lambda file: pyarrow.parquet.write_table(lists, file, compression="zstd")),
        "a.arrow": written(lambda file: pyarrow.feather.write_feather(table, file, compression="uncompressed")),
        "l.feather": written(lambda file: pyarrow.feather.write_feather(lists, file, compression="lz4")),
    }


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Some bytes flipped, set to telling values, cut out, doubled, or the end cut off."""
    data = bytearray(content)
    for _ in range(chance.choice([1, 1, 1, 2, 4, 16])):
        if not data:
            break
        # Headers are at the start of some formats and at the end of others.
        where = chance.choice([chance.randrange(len(data)), chance.randrange(min(len(data), 200))])
        where = chance.choice([where, len(data) - 1 - chance.randrange(min(len(data), 400))])
        match chance.randrange(6):
            case 0:
                data[where] ^= 1 << chance.randrange(8)
            case 1:
                data[where] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, 0x20, 0x39])
            case 2:
                data[where : where + 4] = chance.choice([b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0"])
            case 3:
                del data[where : where + chance.choice([1, 4, 64])]
            case 4:
                data[where:where] = data[where : where + chance.choice([1, 8, 64])]
            case 5:
                del data[where:]
    return bytes(data)


def outcome(name: str, content: bytes, scratch: Path) -> str:
    """How reading ended: "rows", "rejected", or what is wrong with it."""
    scratch.write_bytes(content)
    with scratch.open("rb") as stream:
        return _read(name, stream)


def _read(name: str, stream: BinaryIO) -> str:
    started = time.monotonic()
    try:
        source = open_source(stream, name)
        seen = 0
        for batch in source.batches(16):
            seen += batch.rows_read
            rows = len(batch.item_ids)
            if batch.embeddings_ND.shape != (rows, source.dim) or batch.embeddings_ND.dtype != np.float32:
                return f"a batch of {batch.embeddings_ND.dtype} {batch.embeddings_ND.shape} for {rows} item IDs"
            if not np.isfinite(batch.embeddings_ND).all():
                return "a row that is not finite"
            if any(not item_id or "\0" in item_id or len(item_id.encode()) > 1 << 20 for item_id in batch.item_ids):
                return "an item ID that cannot be kept"
        if seen != source.rows:
            return f"{seen} rows of {source.rows}"
        source.close()
    except BadFileError as error:
        if "\n" in str(error) or len(str(error)) > 1000:
            return f"a reason that is not a line: {str(error)[:100]!r}"
        return "rejected"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        if time.monotonic() - started > SLOW_S:
            print(f"SLOW  {name}: {time.monotonic() - started:.1f} s")
    return "rows"


def fuzz(inputs: int, seed: int, scratch: Path) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Count outcomes by (file, outcome); and the inputs that ended in neither rows nor a reason."""
    chance = random.Random(seed)
    files = valid_files()
    counts: Counter[tuple[str, str]] = Counter()
    faults = []
    for number in range(inputs):
        name = list(files)[number % len(files)]
        content = mutated(files[name], chance)
        found = outcome(name, content, scratch)
        counts[name, found if found in ("rows", "rejected") else "fault"] += 1
        if found not in ("rows", "rejected"):
            faults.append(f"{name} (seed {seed}, input {number}): {found}")
    return counts, faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="semid-fuzz-") as directory:
        counts, faults = fuzz(arguments.inputs, arguments.seed, Path(directory) / "input")
    for name in valid_files():
        print(f"{name:<15} {counts[name, 'rejected']:>7,} rejected {counts[name, 'rows']:>7,} read")
    for fault in faults[:50]:
        print(f"FAULT  {fault}")
    print(f"{arguments.inputs:,} inputs in {time.monotonic() - started:.0f} s, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
