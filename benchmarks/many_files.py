"""Very many small files at once: throughput, memory, age of the heartbeat, and how long a command waits.

python benchmarks/many_files.py --files 100000
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from _attention import Attention, trained_catalogue

from semid_daemon.store.read.connection import ReadConnection
from semid_daemon.store.read.status import StatusQueries

DIM = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    arguments = parser.parse_args()
    rows_ND = np.random.default_rng(1).normal(size=(4096 + arguments.files, DIM)).astype(np.float32)
    with trained_catalogue(rows_ND[:4096]) as config:
        for number in range(arguments.files):
            np.save(config.drop_dir / f"{number:06}.npy", rows_ND[4096 + number : 4097 + number])
        seen, started = Attention(config), time.monotonic()
        with seen.daemon(), ReadConnection(config.database) as connection:
            while (status := StatusQueries(connection).status()).items < 4096 + arguments.files:
                time.sleep(1)
                seen.see_memory()
                if status.heartbeat_at and time.monotonic() - started > 10:
                    seen.see_heartbeat(status.heartbeat_at)
                    seen.ask("retry", {"all": True})
            elapsed_s = time.monotonic() - started
    print(f"{arguments.files:,} files in {elapsed_s:.0f} s, {arguments.files / elapsed_s:.0f} files/s; {seen}")


if __name__ == "__main__":
    main()
