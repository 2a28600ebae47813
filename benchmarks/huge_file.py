"""One huge file, and small ones that come while it is worked on: memory, heartbeat, commands, and how long those wait.

    python benchmarks/huge_file.py --gb 50

The file is a .npy of float32 that is mostly holes: of every 64 chunks one has rows, the others are vectors of zeros,
which are read, hashed, and left out. So it takes next to no room on the disk, and the time of reading it.
"""

from __future__ import annotations

import argparse
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from many_files import resident_mb

from semid_daemon.asking import answer_of, submit
from semid_daemon.config import load_config
from semid_daemon.store.reader import Reader

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
    with tempfile.TemporaryDirectory(prefix="semid-huge-") as directory:
        root = Path(directory)
        (root / "semid.toml").write_text('[quantizer]\ncodebook_size = 64\ndevice = "cpu"\n')
        config = load_config(root / "semid.toml")
        config.drop_dir.mkdir()
        block_ND = random.normal(size=(BLOCK, DIM)).astype(np.float32)
        np.save(config.drop_dir / "base.npy", block_ND)
        run = [sys.executable, "-m", "semid_daemon", "run", "-q", "-c", str(root / "semid.toml")]
        subprocess.run([*run, "--once"], check=True)

        huge_ND = np.lib.format.open_memmap(root / "huge.npy", mode="w+", dtype=np.float32, shape=(rows, DIM))
        real = 0
        for start in range(0, rows, BLOCK * EVERY):
            stop = min(start + BLOCK, rows)
            huge_ND[start:stop] = block_ND[: stop - start]
            real += stop - start
        del huge_ND
        (root / "huge.npy").rename(config.drop_dir / "huge.npy")

        daemon = subprocess.Popen(run)
        started = time.monotonic()
        dropped: dict[str, float] = {}
        waits_s: list[float] = []
        most_mb = oldest_s = longest_s = 0.0
        small_at = started + 5
        try:
            with Reader(config.database) as reader, closing(sqlite3.connect(config.database)) as database:
                done: set[str] = set()
                while "huge.npy" not in done:
                    time.sleep(0.2)
                    now = time.monotonic()
                    done = {name for (name,) in database.execute("SELECT file FROM files WHERE status = 'done'")}
                    waits_s += [now - dropped.pop(name) for name in sorted(dropped.keys() & done)]
                    most_mb = max(most_mb, resident_mb(daemon.pid))
                    beat = reader.status().heartbeat_at
                    if beat and now > started + 5:
                        oldest_s = max(oldest_s, (datetime.now(UTC) - datetime.fromisoformat(beat)).total_seconds())
                    if now > small_at:
                        name = f"small-{now:.0f}.npy"
                        np.save(root / name, random.normal(size=(10, DIM)).astype(np.float32))
                        (root / name).rename(config.drop_dir / name)
                        dropped[name], small_at = now, now + SMALL_EVERY_S
                        if answer_of(config.database, submit(config.commands_dir, "rescan", {}), 60) is None:
                            raise SystemExit("a command was not answered within a minute")
                        longest_s = max(longest_s, time.monotonic() - now)
            elapsed_s = time.monotonic() - started
        finally:
            daemon.terminate()
            daemon.wait()
    print(
        f"{arguments.gb:g} GB, {rows:,} rows, {real:,} of them not zero, in {elapsed_s:.0f} s; at most {most_mb:.0f} MB"
        f" resident, heartbeat {oldest_s:.1f} s old, a command answered after {longest_s:.1f} s; {len(waits_s)} small"
        f" files waited {np.median(waits_s or [0]):.1f} s in the median, {max(waits_s, default=0):.1f} s at most"
    )


if __name__ == "__main__":
    main()
