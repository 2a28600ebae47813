"""Catalogues for engines that serve models, read back as the engines do."""

from __future__ import annotations

import csv
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from semid_daemon.base.errors import SemidError
from tests.export.published import K, Published, numbered, write

CODES = [[number % 4, number // 16, number // 4 % 2] for number in range(40)]


def test_forge(packages: Published, tmp_path: Path):
    """al_sid algr/calc_hr.py:55-77, convert_csv_to_map: four columns by position, `sid` of shifted codes, items by it;
    u2i/data/csv2json.py takes codebook_lv1 to codebook_lv3 by name.
    """
    out = tmp_path / "tiny_item_sid_final.csv"
    write(packages, "forge", out)
    with out.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["item_id", "codebook_lv1", "codebook_lv2", "codebook_lv3"]
    sid_to_ids: dict[str, list[str]] = {}
    for item_id, *levels in rows:
        col1, col2, col3 = (int(level) + 8192 * shift for shift, level in enumerate(levels))
        sid_to_ids.setdefault(f"C{col1}C{col2}C{col3}", []).append(item_id)
    expected: dict[str, list[str]] = {}
    for row in packages.expected():
        a, b, c = row.codes
        expected.setdefault(f"C{a}C{b + 8192}C{c + 16384}", []).append(row.item_id)
    assert sid_to_ids == expected


def test_forge_of_two_layers_is_told(small, tmp_path: Path):
    published = small(["a"], [[0, 1]])
    (warning,) = write(published, "forge", tmp_path / "x").warnings
    assert warning == "FORGE reads 3 layers, these are 2"


def test_sid_gr(packages: Published, tmp_path: Path):
    """NVIDIA recsys-examples examples/sid-gr-inference, SemanticItemCatalog.from_jsonl: objects of `item_id` and
    `token_ids`, no item and no path twice, every token below the size of the vocabulary.
    """
    out = tmp_path / "catalogue.jsonl"
    write(packages, "sid-gr", out, vocabulary_offset=1000)
    seen_paths: dict[tuple[int, ...], str] = {}
    seen_items = set()
    for line in out.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        path = tuple(int(token) for token in record["token_ids"])
        assert path not in seen_paths
        seen_items.add(record["item_id"])
        seen_paths[path] = record["item_id"]
    assert len(seen_items) == len(seen_paths) == len(packages.rows)
    for row in packages.rows:
        a, b, c = row.codes
        path = (1000 + a, 1000 + K + b, 1000 + 2 * K + c, 1000 + 3 * K + row.suffix)
        assert seen_paths[path] == row.item_id
    assert json.loads((tmp_path / "catalogue.jsonl.semid.json").read_text())["vocabulary_offset"] == 1000


def test_sid_gr_of_shared_ids_is_refused(small, tmp_path: Path):
    published = small(["a", "b"], [[1, 1], [1, 1]], collisions="shared")
    with pytest.raises(SemidError, match="refuses two items with the same tokens"):
        write(published, "sid-gr", tmp_path / "x")
    with pytest.raises(SemidError, match="holds no numbers of tokens"):
        write(published, "csv", tmp_path / "x", vocabulary_offset=1)


def test_xllm(small, tmp_path: Path):
    """xLLM xllm/core/framework/tokenizer/rec_vocab_dict.cpp, RecVocabDict::initialize without extended item info: an
    int64 and REC_TOKEN_SIZE = 3 int32, one after the other, to the end of the file.
    """
    published = small(numbered(first=7_000_000_000), CODES)
    write(published, "xllm", tmp_path / "x", vocabulary_offset=5)
    content = (tmp_path / "x").read_bytes()
    assert len(content) == 20 * 40
    item_to_tokens = {}
    for item_id, *tokens in struct.iter_unpack("<qiii", content):
        item_to_tokens[item_id] = tokens
    assert item_to_tokens == {7_000_000_000 + number: [5 + a, 9 + b, 13 + c] for number, (a, b, c) in enumerate(CODES)}


def test_xllm_takes_integers_and_three_layers_only(packages: Published, small, tmp_path: Path):
    with pytest.raises(SemidError, match="item IDs must be integers"):
        write(packages, "xllm", tmp_path / "x")
    with pytest.raises(SemidError, match="3 tokens an item, this generation 2 layers"):
        write(small(["1"], [[0, 1]]), "xllm", tmp_path / "x")


def flashrec(path: Path) -> dict[tuple[int, ...], list[Any]]:
    """FlashRec 0.1.2 flashrec/search/trie.py, load_sequences_from_file: keys split at commas; pids by key."""
    data = json.loads(path.read_text(encoding="utf-8"))
    return {tuple(int(part) for part in key.split(",")): [e["pid"] for e in entries] for key, entries in data.items()}


def test_flashrec(packages: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("semid_daemon.store.read.export_items._CHUNK_ROWS", 7)  # buckets across chunks
    out = tmp_path / "sid2pid.json"
    write(packages, "flashrec", out)
    assert flashrec(out) == {(*row.codes, row.suffix): [row.item_id] for row in packages.rows}
    (warning,) = write(packages, "flashrec", out, compact=True).warnings
    assert "the list of a key grows" in warning
    by_codes: dict[tuple[int, ...], list[str]] = {}
    for row in sorted(packages.rows, key=lambda row: row.suffix):
        by_codes.setdefault(tuple(row.codes), []).append(row.item_id)
    assert flashrec(out) == by_codes


def test_flashrecs_own_trie(packages: Published, tmp_path: Path):
    trie = pytest.importorskip("flashrec.search.trie")
    write(packages, "flashrec", tmp_path / "sid2pid.json")
    sizes = [K, K, K, max(row.suffix for row in packages.rows) + 1]
    assert trie.is_sid2vid_json(tmp_path / "sid2pid.json")
    built = trie.build_trie_from_sid2vid_file(tmp_path / "sid2pid.json", token_base=0, codebook_sizes=sizes)
    assert built.max_depth == 4
    assert sorted(trie.load_sequences_from_file(tmp_path / "sid2pid.json")) == sorted(
        [*row.codes, row.suffix] for row in packages.rows
    )


def test_trie_npz(packages: Published, tmp_path: Path):
    """Walked from the root: the paths are the rows. youtube/static-constraint-decoding static_decoding/csr_utils.py,
    build_static_index, takes `sids`: sorted, distinct, int32.
    """
    out = tmp_path / "trie.npz"
    write(packages, "trie-npz", out, vocabulary_offset=10)
    data = np.load(out)  # allow_pickle is False
    expected = sorted([*row.codes, row.suffix] for row in packages.rows)
    assert data["sids"].dtype == data["token_ids"].dtype == np.int32
    assert data["sids"].tolist() == expected
    assert (data["token_ids"] - data["sids"] == [10, 10 + K, 10 + 2 * K, 10 + 3 * K]).all()
    assert np.unique(data["sids"], axis=0).tolist() == expected

    indptr, tokens = data["indptr"], data["tokens"]
    assert len(indptr) == len(tokens) + 2
    walked = [((), 0)]
    for _ in range(4):
        walked = [
            ((*path, int(tokens[edge])), edge + 1)
            for path, node in walked
            for edge in range(indptr[node], indptr[node + 1])
        ]
    assert [list(path) for path, _ in walked] == data["token_ids"].tolist()
    by_id = {(*row.codes, row.suffix): row.item_id for row in packages.rows}
    assert [by_id[tuple(sid)] for sid in data["sids"].tolist()] == data["item_ids"].tolist()
    assert data["item_ptr"].tolist() == list(range(len(expected) + 1))


def test_trie_npz_of_shared_ids(small, tmp_path: Path):
    published = small(["1", "2", "3"], [[1, 1], [1, 1], [1, 0]], collisions="shared")
    write(published, "trie-npz", tmp_path / "x")
    data = np.load(tmp_path / "x")
    assert data["sids"].tolist() == [[1, 0], [1, 1]]
    assert (data["item_ptr"].tolist(), data["item_ids"].tolist()) == ([0, 1, 3], [3, 1, 2])
    assert (data["tokens"].tolist(), data["indptr"].tolist()) == ([1, 4, 5], [0, 1, 3, 3, 3])


def test_rectokens_own_trie_is_the_same(packages: Published, tmp_path: Path):
    schemas = pytest.importorskip("rectokens.schemas.compact_csr_trie")
    write(packages, "trie-npz", tmp_path / "trie.npz")
    data = np.load(tmp_path / "trie.npz")
    token_ids = torch.from_numpy(data["token_ids"]).long()
    vocabulary = int(token_ids.max()) + 1
    built = schemas.CompactCSRTrie.from_sorted_batch(token_ids, vocabulary)
    assert built.stacked_cols_vals[0, :-1].tolist() == data["tokens"].tolist()
    inner = int(np.flatnonzero(np.diff(data["indptr"]))[-1]) + 1  # leaves have no rows there
    assert built.row_ptrs[:inner].tolist() == data["indptr"][:inner].tolist()


def test_added_tokens(small, tmp_path: Path):
    """`added_tokens.json` of a Hugging Face tokenizer: token to number, and its keys the list for `add_tokens`."""
    published = small(["a", "b"], [[1, 1], [1, 1]])
    out = tmp_path / "added_tokens.json"
    write(published, "added-tokens", out, vocabulary_offset=100)
    added = json.loads(out.read_text())
    assert added == {
        **{f"<a_{code}>": 100 + code for code in range(4)},
        **{f"<b_{code}>": 104 + code for code in range(4)},
        "<c_0>": 108,
        "<c_1>": 109,
    }
    assert list(added.values()) == list(range(100, 110))
    # The same numbers as in the catalogue of an engine.
    write(published, "sid-gr", tmp_path / "c.jsonl", vocabulary_offset=100)
    write(published, "index-json", tmp_path / "i.json")
    names = json.loads((tmp_path / "i.json").read_text()).values()
    lines = (tmp_path / "c.jsonl").read_text().splitlines()
    assert [[added[token] for token in tokens] for tokens in names] == [json.loads(line)["token_ids"] for line in lines]


def test_templates_of_tokens(small, tmp_path: Path):
    published = small(["a"], [[0, 3]])
    write(published, "index-json", tmp_path / "i.json", token_templates=("<item_L{level}_C{code}>",))
    assert json.loads((tmp_path / "i.json").read_text())["0"] == ["<item_L0_C0>", "<item_L1_C3>", "<item_L2_C0>"]
    one_each = ("<x{code}>", "<y{code}>", "<end{code}>")
    write(published, "tokens", tmp_path / "t.json", token_templates=one_each, first_code=1)
    assert json.loads((tmp_path / "t.json").read_text())["trie"] == {"<x1>": {"<y4>": {"<end1>": {}}}}


@pytest.mark.parametrize(
    ("templates", "says"),
    [
        (("<a>",), "holds {code}"),
        (("<a_{code}>",), "holds {layer}"),
        (("<a_{code}>", "<b_{code}>"), "once, or 3 times"),
        (("<a_{code}>", "<b_{code}>", "<a_{code}>"), "two layers have the same"),
    ],
)
def test_templates_that_tell_nothing_apart_are_refused(small, tmp_path: Path, templates: tuple[str, ...], says: str):
    published = small(["a"], [[0, 3]])
    with pytest.raises(SemidError, match=says):
        write(published, "tokens", tmp_path / "x", token_templates=templates)
    with pytest.raises(SemidError, match="holds no texts of tokens"):
        write(published, "csv", tmp_path / "x", token_templates=templates)


def test_flashrecs_own_layout_of_the_tokenizer(packages: Published, tmp_path: Path):
    layout = pytest.importorskip("flashrec.sid_layout")
    template = ("<s_{layer}_{code}>",)
    write(packages, "added-tokens", tmp_path / "added_tokens.json", token_templates=template, vocabulary_offset=50)
    layers, _, _ = layout.parse_codebook_layers(layout.load_added_token_map(str(tmp_path)))
    suffixes = max(row.suffix for row in packages.rows) + 1
    firsts = [50, 50 + K, 50 + 2 * K, 50 + 3 * K]
    assert layers == [(first, first + size - 1, size) for first, size in zip(firsts, [K, K, K, suffixes], strict=True)]
