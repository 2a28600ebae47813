"""`trie-npz`: the IDs that exist as a sorted array and as a trie in CSR form, for STATIC and RecTokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from semid_daemon.export.job import Form, Job
from semid_daemon.export.vocabulary import numbers_of, token_numbers


def write(job: Job, path: Path) -> None:
    """An `.npz` of arrays that NumPy loads without pickle. U distinct IDs of W numbers, E edges, items in M.

    `sids` (int32, U×W): the codes and the suffix, sorted and distinct. `token_ids` (int32, U×W): the same as numbers
    of tokens. `indptr` (int64, E+2) and `tokens` (int32, E): the edges out of node n are those from indptr[n] to
    indptr[n+1]; nodes are numbered from the root, 0, depth by depth, and edge e leads to node e + 1. `item_ptr`
    (int64, U+1) and `item_ids` (M): the items of row u are those from item_ptr[u] to item_ptr[u+1].
    """
    width = job.published.layers + job.has_suffixes
    numbers, tokens, item_ids = [np.empty((0, width), np.int64)], [np.empty((0, width), np.int64)], []
    for items in job.chunks():
        numbers.append(numbers_of(job, items))
        tokens.append(token_numbers(job, items))
        item_ids += job.typed(items.item_ids)
    numbers_MW, tokens_MW = np.concatenate(numbers), np.concatenate(tokens)
    differs_MW = np.ones(numbers_MW.shape, bool)
    differs_MW[1:] = numbers_MW[1:] != numbers_MW[:-1]
    begins_MW = np.logical_or.accumulate(differs_MW, axis=1)  # a prefix that the row before does not have
    first_U = np.flatnonzero(begins_MW[:, -1])
    edges, parents, nodes = [], [np.zeros(len(numbers_MW), np.int64)], 0
    for depth in range(width):
        begins_M = begins_MW[:, depth]
        edges.append((parents[-1][begins_M], tokens_MW[begins_M, depth]))
        parents.append(nodes + np.cumsum(begins_M))
        nodes += int(begins_M.sum())
    parents_E = np.concatenate([parents for parents, _ in edges])
    with open(path, "wb") as file:
        np.savez(
            file,
            sids=numbers_MW[first_U].astype(np.int32),
            token_ids=tokens_MW[first_U].astype(np.int32),
            indptr=np.concatenate([[0], np.cumsum(np.bincount(parents_E, minlength=nodes + 1))]),
            tokens=np.concatenate([tokens for _, tokens in edges]).astype(np.int32),
            item_ptr=np.append(first_U, len(numbers_MW)),
            item_ids=np.array(item_ids, dtype=np.int64 if job.integer_ids else np.str_),
        )


FORM = Form(
    "trie-npz",
    write,
    id_type="auto",
    order="codes",
    numbers_tokens=True,
    compact="every row gets one number more as soon as two items of the generation have the same codes",
)
