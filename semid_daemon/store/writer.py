"""The one connection that writes: the ledger of files, the items, generations, metrics and events."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from semid_daemon.errors import StoreError
from semid_daemon.records import CodeArray, Codebooks, EmbeddingBatch, TrainingStep
from semid_daemon.store.clock import utc_now
from semid_daemon.store.health import layer_health
from semid_daemon.store.schema import connect_writer


@dataclass(frozen=True, slots=True)
class LedgerFile:
    """What the ledger says of one distinct content."""

    id: int
    digest: str
    status: str
    dim: int | None
    rows: int | None
    rows_usable: int | None
    rows_done: int
    chunk_rows: int | None
    generation: int | None
    attempts: int
    reason: str | None


@dataclass(frozen=True, slots=True)
class Generation:
    """A published set of codebooks, as the ledger knows it."""

    generation: int
    fingerprint: str
    layers: int
    codebook_size: int
    dim: int
    normalize_residuals: bool
    items: int


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of rows: given an ID, already had one, or left out, and why."""

    assigned: int
    kept: int
    rejected: int
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """One measured value; `layer` is None where it concerns all of them."""

    name: str
    value: float
    layer: int | None = None


_LEDGER_COLUMNS = (
    "f.id, f.digest, f.status, f.dim, f.rows, f.rows_usable, f.rows_done, f.chunk_rows, f.generation,"
    " f.attempts, f.reason"
)
# Of a row of _files: "not finite: 3, empty item ID: 1", or NULL.
_REJECTED_IN_WORDS = (
    "SELECT group_concat(r.reason || ': ' || r.rows, ', ') FROM _rejected_rows r WHERE r.file_id = _files.id"
)


