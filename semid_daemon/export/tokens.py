"""`tokens`: every token there is, and the prefix trie of the IDs that exist, for constrained decoding."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from semid_daemon.export.job import Form, Job
from semid_daemon.export.vocabulary import numbers_of, token_rows, vocabulary


def write(job: Job, path: Path) -> None:
    """`{"tokens": ["<a_0>", …], "trie": {"<a_12>": {"<b_250>": {"<c_7>": {}}}}}`, as one JSON object.

    Tokens are listed layer by layer, all of a layer's codes, used or not: what a model's vocabulary needs. The
    trie is nested objects, an item's ID ending in an empty one. Tokens for suffixes are there where
    `index-json` has them.
    """
    layers = job.published.layers
    depth = layers + job.has_suffixes
    above = np.full((1, depth), -1, dtype=np.int64)
    suffixes = 0
    with open(path, "w", encoding="utf-8") as file:
        file.write('{"trie": {')
        for items in job.chunks():
            suffixes = max(suffixes, int(items.suffixes_N.max()) + 1)
            numbers_NW = numbers_of(job, items)
            differs_NW = numbers_NW != np.concatenate([above, numbers_NW[:-1]])
            shared_N = np.where(differs_NW.any(axis=1), differs_NW.argmax(axis=1), depth)
            above = numbers_NW[-1:]
            pieces = []
            for tokens, shared in zip(token_rows(job, items, '"{}":{{'), shared_N.tolist(), strict=True):
                if shared < depth:  # else, without suffixes, a semantic ID again
                    pieces.append("}" * (depth - shared) + ",\n" + "".join(tokens[shared:]))
            if items.first_row == 0:
                pieces[0] = pieces[0].lstrip("},")
            file.write("".join(pieces))
        file.write("}" * (depth if suffixes else 0) + '},\n"tokens": [\n')
        file.write(",\n".join(map(json.dumps, vocabulary(job, suffixes))) + "\n]}\n")


FORM = Form(
    "tokens",
    write,
    order="codes",
    names_tokens=True,
    compact="every item gets one token more as soon as two items of the generation have the same codes",
)
