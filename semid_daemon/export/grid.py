"""`grid`: the tensor that GRID's TIGER and NVIDIA's sid_gr load, int64 (L+1)×N, as torch.save writes it."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np

from semid_daemon.export.job import Form, Job

_ROOT = "archive"  # the directory in the zip; any one name
_ALIGNED = 64  # torch.save begins every tensor at a multiple, so that it can be mapped into memory
_LOCAL_HEADER_BYTES = 30
_ZIP64_EXTRA_BYTES = 20
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same catalogue makes the same bytes


def write(job: Job, path: Path) -> None:
    """Column = dense row. Rows 0…L-1 are the codes; row L is the suffix, so that later items change no column.

    In the compact form row L is 0 for an item alone in its bucket, else suffix + 1. Where items share their IDs by
    policy, it is 0 for all.

    GRID itself appends the compact row (src/utils/tensor_utils.py, deduplicate_rows_in_tensor) and saves the transpose
    of an N×(L+1) tensor; so does this, which is why items can be written one after the other.
    """
    width = job.published.layers + 1
    highest = 0
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        # The first name's directory is the archive's root, and data.pkl comes first where torch writes it.
        archive.writestr(_entry("data.pkl"), _tensor_pickle(job.rows, width))
        archive.writestr(_entry("byteorder"), b"little")
        with archive.open(_entry("data/0", aligned_after=archive), "w", force_zip64=True) as data:
            for items in job.chunks():
                last_N = items.suffixes_N
                if job.compact:
                    assert items.buckets_N is not None
                    last_N = np.where((items.buckets_N > 1) & job.has_suffixes, items.suffixes_N + 1, 0)
                highest = max(highest, int(last_N.max()))
                data.write(np.column_stack([items.codes_NL, last_N]).astype("<i8").tobytes())
        archive.writestr(_entry("version"), b"3\n")
    if highest >= job.published.codebook_size:
        job.warnings.append(
            f"the last row goes up to {highest}, beyond the {job.published.codebook_size} codes of a layer: give it an"
            " embedding table of its own size"
        )


def _entry(name: str, aligned_after: zipfile.ZipFile | None = None) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(f"{_ROOT}/{name}", _EPOCH)
    if aligned_after is not None:
        assert aligned_after.fp is not None
        # Padded as torch does it, by an extra field called FB.
        header = _LOCAL_HEADER_BYTES + len(info.filename) + _ZIP64_EXTRA_BYTES + 4
        padding = -(aligned_after.fp.tell() + header) % _ALIGNED
        info.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
    return info


def _tensor_pickle(rows: int, width: int) -> bytes:
    """What torch.save pickles for an int64 tensor of shape (width, rows) that lies in memory as rows×width."""

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def number(value: int) -> bytes:
        size = value.bit_length() // 8 + 1
        return b"\x8a" + struct.pack("<B", size) + value.to_bytes(size, "little", signed=True)

    storage = b"(" + text("storage") + b"ctorch\nLongStorage\n" + text("0") + text("cpu") + number(rows * width) + b"tQ"
    shape, stride = number(width) + number(rows) + b"\x86", number(1) + number(width) + b"\x86"
    no_grad, no_hooks = b"\x89", b"ccollections\nOrderedDict\n)R"
    arguments = b"(" + storage + number(0) + shape + stride + no_grad + no_hooks + b"t"
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R."


FORM = Form(
    "grid",
    write,
    dense=True,
    buckets=True,
    compact="an item's last row changes from 0 to 1 when the first item with the same codes arrives",
)
