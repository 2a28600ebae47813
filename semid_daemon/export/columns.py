"""Columns of arrow tables, and parquet files written chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from semid_daemon.store.read.export_items import IntArray

# pyarrow publishes no types.
Array = Any
CODES = pa.list_(pa.int64())


def id_type(integers: bool) -> Any:
    return pa.int64() if integers else pa.string()


def code_lists(codes_NL: IntArray) -> Array:
    """A list<int64> of every row's codes."""
    rows, layers = codes_NL.shape
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * layers)
    return pa.ListArray.from_arrays(offsets, pa.array(codes_NL.reshape(-1)), type=CODES)


def write_tables(path: Path, schema: Any, tables: Iterable[dict[str, Array]]) -> None:
    """A parquet file of tables with these columns; one row group each."""
    with pq.ParquetWriter(path, schema) as writer:
        for columns in tables:
            writer.write_table(pa.table(columns, schema=schema))
