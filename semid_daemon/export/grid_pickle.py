"""`grid-pickle`: GRID's merged_predictions.pkl, a pickled list of `{"item_id": …, "cluster_ids": [c0, c1, …]}`."""

from __future__ import annotations

import pickle
from pathlib import Path

from semid_daemon.export.job import Form, Job

_PROTOCOL = 2  # numbers its memo explicitly, so that pickles can be put one after the other
_BEGIN = b"\x80\x02"  # the protocol
_LIST = b"]q\x00"  # an empty list, remembered as 0
_END = b"."


def write(job: Job, path: Path) -> None:
    """One list, in pieces: each piece is the pickle of a list without the list itself, so its items join ours."""
    with open(path, "wb") as file:
        file.write(_BEGIN + _LIST)
        for items in job.chunks():
            rows = [
                {"item_id": item_id, "cluster_ids": codes}
                for item_id, codes in zip(job.typed(items.item_ids), items.codes_NL.tolist(), strict=True)
            ]
            piece = pickle.dumps(rows, protocol=_PROTOCOL)
            assert piece.startswith(_BEGIN + _LIST)
            file.write(piece[len(_BEGIN + _LIST) : -len(_END)])
        file.write(_END)


FORM = Form("grid-pickle", write, id_type="auto")
