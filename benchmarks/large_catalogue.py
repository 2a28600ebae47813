"""What grows with the catalogue: appending, size, start-up, lookups, prefix searches, queries of users, memory.

    python benchmarks/large_catalogue.py --items 10000000 --directory /var/tmp

Items are committed in the daemon's chunks, with item IDs in random order (the worst case for an index) or in
ascending order. Codes are drawn with a perplexity of about 230 of 256 per layer. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import _report
import numpy as np

from semid_daemon.base.types import Codebooks, EmbeddingBatch
from semid_daemon.config import Ingest
from semid_daemon.store.read.connection import ReadConnection
from semid_daemon.store.write.generations import NewGeneration
from semid_daemon.store.write.store import Store

_LAYERS, _CODES, _DIM = 3, 256, 8


def codes_of(rows: int, generator: np.random.Generator) -> np.ndarray:
    weights_K = np.exp(-np.arange(_CODES) / 150)
    return generator.choice(_CODES, size=(rows, _LAYERS), p=weights_K / weights_K.sum()).astype(np.int32)


def item_ids(first: int, rows: int, order: str) -> list[str]:
    if order == "ascending":
        return [f"item-{number:010}" for number in range(first, first + rows)]
    # A multiplication by an odd number modulo 2**40 gives every number once, in no order.
    return [f"{number * 0x9E3779B97F % 2**40:010x}" for number in range(first, first + rows)]


def append(store: Store, items: int, chunk_rows: int, order: str, marks: int) -> list[list[str]]:
    """Commit all items; a table row per share of them."""
    generator = np.random.default_rng(1)
    store.database.limit_wal(Ingest().max_wal_mb << 20)
    codebooks = Codebooks(np.zeros((_LAYERS, _CODES, _DIM), np.float32), True)
    store.generations.publish(NewGeneration("benchmark", codebooks, trained_rows=1))
    ledger = store.files.record_sighting("items.npy", "", "benchmark", items)
    ledger = store.files.begin_loading(ledger.id, rows=items, dim=_DIM, generation=1, chunk_rows=chunk_rows)
    lines, mark = [], items // marks
    wall_s = cpu_s = longest_s = 0.0
    since = 0
    for first in range(0, items, chunk_rows):
        rows = min(chunk_rows, items - first)
        embeddings_ND = generator.normal(size=(rows, _DIM)).astype(np.float32)
        batch = EmbeddingBatch(first, rows, item_ids(first, rows, order), embeddings_ND)
        codes_NL = codes_of(rows, generator)
        started, cpu_started = time.perf_counter(), time.process_time()
        store.chunks.commit(ledger, batch, codes_NL)
        took_s = time.perf_counter() - started
        wall_s, cpu_s = wall_s + took_s, cpu_s + time.process_time() - cpu_started
        longest_s = max(longest_s, took_s)
        if (first + rows) // mark > first // mark or first + rows == items:
            done = first + rows
            _report.progress(f"{done:,} items, {(done - since) / wall_s:,.0f} rows/s")
            lines.append(
                [
                    f"{since:,} to {done:,}",
                    _report.rounded((done - since) / wall_s),
                    f"{cpu_s / (done - since) * 1e6:.1f}",
                    f"{longest_s:.2f}",
                ]
            )
            wall_s, cpu_s, longest_s, since = 0.0, 0.0, 0.0, done
    return lines


def milliseconds(run: Callable[[int], object], count: int) -> str:
    """Median and 99th percentile."""
    times = []
    for number in range(count):
        started = time.perf_counter()
        run(number)
        times.append((time.perf_counter() - started) * 1e3)
    return f"{statistics.median(times):.2f} / {sorted(times)[int(count * 0.99)]:.2f}"


# Queries of users over `ids`: the view `semantic_ids`, or a plain table with the same rows. `mine` has 1,000 item IDs,
# of which one in ten is unknown, and a number as INTEGER for each.
QUERIES = {
    "look-up of one item": "SELECT semantic_id FROM ids WHERE item_id = (SELECT item_id FROM mine LIMIT 1)",
    "IN of 1,000": "SELECT semantic_id FROM ids WHERE item_id IN (SELECT item_id FROM mine)",
    "JOIN of 1,000": "SELECT semantic_id FROM mine JOIN ids ON ids.item_id = mine.item_id",
    "LEFT JOIN of 1,000": "SELECT semantic_id FROM mine LEFT JOIN ids ON ids.item_id = mine.item_id",
    "LEFT JOIN of 1,000 numbers, CAST": "SELECT semantic_id FROM mine"
    " LEFT JOIN ids ON ids.item_id = CAST(mine.number AS TEXT)",
    "NOT EXISTS of 1,000": "SELECT item_id FROM mine WHERE NOT EXISTS"
    " (SELECT 1 FROM ids WHERE ids.item_id = mine.item_id)",
    "NOT IN of 1,000": "SELECT item_id FROM mine WHERE item_id NOT IN (SELECT item_id FROM ids)",
    "prefix by GLOB": "SELECT item_id FROM ids WHERE semantic_id GLOB '12-50-*'",
    "prefix by LIKE": "SELECT item_id FROM ids WHERE semantic_id LIKE '12-50-%'",
    "ORDER BY item_id LIMIT 10": "SELECT * FROM ids ORDER BY item_id LIMIT 10",
    "ORDER BY semantic_id LIMIT 10": "SELECT * FROM ids ORDER BY semantic_id LIMIT 10",
    "count(*)": "SELECT count(*) FROM ids",
    "GROUP BY semantic_id": "SELECT semantic_id, count(*) FROM ids GROUP BY semantic_id ORDER BY 2 DESC LIMIT 10",
    "all rows": "SELECT item_id, semantic_id, suffix FROM ids",
}


def query_seconds(path: Path, item_id_of: Callable[[int], str], items: int) -> list[list[str]]:
    """CPU time of users' queries through the view and through a plain table: the least of three."""
    lines = []
    connection = sqlite3.connect(path)
    try:
        connection.execute("CREATE TABLE plain AS SELECT item_id, semantic_id, suffix FROM semantic_ids")
        connection.execute("CREATE UNIQUE INDEX plain_by_item_id ON plain(item_id)")
        connection.execute("CREATE INDEX plain_by_semantic_id ON plain(semantic_id)")
        connection.execute("CREATE TEMP TABLE mine (item_id TEXT, number INTEGER)")
        chance = random.Random(2)
        for number in range(1000):
            item_id = item_id_of(chance.randrange(items)) if number % 10 else f"unknown-{number}"
            connection.execute("INSERT INTO mine VALUES (?, ?)", (item_id, number))
        connection.commit()
        for what, sql in QUERIES.items():
            seconds = {}
            for source in ("semantic_ids", "plain"):
                text = re.sub(r"\bids\b", source, sql)
                connection.execute(text).fetchall()
                seconds[source] = min(_cpu_seconds(connection, text) for _ in range(3))
            view_ms, plain_ms = seconds["semantic_ids"] * 1e3, seconds["plain"] * 1e3
            lines.append([what, f"{view_ms:,.2f}", f"{plain_ms:,.2f}", f"{view_ms / plain_ms:.1f}"])
    finally:
        connection.close()
    return lines


