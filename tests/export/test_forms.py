"""Every form read back in the way its consumer does, and compared row by row with the database."""

from __future__ import annotations

import csv
import json
import pickle
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from semid_daemon.base.errors import SemidError
from semid_daemon.base.types import Codebooks, EmbeddingBatch, FloatArray
from semid_daemon.codebooks.files import save_codebooks
from semid_daemon.export.forms import FORMS, form_named
from semid_daemon.export.writing import Exported, export
from semid_daemon.quantizer import Encoder, LloydTrainer
from semid_daemon.store.read.export_items import Catalogue, Selection
from semid_daemon.store.write.writer import Writer

EVERYTHING = Selection()
K = 32  # few codes, so that many packages collide


@dataclass(frozen=True)
class Row:
    item_id: str
    codes: list[int]
    suffix: int
    bucket: int
    assigned_at: str


@dataclass(frozen=True)
class Published:
    """A catalogue of packages, what its database says by plain SQL, and its codebooks."""

    database: Path
    rows: list[Row]
    codebooks: Codebooks
    embeddings_ND: FloatArray

    def expected(self) -> list[Row]:
        return sorted(self.rows, key=lambda row: (len(row.item_id), row.item_id))


def publish(path: Path, codebooks: Codebooks, item_ids: list[str], embeddings_ND: FloatArray, step: int) -> Published:
    fingerprint = save_codebooks(path / "codebooks", codebooks, {})
    encoder = Encoder(codebooks, torch.device("cpu"))
    with Writer(path / "semid.db") as writer:
        writer.publish_generation(fingerprint, codebooks, trained_rows=len(item_ids))
        ledger = writer.record_sighting("items.npz", "sig", "digest", 1)
        ledger = writer.begin_loading(ledger.id, rows=len(item_ids), dim=codebooks.dim, generation=1, chunk_rows=step)
        for start in range(0, len(item_ids), step):
            part = slice(start, start + step)
            batch = EmbeddingBatch(start, len(item_ids[part]), item_ids[part], embeddings_ND[part])
            writer.commit_chunk(writer.file(ledger.id), batch, encoder.encode(batch.embeddings_ND))
    return read_back(path / "semid.db", codebooks, embeddings_ND)


def read_back(database: Path, codebooks: Codebooks, embeddings_ND: FloatArray) -> Published:
    with closing(sqlite3.connect(database)) as connection:
        found = connection.execute("SELECT item_id, semantic_id, suffix, assigned_at FROM semantic_ids").fetchall()
    buckets = Counter(semantic_id for _, semantic_id, _, _ in found)
    rows = [
        Row(item_id, [int(code) for code in semantic_id.split("-")], suffix, buckets[semantic_id], assigned_at)
        for item_id, semantic_id, suffix, assigned_at in found
    ]
    return Published(database, rows, codebooks, embeddings_ND)


@pytest.fixture(scope="module")
def packages(popular: tuple[list[str], FloatArray], tmp_path_factory: pytest.TempPathFactory) -> Published:
    """3,618 packages in 3 layers of 32 codes, residuals as they are."""
    item_ids, embeddings_ND = popular
    trainer = LloydTrainer(
        n_layers=3,
        n_clusters=K,
        normalize_residuals=False,
        seed=1,
        device=torch.device("cpu"),
        iterations=4,
        tolerance=0.01,
    )
    for _ in trainer.train(embeddings_ND):
        pass
    published = publish(tmp_path_factory.mktemp("packages"), trainer.codebooks, item_ids, embeddings_ND, 2000)
    assert sum(row.bucket > 1 for row in published.rows) > 100
    return published


def write(published: Published, name: str, out: Path, selection: Selection = EVERYTHING, **options: object) -> Exported:
    with Catalogue(published.database) as catalogue:
        return export(
            catalogue,
            form_named(name),
            out,
            selection=selection,
            load_codebooks=lambda: published.codebooks,
            **options,  # type: ignore[arg-type]
        )


def row_map(out: Path) -> list[str]:
    item_ids: list[str] = json.loads(out.with_name(f"{out.name}.ids.json").read_text())
    return item_ids


