"""`forge`: `item_id,codebook_lv1,codebook_lv2,codebook_lv3`, the table that FORGE (al_sid) reads."""

from __future__ import annotations

import csv
from pathlib import Path

from semid_daemon.export.job import Form, Job

_LAYERS = 3
_CODES = 8192


def write(job: Job, path: Path) -> None:
    """One row per item: its ID and its codes from 0 on, without suffixes.

    algr/calc_hr.py takes exactly three layers, and shifts the codes of the second by 8,192, of the third by 16,384.
    """
    layers = job.published.layers
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["item_id", *(f"codebook_lv{layer}" for layer in range(1, layers + 1))])
        for items in job.chunks():
            writer.writerows(zip(items.item_ids, *items.codes_NL.T.tolist(), strict=True))
    if layers != _LAYERS:
        job.warnings.append(f"FORGE reads {_LAYERS} layers, these are {layers}")
    if job.published.codebook_size > _CODES:
        job.warnings.append(f"FORGE keeps {_CODES:,} numbers for a layer: codes beyond would run into the next one")


FORM = Form("forge", write)
