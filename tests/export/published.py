"""Published catalogues, and what their databases say by plain SQL."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch

from semid_daemon.base.types import Codebooks, EmbeddingBatch, FloatArray
from semid_daemon.codebooks.files import save_codebooks
from semid_daemon.export.forms import form_named
from semid_daemon.export.writing import Exported, export
from semid_daemon.quantizer import Encoder
from semid_daemon.store.read.export_items import Catalogue, Selection
from semid_daemon.store.write.generations import NewGeneration
from semid_daemon.store.write.store import Store

EVERYTHING = Selection()

K = 32  # few codes, so that many packages collide


@dataclass(frozen=True)
class Row:
    item_id: str
    codes: list[int]
    suffix: int
    bucket: int
    assigned_at: str
    chunk: int


@dataclass(frozen=True)
class Published:
    """A catalogue of packages, what its database says by plain SQL, and its codebooks."""

    database: Path
    rows: list[Row]
    codebooks: Codebooks
    embeddings_ND: FloatArray

    def expected(self) -> list[Row]:
        return sorted(self.rows, key=lambda row: (row.chunk, len(row.item_id), row.item_id))


def publish(path: Path, codebooks: Codebooks, item_ids: list[str], embeddings_ND: FloatArray, step: int) -> Published:
    fingerprint = save_codebooks(path / "codebooks", codebooks, {})
    encoder = Encoder(codebooks, torch.device("cpu"))
    with Store(path / "semid.db") as store:
        store.generations.publish(NewGeneration(fingerprint, codebooks, trained_rows=len(item_ids)))
        ledger = store.files.record_sighting("items.npz", "sig", "digest", 1)
        ledger = store.files.begin_loading(
            ledger.id, rows=len(item_ids), dim=codebooks.dim, generation=1, chunk_rows=step
        )
        for start in range(0, len(item_ids), step):
            part = slice(start, start + step)
            batch = EmbeddingBatch(start, len(item_ids[part]), item_ids[part], embeddings_ND[part])
            store.chunks.commit(store.files.get(ledger.id), batch, encoder.encode(batch.embeddings_ND))
    return read_back(path / "semid.db", codebooks, embeddings_ND)


def read_back(database: Path, codebooks: Codebooks, embeddings_ND: FloatArray) -> Published:
    with closing(sqlite3.connect(database)) as connection:
        found = connection.execute(
            "SELECT item_id, v.semantic_id, v.suffix, assigned_at, chunk_id FROM semantic_ids v"
            " JOIN _items USING (item_id, generation)"
        ).fetchall()
    buckets = Counter(semantic_id for _, semantic_id, _, _, _ in found)
    rows = [
        Row(item_id, [int(code) for code in semantic_id.split("-")], suffix, buckets[semantic_id], assigned_at, chunk)
        for item_id, semantic_id, suffix, assigned_at, chunk in found
    ]
    return Published(database, rows, codebooks, embeddings_ND)


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
