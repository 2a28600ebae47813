"""The database's schema as numbered migrations.

Tables start with an underscore and are semid's own to change; the views without one are the
contract that users query. Applied with sqlite-utils' migrations, each in its own transaction.
"""

from __future__ import annotations

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from semid_daemon.base.failpoints import failpoint
from semid_daemon.store.layout import APPLICATION_ID, BITS, SCHEMA_VERSION

__all__ = ["APPLICATION_ID", "SCHEMA_VERSION", "migrations"]

migrations = Migrations("semid")


def _revised(name: str, table: str) -> list[str]:
    """Triggers that count up a revision with every change of a table."""
    count_up = f"UPDATE _revisions SET revision = revision + 1 WHERE name = '{name}'"
    return [
        f"CREATE TRIGGER {table}_revised_{kind.lower()} AFTER {kind} ON {table} BEGIN {count_up}; END"
        for kind in ("INSERT", "UPDATE", "DELETE")
    ]


_M001 = [
    # One row per distinct content. The digest is the identity; names are only sightings of it.
    """
    CREATE TABLE _files (
        id INTEGER PRIMARY KEY,
        digest TEXT NOT NULL UNIQUE,
        size_bytes INTEGER NOT NULL,
        status TEXT NOT NULL DEFAULT 'pending'
            CHECK (status IN ('pending', 'loading', 'done', 'rejected', 'deferred')),
        dim INTEGER,
        rows INTEGER,
        rows_usable INTEGER,
        rows_done INTEGER NOT NULL DEFAULT 0,
        rows_assigned INTEGER NOT NULL DEFAULT 0,
        rows_rejected INTEGER NOT NULL DEFAULT 0,
        rows_kept INTEGER NOT NULL DEFAULT 0,
        rows_replaced INTEGER NOT NULL DEFAULT 0,
        rows_repeated INTEGER NOT NULL DEFAULT 0,
        rows_zero INTEGER NOT NULL DEFAULT 0,
        chunk_rows INTEGER,
        generation INTEGER REFERENCES _generations(generation),
        trained_in INTEGER REFERENCES _generations(generation),
        reason TEXT,
        attempts INTEGER NOT NULL DEFAULT 0,
        failures INTEGER NOT NULL DEFAULT 0,
        retry_at TEXT,
        seen_at TEXT NOT NULL,
        finished_at TEXT,
        CHECK (rows_done = rows_assigned + rows_rejected + rows_kept + rows_replaced)
    ) STRICT
    """,
    "CREATE INDEX _files_by_status ON _files(status)",
    # Where a content was seen. The signature only saves hashing an unchanged file again; the root is
    # the identity of the drop directory then, which tells a deleted file from an unmounted directory.
    """
    CREATE TABLE _sightings (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        file_id INTEGER NOT NULL REFERENCES _files(id),
        signature TEXT NOT NULL,
        root TEXT NOT NULL,
        seen_at TEXT NOT NULL,
        UNIQUE (name, file_id)
    ) STRICT
    """,
    "CREATE INDEX _sightings_by_file ON _sightings(file_id)",
    # Files that a process had in hand when it died, and how often at the same row.
    """
    CREATE TABLE _suspects (
        name TEXT NOT NULL,
        signature TEXT NOT NULL,
        first_row INTEGER NOT NULL,
        deaths INTEGER NOT NULL,
        PRIMARY KEY (name, signature)
    ) STRICT, WITHOUT ROWID
    """,
    """
    -- encoded_through: of a generation that is not active, the last chunk whose items it has. trained_through:
    -- chunks after this one are new to it. trained_*: what its training rows came to, which new rows are judged by.
    CREATE TABLE _generations (
        generation INTEGER PRIMARY KEY,
        fingerprint TEXT NOT NULL,
        layers INTEGER NOT NULL,
        codebook_size INTEGER NOT NULL,
        dim INTEGER NOT NULL,
        normalize_residuals INTEGER NOT NULL,
        trained_rows INTEGER NOT NULL,
        status TEXT NOT NULL
            CHECK (status IN ('preparing', 'ready', 'active', 'retired', 'deleting', 'deleted')),
        origin TEXT NOT NULL DEFAULT 'first' CHECK (origin IN ('first', 'candidate', 'anew', 'imported')),
        based_on INTEGER REFERENCES _generations(generation),
        collisions TEXT NOT NULL DEFAULT 'suffix' CHECK (collisions IN ('suffix', 'next-best', 'shared')),
        bucket_capacity INTEGER NOT NULL DEFAULT 1 CHECK (bucket_capacity > 0),
        encoded_through INTEGER NOT NULL DEFAULT 0,
        trained_through INTEGER NOT NULL DEFAULT 0,
        trained_error REAL,
        trained_error_p99 REAL,
        trained_counts BLOB,
        requested_by TEXT,
        switched_by TEXT,
        created_at TEXT NOT NULL,
        published_at TEXT,
        retired_at TEXT,
        items INTEGER NOT NULL DEFAULT 0,
        distinct_ids INTEGER NOT NULL DEFAULT 0,
        singletons INTEGER NOT NULL DEFAULT 0,
        max_bucket INTEGER NOT NULL DEFAULT 0,
        exact_duplicates INTEGER NOT NULL DEFAULT 0
    ) STRICT
    """,
    # What a generation's candidate has learned, and rows that wait until there are enough for a step.
    """
    CREATE TABLE _candidates (
        generation INTEGER PRIMARY KEY REFERENCES _generations(generation),
        fingerprint TEXT NOT NULL,
        steps INTEGER NOT NULL,
        rows INTEGER NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE _candidate_layers (
        generation INTEGER NOT NULL REFERENCES _candidates(generation),
        layer INTEGER NOT NULL,
        centroids BLOB NOT NULL,
        counts BLOB NOT NULL,
        PRIMARY KEY (generation, layer)
    ) STRICT
    """,
    """
    CREATE TABLE _candidate_rows (
        generation INTEGER NOT NULL REFERENCES _generations(generation),
        chunk_id INTEGER NOT NULL REFERENCES _chunks(id),
        embeddings BLOB NOT NULL,
        PRIMARY KEY (generation, chunk_id)
    ) STRICT
    """,
    """
    CREATE TABLE _drift (
        generation INTEGER PRIMARY KEY REFERENCES _generations(generation),
        state BLOB NOT NULL
    ) STRICT
    """,
    # Where a chunk's embeddings are kept, in files of the state directory.
    """
    CREATE TABLE _spool (
        chunk_id INTEGER PRIMARY KEY REFERENCES _chunks(id),
        segment INTEGER NOT NULL,
        first_byte INTEGER NOT NULL,
        size_bytes INTEGER NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE _comparisons (
        old INTEGER NOT NULL REFERENCES _generations(generation),
        new INTEGER NOT NULL REFERENCES _generations(generation),
        name TEXT NOT NULL,
        layer INTEGER,
        old_value REAL,
        new_value REAL,
        at TEXT NOT NULL
    ) STRICT
    """,
    "CREATE INDEX _comparisons_by_generations ON _comparisons(old, new)",
    "CREATE UNIQUE INDEX _generations_by_fingerprint ON _generations(fingerprint) WHERE status != 'deleted'",
    "CREATE UNIQUE INDEX _generations_one_active ON _generations(status) WHERE status = 'active'",
    # One row per committed transaction of rows: the ledger's finest grain.
    """
    CREATE TABLE _chunks (
        id INTEGER PRIMARY KEY,
        file_id INTEGER NOT NULL REFERENCES _files(id),
        generation INTEGER NOT NULL REFERENCES _generations(generation),
        first_row INTEGER NOT NULL,
        rows INTEGER NOT NULL,
        assigned INTEGER NOT NULL,
        rejected INTEGER NOT NULL,
        kept INTEGER NOT NULL,
        replaced INTEGER NOT NULL,
        committed_at TEXT NOT NULL,
        UNIQUE (file_id, first_row),
        CHECK (rows = assigned + rejected + kept + replaced)
    ) STRICT
    """,
    """
    CREATE TABLE _rejected_rows (
        file_id INTEGER NOT NULL REFERENCES _files(id),
        reason TEXT NOT NULL,
        rows INTEGER NOT NULL,
        PRIMARY KEY (file_id, reason)
    ) STRICT, WITHOUT ROWID
    """,
    # Rows lie in the order in which they came, so that only the two indexes, whose entries are small, are written to
    # all over. Their keys begin with what is looked up, not with the generation: of an index that begins with the
    # generation the planner believes, without statistics, that its first column alone is selective. No foreign keys:
    # looking both up for every row costs a tenth of the commit; `semid doctor` does it.
    """
    CREATE TABLE _items (
        generation INTEGER NOT NULL,
        item_id TEXT NOT NULL,
        semantic_id TEXT NOT NULL,
        suffix INTEGER NOT NULL,
        content INTEGER NOT NULL,
        chunk_id INTEGER NOT NULL
    ) STRICT
    """,
    "CREATE UNIQUE INDEX _items_by_item_id ON _items(item_id, generation)",
    # With the content (a hash of the embedding), so that exact duplicates are found within a bucket
    # however large it is.
    "CREATE INDEX _items_by_semantic_id ON _items(semantic_id, generation, content)",
    # A bucket's size and its next suffix: the same number until an item is replaced and leaves a hole. Of a bucket
    # that never had but one item, and has it still, nothing is said here: most are such.
    """
    CREATE TABLE _buckets (
        semantic_id TEXT NOT NULL,
        generation INTEGER NOT NULL REFERENCES _generations(generation),
        items INTEGER NOT NULL CHECK (items >= 0),
        next_suffix INTEGER NOT NULL CHECK (next_suffix >= items),
        PRIMARY KEY (semantic_id, generation)
    ) STRICT, WITHOUT ROWID
    """,
    # How many buckets have each size: the largest one stays exact when buckets shrink.
    """
    CREATE TABLE _bucket_sizes (
        generation INTEGER NOT NULL REFERENCES _generations(generation),
        size INTEGER NOT NULL CHECK (size > 0),
        buckets INTEGER NOT NULL CHECK (buckets >= 0),
        PRIMARY KEY (generation, size)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE _code_usage (
        generation INTEGER NOT NULL REFERENCES _generations(generation),
        layer INTEGER NOT NULL,
        code INTEGER NOT NULL,
        items INTEGER NOT NULL,
        PRIMARY KEY (generation, layer, code)
    ) STRICT, WITHOUT ROWID
    """,
    # Items per beginning of two codes; of one code _code_usage tells. One integer is the key, since very many counts
    # change with every chunk, and by a key of three columns that takes three times as long.
    f"""
    CREATE TABLE _prefix_counts (
        id INTEGER PRIMARY KEY,
        items INTEGER NOT NULL,
        generation INTEGER NOT NULL AS (id >> {2 * BITS}),
        first INTEGER NOT NULL AS (id >> {BITS} & {(1 << BITS) - 1}),
        second INTEGER NOT NULL AS (id & {(1 << BITS) - 1})
    ) STRICT
    """,
    """
    CREATE TABLE _layer_health (
        generation INTEGER NOT NULL REFERENCES _generations(generation),
        layer INTEGER NOT NULL,
        coverage REAL NOT NULL,
        dead_codes INTEGER NOT NULL,
        perplexity REAL NOT NULL,
        PRIMARY KEY (generation, layer)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE _metrics (
        id INTEGER PRIMARY KEY,
        run TEXT NOT NULL,
        step INTEGER NOT NULL,
        layer INTEGER,
        name TEXT NOT NULL,
        value REAL NOT NULL,
        at TEXT NOT NULL
    ) STRICT
    """,
    "CREATE INDEX _metrics_by_run ON _metrics(run, name, layer, step)",
    # Training loss by 10, 100 and 1,000 steps, the first of them a multiple plus one: what a chart of any
    # length draws without reading every step. `total` is the sum of the losses.
    """
    CREATE TABLE _loss_rollups (
        run TEXT NOT NULL,
        layer INTEGER NOT NULL,
        span INTEGER NOT NULL,
        step INTEGER NOT NULL,
        steps INTEGER NOT NULL,
        low REAL NOT NULL,
        high REAL NOT NULL,
        total REAL NOT NULL,
        PRIMARY KEY (run, layer, span, step)
    ) STRICT, WITHOUT ROWID
    """,
    # Codebook health as the catalogue grew: a sample whenever it has grown by a hundredth.
    """
    CREATE TABLE _health_history (
        generation INTEGER NOT NULL REFERENCES _generations(generation),
        items INTEGER NOT NULL,
        layer INTEGER NOT NULL,
        coverage REAL NOT NULL,
        dead_codes INTEGER NOT NULL,
        perplexity REAL NOT NULL,
        at TEXT NOT NULL,
        PRIMARY KEY (generation, items, layer)
    ) STRICT, WITHOUT ROWID
    """,
    # The last value of each figure that the daemon tells of itself and of its machine.
    """
    CREATE TABLE _gauges (
        name TEXT PRIMARY KEY,
        value REAL,
        text TEXT,
        at TEXT NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE _events (
        id INTEGER PRIMARY KEY,
        at TEXT NOT NULL,
        level TEXT NOT NULL CHECK (level IN ('info', 'warning', 'error')),
        message TEXT NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE _daemon (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        pid INTEGER,
        state TEXT NOT NULL,
        detail TEXT NOT NULL DEFAULT '',
        device TEXT,
        version TEXT,
        started_at TEXT,
        heartbeat_at TEXT,
        paused_at TEXT
    ) STRICT
    """,
    "INSERT INTO _daemon (id, state) VALUES (1, 'never started')",
    """
    CREATE TABLE _commands (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        command TEXT NOT NULL,
        arguments TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('accepted', 'done', 'failed')),
        requested_at TEXT NOT NULL,
        answered_at TEXT,
        answer TEXT
    ) STRICT
    """,
    # Kept by triggers: files by status, and how often files, commands and generations have changed, so that who
    # looks every second need not count.
    """
    CREATE TABLE _file_counts (
        status TEXT PRIMARY KEY,
        files INTEGER NOT NULL DEFAULT 0,
        size_bytes INTEGER NOT NULL DEFAULT 0
    ) STRICT, WITHOUT ROWID
    """,
    "INSERT INTO _file_counts (status) VALUES ('pending'), ('loading'), ('done'), ('rejected'), ('deferred')",
    """
    CREATE TRIGGER _files_counted AFTER INSERT ON _files BEGIN
        UPDATE _file_counts SET files = files + 1, size_bytes = size_bytes + new.size_bytes WHERE status = new.status;
    END
    """,
    """
    CREATE TRIGGER _files_recounted AFTER UPDATE OF status ON _files WHEN old.status != new.status BEGIN
        UPDATE _file_counts SET files = files - 1, size_bytes = size_bytes - old.size_bytes WHERE status = old.status;
        UPDATE _file_counts SET files = files + 1, size_bytes = size_bytes + new.size_bytes WHERE status = new.status;
    END
    """,
    """
    CREATE TRIGGER _files_discounted AFTER DELETE ON _files BEGIN
        UPDATE _file_counts SET files = files - 1, size_bytes = size_bytes - old.size_bytes WHERE status = old.status;
    END
    """,
    "CREATE TABLE _revisions (name TEXT PRIMARY KEY, revision INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    "INSERT INTO _revisions VALUES ('files', 0), ('commands', 0), ('generations', 0)",
    *_revised("files", "_files"),
    *_revised("files", "_sightings"),
    *_revised("commands", "_commands"),
    *_revised("generations", "_generations"),
    # The contract: views.
    """
    CREATE VIEW all_semantic_ids AS
    SELECT i.item_id, i.semantic_id, i.suffix, i.generation,
           (SELECT name FROM _sightings s WHERE s.file_id = c.file_id ORDER BY s.id LIMIT 1) AS file,
           c.committed_at AS assigned_at
    FROM _items i JOIN _chunks c ON c.id = i.chunk_id
    WHERE i.generation NOT IN (SELECT generation FROM _generations WHERE status = 'deleting')
    """,
    """
    CREATE VIEW semantic_ids AS
    SELECT i.item_id, i.semantic_id, i.suffix, i.generation,
           (SELECT name FROM _sightings s WHERE s.file_id = c.file_id ORDER BY s.id LIMIT 1) AS file,
           c.committed_at AS assigned_at
    FROM _items i JOIN _chunks c ON c.id = i.chunk_id
    WHERE i.generation = (SELECT generation FROM _generations WHERE status = 'active')
    """,
    # A content seen under a second name adds no rows: all its usable rows are kept ones.
    """
    CREATE VIEW files AS
    SELECT s.name AS file, f.status, f.rows, f.rows_rejected,
           CASE WHEN s.id = first.id THEN f.rows_kept
                ELSE f.rows_kept + f.rows_assigned + f.rows_replaced END AS rows_kept,
           CASE WHEN s.id = first.id OR f.reason IS NOT NULL THEN f.reason
                ELSE 'same bytes as ' || first.name END AS reason,
           f.attempts, s.seen_at, f.finished_at,
           CASE WHEN s.id = first.id THEN f.rows_replaced ELSE 0 END AS rows_replaced,
           f.rows_repeated, f.rows_zero, f.retry_at
    FROM _sightings s
    JOIN _files f ON f.id = s.file_id
    JOIN _sightings first
      ON first.id = (SELECT min(id) FROM _sightings WHERE file_id = s.file_id)
    """,
    """
    CREATE VIEW generations AS
    SELECT generation, fingerprint, layers, codebook_size, dim, normalize_residuals,
           items, trained_rows, status, published_at, origin, based_on, collisions, bucket_capacity, created_at
    FROM _generations
    """,
    "CREATE VIEW code_usage AS SELECT generation, layer, code, items FROM _code_usage",
    "CREATE VIEW layer_health AS SELECT generation, layer, coverage, dead_codes, perplexity FROM _layer_health",
    "CREATE VIEW metrics AS SELECT run, step, layer, name, value, at FROM _metrics",
    "CREATE VIEW events AS SELECT at, level, message FROM _events",
    """
    CREATE VIEW daemon AS
    SELECT pid, state, detail, device, version, started_at, heartbeat_at, paused_at FROM _daemon
    """,
    "CREATE VIEW gauges AS SELECT name, value, text, at FROM _gauges",
    """
    CREATE VIEW loss AS
    SELECT run, layer, span, step, steps, low, high, total / steps AS mean FROM _loss_rollups
    UNION ALL
    SELECT run, layer, 1, step, 1, value, value, value FROM _metrics WHERE name = 'loss'
    """,
    """
    CREATE VIEW prefix_counts AS
    SELECT generation, CAST(code AS TEXT) AS prefix, items FROM _code_usage WHERE layer = 0 AND items > 0
    UNION ALL
    SELECT generation, first || '-' || second, items FROM _prefix_counts WHERE items > 0
    """,
    """
    CREATE VIEW health_history AS
    SELECT generation, items, layer, coverage, dead_codes, perplexity, at FROM _health_history
    """,
    """
    CREATE VIEW comparisons AS
    SELECT old, new, name, layer, old_value, new_value, at FROM _comparisons
    """,
    """
    CREATE VIEW commands AS
    SELECT command, arguments, state, requested_at, answered_at, answer FROM _commands
    """,
]


