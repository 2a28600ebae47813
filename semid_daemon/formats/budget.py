"""What a file may cost: one budget, counted in bytes before a library is asked to take them.

- `check_unfolding`: content that is stored in few bytes may decode to at most 1,000 times as many. With it the size of
  a file bounds the time that it takes.
- `check_held`: what must be in memory at once (a page, a record batch, an array in the wrong order).
- `check_metadata`: what a file says about itself (headers, footers, directories, pickles), estimated from its bytes.
"""

from __future__ import annotations

import functools
import os
import resource
from pathlib import Path

from semid_daemon.base.errors import BadFileError

UNFOLDING_RATIO = 1000
UNFOLDING_BYTES = 64 << 20  # up to here any ratio is harmless
METADATA_BYTES = 256 << 20

_JSON_VALUE_BYTES = 72
_FOUR_BYTES_WIDE = 0xF0  # the first byte of a character that makes Python keep a text in 4 bytes each

_MOST_HELD_BYTES = 2 << 30
_LEAST_HELD_BYTES = 256 << 20
_SHARE_OF_MEMORY = 5  # what is held is decoded and copied while it is held, and other chunks are in memory too
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def check_unfolding(what: str, decoded_bytes: int, stored_bytes: int, remedy: str) -> None:
    """Raise BadFileError where more than 64 MiB decode from less than a thousandth of that."""
    if decoded_bytes > UNFOLDING_BYTES and decoded_bytes > UNFOLDING_RATIO * stored_bytes:
        raise BadFileError(
            f"{what} declares {decoded_bytes:,} bytes in {stored_bytes:,};"
            f" more than 1,000 times as much is refused: {remedy}"
        )


def check_held(what: str, size_bytes: int, remedy: str) -> None:
    """Raise BadFileError where something takes more memory at once than a file may."""
    if size_bytes > held_bytes():
        raise BadFileError(f"{what} takes {size_bytes:,} bytes of memory at once, more than {held_bytes():,}; {remedy}")


def check_metadata(what: str, size_bytes: int, remedy: str) -> None:
    """Raise BadFileError where parsing what a file says about itself would take more than 256 MiB."""
    if size_bytes > METADATA_BYTES:
        raise BadFileError(
            f"{what} takes {size_bytes:,} bytes of memory or more when it is parsed, more than {METADATA_BYTES:,};"
            f" {remedy}"
        )


def json_cost(text: bytes) -> int:
    """The memory that parsing a JSON text takes at most, in bytes: every value is an object, every text decoded."""
    values = sum(map(text.count, (b",", b":", b"[", b"{")))
    widest = 4 if max(text, default=0) >= _FOUR_BYTES_WIDE else 2 if not text.isascii() else 1
    return _JSON_VALUE_BYTES * values + 2 * widest * len(text)


@functools.cache
def held_bytes() -> int:
    """How much of a file may be in memory at once: a fifth of the machine's memory, 256 MiB to 2 GiB."""
    return min(_MOST_HELD_BYTES, max(_LEAST_HELD_BYTES, _memory_bytes() // _SHARE_OF_MEMORY))


def _memory_bytes() -> int:
    """The memory that this process may have: of the machine, of its control group, and by its own limits."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for limit in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        soft, _ = resource.getrlimit(limit)
        if soft != resource.RLIM_INFINITY:
            found.append(soft)
    try:
        text = _CGROUP_LIMIT.read_text().strip()
    except OSError:
        text = ""
    if text.isdecimal():
        found.append(int(text))
    return min(found)
