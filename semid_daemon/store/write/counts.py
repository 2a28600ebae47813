"""Counts that follow from a generation's items: code usage, bucket sizes, prefixes, and codebook health."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from semid_daemon.base.clock import utc_now
from semid_daemon.base.types import CodeArray
from semid_daemon.store.layout import BITS, prefix_key
from semid_daemon.store.write.bulk import insert_rows
from semid_daemon.store.write.database import Database
from semid_daemon.store.write.health import layer_health
from semid_daemon.store.write.placement import Integers

_HEALTH_GROWTH = 1.01  # of the catalogue, from one kept state of codebook health to the next
_TABLES = ("_bucket_sizes", "_prefix_counts", "_health_history", "_code_usage", "_layer_health")


class CatalogueCounts:
    """Counts per generation. After every transaction they equal what the items themselves say."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._usage_by_generation: dict[int, npt.NDArray[np.int64]] = {}

    def invalidate(self) -> None:
        """Drop the cached usage: it is read anew when it is needed."""
        self._usage_by_generation.clear()

    def create(self, generation: int, layers: int, codebook_size: int) -> None:
        """Create the counts of a generation without items."""
        usage_LK = np.zeros((layers, codebook_size), dtype=np.int64)
        with self._database.transaction() as connection:
            connection.executemany(
                "INSERT INTO _code_usage (generation, layer, code, items) VALUES (?, ?, ?, 0)",
                [(generation, layer, code) for layer, code in np.ndindex(*usage_LK.shape)],
            )
            self._write_health(generation, usage_LK)

    def delete(self, generation: int) -> None:
        """Delete a generation's counts."""
        with self._database.transaction() as connection:
            for table in _TABLES:
                connection.execute(f"DELETE FROM {table} WHERE generation = ?", (generation,))
        self._usage_by_generation.pop(generation, None)

    def usage(self, generation: int) -> npt.NDArray[np.int64]:
        """Items per code (L×K), cached between chunks: this connection is the only writer."""
        if generation not in self._usage_by_generation:
            shape = self._database.read_one(
                "SELECT layers, codebook_size FROM _generations WHERE generation = ?", generation
            )
            usage_LK = np.zeros(shape, dtype=np.int64)
            for layer, code, items in self._database.read(
                "SELECT layer, code, items FROM _code_usage WHERE generation = ?", generation
            ):
                usage_LK[layer, code] = items
            self._usage_by_generation[generation] = usage_LK
        return self._usage_by_generation[generation]

    def count_items(self, generation: int, items: int, duplicates: int) -> None:
        """Add to a generation's number of items, and of items whose embedding their bucket has already."""
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE _generations SET items = items + ?, exact_duplicates = exact_duplicates + ?"
                " WHERE generation = ?",
                (items, duplicates, generation),
            )

    def count_sizes(self, generation: int, before_S: Integers, after_S: Integers) -> None:
        """Update the histogram of bucket sizes, and the generation's columns that follow from it.

        `before_S` and `after_S` are the items of the buckets that changed, 0 where there are none.
        """
        sizes, where = np.unique(np.concatenate([before_S, after_S]), return_inverse=True)
        change = np.bincount(where, np.repeat([-1, 1], [len(before_S), len(after_S)]))
        changes = [(int(size), int(by)) for size, by in zip(sizes, change, strict=True) if size and by]
        with self._database.transaction() as connection:
            connection.executemany(
                "INSERT INTO _bucket_sizes (generation, size, buckets) VALUES (?, ?, 0) ON CONFLICT DO NOTHING",
                [(generation, size) for size, _ in changes],
            )
            connection.executemany(
                "UPDATE _bucket_sizes SET buckets = buckets + ? WHERE generation = ? AND size = ?",
                [(by, generation, size) for size, by in changes],
            )
            connection.execute("DELETE FROM _bucket_sizes WHERE generation = ? AND buckets = 0", (generation,))
            connection.execute(
                "UPDATE _generations SET (distinct_ids, singletons, max_bucket) ="
                " (SELECT coalesce(sum(buckets), 0), coalesce(sum(buckets) FILTER (WHERE size = 1), 0),"
                " coalesce(max(size), 0) FROM _bucket_sizes b WHERE b.generation = _generations.generation)"
                " WHERE generation = ?",
                (generation,),
            )

    def count_codes(self, generation: int, entering_NL: CodeArray, left: Sequence[str]) -> None:
        """Update the usage, prefixes and health by items that entered and semantic IDs that items left.

        `entering_NL` (N×L) are the codes of the items that entered a bucket.
        """
        before_LK = self.usage(generation)
        layers, codebook_size = before_LK.shape
        left_NL = np.array([semantic_id.split("-") for semantic_id in left], dtype=np.int64).reshape(-1, layers)
        change_LK = np.stack(
            [
                np.bincount(entering_NL[:, layer], minlength=codebook_size)
                - np.bincount(left_NL[:, layer], minlength=codebook_size)
                for layer in range(layers)
            ]
        )
        usage_LK = before_LK + change_LK
        with self._database.transaction() as connection:
            connection.executemany(
                "UPDATE _code_usage SET items = items + ? WHERE generation = ? AND layer = ? AND code = ?",
                [
                    (int(change_LK[layer, code]), generation, int(layer), int(code))
                    for layer, code in np.argwhere(change_LK)
                ],
            )
            self._count_prefixes(generation, codebook_size, entering_NL, left_NL)
            self._write_health(generation, usage_LK)
            self._keep_health(generation, usage_LK)
        self._usage_by_generation[generation] = usage_LK

    def _count_prefixes(self, generation: int, codebook_size: int, entering_NL: CodeArray, left_NL: Integers) -> None:
        """Update the items per prefix of two codes, which a tree shows without counting."""
        if entering_NL.shape[1] < 2:
            return
        codes_N2 = np.concatenate([entering_NL[:, :2], left_NL[:, :2]]).astype(np.int64)
        pairs, where = np.unique(codes_N2[:, 0] * codebook_size + codes_N2[:, 1], return_inverse=True)
        change = np.bincount(where, np.repeat([1, -1], [len(entering_NL), len(left_NL)])).astype(np.int64)
        changed = np.flatnonzero(change)
        firsts, seconds = np.divmod(pairs[changed], codebook_size)
        keys = prefix_key(generation) | firsts << BITS | seconds
        with self._database.transaction() as connection:
            insert_rows(
                connection,
                "INSERT INTO _prefix_counts (id, items) VALUES {}"
                " ON CONFLICT DO UPDATE SET items = items + excluded.items",
                [keys.tolist(), change[changed].tolist()],
            )

    def _write_health(self, generation: int, usage_LK: npt.NDArray[np.int64]) -> None:
        with self._database.transaction() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO _layer_health (generation, layer, coverage, dead_codes, perplexity)"
                " VALUES (?, ?, ?, ?, ?)",
                [
                    (generation, health.layer, health.coverage, health.dead_codes, health.perplexity)
                    for health in layer_health(usage_LK)
                ],
            )

    def _keep_health(self, generation: int, usage_LK: npt.NDArray[np.int64]) -> None:
        """Keep the health at this size of the catalogue, if it has grown by a hundredth since the last time."""
        items = int(usage_LK[0].sum())
        last = self._database.read_one("SELECT max(items) FROM _health_history WHERE generation = ?", generation)[0]
        if items <= (last or 0) * _HEALTH_GROWTH:
            return
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO _health_history (generation, items, layer, coverage, dead_codes, perplexity, at)"
                " SELECT generation, ?, layer, coverage, dead_codes, perplexity, ? FROM _layer_health"
                " WHERE generation = ?",
                (items, utc_now(), generation),
            )
