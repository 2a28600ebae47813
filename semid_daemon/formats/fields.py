"""Which of a file's fields holds the vectors and which the item IDs, and what shapes may be."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection

from semid_daemon.base.drop_file import FieldNames
from semid_daemon.base.errors import BadFileError
from semid_daemon.formats.faults import show, show_names

ID_NAMES = ("item_ids", "item_id", "ids", "id", "pid", "ItemID", "asin")
VECTOR_NAMES = ("embeddings", "embedding", "emb", "vectors", "vector", "x")

# The same bound as quantizer.dim in the configuration.
MAX_DIM = 65_536

# Each is opened, for a hint in a message.
_MOST_TRIED = 64

FLOATS_WANTED = "save the vectors as float16, bfloat16, float32 or float64"


def pick_ids(names: Collection[str], fields: FieldNames, *, sidecar: bool) -> str | None:
    """The field of item IDs: the configured one, else the first of ID_NAMES that is there.

    Raises BadFileError when the configured one is not there, and no sidecar stands in for it.
    """
    if fields.item_ids is not None:
        if fields.item_ids in names:
            return fields.item_ids
        if sidecar:
            return None
        raise BadFileError(_without(fields.item_ids, "id_field", names))
    return next((name for name in ID_NAMES if name in names), None)


def pick_vectors(names: Collection[str], fields: FieldNames, looks_like_vectors: Callable[[str], bool]) -> str:
    """The field of vectors: the configured one, else the first of VECTOR_NAMES that is there.

    `looks_like_vectors(name)` says whether a field is a 2-D float array; it only serves the message.
    Raises BadFileError when none of the names is there.
    """
    if fields.vectors is not None:
        if fields.vectors in names:
            return fields.vectors
        raise BadFileError(_without(fields.vectors, "vector_field", names))
    for name in VECTOR_NAMES:
        if name in names:
            return name
    message = f"no field named {', '.join(VECTOR_NAMES)} (found {show_names(names)})"
    alike = [name for name in itertools.islice(names, _MOST_TRIED) if looks_like_vectors(name)]
    if len(alike) == 1:
        raise BadFileError(
            f"{message}; {show(alike[0])} looks like the vectors: rename it to embeddings, or set ingest.vector_field"
        )
    raise BadFileError(f"{message}; name the vectors embeddings, or set ingest.vector_field")


def _without(name: str, key: str, names: Collection[str]) -> str:
    return (
        f"no field named {show(name)} (found {show_names(names)}), which ingest.{key} in semid.toml asks for;"
        " rename the field, or change the setting"
    )


def check_vector_shape(shape: tuple[int, ...], field: str) -> tuple[int, int]:
    """(rows, dim) of an array of vectors. Raises BadFileError unless it is 2-D with 1 <= dim <= MAX_DIM."""
    if len(shape) != 2:
        raise BadFileError(
            f"{field} is {len(shape)}-dimensional with shape {show_shape(shape)}; save a 2-D array, one row per item"
        )
    rows, dim = shape
    check_dim(dim, field)
    return rows, dim


def check_dim(dim: int, field: str) -> None:
    """Raise BadFileError unless 1 <= dim <= MAX_DIM."""
    if dim < 1:
        raise BadFileError(f"{field} has vectors of length 0; save vectors of length 1 or more")
    if dim > MAX_DIM:
        raise BadFileError(f"{field} has vectors of length {dim:,}, more than {MAX_DIM:,}; save one row per item")


def check_id_count(ids: int, rows: int, where: str) -> None:
    """Raise BadFileError unless there is one item ID per row."""
    if ids != rows:
        raise BadFileError(f"{where} holds {ids:,} item IDs for {rows:,} rows of vectors; write one item ID per row")


def show_shape(shape: tuple[int, ...]) -> str:
    return show(str(tuple(shape)))
