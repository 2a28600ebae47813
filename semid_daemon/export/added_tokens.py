"""`added-tokens`: every token with its number, as the `added_tokens.json` of a Hugging Face tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

from semid_daemon.export.job import Form, Job
from semid_daemon.export.vocabulary import vocabulary


def write(job: Job, path: Path) -> None:
    """`{"<a_0>": 32000, …}`: layer by layer, then suffixes, numbered from the vocabulary offset on.

    The keys, in their order, are the list for a tokenizer's `add_tokens`. Later items only add tokens at the end.
    """
    suffixes = max((int(items.suffixes_N.max()) + 1 for items in job.chunks()), default=0)
    numbered = {token: job.vocabulary_offset + number for number, token in enumerate(vocabulary(job, suffixes))}
    path.write_text(json.dumps(numbered, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")


FORM = Form("added-tokens", write, numbers_tokens=True, names_tokens=True)
