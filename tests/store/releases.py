"""Databases as released versions of semid wrote them: one small file each in tests/data/releases, which never changes.

`python tests/store/releases.py` makes the one of the version that is checked out. Run it once, when a version is
released; while the schema may still change before that, again.
"""

from __future__ import annotations

import gzip
import sqlite3
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

from semid_daemon.config import parse_config
from semid_daemon.store.layout import SCHEMA_VERSION

DIRECTORY = Path(__file__).parent.parent / "data" / "releases"
ITEMS = 150

SETTINGS = b"""
[drop]
settle_ms = 20
[quantizer]
layers = 2
codebook_size = 4
device = "cpu"
[training]
min_rows = 64
iterations = 5
[ingest]
chunk_rows = 50
"""


def path_of_release(name: str) -> Path:
    """The file of a version, its schema's number in its name."""
    return DIRECTORY / f"{name}-schema-{SCHEMA_VERSION}.db.gz"


def make(target: Path) -> None:
    """A catalogue of 150 items in two files, one of them known under two names, and of a rejected file."""

    from semid_daemon.daemon.service import Service
    from semid_daemon.daemon.state_lock import make_directories
    from semid_daemon.runtime.context import WorkContext
    from semid_daemon.runtime.progress import PlainProgress
    from semid_daemon.store.write.store import Store

    rows_ND = np.random.default_rng(7).normal(size=(ITEMS, 8)).astype(np.float32)
    rows_ND[149] = rows_ND[3]
    with tempfile.TemporaryDirectory() as directory:
        config = parse_config(SETTINGS, source="release", root=Path(directory))
        make_directories(config)
        for name, begin, end in (("a.npz", 0, 100), ("b.npz", 100, ITEMS), ("c.npz", 100, ITEMS)):
            ids = np.array([f"item-{row}" for row in range(begin, end)])
            with (config.drop_dir / name).open("wb") as file:
                np.savez(file, item_ids=ids, embeddings=rows_ND[begin:end])
        (config.drop_dir / "bad.npz").write_text("no archive")
        with Store(config.database) as store:
            Service(config, store, PlainProgress(), WorkContext(once=True)).run()
        compact = Path(directory) / "compact.db"
        connection = sqlite3.connect(config.database)
        connection.execute("VACUUM INTO ?", (str(compact),))
        connection.close()
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(gzip.compress(compact.read_bytes(), 9, mtime=0))


if __name__ == "__main__":
    made = path_of_release(version("semid"))
    make(made)
    print(f"{made}: {made.stat().st_size:,} bytes")
