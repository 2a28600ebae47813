"""`sid-gr`: JSON Lines of `{"item_id": …, "token_ids": […]}`, the catalogue of NVIDIA's sid-gr-inference."""

from __future__ import annotations

import json
from pathlib import Path

from semid_daemon.export.job import ExportError, Form, Job
from semid_daemon.export.vocabulary import token_numbers


def write(job: Job, path: Path) -> None:
    """One line per item, with the numbers of its tokens; the last is that of its suffix.

    Raises ExportError where items share their IDs by policy and some do: the reader refuses paths that repeat.
    """
    if job.published.collisions == "shared" and job.published.max_bucket > 1:
        raise ExportError(
            'sid-gr: refuses two items with the same tokens, and this generation has collisions = "shared"'
        )
    with open(path, "w", encoding="utf-8") as file:
        for items in job.chunks():
            rows = zip(job.typed(items.item_ids), token_numbers(job, items).tolist(), strict=True)
            file.writelines(json.dumps({"item_id": item_id, "token_ids": ids}) + "\n" for item_id, ids in rows)


FORM = Form("sid-gr", write, id_type="auto", numbers_tokens=True)