@migrations()
def m001_initial(db: Database) -> None:
    """The ledger, the items, the generations and the views over them."""
    for statement in _M001:
        db.execute(statement)
    failpoint("migrating")
    db.execute("PRAGMA user_version = 1")


# One table in FROM: SQLite then takes a view that is joined by LEFT JOIN apart, and finds its rows by index.
_ITEM_COLUMNS = """
    i.item_id, i.semantic_id, i.suffix, i.generation,
    (SELECT s.name FROM _chunks c JOIN _sightings s ON s.file_id = c.file_id
     WHERE c.id = i.chunk_id ORDER BY s.id LIMIT 1) AS file,
    (SELECT c.committed_at FROM _chunks c WHERE c.id = i.chunk_id) AS assigned_at
"""
_M002 = [
    "DROP VIEW all_semantic_ids",
    "DROP VIEW semantic_ids",
    f"""
    CREATE VIEW all_semantic_ids AS SELECT {_ITEM_COLUMNS} FROM _items i
    WHERE i.generation NOT IN (SELECT generation FROM _generations WHERE status = 'deleting')
    """,
    f"""
    CREATE VIEW semantic_ids AS SELECT {_ITEM_COLUMNS} FROM _items i
    WHERE i.generation = (SELECT generation FROM _generations WHERE status = 'active')
    """,
]


@migrations()
def m002_views_by_index(db: Database) -> None:
    """Views that are read by index however they are joined."""
    for statement in _M002:
        db.execute(statement)
    db.execute("PRAGMA user_version = 2")
