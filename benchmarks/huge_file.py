"""One huge file, and small ones that come while it is worked on: memory, heartbeat, commands, and how long those wait.

    python benchmarks/huge_file.py --gb 50

The file is a .npy of float32 that is mostly holes: of every 64 chunks one has rows, the others are vectors of zeros,
which are read, hashed, and left out. So it takes next to no room on the disk, and the time of reading it.
"""

from __future__ import annotations

import argparse
import sqlite3
import time
from contextlib import closing

import numpy as np
from _attention import Attention, trained_catalogue

from semid_daemon.store.read.connection import ReadConnection
from semid_daemon.store.read.status import StatusQueries

DIM = 2048
BLOCK, EVERY = 4096, 64
SMALL_EVERY_S = 2.0


def main() -> None:
    """Drop everything, watch, print one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=50.0)
    arguments = parser.parse_args()
    random = np.random.default_rng(1)
    rows = int(arguments.gb * 1e9 / (4 * DIM))
    block_ND = random.normal(size=(BLOCK, DIM)).astype(np.float32)
    with trained_catalogue(block_ND) as config:
        root, seen = config.root, Attention(config)
        huge_ND = np.lib.format.open_memmap(root / "huge.npy", mode="w+", dtype=np.float32, shape=(rows, DIM))
        real = 0
        for start in range(0, rows, BLOCK * EVERY):
            stop = min(start + BLOCK, rows)
            huge_ND[start:stop] = block_ND[: stop - start]
            real += stop - start
        del huge_ND
        (root / "huge.npy").rename(config.drop_dir / "huge.npy")

        started = time.monotonic()
        dropped: dict[str, float] = {}
        waits_s: list[float] = []
        small_at = started + 5
        with (
            seen.daemon(),
            ReadConnection(config.database) as connection,
            closing(sqlite3.connect(config.database)) as database,
        ):
            done: set[str] = set()
            while "huge.npy" not in done:
                time.sleep(0.2)
                now = time.monotonic()
                done = {name for (name,) in database.execute("SELECT file FROM files WHERE status = 'done'")}
                waits_s += [now - dropped.pop(name) for name in sorted(dropped.keys() & done)]
                seen.see_memory()
                beat_at = StatusQueries(connection).status().heartbeat_at
                if beat_at and now > started + 5:
                    seen.see_heartbeat(beat_at)
                if now > small_at:
                    name = f"small-{now:.0f}.npy"
                    np.save(root / name, random.normal(size=(10, DIM)).astype(np.float32))
                    (root / name).rename(config.drop_dir / name)
                    dropped[name], small_at = now, now + SMALL_EVERY_S
                    seen.ask("rescan", {})
            elapsed_s = time.monotonic() - started
    print(
        f"{arguments.gb:g} GB, {rows:,} rows, {real:,} of them not zero, in {elapsed_s:.0f} s; {seen};"
        f" {len(waits_s)} small files waited {np.median(waits_s or [0]):.1f} s in the median,"
        f" {max(waits_s, default=0):.1f} s at most"
    )


if __name__ == "__main__":
    main()
