"""`tokens`: every token there is, and the prefix trie of the IDs that exist, for constrained decoding."""

from __future__ import annotations

import json
from pathlib import Path

from semid_daemon.export.job import Form, Job
from semid_daemon.export.vocabulary import token, token_rows


def write(job: Job, path: Path) -> None:
    """`{"tokens": ["<a_0>", …], "trie": {"<a_12>": {"<b_250>": {"<c_7>": {}}}}}`, as one JSON object.

    Tokens are listed layer by layer, all of a layer's codes, used or not: what a model's vocabulary needs. The
    trie is nested objects, an item's ID ending in an empty one. Tokens for suffixes are there where
    `index-json` has them.
    """
    layers, size = job.published.layers, job.published.codebook_size
    vocabulary = [token(layer, code) for layer in range(layers) for code in range(size)]
    above: list[str] = []
    suffixes = 0
    with open(path, "w", encoding="utf-8") as file:
        file.write('{"trie": {')
        for items in job.chunks():
            pieces = []
            suffixes = max(suffixes, int(items.suffixes_N.max()) + 1)
            for tokens in token_rows(job, items):
                shared = next((n for n, (a, b) in enumerate(zip(above, tokens, strict=False)) if a != b), len(above))
                if shared == len(tokens):  # without suffixes: a semantic ID again
                    continue
                if above:
                    pieces.append("}" * (len(above) - shared) + ",")
                pieces.append("\n")
                pieces.append("".join(f'"{each}":{{' for each in tokens[shared:]))
                above = tokens
            file.write("".join(pieces))
        file.write("}" * len(above) + '},\n"tokens": [\n')
        if job.collisions:
            vocabulary += [token(layers, suffix) for suffix in range(max(suffixes, job.published.max_bucket))]
        file.write(",\n".join(map(json.dumps, vocabulary)) + "\n]}\n")


FORM = Form("tokens", write, order="codes")