def numbered(prefix: str = "", count: int = 40, first: int = 0) -> list[str]:
    return [f"{prefix}{number}" for number in range(first, first + count)]


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., Published]:
    """Publishes items with the codes given: `small(["a", "b"], [[0, 1], [0, 1]])`."""

    def make(item_ids: list[str], codes: list[list[int]], **policy: object) -> Published:
        random = np.random.default_rng(0)
        codebooks = Codebooks(random.normal(size=(len(codes[0]), 4, 2)).astype(np.float32), False)
        with Writer(tmp_path / "semid.db") as writer:
            fingerprint = save_codebooks(tmp_path / "codebooks", codebooks, {})
            writer.publish_generation(fingerprint, codebooks, trained_rows=1, **policy)
            ledger = writer.record_sighting("a.npz", "sig", "digest", 1)
            rows = len(item_ids)
            ledger = writer.begin_loading(ledger.id, rows=rows, dim=2, generation=1, chunk_rows=rows)
            embeddings_ND = random.normal(size=(rows, 2)).astype(np.float32)
            batch = EmbeddingBatch(0, rows, item_ids, embeddings_ND)
            writer.commit_chunk(ledger, batch, np.array(codes, dtype=np.int32))
        return read_back(tmp_path / "semid.db", codebooks, embeddings_ND)

    return make


# -- form by form --------------------------------------------------------------------------------------


def test_grid(packages: Published, tmp_path: Path):
    """snap-research/GRID src/data/loading/components/pre_processing.py, map_sparse_id_to_semantic_id:
    `id_map[:num_hierarchies].t()[v].view(-1)`; the last row as src/utils/tensor_utils.py:122,
    deduplicate_rows_in_tensor, makes it. NVIDIA/recsys-examples examples/sid_gr/data/disk_sequence_dataset.py:92-108
    checks the shape, its __iter__ takes columns by index_select.
    """
    out = tmp_path / "merged_predictions_tensor.pt"
    write(packages, "grid", out)
    rows = packages.expected()
    assert row_map(out) == [row.item_id for row in rows]

    id_map = torch.load(out)  # as both load it: weights_only, its default
    assert isinstance(id_map, torch.Tensor)
    assert (id_map.dtype, id_map.shape) == (torch.int64, (4, len(rows)))
    expected = [[*row.codes, row.suffix + 1 if row.bucket > 1 else 0] for row in rows]
    v = torch.arange(len(rows))
    assert id_map[:4].t()[v].view(-1).tolist() == [code for each in expected for code in each]
    assert torch.index_select(id_map, dim=1, index=v).transpose(0, 1).contiguous().tolist() == expected
    assert torch.equal(torch.load(out, mmap=True), id_map)

    # What GRID itself would have appended, up to who comes first in a bucket.
    data = id_map[:3].t()
    _, inverse, counts = torch.unique(data, dim=0, return_inverse=True, return_counts=True)
    for bucket in range(len(counts)):
        last = sorted(id_map[3, inverse == bucket].tolist())
        assert last == ([0] if counts[bucket] == 1 else list(range(1, int(counts[bucket]) + 1)))


