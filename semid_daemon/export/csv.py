"""`csv`: `item_id,SID` with the codes joined by commas, as FORGE (al_sid) writes it."""

from __future__ import annotations

import csv
from pathlib import Path

from semid_daemon.export.job import Form, Job


def write(job: Job, path: Path) -> None:
    """The SID is quoted, as it holds commas: `numpy,"12,250,7"`. Without suffixes."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["item_id", "SID"])
        for items in job.chunks():
            sids = (semantic_id.replace("-", ",") for semantic_id in items.semantic_ids)
            writer.writerows(zip(items.item_ids, sids, strict=True))


FORM = Form("csv", write)
