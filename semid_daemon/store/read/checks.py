"""The checks of `semid doctor`: in one read-only snapshot, every count against the rows themselves."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from semid_daemon.store.read.connection import ReadConnection

_TIMEOUT_S = 10.0
KEPT = "status NOT IN ('deleting', 'deleted') ORDER BY generation"  # of a generation whose codebooks are needed
_SHOWN = "generation NOT IN (SELECT generation FROM _generations WHERE status = 'deleting')"
# By the text of a fault: a query that counts its cases.
_DISAGREEMENTS = {
    "files whose rows are not the sum of their chunks": """
        SELECT count(*) FROM _files f
            WHERE (f.rows_done, f.rows_assigned, f.rows_rejected, f.rows_kept, f.rows_replaced) IS NOT
                   (SELECT coalesce(sum(c.rows), 0), coalesce(sum(c.assigned), 0), coalesce(sum(c.rejected), 0),
                    coalesce(sum(c.kept), 0), coalesce(sum(c.replaced), 0) FROM _chunks c WHERE c.file_id = f.id)
    """,
    "done files without all of their rows": """
        SELECT count(*) FROM _files WHERE status = 'done' AND rows_done IS NOT rows
    """,
    "files whose left out rows are not the sum of their reasons": """
        SELECT count(*) FROM _files f WHERE f.rows_rejected IS NOT
            (SELECT coalesce(sum(r.rows), 0) FROM _rejected_rows r WHERE r.file_id = f.id)
    """,
    "an active generation whose items are not the rows that assigned an ID": """
        SELECT count(*) FROM _generations g WHERE g.status = 'active' AND g.items IS NOT
            (SELECT coalesce(sum(c.assigned), 0) FROM _chunks c)
    """,
    "generations whose items are not counted right": """
        SELECT count(*) FROM _generations g WHERE g.status != 'deleting' AND g.items IS NOT
            (SELECT count(*) FROM _items i WHERE i.generation = g.generation)
    """,
    "generations whose exact duplicates are not counted right": """
        SELECT count(*) FROM _generations g WHERE g.status != 'deleting'
            AND g.items - g.exact_duplicates IS NOT (SELECT count(*) FROM
            (SELECT DISTINCT i.semantic_id, i.content FROM _items i WHERE i.generation = g.generation))
    """,
    "items whose chunk is not there": """
        SELECT count(*) FROM _items i WHERE NOT EXISTS (SELECT 1 FROM _chunks c WHERE c.id = i.chunk_id)
    """,
    "items whose generation is not there": """
        SELECT count(*) FROM _items i WHERE NOT EXISTS (SELECT 1 FROM _generations g WHERE g.generation = i.generation)
    """,
    "semantic IDs whose bucket is not counted right": """
        SELECT count(*) FROM
            (SELECT semantic_id, generation, count(*) AS items, max(suffix) AS last, count(DISTINCT suffix) AS suffixes
             FROM _items GROUP BY semantic_id, generation) i
            LEFT JOIN _buckets b USING (semantic_id, generation)
            JOIN _generations g USING (generation)
            WHERE g.status != 'deleting' AND (coalesce(b.items, 1) IS NOT i.items
                OR coalesce(b.next_suffix, 1) <= i.last
                OR i.suffixes IS NOT iif(g.collisions = 'shared', 1, i.items))
    """,
    "buckets with items that are not there": """
        SELECT count(*) FROM _buckets b JOIN _generations g USING (generation)
            WHERE b.items > 0 AND g.status != 'deleting' AND NOT EXISTS
            (SELECT 1 FROM _items i WHERE i.semantic_id = b.semantic_id AND i.generation = b.generation)
    """,
    "beginnings of two codes that are not counted right": f"""
        WITH counted AS (SELECT generation, first, second, items FROM _prefix_counts WHERE items != 0 AND {_SHOWN}),
             present AS (
                 SELECT generation, CAST(semantic_id AS INTEGER) AS first,
                        CAST(substr(semantic_id, instr(semantic_id, '-') + 1) AS INTEGER) AS second,
                        sum(items) AS items
                 FROM (SELECT generation, semantic_id, count(*) AS items FROM _items GROUP BY semantic_id, generation)
                 WHERE semantic_id GLOB '*-*' AND {_SHOWN} GROUP BY 1, 2, 3)
        SELECT (SELECT count(*) FROM (SELECT * FROM counted EXCEPT SELECT * FROM present))
             + (SELECT count(*) FROM (SELECT * FROM present EXCEPT SELECT * FROM counted))
    """,
    "statuses whose files are not counted right": """
        SELECT count(*) FROM (
            SELECT status, files, size_bytes FROM _file_counts WHERE files != 0
            EXCEPT SELECT status, count(*), sum(size_bytes) FROM _files GROUP BY status)
    """,
    "files that go on with a generation that is not active": """
        SELECT count(*) FROM _files f JOIN _generations g USING (generation)
            WHERE f.status IN ('loading', 'deferred') AND g.status != 'active'
    """,
    "bucket sizes that are not counted right": f"""
        SELECT count(*) FROM (
            SELECT generation, items, count(*) AS buckets
            FROM (SELECT generation, count(*) AS items FROM _items GROUP BY semantic_id, generation)
            WHERE {_SHOWN} GROUP BY generation, items
            EXCEPT SELECT generation, size, buckets FROM _bucket_sizes)
    """,
    "generations whose distinct IDs, singletons or largest bucket are not counted right": """
        SELECT count(*) FROM _generations g WHERE g.status != 'deleting'
            AND (g.distinct_ids, g.singletons, g.max_bucket) IS NOT
            (SELECT coalesce(sum(b.buckets), 0), coalesce(sum(b.buckets) FILTER (WHERE b.size = 1), 0),
             coalesce(max(b.size), 0) FROM _bucket_sizes b WHERE b.generation = g.generation)
    """,
}


_IN_FILES = """
    SELECT f.digest, f.size_bytes, json_group_array(s.name) FROM _files f JOIN _sightings s ON s.file_id = f.id
        WHERE EXISTS (SELECT 1 FROM _chunks c LEFT JOIN _spool p ON p.chunk_id = c.id
            WHERE c.file_id = f.id AND c.assigned + c.replaced > 0 AND p.chunk_id IS NULL)
        GROUP BY f.id ORDER BY f.id
