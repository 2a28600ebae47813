"""Item IDs, wherever they come from, as checked text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from semid_daemon.base.errors import BadFileError
from semid_daemon.formats.byte_ranges import ByteRange
from semid_daemon.formats.faults import ID_EMPTY, ID_HAS_NUL, ID_NOT_TEXT, ID_TOO_LONG

MAX_ID_BYTES = 1024
_MAX_PATH_BYTES = 900  # of the path in a made-up item ID
_CONTENT_DIGITS = 12

IDS_WANTED = "save item IDs as text or integers"

# Wide text arrays are read in slices of this size, whatever the chunk.
_SLICE_BYTES = 16 << 20
# np.str_ of 1 MB strings takes 4 MB a row; anything above is no array of item IDs.
_MAX_ITEM_BYTES = 4 << 20
_LAST_CODE_POINT = 0x10FFFF


@dataclass(frozen=True, slots=True)
class IdBlock:
    """Item IDs of consecutive rows; `faults` maps the rows (0...) whose ID cannot be used to a reason.

    The text of such a row is empty, however long its ID was.
    """

    texts: list[str]
    faults: dict[int, str] = field(default_factory=dict)


class IdColumn(Protocol):
    """One item ID per row of the file."""

    def read(self, first: int, count: int) -> IdBlock:
        """The item IDs of rows first...first+count-1."""


@dataclass(frozen=True, slots=True)
class RowNumbers:
    """`<path>@<content>:<row>`, for files that bring no item IDs: no two files share them.

    `content` gives the digest of the file's bytes; it is asked for with the first row.
    """

    path: str
    content: Callable[[], str]

    def read(self, first: int, count: int) -> IdBlock:
        # The end of a long path says more, and the content tells files apart whose ends are the same.
        path = self.path.encode()[-_MAX_PATH_BYTES:].decode(errors="ignore")
        prefix = f"{path}@{self.content()[:_CONTENT_DIGITS]}"
        return checked([f"{prefix}:{row}" for row in range(first, first + count)])


@dataclass(frozen=True, slots=True)
class IdList:
    """Item IDs that a file's format only gives as a whole: str, int or None each."""

    values: Sequence[str | int | None]

    def read(self, first: int, count: int) -> IdBlock:
        part = self.values[first : first + count]
        faults = {row: ID_NOT_TEXT for row, value in enumerate(part) if value is None}
        return checked(["" if value is None else str(value) for value in part], faults)


@dataclass(frozen=True, slots=True)
class IdArray:
    """A 1-D numpy array of text, bytes or integers at `offset` of a byte range."""

    byte_range: ByteRange
    offset: int
    dtype: np.dtype[np.generic]

    def read(self, first: int, count: int) -> IdBlock:
        itemsize = self.dtype.itemsize
        if not itemsize:  # numpy's <U0: every ID is empty, and takes no bytes
            return checked([""] * count)
        texts: list[str] = []
        faults: dict[int, str] = {}
        step = max(1, _SLICE_BYTES // itemsize)
        for at in range(0, count, step):
            raw = np.empty(min(step, count - at) * itemsize, np.uint8)
            self.byte_range.read_into(self.offset + (first + at) * itemsize, raw.data)
            block = _texts_of(raw, self.dtype)
            texts += block.texts
            faults.update({at + row: reason for row, reason in block.faults.items()})
        return IdBlock(texts, faults)


def check_id_dtype(dtype: np.dtype[np.generic], field_name: str) -> None:
    """Raise BadFileError unless the dtype is text, bytes or integer."""
    if dtype.kind not in "USiu":
        raise BadFileError(f"{field_name} is {dtype.name}; {IDS_WANTED}")
    if dtype.itemsize > _MAX_ITEM_BYTES:
        raise BadFileError(
            f"{field_name} gives each item ID {dtype.itemsize:,} bytes; item IDs may have {MAX_ID_BYTES:,} bytes"
        )


def listed_ids(values: Iterable[object], field_name: str) -> IdList:
    """A list of str, int and None as item IDs. Raises BadFileError for anything else in it."""
    found: list[str | int | None] = []
    for row, value in enumerate(values):
        if value is not None and (isinstance(value, bool) or not isinstance(value, (str, int))):
            raise BadFileError(f"{field_name} holds a {type(value).__name__} at row {row:,}; {IDS_WANTED}")
        found.append(value)
    return IdList(found)


def _texts_of(raw: np.ndarray[tuple[int], np.dtype[np.uint8]], dtype: np.dtype[np.generic]) -> IdBlock:
    if dtype.kind in "iu":
        return checked(list(map(str, raw.view(dtype).tolist())))
    if dtype.kind == "S":
        return texts_from_bytes(raw.view(dtype).tolist())
    points = raw.view(np.dtype(np.uint32).newbyteorder(dtype.byteorder)).reshape(-1, dtype.itemsize // 4)
    # numpy refuses a whole array for one number that is no character.
    beyond = np.flatnonzero((points > _LAST_CODE_POINT).any(axis=1)) if points.size else np.empty(0, np.intp)
    points[beyond] = 0
    return checked(raw.view(dtype).tolist(), dict.fromkeys(beyond.tolist(), ID_NOT_TEXT))


def texts_from_bytes(values: Sequence[bytes | None]) -> IdBlock:
    """Item IDs from UTF-8 bytes; None and undecodable bytes are faults of their rows."""
    try:
        return checked(b"\0".join(values).decode().split("\0"), rows=len(values))  # type: ignore[arg-type]
    except (TypeError, ValueError):  # a None, undecodable bytes, or an ID with the separator in it
        pass
    texts: list[str] = []
    faults: dict[int, str] = {}
    for row, value in enumerate(values):
        try:
            if value is None:
                raise ValueError
            texts.append(value.decode())
        except ValueError:
            texts.append("")
            faults[row] = ID_NOT_TEXT
    return checked(texts, faults)


def checked(texts: list[str], faults: dict[int, str] | None = None, *, rows: int | None = None) -> IdBlock:
    """Find the IDs that are empty, too long, no text or with a NUL; rows in `faults` keep their reason.

    Raises ValueError when `rows` is given and is not the number of texts.
    """
    if rows is not None and len(texts) != rows:
        raise ValueError("an item ID has a NUL character")
    if not texts or (not faults and _all_plain(texts)):
        return IdBlock(texts, faults or {})
    found = dict(faults or {})
    for row, text in enumerate(texts):
        if row not in found and (reason := _fault_of(text)):
            found[row] = reason
    for row in found:
        texts[row] = ""
    return IdBlock(texts, found)


def _all_plain(texts: list[str]) -> bool:
    """Whether nothing can be wrong: a quick look over all that spares looking at each."""
    if not all(texts) or max(map(len, texts)) > MAX_ID_BYTES:
        return False
    joined = "".join(texts)
    return joined.isascii() and "\0" not in joined


def _fault_of(text: str) -> str | None:
    if not text:
        return ID_EMPTY
    if len(text) > MAX_ID_BYTES:
        return ID_TOO_LONG
    try:
        size = len(text.encode())
    except UnicodeEncodeError:  # a lone surrogate
        return ID_NOT_TEXT
    if size > MAX_ID_BYTES:
        return ID_TOO_LONG
    return ID_HAS_NUL if "\0" in text else None
