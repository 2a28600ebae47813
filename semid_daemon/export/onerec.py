"""`onerec`: OpenOneRec's parquet of `pid` and `codes`, with the same lists again as `sid`, as its readers call them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from semid_daemon.export.columns import CODES, code_lists, id_type, write_tables
from semid_daemon.export.job import Form, Job


def write(job: Job, path: Path) -> None:
    """One row per item, without suffixes."""
    schema = pa.schema([("pid", id_type(job.integer_ids)), ("codes", CODES), ("sid", CODES)])
    tables = (
        {"pid": job.typed(items.item_ids), "codes": (codes := code_lists(items.codes_NL)), "sid": codes}
        for items in job.chunks()
    )
    write_tables(path, schema, tables)


FORM = Form("onerec", write, id_type="auto")