def test_grid_in_several_chunks_and_empty(packages: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(packages, "grid", tmp_path / "at-once.pt")
    monkeypatch.setattr("semid_daemon.store.read.export_items._CHUNK_ROWS", 500)
    write(packages, "grid", tmp_path / "chunks.pt")
    assert (tmp_path / "chunks.pt").read_bytes() == (tmp_path / "at-once.pt").read_bytes()
    write(packages, "grid", tmp_path / "none.pt", Selection(since="2999-01-01"))
    assert torch.load(tmp_path / "none.pt").shape == (4, 0)


def test_grid_warns_of_more_suffixes_than_codes(small, tmp_path: Path):
    published = small(numbered(count=6), [[1, 1]] * 6)
    (warning,) = write(published, "grid", tmp_path / "a.pt").warnings
    assert "goes up to 6, beyond the 4 codes" in warning


def test_where_items_share_ids_by_policy_nothing_tells_them_apart(small, tmp_path: Path):
    published = small(["a", "b", "c"], [[1, 1], [1, 1], [2, 0]], collisions="shared")
    write(published, "grid", tmp_path / "a.pt")
    assert torch.load(tmp_path / "a.pt").tolist() == [[1, 1, 2], [1, 1, 0], [0, 0, 0]]
    write(published, "index-json", tmp_path / "i.json")
    tokens = ["<a_1>", "<b_1>"]
    assert json.loads((tmp_path / "i.json").read_text()) == {"0": tokens, "1": tokens, "2": ["<a_2>", "<b_0>"]}
    write(published, "tokens", tmp_path / "t.json")
    assert json.loads((tmp_path / "t.json").read_text())["trie"] == {"<a_1>": {"<b_1>": {}}, "<a_2>": {"<b_0>": {}}}


def test_grid_pickle(packages: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """snap-research/GRID src/utils/inference_utils.py, LocalPickleWriter._merge_files: `pickle.load(f)` gives the
    rows, and src/utils/tensor_utils.py:73, merge_list_of_keyed_tensors_to_single_tensor, takes each by its keys.
    """
    monkeypatch.setattr("semid_daemon.store.read.export_items._CHUNK_ROWS", 1001)
    out = tmp_path / "merged_predictions.pkl"
    write(packages, "grid-pickle", out)
    with out.open("rb") as file:
        data = pickle.load(file)
    assert data == [{"item_id": row.item_id, "cluster_ids": row.codes} for row in packages.expected()]


def test_grid_pickle_of_numbered_items_becomes_grids_tensor(small, tmp_path: Path):
    """The same merge, whose index is the item ID: `output_tensor[index] = torch.tensor(value)`."""
    codes = [[number % 4, number // 10] for number in range(40)]
    published = small(numbered(), codes)
    write(published, "grid-pickle", tmp_path / "a.pkl")
    data = pickle.loads((tmp_path / "a.pkl").read_bytes())
    output_tensor = torch.zeros((len(data), *torch.tensor(data[0]["cluster_ids"]).size()))
    for row in data:
        assert row["item_id"] < len(data)
        output_tensor[row["item_id"]] = torch.tensor(row["cluster_ids"])
    assert output_tensor.tolist() == codes


def test_npy(packages: Published, tmp_path: Path):
    """XiaoLongtaoo/TIGER model/dataset.py:75-93, item2code: `np.load(code_path, allow_pickle=True)`, row i is item
    i + 1, codes shifted by `c + i * codebook_size + 1`.
    """
    out = tmp_path / "packages_t5_rqvae.npy"
    write(packages, "npy", out)
    rows = packages.expected()
    assert row_map(out) == [row.item_id for row in rows]
    data = np.load(out, allow_pickle=True)
    assert (data.dtype, data.shape) == (np.int64, (len(rows), 4))
    code_to_item = {}
    for index, code in enumerate(data):
        offsets = [c + i * K + 1 for i, c in enumerate(code)]
        code_to_item[tuple(offsets)] = index + 1
    assert len(code_to_item) == len(rows)  # the suffix tells all apart
    assert data.tolist() == [[*row.codes, row.suffix] for row in rows]


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


def test_index_json_without_collisions_has_no_suffix(small, tmp_path: Path):
    published = small(["a", "b"], [[0, 1], [0, 2]])
    write(published, "index-json", tmp_path / "i.json")
    assert json.loads((tmp_path / "i.json").read_text()) == {"0": ["<a_0>", "<b_1>"], "1": ["<a_0>", "<b_2>"]}


def test_index_json_of_a_part_looks_like_the_whole(packages: Published, tmp_path: Path):
    alone = next(row for row in packages.rows if row.bucket == 1)
    prefix = "-".join(map(str, alone.codes))
    write(packages, "index-json", tmp_path / "i.json", Selection(prefix=prefix))
    (tokens,) = json.loads((tmp_path / "i.json").read_text()).values()
    assert tokens[3] == "<d_0>"


def test_onerec(packages: Published, tmp_path: Path):
    """OpenOneRec data/onerec_data/pretrain/video_rec.py:82-83: `dict(zip(df['pid'], df['sid']))`, and :30-31 formats
    `code[0], code[1], code[2]`. `codes` is what its tokenizer writes.
    """
    out = tmp_path / "pid2sid.parquet"
    write(packages, "onerec", out)
    table = pq.read_table(out)
    assert table.column_names == ["pid", "codes", "sid"]
    pid2sid = dict(zip(table["pid"].to_pylist(), table["sid"].to_pylist(), strict=True))
    assert pid2sid == {row.item_id: row.codes for row in packages.rows}
    assert table["codes"].to_pylist() == table["sid"].to_pylist()


def test_onerec_finds_integer_pids(small, tmp_path: Path):
    """The same lookup, `if pid in pid2sid`, with pids that are int64 in the user's own tables."""
    published = small(numbered(first=1000), [[number % 4, number // 10] for number in range(40)])
    write(published, "onerec", tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet")
    pid2sid = dict(zip(table["pid"].to_numpy(), table["sid"].to_pylist(), strict=True))
    assert pid2sid[np.int64(1003)] == [3, 0]
    write(published, "onerec", tmp_path / "b.parquet", id_type="text")
    assert pq.read_table(tmp_path / "b.parquet")["pid"][0].as_py() == "1000"


def test_torcheasyrec(packages: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """TorchEasyRec tzrec/utils/sid/bundle.py:108-137, BundleManifest.from_json, which takes no other keys, and :57-68,
    artifact_read_pattern; tables as tzrec/tools/sid/resolve_sid_collisions.py, _write_map and _write_sid_groups,
    write and _codes_matrix reads them; prompts want `level_offsets[l] + code` from offset_codebook.
    """
    monkeypatch.setattr("semid_daemon.store.read.export_items._CHUNK_ROWS", 7)  # buckets across chunks
    out = tmp_path / "v1"
    write(packages, "torcheasyrec", out)
    payload = json.loads((out / "manifest.json").read_text())
    keys = {"bundle_uuid", "codebook", "capacity", "max_observed_items_per_sid", "artifacts"}
    assert set(payload) == keys
    assert payload["codebook"] == [K] * 3
    largest = max(row.bucket for row in packages.rows)
    assert payload["max_observed_items_per_sid"] == payload["capacity"] == largest
    assert {name: set(entry) for name, entry in payload["artifacts"].items()} == {
        name: {"save_type", "rows", "location"} for name in ("item_to_sid", "sid_to_items")
    }
    tables = {}
    for name, entry in payload["artifacts"].items():
        (part,) = Path(entry["location"]).glob(f"part-*.{entry['save_type']}")
        tables[name] = pq.read_table(part)
        assert tables[name].num_rows == entry["rows"]

    items = tables["item_to_sid"]
    assert items.column_names == ["item_id", "origin_codebook", "codebook", "offset_codebook", "index"]
    codes_NL = np.array(items["codebook"].combine_chunks().flatten()).reshape(-1, 3)
    assert items["origin_codebook"].to_pylist() == codes_NL.tolist()
    assert items["offset_codebook"].to_pylist() == (codes_NL + [0, K, 2 * K]).tolist()
    found = zip(items["item_id"].to_pylist(), codes_NL.tolist(), items["index"].to_pylist(), strict=True)
    assert sorted(found) == sorted((row.item_id, row.codes, row.suffix + 1) for row in packages.rows)

    groups = tables["sid_to_items"]
    assert groups.column_names == ["codebook", "offset_codebook", "itemids"]
    sid_keys = [((a * K) + b) * K + c for a, b, c in groups["codebook"].to_pylist()]
    assert sid_keys == sorted(set(sid_keys))  # one group a bucket, ascending
    by_suffix: dict[tuple[int, ...], list[str]] = {}
    for row in sorted(packages.rows, key=lambda row: row.suffix):
        by_suffix.setdefault(tuple(row.codes), []).append(row.item_id)
    assert {
        tuple(codes): item_ids
        for codes, item_ids in zip(groups["codebook"].to_pylist(), groups["itemids"].to_pylist(), strict=True)
    } == by_suffix


def test_torcheasyrec_capacity_is_the_policys(small, tmp_path: Path):
    published = small(["a", "b"], [[0, 1], [0, 1]])
    with closing(sqlite3.connect(published.database, isolation_level=None)) as connection:
        connection.execute("UPDATE _generations SET collisions = 'next-best', bucket_capacity = 5")
    write(published, "torcheasyrec", tmp_path / "v1")
    manifest = json.loads((tmp_path / "v1" / "manifest.json").read_text())
    assert (manifest["capacity"], manifest["max_observed_items_per_sid"]) == (5, 2)


def test_csv(packages: Published, tmp_path: Path):
    """al_sid (FORGE) SID_generation/generate_candidates_lv3.py, parse_sid_column_for_items: columns `item_id` and
    `SID` of a CSV, the SID split at commas into three; SID_generation/infer_SID.py writes it so.
    """
    out = tmp_path / "inference_results_batch.csv"
    write(packages, "csv", out)
    with out.open(newline="", encoding="utf-8") as file:
        found = {row["item_id"]: [int(part) for part in row["SID"].split(",")] for row in csv.DictReader(file)}
    assert found == {row.item_id: row.codes for row in packages.rows}
    assert '\nnumpy,"' in out.read_text()


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


def test_parquet(packages: Published, tmp_path: Path):
    """Read as anyone would: every column is what the view says."""
    out = tmp_path / "ids.parquet"
    write(packages, "parquet", out)
    assert pq.read_table(out).to_pylist() == [
        {
            "item_id": row.item_id,
            "semantic_id": "-".join(map(str, row.codes)),
            "suffix": row.suffix,
            "codes": row.codes,
            "generation": 1,
        }
        for row in packages.expected()
    ]


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
    assert loaded["trie"] == {"<a_0>": {"<b_1>": {}, "<b_2>": {}}, "<a_3>": {"<b_0>": {}}}
    assert loaded["tokens"] == [f"<{letter}_{code}>" for letter in "ab" for code in range(4)]


def test_faiss_gives_the_same_codes(packages: Published, tmp_path: Path):
    """FAISS's own `read_index`, and codes from `sa_encode`, which calls ResidualQuantizer::compute_codes."""
    out = tmp_path / "codebooks.faiss"
    write(packages, "faiss", out)
    index = faiss.read_index(str(out))
    assert (type(index).__name__, index.ntotal, index.rq.max_beam_size) == ("IndexResidualQuantizer", 0, 1)
    reader = faiss.unpack_bitstrings(index.sa_encode(packages.embeddings_ND), 3, 5)
    ours = Encoder(packages.codebooks, torch.device("cpu")).encode(packages.embeddings_ND)
    differ = np.flatnonzero((reader != ours).any(axis=1))
    # FAISS decides in float32: where two codes are equally near but for rounding, either may win.
    assert all(margin(packages.codebooks, packages.embeddings_ND[row]) < 1e-5 for row in differ)
    assert len(differ) <= 3


def margin(codebooks: Codebooks, embedding_D: FloatArray) -> float:
    """By how much, at its closest decision, the best code of a row beats the second best (float64)."""
    residual_D, closest = embedding_D.astype(np.float64), np.inf
    for centroids_KD in codebooks.centroids_LKD.astype(np.float64):
        squares_K = ((residual_D - centroids_KD) ** 2).sum(axis=1)
        best, second = np.sort(squares_K)[:2]
        closest = min(closest, float(second - best))
        residual_D = residual_D - centroids_KD[squares_K.argmin()]
    return closest


def test_faiss_that_is_not_installed_is_told(packages: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(SemidError, match=r"pip install 'semid\[faiss\]'"):
        write(packages, "faiss", tmp_path / "x")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"normalize_residuals": True}, "subtracts without normalizing"),
        ({"beam_width": 4}, "greedy"),
        ({"biases_LK": np.ones((3, K), np.float32)}, "greedy"),
        ({"centroids_LKD": np.ones((3, 30, 384), np.float32)}, "2\\^n codes"),
    ],
)
def test_faiss_is_refused_where_it_would_be_another_function(
    packages: Published, tmp_path: Path, change: dict, reason: str
):
    settings = {"centroids_LKD": packages.codebooks.centroids_LKD, "normalize_residuals": False, **change}
    other = Published(packages.database, [], Codebooks(**settings), packages.embeddings_ND)
    with pytest.raises(SemidError, match=reason):
        write(other, "faiss", tmp_path / "x")
    with pytest.raises(SemidError, match="holds no items"):
        write(packages, "faiss", tmp_path / "x", Selection(prefix="1"))
    assert list(tmp_path.iterdir()) == []


# -- what all forms share ------------------------------------------------------------------------------


def test_every_form_is_there():
    assert [form_named(name).name for name in FORMS] == list(FORMS)


@pytest.mark.parametrize("name", [name for name in FORMS if name != "faiss"])
def test_a_selection_that_is_empty(packages: Published, tmp_path: Path, name: str):
    exported = write(packages, name, tmp_path / "x", Selection(since="2999"))
    assert exported.rows == 0
    assert (tmp_path / "x").exists()


def test_prefix_and_since_select(packages: Published, tmp_path: Path):
    prefix = "-".join(map(str, packages.rows[0].codes[:2]))
    exported = write(packages, "rpg", tmp_path / "p", Selection(prefix=prefix))
    expected = {row.item_id for row in packages.rows if row.codes[:2] == packages.rows[0].codes[:2]}
    assert json.loads((tmp_path / "p").read_text()).keys() == expected
    assert exported.rows == len(expected)

    latest = max(row.assigned_at for row in packages.rows)
    write(packages, "rpg", tmp_path / "s", Selection(since=latest))
    expected = {row.item_id for row in packages.rows if row.assigned_at >= latest}
    assert 0 < len(expected) < len(packages.rows)
    assert json.loads((tmp_path / "s").read_text()).keys() == expected
    origin = json.loads((tmp_path / "s.semid.json").read_text())
    assert (origin["latest"], origin["rows"], origin["since"]) == (latest, len(expected), latest)
    assert origin["fingerprint"]


def test_rows_are_item_numbers_where_items_are_numbered(small, tmp_path: Path):
    """Whatever the order in which they came: 0…N-1, as numbers and not as text."""
    ids = numbered()[::-1]
    published = small(ids, [[int(item_id) % 4, int(item_id) // 10] for item_id in ids])
    assert write(published, "npy", tmp_path / "a.npy").warnings == []
    assert np.load(tmp_path / "a.npy")[:, :2].tolist() == [[number % 4, number // 10] for number in range(40)]
    assert row_map(tmp_path / "a.npy") == numbered()


def test_rows_of_a_tensor_without_ids_come_in_its_order(small, tmp_path: Path):
    """GRID's own embeddings (a 2-D tensor, row = item) get IDs from file name and row."""
    ids = numbered("merged_predictions_tensor:")[::-1]
    published = small(ids, [[0, 0]] * 40)
    write(published, "npy", tmp_path / "a.npy")
    assert row_map(tmp_path / "a.npy") == ids[::-1]


def test_a_gap_among_numbered_items_is_told(small, tmp_path: Path):
    ids = [item_id for item_id in numbered() if item_id != "7"]
    published = small(ids, [[0, 0]] * 39)
    (warning,) = write(published, "npy", tmp_path / "a.npy").warnings
    assert "rows are not item numbers" in warning


def test_integers_are_refused_where_ids_are_text(packages: Published, tmp_path: Path):
    with pytest.raises(SemidError, match="not every item ID"):
        write(packages, "parquet", tmp_path / "x", id_type="integer")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_and_a_bundle_is_not(packages: Published, tmp_path: Path):
    (tmp_path / "x").write_text("old")
    write(packages, "csv", tmp_path / "x")
    assert (tmp_path / "x").read_text().startswith("item_id")
    with pytest.raises(SemidError, match="is there already"):
        write(packages, "torcheasyrec", tmp_path / "x")
    write(packages, "torcheasyrec", tmp_path / "v1")
    with pytest.raises(SemidError, match="is there already"):
        write(packages, "torcheasyrec", tmp_path / "v1")
    with pytest.raises(SemidError, match="is a directory"):
        write(packages, "csv", tmp_path / "v1")
    with pytest.raises(SemidError, match="no such directory"):
        write(packages, "csv", tmp_path / "nowhere" / "x")


def test_an_export_that_fails_leaves_what_was_there(packages: Published, tmp_path: Path):
    (tmp_path / "x").write_text("old")

    def fail(rows: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(SemidError, match="No space left"):
        write(packages, "csv", tmp_path / "x", advance=fail)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_text() == "old"


def test_a_database_whose_count_is_wrong_is_not_exported(small, tmp_path: Path):
    published = small(["a", "b"], [[0, 1], [0, 2]])
    with closing(sqlite3.connect(published.database, isolation_level=None)) as connection:
        connection.execute("UPDATE _generations SET items = 3")
    with pytest.raises(SemidError, match="3 items are counted, 2 are there; run `semid doctor`"):
        write(published, "grid", tmp_path / "x")
    assert not list(tmp_path.glob("*x*"))


def test_what_the_snapshot_says_does_not_change_under_it(small, tmp_path: Path):
    published = small(["a", "b"], [[0, 1], [0, 2]])
    with Catalogue(published.database) as catalogue:
        with Writer(published.database) as writer:
            ledger = writer.record_sighting("b.npz", "sig", "other", 1)
            ledger = writer.begin_loading(ledger.id, rows=1, dim=2, generation=1, chunk_rows=4)
            batch = EmbeddingBatch(0, 1, ["c"], np.ones((1, 2), np.float32))
            writer.commit_chunk(ledger, batch, np.array([[3, 3]], np.int32))
        assert catalogue.count(Selection()) == 2
        assert [items.item_ids for items in catalogue.items(Selection())] == [["a", "b"]]


def test_generations_that_are_not_there(small, tmp_path: Path):
    published = small(["a"], [[0, 1]])
    with pytest.raises(SemidError, match="no generation 7; there are: 1"), Catalogue(published.database, 7):
        pass
    with closing(sqlite3.connect(published.database, isolation_level=None)) as connection:
        connection.execute("UPDATE _generations SET status = 'preparing'")
    with pytest.raises(SemidError, match="generation 1 is being prepared"), Catalogue(published.database, 1):
        pass
    Writer(tmp_path / "other.db").close()
    with pytest.raises(SemidError, match="nothing is published yet"), Catalogue(tmp_path / "other.db"):
        pass
