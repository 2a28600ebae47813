"""`parquet`: `item_id, semantic_id, suffix, codes, generation`, for anything."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from semid_daemon.export.columns import CODES, code_lists, id_type, write_tables
from semid_daemon.export.job import Form, Job


def write(job: Job, path: Path) -> None:
    """One row per item; codes are a list<int64>."""
    schema = pa.schema(
        [
            ("item_id", id_type(job.integer_ids)),
            ("semantic_id", pa.string()),
            ("suffix", pa.int64()),
            ("codes", CODES),
            ("generation", pa.int64()),
        ]
    )
    tables = (
        {
            "item_id": job.typed(items.item_ids),
            "semantic_id": items.semantic_ids,
            "suffix": items.suffixes_N,
            "codes": code_lists(items.codes_NL),
            "generation": [job.published.generation] * len(items.item_ids),
        }
        for items in job.chunks()
    )
    write_tables(path, schema, tables)


FORM = Form("parquet", write)