"""


_DONE_NAMES = """
    SELECT s.name, f.digest, f.size_bytes FROM _sightings s JOIN _files f ON f.id = s.file_id WHERE f.status = 'done'
"""


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A content whose rows' embeddings are in the file alone: digest, size, and the names that it was dropped under."""

    digest: str
    size_bytes: int
    names: list[str]


@dataclass(frozen=True, slots=True)
class DatabaseReport:
    """`faults` are disagreements in words; the lists and counts are for further checks.

    `spool_ends` are the bytes that the database knows of every segment of the spool. `deferred` and `rejected` count
    contents, as the status does; `deferred_names` and `rejected_names` count their names. `done_names` are name, digest
    and size in bytes of everything that was finished.
    """

    faults: list[str]
    fingerprints: list[str]
    deferred: int
    rejected: int
    items: int
    spool_ends: dict[int, int]
    in_files: list[KeptFile]
    rejected_names: int
    deferred_names: int
    done_names: list[tuple[str, str, int]]


def check_database(path: Path) -> DatabaseReport:
    """Compare every count with its rows, in one snapshot. Raises UnavailableError where the database cannot be read."""
    with ReadConnection(path, _TIMEOUT_S) as connection, connection.snapshot():
        rows = connection.rows
        faults = [f"integrity: {text}" for (text,) in rows("PRAGMA integrity_check(10)") if text != "ok"]
        broken = len(next(connection.iterate("PRAGMA foreign_key_check"), ()))
        faults += [f"references to rows that are not there: {broken:,}"] if broken else []
        for text, sql in _DISAGREEMENTS.items():
            (cases,) = connection.row(sql)
            faults += [f"{text}: {cases:,}"] if cases else []
        faults += _code_usage_faults(connection)
        files: dict[str, int] = dict(rows("SELECT status, count(*) FROM _files GROUP BY status"))
        names: dict[str, int] = dict(rows("SELECT status, count(*) FROM files GROUP BY status"))
        return DatabaseReport(
            faults=faults,
            fingerprints=[name for (name,) in rows(f"SELECT fingerprint FROM _generations WHERE {KEPT}")],
            deferred=files.get("deferred", 0),
            rejected=files.get("rejected", 0),
            items=connection.row("SELECT coalesce(sum(items), 0) FROM _generations")[0],
            spool_ends=dict(rows("SELECT segment, max(first_byte + size_bytes) FROM _spool GROUP BY segment")),
            in_files=[KeptFile(digest, size, json.loads(names)) for digest, size, names in rows(_IN_FILES)],
            rejected_names=names.get("rejected", 0),
            deferred_names=names.get("deferred", 0),
            done_names=[(name, digest, size) for name, digest, size in rows(_DONE_NAMES)],
        )


def _code_usage_faults(connection: ReadConnection) -> list[str]:
    used: Counter[tuple[int, int, int]] = Counter()
    for rows in connection.iterate(f"SELECT generation, semantic_id FROM _items WHERE {_SHOWN}"):
        for generation, semantic_id in rows:
            for layer, code in enumerate(semantic_id.split("-")):
                used[generation, layer, int(code)] += 1
    counted = {
        (generation, layer, code): items
        for generation, layer, code, items in connection.rows(
            f"SELECT generation, layer, code, items FROM _code_usage WHERE items > 0 AND {_SHOWN}"
        )
    }
    wrong = sum(used[key] != counted.get(key, 0) for key in used.keys() | counted.keys())
    return [f"codes whose use is not counted right: {wrong:,}"] if wrong else []