def _cpu_seconds(connection: sqlite3.Connection, sql: str) -> float:
    started = time.process_time()
    connection.execute(sql).fetchall()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=10_000_000)
    parser.add_argument("--chunk-rows", type=int, default=32768)
    parser.add_argument("--order", choices=["random", "ascending"], default="random")
    parser.add_argument("--marks", type=int, default=10, help="table rows of the append rate")
    parser.add_argument("--directory", type=Path, help="where the database is written")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="semid-large-", dir=arguments.directory) as directory:
        path = Path(directory) / "semid.db"
        with Store(path) as store:
            lines = append(store, arguments.items, arguments.chunk_rows, arguments.order, arguments.marks)
            store.database.checkpoint()
        _report.heading(f"Appending, item IDs in {arguments.order} order, {arguments.chunk_rows:,} rows per chunk")
        _report.table(["items", "rows/s", "CPU µs per row", "longest commit, s"], lines)
        size_bytes = os.path.getsize(path)
        memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

        started = time.perf_counter()
        with Store(path) as store:
            store.generations.active()
            store.counts.usage(1)
            opened_s = time.perf_counter() - started
        chance = random.Random(1)
        some = [item_ids(chance.randrange(arguments.items), 1, arguments.order)[0] for _ in range(1000)]
        with ReadConnection(path) as connection:
            read = connection.rows
            prefixes = [f"{chance.randrange(200)}-{chance.randrange(200)}" for _ in range(200)]

            def lookup(number: int) -> None:
                read("SELECT semantic_id, suffix FROM semantic_ids WHERE item_id = ?", some[number])

            def search(number: int) -> None:
                read("SELECT item_id FROM semantic_ids WHERE semantic_id GLOB ?", f"{prefixes[number]}-*")

            found = sum(
                len(read("SELECT item_id FROM semantic_ids WHERE semantic_id GLOB ?", f"{prefix}-*"))
                for prefix in prefixes
            )
            lines = [
                ["size of the database per item, bytes", f"{size_bytes / arguments.items:.0f}"],
                ["most memory of the writer, MB", f"{memory_mb:.0f}"],
                ["opening the database for writing, s", f"{opened_s:.2f}"],
                ["lookup of an item ID, ms (median / 99%)", milliseconds(lookup, len(some))],
                [
                    f"search for a prefix of two codes, {found / len(prefixes):.0f} items each, ms",
                    milliseconds(search, len(prefixes)),
                ],
            ]
        command = [sys.executable, "-c", "from semid_daemon.store.read.status import read_status; import sys, pathlib;"]
        command[-1] += "read_status(pathlib.Path(sys.argv[1]))"
        started = time.perf_counter()
        subprocess.run([*command, str(path)], check=True)
        lines.append(["a process that reads the status, s", f"{time.perf_counter() - started:.2f}"])
        _report.heading(f"{arguments.items:,} items")
        _report.table(["", ""], lines)
        lines = query_seconds(path, lambda number: item_ids(number, 1, arguments.order)[0], arguments.items)
        _report.heading(f"Queries of {arguments.items:,} items by SQLite {sqlite3.sqlite_version}, CPU ms")
        _report.table(["query", "view", "plain table", "ratio"], lines)


if __name__ == "__main__":
    main()
