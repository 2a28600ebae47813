"""Which of a file's fields holds the vectors and which the item IDs, and what shapes may be."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection

from semid_daemon.base.drop_file import FieldNames
from semid_daemon.base.errors import BadFileError
from semid_daemon.formats.faults import show, show_names

# Case does not count.
VECTOR_NAMES = ("embeddings", "embedding", "emb", "vectors", "vector", "x")

# The same bound as quantizer.dim in the configuration.
MAX_DIM = 65_536

# Each is opened, for a hint in a message.
MOST_TRIED = 64

FLOATS_WANTED = "save the vectors as float16, bfloat16, float32 or float64"


def pick_vectors(names: Collection[str], fields: FieldNames, looks_like_vectors: Callable[[str], bool]) -> str:
    """The field of vectors: the configured one, else the first of VECTOR_NAMES that is there and can be vectors.

    `looks_like_vectors(name)` says whether a field is a 2-D float array.
    Raises BadFileError when none of the names is there, or another field is the only one that can be vectors.
    """
    if fields.vectors is not None:
        if fields.vectors in names:
            return fields.vectors
        raise BadFileError(_without(fields.vectors, "vector_field", names))
    known = [name for wanted in VECTOR_NAMES for name in names if name.lower() == wanted]
    if fitting := [name for name in known if looks_like_vectors(name)]:
        return fitting[0]
    alike = [name for name in itertools.islice(names, MOST_TRIED) if looks_like_vectors(name)]
    if known and not alike:
        return known[0]
    message = f"no field named {', '.join(VECTOR_NAMES)} with vectors in it (found {show_names(names)})"
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