class Writer:
    """All writing goes through one instance, in the process that holds the state lock.

    Every public method is one transaction, or part of none: after a kill at any moment the database
    holds all of a call or nothing of it.
    """

    def __init__(self, path: Path) -> None:
        self._database = connect_writer(path)
        self._connection: sqlite3.Connection = self._database.conn
        self._usage_by_generation: dict[int, npt.NDArray[np.int64]] = {}

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        # IMMEDIATE: sqlite-utils' atomic() begins deferred, where a read then a write may find the
        # snapshot stale.
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
        except BaseException:
            # After SQLITE_FULL and its like SQLite has rolled back already.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        try:
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    # -- the ledger of files ---------------------------------------------------------------------

    def known_digest(self, name: str, signature: str) -> LedgerFile | None:
        """The content last seen under this name with this very signature, if any: saves hashing."""
        row = self._connection.execute(
            f"SELECT {_LEDGER_COLUMNS} FROM _sightings s JOIN _files f ON f.id = s.file_id"
            " WHERE s.name = ? AND s.signature = ?",
            (name, signature),
        ).fetchone()
        return LedgerFile(*row) if row else None

    def record_sighting(self, name: str, signature: str, digest: str, size_bytes: int) -> LedgerFile:
        """Note that a content was seen under a name; a content never seen before starts as pending."""
        now = utc_now()
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO _files (digest, size_bytes, seen_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                (digest, size_bytes, now),
            )
            file = self._file_where("f.digest = ?", digest)
            assert file is not None
            connection.execute(
                "INSERT INTO _sightings (name, file_id, signature, seen_at) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (name, file_id) DO UPDATE SET signature = excluded.signature",
                (name, file.id, signature, now),
            )
            if file.status == "deferred":
                connection.execute("UPDATE _files SET status = 'pending', reason = NULL WHERE id = ?", (file.id,))
        return self.file(file.id)

    def file(self, file_id: int) -> LedgerFile:
        """The ledger's entry; raises KeyError for an ID it never gave."""
        file = self._file_where("f.id = ?", file_id)
        if file is None:
            raise KeyError(file_id)
        return file

    def _file_where(self, condition: str, value: int | str) -> LedgerFile | None:
        row = self._connection.execute(f"SELECT {_LEDGER_COLUMNS} FROM _files f WHERE {condition}", (value,)).fetchone()
        return LedgerFile(*row) if row else None

    def unfinished_files(self) -> list[LedgerFile]:
        """Entries that are neither done nor rejected."""
        rows = self._connection.execute(
            f"SELECT {_LEDGER_COLUMNS} FROM _files f WHERE f.status IN ('pending', 'loading', 'deferred') ORDER BY f.id"
        )
        return [LedgerFile(*row) for row in rows]

    def tally(self, file_id: int) -> Tally:
        """What the file's committed rows came to, and why some were left out."""
        row = self._connection.execute(
            "SELECT rows_assigned, rows_kept, rows_rejected, reason FROM _files WHERE id = ?", (file_id,)
        ).fetchone()
        return Tally(*row)

    def set_surveyed(self, file_id: int, *, rows: int, dim: int, rows_usable: int) -> None:
        """Note what a file waiting for the first generation holds."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE _files SET rows = ?, dim = ?, rows_usable = ? WHERE id = ? AND status = 'pending'",
                (rows, dim, rows_usable, file_id),
            )

    def reject(self, file_id: int, reason: str) -> None:
        """This content will never be usable. Rows of it that are committed already stay."""
        self._set_status(file_id, "rejected", reason)

    def defer(self, file_id: int, reason: str) -> None:
        """Not now: the machine's fault, or the file went away. Seen again, it is taken up where it stopped."""
        self._set_status(file_id, "deferred", reason)

    def _set_status(self, file_id: int, status: str, reason: str) -> None:
        finished_at = utc_now() if status == "rejected" else None
        with self._transaction() as connection:
            connection.execute(
                "UPDATE _files SET status = ?, reason = ?, finished_at = ? WHERE id = ? AND status != 'done'",
                (status, reason, finished_at, file_id),
            )

    def begin_loading(self, file_id: int, *, rows: int, dim: int, generation: int, chunk_rows: int) -> LedgerFile:
        """Fix the file's generation and chunk bounds, count the attempt, and return where to resume.

        A file begun before keeps the bounds and the generation it began with. A file without rows is done.
        """
        with self._transaction() as connection:
            connection.execute(
                "UPDATE _files SET status = 'loading', rows = ?, dim = ?, attempts = attempts + 1,"
                f" reason = ({_REJECTED_IN_WORDS}),"
                " generation = coalesce(generation, ?), chunk_rows = coalesce(chunk_rows, ?)"
                " WHERE id = ? AND status IN ('pending', 'loading', 'deferred')",
                (rows, dim, generation, chunk_rows, file_id),
            )
            connection.execute(
                "UPDATE _files SET status = 'done', finished_at = ? WHERE id = ? AND status = 'loading' AND rows = 0",
                (utc_now(), file_id),
            )
        return self.file(file_id)

    # -- generations -----------------------------------------------------------------------------

    def active_generation(self) -> Generation | None:
        """The generation that new rows are encoded with."""
        row = self._connection.execute(
            "SELECT generation, fingerprint, layers, codebook_size, dim, normalize_residuals, items"
            " FROM _generations WHERE status = 'active'"
        ).fetchone()
        if row is None:
            return None
        number, fingerprint, layers, codebook_size, dim, normalize_residuals, items = row
        return Generation(number, fingerprint, layers, codebook_size, dim, bool(normalize_residuals), items)

    def fingerprint(self, generation: int) -> str:
        """The fingerprint of a generation's codebooks; raises KeyError for one there never was."""
        row = self._connection.execute(
            "SELECT fingerprint FROM _generations WHERE generation = ?", (generation,)
        ).fetchone()
        if row is None:
            raise KeyError(generation)
        return str(row[0])

    def fingerprints(self) -> set[str]:
        """The fingerprints of every generation."""
        return {name for (name,) in self._connection.execute("SELECT fingerprint FROM _generations")}

    def publish_generation(self, fingerprint: str, codebooks: Codebooks, *, trained_rows: int) -> Generation:
        """Make codebooks, already safe on disk under their fingerprint, the active generation."""
        with self._transaction() as connection:
            connection.execute("UPDATE _generations SET status = 'retired' WHERE status = 'active'")
            number = connection.execute("SELECT coalesce(max(generation), 0) + 1 FROM _generations").fetchone()[0]
            connection.execute(
                "INSERT INTO _generations (generation, fingerprint, layers, codebook_size, dim,"
                " normalize_residuals, trained_rows, status, published_at) VALUES (?,?,?,?,?,?,?,'active',?)",
                (
                    number,
                    fingerprint,
                    codebooks.layers,
                    codebooks.codebook_size,
                    codebooks.dim,
                    int(codebooks.normalize_residuals),
                    trained_rows,
                    utc_now(),
                ),
            )
            usage_LK = np.zeros((codebooks.layers, codebooks.codebook_size), dtype=np.int64)
            connection.executemany(
                "INSERT INTO _code_usage (generation, layer, code, items) VALUES (?, ?, ?, 0)",
                [(number, layer, code) for layer, code in np.ndindex(*usage_LK.shape)],
            )
            self._write_health(number, usage_LK)
        generation = self.active_generation()
        assert generation is not None
        return generation

    # -- rows ------------------------------------------------------------------------------------

    def commit_chunk(
        self, file: LedgerFile, batch: EmbeddingBatch, codes_NL: CodeArray, metrics: Sequence[Metric] = ()
    ) -> Tally:
        """One chunk of a loading file, all of it or nothing: IDs, suffixes, counts, metrics, progress.

        `codes_NL` are the codes (N×L) of the batch's usable rows. An item that has an ID in this
        generation, from an earlier file or an earlier row, keeps it. Suffixes continue within each
        semantic ID. Raises StoreError when the ledger is not where the caller believes (fencing).
        """
        generation = file.generation
        if generation is None or file.rows is None:
            raise StoreError(f"file {file.id}: chunk committed before begin_loading")
        rows_done = batch.first_row + batch.rows_read
        now = utc_now()
        with self._transaction() as connection:
            new = self._rows_without_id(generation, batch.item_ids)
            kept = len(batch.item_ids) - len(new)
            finished = rows_done == file.rows
            moved_on = connection.execute(
                "UPDATE _files SET rows_done = ?, rows_assigned = rows_assigned + ?,"
                " rows_rejected = rows_rejected + ?, rows_kept = rows_kept + ?,"
                " status = ?, finished_at = ?"
                " WHERE id = ? AND status = 'loading' AND generation = ? AND rows_done = ?",
                (
                    rows_done,
                    len(new),
                    batch.rows_rejected,
                    kept,
                    "done" if finished else "loading",
                    now if finished else None,
                    file.id,
                    generation,
                    batch.first_row,
                ),
            ).rowcount
            if moved_on != 1:
                raise StoreError(
                    f"file {file.id}: the ledger is not at row {batch.first_row}; another writer? nothing was committed"
                )
            chunk_id = connection.execute(
                "INSERT INTO _chunks (file_id, generation, first_row, rows, assigned, rejected, kept, committed_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    file.id,
                    generation,
                    batch.first_row,
                    batch.rows_read,
                    len(new),
                    batch.rows_rejected,
                    kept,
                    now,
                ),
            ).lastrowid
            assert chunk_id is not None
            usage_LK = self._insert_items(generation, chunk_id, batch.item_ids, codes_NL, new)
            self._count_rejected(file.id, batch)
            self._insert_metrics(f"ingest-{generation}", chunk_id, metrics, now)
        self._usage_by_generation[generation] = usage_LK
        return Tally(assigned=len(new), kept=kept, rejected=batch.rows_rejected)

    def _count_rejected(self, file_id: int, batch: EmbeddingBatch) -> None:
        """Add a chunk's rows at fault to the file's counts by reason, and put those into words in `reason`."""
        if not batch.rejected:
            return
        self._connection.executemany(
            "INSERT INTO _rejected_rows (file_id, reason, rows) VALUES (?, ?, ?)"
            " ON CONFLICT (file_id, reason) DO UPDATE SET rows = rows + excluded.rows",
            [(file_id, reason, rows) for reason, rows in batch.rejected.items()],
        )
        self._connection.execute(f"UPDATE _files SET reason = ({_REJECTED_IN_WORDS}) WHERE id = ?", (file_id,))

    def _rows_without_id(self, generation: int, item_ids: list[str]) -> list[int]:
        """Positions of the first occurrence of each item that has no ID yet."""
        known = {
            item_id
            for (item_id,) in self._connection.execute(
                "SELECT item_id FROM _items WHERE generation = ? AND item_id IN (SELECT value FROM json_each(?))",
                (generation, json.dumps(item_ids)),
            )
        }
        first: dict[str, int] = {}
        for position, item_id in enumerate(item_ids):
            if item_id not in known:
                first.setdefault(item_id, position)
        return list(first.values())

    def _insert_items(
        self, generation: int, chunk_id: int, item_ids: list[str], codes_NL: CodeArray, new: list[int]
    ) -> npt.NDArray[np.int64]:
        usage_LK = self._usage(generation)
        if not new:
            return usage_LK
        new_codes_NL = codes_NL[new]
        semantic_ids = ["-".join(map(str, row)) for row in new_codes_NL.tolist()]
        next_suffix: dict[str, int] = {
            semantic_id: 0 if last is None else last + 1
            for semantic_id, last in self._connection.execute(
                "SELECT j.value, (SELECT max(suffix) FROM _items WHERE generation = ? AND semantic_id = j.value)"
                " FROM json_each(?) j",
                (generation, json.dumps(sorted(set(semantic_ids)))),
            )
        }
        before = dict(next_suffix)
        rows = []
        for position, semantic_id in zip(new, semantic_ids, strict=True):
            suffix = next_suffix[semantic_id]
            next_suffix[semantic_id] = suffix + 1
            rows.append((generation, item_ids[position], semantic_id, suffix, chunk_id))
        rows.sort(key=lambda row: row[1])  # in key order: fewer page visits
        self._connection.executemany(
            "INSERT INTO _items (generation, item_id, semantic_id, suffix, chunk_id) VALUES (?, ?, ?, ?, ?)",
            rows,
        )
        # Suffixes run 0, 1, 2… without holes, so the next one is also the bucket's size.
        singletons = sum(next_suffix[sid] == 1 for sid in before) - sum(size == 1 for size in before.values())
        self._connection.execute(
            "UPDATE _generations SET items = items + ?, distinct_ids = distinct_ids + ?,"
            " singletons = singletons + ?, max_bucket = max(max_bucket, ?) WHERE generation = ?",
            (
                len(new),
                sum(size == 0 for size in before.values()),
                singletons,
                max(next_suffix.values()),
                generation,
            ),
        )
        added_LK = np.stack([np.bincount(codes_N, minlength=usage_LK.shape[1]) for codes_N in new_codes_NL.T])
        self._connection.executemany(
            "UPDATE _code_usage SET items = items + ? WHERE generation = ? AND layer = ? AND code = ?",
            [(int(added_LK[layer, code]), generation, int(layer), int(code)) for layer, code in np.argwhere(added_LK)],
        )
        usage_LK = usage_LK + added_LK
        self._write_health(generation, usage_LK)
        return usage_LK

    def _usage(self, generation: int) -> npt.NDArray[np.int64]:
        """Items per code (L×K), kept in memory between chunks: this connection is the only writer."""
        if generation not in self._usage_by_generation:
            shape = self._connection.execute(
                "SELECT layers, codebook_size FROM _generations WHERE generation = ?", (generation,)
            ).fetchone()
            usage_LK = np.zeros(shape, dtype=np.int64)
            for layer, code, items in self._connection.execute(
                "SELECT layer, code, items FROM _code_usage WHERE generation = ?", (generation,)
            ):
                usage_LK[layer, code] = items
            self._usage_by_generation[generation] = usage_LK
        return self._usage_by_generation[generation]

    def _write_health(self, generation: int, usage_LK: npt.NDArray[np.int64]) -> None:
        self._connection.executemany(
            "INSERT OR REPLACE INTO _layer_health (generation, layer, coverage, dead_codes, perplexity)"
            " VALUES (?, ?, ?, ?, ?)",
            [
                (generation, health.layer, health.coverage, health.dead_codes, health.perplexity)
                for health in layer_health(usage_LK)
            ],
        )

    # -- what the daemon tells -------------------------------------------------------------------

    def next_training_run(self) -> str:
        """A name for the next training's metrics: train-1, train-2…"""
        trained = self._connection.execute(
            "SELECT count(DISTINCT run) FROM _metrics WHERE run GLOB 'train-*'"
        ).fetchone()[0]
        return f"train-{trained + 1}"

    def add_training_steps(self, run: str, steps: Sequence[TrainingStep]) -> None:
        """Record the loss of training steps, in one transaction."""
        now = utc_now()
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO _metrics (run, step, layer, name, value, at) VALUES (?, ?, ?, 'loss', ?, ?)",
                [(run, step.step, step.layer, step.loss, now) for step in steps],
            )

    def _insert_metrics(self, run: str, step: int, metrics: Sequence[Metric], now: str) -> None:
        self._connection.executemany(
            "INSERT INTO _metrics (run, step, layer, name, value, at) VALUES (?, ?, ?, ?, ?, ?)",
            [(run, step, metric.layer, metric.name, metric.value, now) for metric in metrics],
        )

    def add_event(self, level: str, message: str) -> None:
        """Record what happened, for people: level is info, warning or error."""
        with self._transaction() as connection:
            connection.execute("INSERT INTO _events (at, level, message) VALUES (?, ?, ?)", (utc_now(), level, message))

    def daemon_started(self, pid: int, device: str, version: str) -> None:
        """A daemon took over this database."""
        now = utc_now()
        with self._transaction() as connection:
            connection.execute(
                "UPDATE _daemon SET pid = ?, state = 'starting', detail = '', device = ?, version = ?,"
                " started_at = ?, heartbeat_at = ?",
                (pid, device, version, now, now),
            )

    def heartbeat(self, state: str, detail: str = "") -> None:
        """The daemon lives, and is in this state: idle, gathering, training, encoding, stopped."""
        with self._transaction() as connection:
            connection.execute("UPDATE _daemon SET state = ?, detail = ?, heartbeat_at = ?", (state, detail, utc_now()))
