"""Codes as the tokens of a language model: `<a_12>`, `<b_250>`, `<c_7>`, and `<d_0>` for a suffix."""

from __future__ import annotations

from collections.abc import Iterator
from string import ascii_lowercase

from semid_daemon.export.job import Job
from semid_daemon.store.catalogue import Items


def token(layer: int, code: int) -> str:
    """The token of a code; the suffix is the layer after the last."""
    return f"<{ascii_lowercase[layer]}_{code}>"


def token_rows(job: Job, items: Items) -> Iterator[list[str]]:
    """Every item's tokens: one a layer, and where anything in the generation collides one more for the suffix.

    So all rows of an export, and of the deltas after it, have the same length until the first collision.
    """
    layers = job.published.layers
    columns = [[token(layer, code) for code in items.codes_NL[:, layer].tolist()] for layer in range(layers)]
    if job.collisions:
        columns.append([token(layers, suffix) for suffix in items.suffixes_N.tolist()])
    return map(list, zip(*columns, strict=True))
