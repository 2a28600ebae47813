"""`flashrec`: the JSON object `{"a,b,c,suffix": [{"pid": item}]}` that FlashRec takes as its `--sid-vocab-file`."""

from __future__ import annotations

import json
from pathlib import Path

from semid_daemon.export.job import Form, Job
from semid_daemon.export.vocabulary import numbers_of


def write(job: Job, path: Path) -> None:
    """Keys are codes from 0 on, one key per item; in the compact form the codes alone, with all of their items.

    FlashRec wants a name that ends in `.json`. It skips a key whose suffix is beyond its codebook for it.
    """
    before: tuple[int, ...] | None = None
    with open(path, "w", encoding="utf-8") as file:
        file.write("{")
        for items in job.chunks():
            numbers_NW = items.codes_NL if job.compact else numbers_of(job, items)
            for item_id, numbers in zip(job.typed(items.item_ids), map(tuple, numbers_NW.tolist()), strict=True):
                entry = json.dumps({"pid": item_id})
                if numbers == before:
                    file.write(f", {entry}")
                    continue
                file.write(("\n" if before is None else "],\n") + f'"{",".join(map(str, numbers))}": [{entry}')
                before = numbers
        file.write(("" if before is None else "]") + "\n}\n")


FORM = Form(
    "flashrec",
    write,
    id_type="auto",
    order="codes",
    compact="the list of a key grows when another item with the same codes arrives",
)
