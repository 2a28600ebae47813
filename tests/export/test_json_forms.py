"""JSON forms, read back as their consumers do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from semid_daemon.store.read.export_items import Selection
from tests.export.published import K, Published, row_map, write


def test_index_json(packages: Published, tmp_path: Path):
    """LC-Rec data.py:38-65 (LETTER-TIGER/data.py the same): `json.load`, get_new_tokens, get_all_items by
    `"".join(index)`; _remap_items asks for `self.indices[str(i)]`. MiniOneRec convert_dataset.py:21-23 and
    sft.py, TokenExtender, read the same file, data.py the first three tokens of each list.
    """
    out = tmp_path / "packages.index.json"
    write(packages, "index-json", out)
    rows = packages.expected()
    assert row_map(out) == [row.item_id for row in rows]
    with out.open() as file:
        indices = json.load(file)
    assert list(indices) == [str(number) for number in range(len(rows))]
    assert {len(index) for index in indices.values()} == {4}
    for i, row in enumerate(rows):
        a, b, c = row.codes
        assert indices[str(i)] == [f"<a_{a}>", f"<b_{b}>", f"<c_{c}>", f"<d_{row.suffix}>"]
    assert len({"".join(index) for index in indices.values()}) == len(rows)
    new_tokens = sorted({token for index in indices.values() for token in index})
    assert len(new_tokens) <= 3 * K + max(row.suffix for row in rows) + 1


def test_index_json_has_no_suffix_in_its_compact_form_without_collisions(small, tmp_path: Path):
    published = small(["a", "b"], [[0, 1], [0, 2]])
    write(published, "index-json", tmp_path / "i.json")
    assert json.loads((tmp_path / "i.json").read_text())["0"] == ["<a_0>", "<b_1>", "<c_0>"]
    write(published, "index-json", tmp_path / "i.json", compact=True)
    assert json.loads((tmp_path / "i.json").read_text()) == {"0": ["<a_0>", "<b_1>"], "1": ["<a_0>", "<b_2>"]}


def test_index_json_of_a_part_looks_like_the_whole(packages: Published, tmp_path: Path):
    alone = next(row for row in packages.rows if row.bucket == 1)
    prefix = "-".join(map(str, alone.codes))
    write(packages, "index-json", tmp_path / "i.json", Selection(prefix=prefix))
    (tokens,) = json.loads((tmp_path / "i.json").read_text()).values()
    assert tokens[3] == "<d_0>"


def test_rpg(packages: Published, tmp_path: Path):
    """facebookresearch/RPG_KDD2025 genrec/models/RPG/tokenizer.py:284 `json.load`, :235-241 adds
    `codebook_size * digit + 1` to every digit.
    """
    out = tmp_path / "packages.sem_ids"
    write(packages, "rpg", out)
    item2sem_ids = json.loads(out.read_text())
    assert item2sem_ids == {row.item_id: row.codes for row in packages.rows}
    tokens = [code + K * digit + 1 for digit, code in enumerate(item2sem_ids["numpy"])]
    assert all(K * digit + 1 <= token <= K * (digit + 1) for digit, token in enumerate(tokens))


def test_tokens(packages: Published, tmp_path: Path):
    """A prefix trie of nested objects, walked as a constrained decoder does: at every step only the keys below the
    tokens so far are allowed (transformers' `prefix_allowed_tokens_fn`).
    """
    out = tmp_path / "tokens.json"
    write(packages, "tokens", out)
    loaded = json.loads(out.read_text())
    letters = {"a": K, "b": K, "c": K, "d": max(row.suffix for row in packages.rows) + 1}
    assert loaded["tokens"] == [f"<{letter}_{code}>" for letter, size in letters.items() for code in range(size)]

    def ids(trie: dict, so_far: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
        if not trie:
            yield so_far
        for token, below in trie.items():
            yield from ids(below, (*so_far, token))

    write(packages, "index-json", tmp_path / "i.json")
    expected = {tuple(index) for index in json.loads((tmp_path / "i.json").read_text()).values()}
    found = list(ids(loaded["trie"]))
    assert len(found) == len(expected)
    assert set(found) == expected


def test_tokens_without_collisions(small, tmp_path: Path):
    published = small(["a", "b", "c"], [[0, 1], [0, 2], [3, 0]])
    write(published, "tokens", tmp_path / "t.json")
    loaded = json.loads((tmp_path / "t.json").read_text())
    assert loaded["trie"]["<a_3>"] == {"<b_0>": {"<c_0>": {}}}
    assert loaded["tokens"][-1] == "<c_0>"
    write(published, "tokens", tmp_path / "t.json", compact=True)
    loaded = json.loads((tmp_path / "t.json").read_text())
    assert loaded["trie"] == {"<a_0>": {"<b_1>": {}, "<b_2>": {}}, "<a_3>": {"<b_0>": {}}}
    assert loaded["tokens"] == [f"<{letter}_{code}>" for letter in "ab" for code in range(4)]
