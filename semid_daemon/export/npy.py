"""`npy`: int64 N×(L+1), the codes and the suffix, as XiaoLongtaoo/TIGER loads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from semid_daemon.export.job import Form, Job


def write(job: Job, path: Path) -> None:
    """Row = dense row; the last column is the suffix, 0 for most."""
    shape = (job.rows, job.published.layers + 1)
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<i8", "fortran_order": False, "shape": shape})
        for items in job.chunks():
            file.write(np.column_stack([items.codes_NL, items.suffixes_N]).astype("<i8").tobytes())


FORM = Form("npy", write, dense=True)
