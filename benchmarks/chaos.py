"""Kill the daemon at random moments while producers do their worst, then compare everything with what was dropped.

    python benchmarks/chaos.py --kills 200

A producer writes files slowly, renames them in, drops the same bytes under other names, overwrites, deletes
nothing, and adds junk; the daemon is killed with SIGKILL again and again. Afterwards one run drains the
directory, and ledger, rows, counts and metrics must agree exactly with what was dropped. Prints its figures;
the exit status is 1 when anything disagrees.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from semid_daemon.config import load_config
from semid_daemon.store.read.checks import check_database

SETTINGS = """
[drop]
settle_ms = 20
incomplete_grace_s = 1.5
rescan_s = 0.5
[quantizer]
codebook_size = 8
device = "cpu"
[training]
min_rows = 64
iterations = 4
[ingest]
chunk_rows = 32
retry_s = 0.2
"""
DIM = 16


@dataclass
class Dropped:
    """What was put into the directory, by what should become of it."""

    items: dict[str, int] = field(default_factory=dict)  # item ID -> number of rows that named it
    contents: set[bytes] = field(default_factory=set)
    rows: int = 0
    nan_rows: int = 0
    copies: int = 0
    junk: int = 0


class Producer(threading.Thread):
    """Drops files until told to stop."""

    def __init__(self, drop_dir: Path, seed: int) -> None:
        super().__init__(daemon=True)
        self._drop_dir = drop_dir
        self._random = random.Random(seed)
        self._numbers = np.random.default_rng(seed)
        self._count = 0
        self._former: list[bytes] = []
        self.dropped = Dropped()
        self.stopped = threading.Event()

    def run(self) -> None:
        while not self.stopped.is_set():
            self.step()
            self.stopped.wait(self._random.uniform(0.02, 0.3))

    def step(self) -> None:
        self._count += 1
        kind = self._random.choices(["renamed", "slow", "copy", "junk", "below"], [5, 2, 2, 2, 1])[0]
        name = f"{kind}-{self._count:05}.npz"
        if kind == "copy" and self._former:
            self._put(self._drop_dir / name, self._random.choice(self._former))
            self.dropped.copies += 1
        elif kind == "junk":
            junk = self._random.choice([b"no archive", b"", b"PK\3\4 cut", os.urandom(300)])
            (self._drop_dir / name).write_bytes(junk + str(self._count).encode() if junk else junk)
            self.dropped.junk += 1
        else:
            content = self._content()
            if kind == "slow":
                with (self._drop_dir / name).open("wb") as file:
                    for part in range(4):
                        file.write(content[part * len(content) // 4 : (part + 1) * len(content) // 4])
                        file.flush()
                        time.sleep(self._random.uniform(0, 0.15))
            elif kind == "below":
                directory = self._drop_dir / f"{self._count % 7}" / "deeper"
                directory.mkdir(parents=True, exist_ok=True)
                self._put(directory / name, content)
            else:
                self._put(self._drop_dir / name, content)

    def _put(self, path: Path, content: bytes) -> None:
        partial = path.with_name(f".{path.name}.tmp")
        partial.write_bytes(content)
        os.rename(partial, path)

    def _content(self) -> bytes:
        rows = self._random.choice([1, 20, 100, 400])
        # Some items come again and again, in other files.
        ids = [
            f"shared-{self._random.randrange(200)}" if self._random.random() < 0.1 else f"{self._count}-{row}"
            for row in range(rows)
        ]
        rows_ND = self._numbers.normal(size=(rows, DIM)).astype(np.float32)
        if rows > 10:
            rows_ND[3] = np.nan
            self.dropped.nan_rows += 1
        for row, item_id in enumerate(ids):
            if rows <= 10 or row != 3:
                self.dropped.items[item_id] = self.dropped.items.get(item_id, 0) + 1
        buffer = io.BytesIO()
        np.savez(buffer, item_ids=np.array(ids), embeddings=rows_ND)
        content = buffer.getvalue()
        self._former.append(content)
        self.dropped.contents.add(content)
        self.dropped.rows += rows
        return content


def daemon(settings: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "semid_daemon", "run", "-q", "-c", str(settings), *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def chaos(root: Path, kills: int, seed: int) -> list[str]:
    """Everything that disagrees in the end, in words."""
    settings = root / "semid.toml"
    settings.write_text(SETTINGS)
    config = load_config(settings)
    config.drop_dir.mkdir()
    chance = random.Random(seed)
    producer = Producer(config.drop_dir, seed)
    producer.start()
    started = time.monotonic()
    moments: dict[str, int] = {}
    for _ in range(kills):
        child = daemon(settings)
        # Somewhere in the start, which takes seconds, or in the work after it.
        time.sleep(chance.choice([chance.uniform(0, 3), chance.uniform(1.5, 3.5)]))
        child.kill()
        child.wait()
        state = state_of(config.database)
        moments[state] = moments.get(state, 0) + 1
    producer.stopped.set()
    producer.join()
    killed_s = time.monotonic() - started
    for _ in range(3):  # what was still settling when one run ended is there for the next
        time.sleep(1.6)
        daemon(settings, "--once").wait()
    print(f"{kills} kills in {killed_s:.0f} s, found {moments}")
    return disagreements(config.database, producer.dropped, config.drop_dir)


def state_of(database: Path) -> str:
    try:
        connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)
        try:
            return str(connection.execute("SELECT state FROM daemon").fetchone()[0])
        finally:
            connection.close()
    except sqlite3.OperationalError:
        return "no database yet"


def disagreements(database: Path, dropped: Dropped, drop_dir: Path) -> list[str]:
    faults = list(check_database(database).faults)
    connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)

    def one(sql: str) -> int:
        return int(connection.execute(sql).fetchone()[0] or 0)

    expected = {
        "items": (one("SELECT count(*) FROM semantic_ids"), len(dropped.items)),
        "distinct items": (one("SELECT count(DISTINCT item_id) FROM semantic_ids"), len(dropped.items)),
        "done contents": (one("SELECT count(*) FROM _files WHERE status = 'done'"), len(dropped.contents)),
        "unfinished contents": (
            one("SELECT count(*) FROM _files WHERE status NOT IN ('done', 'rejected') AND reason NOT GLOB 'gone*'"),
            0,
        ),
        "rows read": (one("SELECT sum(rows_done) FROM _files WHERE status = 'done'"), dropped.rows),
        "rows left out": (one("SELECT sum(rows_rejected) FROM _files WHERE status = 'done'"), dropped.nan_rows),
        "rows kept": (
            one("SELECT sum(rows_kept) FROM _files WHERE status = 'done'"),
            sum(dropped.items.values()) - len(dropped.items),
        ),
        "rows in chunks": (one("SELECT sum(rows) FROM _chunks"), dropped.rows),
        "metrics of chunks": (
            one("SELECT count(*) FROM metrics WHERE name = 'rows_per_s'"),
            one("SELECT count(*) FROM _chunks"),
        ),
        "files left in the drop directory": (sum(path.is_file() for path in drop_dir.rglob("*.npz")), 0),
    }
    missing = [item for (item,) in connection.execute("SELECT item_id FROM semantic_ids") if item not in dropped.items]
    faults += [f"items that nobody dropped: {missing[:3]}"] if missing else []
    print(
        f"dropped {len(dropped.contents):,} contents, {dropped.copies:,} copies, {dropped.junk:,} junk files;"
        f" {dropped.rows:,} rows, {len(dropped.items):,} items;"
        f" {one('SELECT count(*) FROM _files WHERE status = ' + chr(39) + 'rejected' + chr(39)):,} rejected,"
        f" {one('SELECT count(*) FROM _chunks'):,} chunks"
    )
    connection.close()
    return faults + [f"{what}: {found:,}, not {right:,}" for what, (found, right) in expected.items() if found != right]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="semid-chaos-") as directory:
        faults = chaos(Path(directory), arguments.kills, arguments.seed)
    for fault in faults:
        print(f"DISAGREES  {fault}")
    print("everything agrees" if not faults else f"{len(faults)} disagreements")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
