"""Very many small files at once: throughput, memory, age of the heartbeat, and how long a command waits.

python benchmarks/many_files.py --files 100000
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from semid_daemon.asking import answer_of, submit
from semid_daemon.config import load_config
from semid_daemon.store.reader import Reader

DIM = 16


def resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="semid-many-") as directory:
        root = Path(directory)
        (root / "semid.toml").write_text('[quantizer]\ncodebook_size = 64\ndevice = "cpu"\n')
        config = load_config(root / "semid.toml")
        (root / "drop").mkdir()
        rows_ND = np.random.default_rng(1).normal(size=(4096 + arguments.files, DIM)).astype(np.float32)
        np.save(root / "drop" / "base.npy", rows_ND[:4096])
        run = [sys.executable, "-m", "semid_daemon", "run", "-q", "-c", str(root / "semid.toml")]
        subprocess.run([*run, "--once"], check=True)
        for number in range(arguments.files):
            np.save(root / "drop" / f"{number:06}.npy", rows_ND[4096 + number : 4097 + number])
        started = time.monotonic()
        daemon = subprocess.Popen(run)
        most_mb = oldest_s = longest_s = 0.0
        try:
            with Reader(config.database) as reader:
                while (status := reader.status()).items < 4096 + arguments.files:
                    time.sleep(1)
                    most_mb = max(most_mb, resident_mb(daemon.pid))
                    if status.heartbeat_at and time.monotonic() - started > 10:
                        age_s = (datetime.now(UTC) - datetime.fromisoformat(status.heartbeat_at)).total_seconds()
                        oldest_s = max(oldest_s, age_s)
                        asked = time.monotonic()
                        if answer_of(config.database, submit(config.commands_dir, "retry", {"all": True}), 60) is None:
                            raise SystemExit("a command was not answered within a minute")
                        longest_s = max(longest_s, time.monotonic() - asked)
            elapsed_s = time.monotonic() - started
        finally:
            daemon.terminate()
            daemon.wait()
    print(
        f"{arguments.files:,} files in {elapsed_s:.0f} s, {arguments.files / elapsed_s:.0f} files/s; at most"
        f" {most_mb:.0f} MB resident, heartbeat {oldest_s:.1f} s old, a command answered after {longest_s:.1f} s"
    )


if __name__ == "__main__":
    main()
