"""`xllm`: records of an int64 item ID and three int32 token numbers, as xLLM's RecVocabDict reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from semid_daemon.export.job import ExportError, Form, Job
from semid_daemon.export.vocabulary import layer_tokens

_LAYERS = 3
_RECORD = np.dtype([("item_id", "<i8"), ("tokens", "<i4", (_LAYERS,))])


def write(job: Job, path: Path) -> None:
    """20 bytes per item, without suffixes: xLLM keeps all items of three tokens.

    Raises ExportError for other numbers of layers, and where item IDs are not integers.
    """
    if job.published.layers != _LAYERS:
        raise ExportError(f"xllm: has {_LAYERS} tokens an item, this generation {job.published.layers} layers")
    if job.rows and not job.integer_ids:
        raise ExportError("xllm: item IDs must be integers, and not all of this generation are")
    with open(path, "wb") as file:
        for items in job.chunks():
            records_N = np.empty(len(items.item_ids), _RECORD)
            records_N["item_id"] = job.typed(items.item_ids)
            records_N["tokens"] = layer_tokens(job, items)
            file.write(records_N.tobytes())


FORM = Form("xllm", write, id_type="auto", numbers_tokens=True)
