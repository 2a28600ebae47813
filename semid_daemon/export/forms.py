"""Every form by its name: what it is, and for whom. Its module is imported only when it is written."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semid_daemon.export.job import Form

FORMS = {
    "grid": "int64 (L+1)xN tensor: GRID TIGER, NVIDIA recsys-examples sid_gr",
    "grid-pickle": "GRID's merged_predictions.pkl",
    "npy": "int64 Nx(L+1): XiaoLongtaoo/TIGER",
    "index-json": "tokens by row: LC-Rec, LETTER, MiniOneRec",
    "onerec": "parquet of pid, codes, sid: OpenOneRec",
    "torcheasyrec": "TorchEasyRec's SID bundle, a directory",
    "csv": "item_id,SID: what FORGE (al_sid) writes",
    "forge": "item_id,codebook_lv1,...: what FORGE (al_sid) reads",
    "rpg": "JSON of item -> codes: RPG's .sem_ids",
    "parquet": "item_id, semantic_id, suffix, codes, generation: anything",
    "faiss": "the codebooks as a ResidualQuantizer index",
    "sid-gr": "JSON Lines of item_id, token_ids: NVIDIA sid-gr-inference",
    "xllm": "binary records of item ID and three tokens: xLLM",
    "flashrec": "JSON of codes -> items: FlashRec's --sid-vocab-file",
    "trie-npz": "sorted IDs and CSR trie: STATIC, RecTokens",
    "added-tokens": "added_tokens.json of a Hugging Face tokenizer",
    "tokens": "all tokens and the prefix trie: constrained decoding",
}


def form_named(name: str) -> Form:
    """The form of that name in FORMS."""
    module = import_module(f"semid_daemon.export.{name.replace('-', '_')}")
    form: Form = module.FORM
    return form
