"""`torcheasyrec`: TorchEasyRec's SID bundle, a directory of two tables and a manifest written last."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa

from semid_daemon.export.columns import CODES, Array, code_lists, id_type
from semid_daemon.export.job import Form, Job
from semid_daemon.store.read.export_items import IntArray, Items

_ITEM_TO_SID = "item_to_sid"
_SID_TO_ITEMS = "sid_to_items"
_PART = "part-0.parquet"


def write(job: Job, path: Path) -> None:
    """Items by codes, so that a bucket's items follow each other; `index` is suffix + 1.

    In the compact form, and where items share their IDs by policy, `index` is an item's place in its bucket, from 1.

    `offset_codebook` is code + layer × codebook_size, one vocabulary for all layers. `origin_codebook` is the
    codebook too: what an item's codes were before it was moved out of a full bucket is not kept. `capacity` is
    that of the policy next-best, else the size of the largest bucket, and at least the highest `index`.
    """
    import pyarrow.parquet as pq

    ids = id_type(job.integer_ids)
    item_to_sid = pa.schema(
        [
            ("item_id", ids),
            ("origin_codebook", CODES),
            ("codebook", CODES),
            ("offset_codebook", CODES),
            ("index", pa.int64()),
        ]
    )
    sid_to_items = pa.schema([("codebook", CODES), ("offset_codebook", CODES), ("itemids", pa.list_(ids))])
    for artifact in (_ITEM_TO_SID, _SID_TO_ITEMS):
        os.makedirs(path / artifact)
    offsets_L = np.arange(job.published.layers, dtype=np.int64) * job.published.codebook_size
    rows = buckets = observed = highest = 0
    with (
        pq.ParquetWriter(path / _ITEM_TO_SID / _PART, item_to_sid) as items_writer,
        pq.ParquetWriter(path / _SID_TO_ITEMS / _PART, sid_to_items) as buckets_writer,
    ):
        for codes_NL, item_ids, suffixes_N, sizes in _whole_buckets(job.chunks()):
            starts = np.cumsum([0, *sizes])
            codes, typed = code_lists(codes_NL), pa.array(job.typed(item_ids), type=ids)
            index_N = suffixes_N + 1
            if job.compact or not job.has_suffixes:
                index_N = np.arange(len(item_ids)) - np.repeat(starts[:-1], sizes) + 1
            highest = max(highest, int(index_N.max()))
            table = _table(codes_NL, offsets_L, item_id=typed, origin_codebook=codes, index=index_N)
            items_writer.write_table(pa.table(table, schema=item_to_sid))
            itemids = pa.ListArray.from_arrays(pa.array(starts, type=pa.int32()), typed)
            table = _table(codes_NL[starts[:-1]], offsets_L, itemids=itemids)
            buckets_writer.write_table(pa.table(table, schema=sid_to_items))
            rows, buckets, observed = rows + len(item_ids), buckets + len(sizes), max(observed, *sizes)
    capacity = job.published.bucket_capacity if job.published.collisions == "next-best" else observed
    manifest = {
        "bundle_uuid": uuid.uuid4().hex,
        "codebook": [job.published.codebook_size] * job.published.layers,
        "capacity": max(1, highest, capacity),
        "max_observed_items_per_sid": observed,
        "artifacts": {
            name: {"save_type": "parquet", "rows": count, "location": str(job.final / name)}
            for name, count in ((_ITEM_TO_SID, rows), (_SID_TO_ITEMS, buckets))
        },
    }
    (path / "manifest.json").write_text(json.dumps(manifest, indent=2), encoding="utf-8")


def _table(codes_NL: IntArray, offsets_L: IntArray, **columns: Array) -> dict[str, Array]:
    return {**columns, "codebook": code_lists(codes_NL), "offset_codebook": code_lists(codes_NL + offsets_L)}


def _whole_buckets(chunks: Iterator[Items]) -> Iterator[tuple[IntArray, list[str], IntArray, list[int]]]:
    """Codes, item IDs and suffixes of consecutive rows, and the sizes of their buckets; none is cut in two."""
    held: tuple[IntArray, list[str], IntArray, list[str]] | None = None
    for items in chunks:
        codes_NL, item_ids, suffixes_N = items.codes_NL, items.item_ids, items.suffixes_N
        semantic_ids = items.semantic_ids
        if held is not None:
            codes_NL = np.concatenate([held[0], codes_NL])
            suffixes_N = np.concatenate([held[2], suffixes_N])
            item_ids, semantic_ids = held[1] + item_ids, held[3] + semantic_ids
        # The last bucket may go on in the next chunk.
        end = len(semantic_ids) - _run_at_end(semantic_ids)
        if end:
            yield codes_NL[:end], item_ids[:end], suffixes_N[:end], _sizes(semantic_ids[:end])
        held = codes_NL[end:], item_ids[end:], suffixes_N[end:], semantic_ids[end:]
    if held is not None:
        yield held[0], held[1], held[2], _sizes(held[3])


def _run_at_end(semantic_ids: list[str]) -> int:
    return next((n for n, sid in enumerate(reversed(semantic_ids)) if sid != semantic_ids[-1]), len(semantic_ids))


def _sizes(semantic_ids: list[str]) -> list[int]:
    return [len(list(bucket)) for _, bucket in groupby(semantic_ids)]


FORM = Form(
    "torcheasyrec",
    write,
    directory=True,
    id_type="auto",
    order="codes",
    compact="the index of items changes when an item before them in their bucket is replaced",
)
