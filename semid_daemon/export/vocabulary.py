"""Codes as the tokens of a language model: `<a_12>`, `<b_250>`, `<c_7>`, and `<d_0>` for a suffix."""

from __future__ import annotations

from collections.abc import Iterator
from string import ascii_lowercase

import numpy as np

from semid_daemon.export.job import ExportError, Job
from semid_daemon.store.read.export_items import IntArray, Items


def token(job: Job, layer: int, code: int) -> str:
    """The token of a code; the suffix is the layer after the last."""
    template = job.token_templates[layer if len(job.token_templates) > 1 else 0]
    template = template.replace("{layer}", ascii_lowercase[layer]).replace("{level}", str(layer))
    return template.replace("{code}", str(code + job.first_code))


def check_templates(templates: tuple[str, ...], depth: int) -> None:
    """Raises ExportError unless every code of every layer, and every suffix, gets a token of its own."""
    if len(templates) not in (1, depth):
        raise ExportError(f"--token-template is needed once, or {depth} times: for every layer and the suffix")
    if not all("{code}" in template for template in templates):
        raise ExportError("--token-template holds {code}, as in '<a_{code}>'")
    if len(templates) == 1 and "{layer}" not in templates[0] and "{level}" not in templates[0]:
        raise ExportError("one --token-template for all layers holds {layer} (a letter) or {level} (a number)")
    if len(set(templates)) < len(templates):
        raise ExportError("--token-template: two layers have the same")


def vocabulary(job: Job, suffixes: int) -> list[str]:
    """All tokens: layer by layer all of its codes, used or not, then at least this many suffixes."""
    layers, size = job.published.layers, job.published.codebook_size
    tokens = [token(job, layer, code) for layer in range(layers) for code in range(size)]
    if job.has_suffixes:
        tokens += [token(job, layers, suffix) for suffix in range(max(suffixes, job.published.max_bucket))]
    return tokens


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
        tokens = [form.format(token(job, layer, number)) for number in range(size)]
        columns.append(map(tokens.__getitem__, numbers_N.tolist()))
    return zip(*columns, strict=True)
