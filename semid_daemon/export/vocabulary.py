"""Codes as the tokens of a language model: `<a_12>`, `<b_250>`, `<c_7>`, and `<d_0>` for a suffix."""

from __future__ import annotations

from collections.abc import Iterator
from string import ascii_lowercase

import numpy as np

from semid_daemon.export.job import Job
from semid_daemon.store.read.export_items import IntArray, Items


def token(layer: int, code: int) -> str:
    """The token of a code; the suffix is the layer after the last."""
    return f"<{ascii_lowercase[layer]}_{code}>"


def numbers_of(job: Job, items: Items) -> IntArray:
    """Every item's codes, and its suffix where the job writes suffixes (int64)."""
    return np.column_stack([items.codes_NL, items.suffixes_N]) if job.has_suffixes else items.codes_NL


def layer_tokens(job: Job, items: Items) -> IntArray:
    """The numbers of the tokens of every item's codes (int64, N×L): offset + layer × codebook_size + code."""
    layers_L = np.arange(job.published.layers, dtype=np.int64)
    return items.codes_NL + layers_L * job.published.codebook_size + job.vocabulary_offset


def token_numbers(job: Job, items: Items) -> IntArray:
    """`layer_tokens`, and where the job writes suffixes that of the suffix, in a layer after the last (int64)."""
    if not job.has_suffixes:
        return layer_tokens(job, items)
    beyond = job.published.layers * job.published.codebook_size + job.vocabulary_offset
    return np.column_stack([layer_tokens(job, items), items.suffixes_N + beyond])


def token_rows(job: Job, items: Items, form: str = "{}") -> Iterator[tuple[str, ...]]:
    """The tokens of `numbers_of`, each written into a form."""
    columns = []
    for layer, numbers_N in enumerate(numbers_of(job, items).T):
        size = max(job.published.codebook_size, int(numbers_N.max()) + 1)
        tokens = [form.format(token(layer, number)) for number in range(size)]
        columns.append(map(tokens.__getitem__, numbers_N.tolist()))
    return zip(*columns, strict=True)
