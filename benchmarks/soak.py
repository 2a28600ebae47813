"""An hour's load on one daemon, as fast as it takes it: does memory stay flat, the write-ahead log bounded?

    python benchmarks/soak.py --hours 1 --rows-per-s 1000

Drops what an hour of so many rows a second amounts to, in files of 5,000 rows: some items come again, some files are
copies, some are damaged; a reader asks for the status every quarter of a second, and commands are given meanwhile.
Prints memory, file descriptors, threads, the write-ahead log and the database by tenths of the run; the exit status
is 1 when memory or descriptors grow, the log is not bounded, or rows are missing in the end. --real-time takes the
hour it says. SQLite's cache of pages, 256 MB in the daemon, is 4 MB here: filling it is not a leak, and would hide one.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semid_daemon.command_client import send_command
from semid_daemon.config import Config, load_config
from semid_daemon.store.read.checks import check_database
from semid_daemon.store.read.connection import ReadConnection
from semid_daemon.store.read.status import StatusQueries

DIM = 64
FILE_ROWS = 5_000
AHEAD = 8  # files that wait at most
MOST_WAL_MB = 320  # it is checkpointed at 256 MB, between two chunks
SETTINGS = """
[drop]
on_done = "delete"
settle_ms = 50
[quantizer]
device = "cpu"
[generations]
keep_embeddings = "nothing"
"""
DAEMON = (
    "import sys; from semid_daemon.store import connection; connection._CACHE_BYTES = 4 << 20;"
    " from semid_daemon.cli.main import main; main(sys.argv[1:])"
)


@dataclass(frozen=True)
class Sample:
    """What /proc and the file system say at one moment."""

    rss_mb: float
    descriptors: int
    threads: int
    wal_mb: float
    database_mb: float


def sample(pid: int, config: Config) -> Sample:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    wal = config.database.with_name("semid.db-wal")
    return Sample(
        rss_mb=int(fields["VmRSS"].split()[0]) / 1024,
        descriptors=len(os.listdir(f"/proc/{pid}/fd")),
        threads=int(fields["Threads"]),
        wal_mb=wal.stat().st_size / 2**20 if wal.exists() else 0.0,
        database_mb=config.database.stat().st_size / 2**20,
    )


class Producer(threading.Thread):
    """Drops files, no more ahead than the daemon has taken, or by the clock."""

    def __init__(self, drop_dir: Path, files: int, interval_s: float | None) -> None:
        super().__init__(daemon=True)
        self._drop_dir = drop_dir
        self._files = files
        self._interval_s = interval_s
        self._random = np.random.default_rng(1)
        self._centres_KD = self._random.normal(size=(512, DIM))
        self.items = 0
        self.rejected = 0

    def run(self) -> None:
        content = b""
        for number in range(self._files):
            if self._interval_s is not None:
                time.sleep(self._interval_s)
            while len(os.listdir(self._drop_dir)) >= AHEAD:
                time.sleep(0.02)
            if number % 50 == 49:
                self.rejected += 1
                self._put(f"damaged-{number}.npz", b"no archive %d" % number)
            if number % 25 == 24:
                self._put(f"copy-{number}.npz", content)
            content = self._content()
            self._put(f"{number:06}.npz", content)

    def _content(self) -> bytes:
        """A fifth of the items came before, where there are as many."""
        again = min(FILE_ROWS // 5, self.items)
        ids = [f"item-{row}" for row in self._random.choice(max(self.items, 1), size=again, replace=False)]
        fresh = FILE_ROWS - again
        ids += [f"item-{row}" for row in range(self.items, self.items + fresh)]
        self.items += fresh
        rows_ND = self._centres_KD[self._random.integers(512, size=FILE_ROWS)]
        rows_ND = (rows_ND + 0.4 * self._random.normal(size=(FILE_ROWS, DIM))).astype(np.float32)
        buffer = io.BytesIO()
        np.savez(buffer, item_ids=np.array(ids), embeddings=rows_ND)
        return buffer.getvalue()

    def _put(self, name: str, content: bytes) -> None:
        partial = self._drop_dir / f".{name}.tmp"
        partial.write_bytes(content)
        os.rename(partial, self._drop_dir / name)


def soak(root: Path, files: int, interval_s: float | None) -> tuple[list[Sample], float, list[str]]:
    """Samples, seconds, and what is wrong in the end."""
    (root / "semid.toml").write_text(SETTINGS)
    config = load_config(root / "semid.toml")
    config.drop_dir.mkdir()
    subprocess.run([sys.executable, "-m", "semid_daemon", "init", str(root)], check=True, stderr=subprocess.DEVNULL)
    run = [sys.executable, "-c", DAEMON, "run", "-q", "-c", str(root / "semid.toml")]
    daemon = subprocess.Popen(run, stderr=subprocess.DEVNULL)
    producer = Producer(config.drop_dir, files, interval_s)
    samples: list[Sample] = []
    try:
        with ReadConnection(config.database) as connection:
            queries = StatusQueries(connection)
            while queries.status().state in ("never started", "starting"):
                time.sleep(0.1)
            started = time.monotonic()
            producer.start()
            asked = started
            while producer.is_alive() or (status := queries.status()).state != "idle" or os.listdir(config.drop_dir):
                if daemon.poll() is not None:
                    return samples, time.monotonic() - started, [f"the daemon ended with {daemon.returncode}"]
                queries.status()
                samples.append(sample(daemon.pid, config))
                if time.monotonic() - asked > 2:
                    send_command(config.commands_dir, "rescan", {})
                    asked = time.monotonic()
                time.sleep(0.25)
            elapsed_s = time.monotonic() - started
            status = queries.status()
    finally:
        daemon.terminate()
        daemon.wait()
    faults = list(check_database(config.database).faults)
    expected = {"items": (status.items, producer.items), "rejected": (status.files["rejected"], producer.rejected)}
    faults += [f"{what}: {found:,}, not {right:,}" for what, (found, right) in expected.items() if found != right]
    return samples, elapsed_s, faults


def grown(samples: list[Sample], name: str) -> float:
    """By how much a figure's median grew from the second to the last fifth of the run, as a share."""
    fifth = max(1, len(samples) // 5)
    early, late = ([getattr(each, name) for each in part] for part in (samples[fifth : 2 * fifth], samples[-fifth:]))
    return statistics.median(late) / statistics.median(early) - 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--rows-per-s", type=int, default=1000)
    parser.add_argument("--real-time", action="store_true", help="Take as long as it says.")
    arguments = parser.parse_args()
    files = max(1, round(arguments.hours * 3600 * arguments.rows_per_s / FILE_ROWS))
    interval_s = FILE_ROWS / arguments.rows_per_s if arguments.real_time else None
    with tempfile.TemporaryDirectory(prefix="semid-soak-") as directory:
        samples, elapsed_s, faults = soak(Path(directory), files, interval_s)
    rows = files * FILE_ROWS
    print(f"{rows:,} rows in {files:,} files, {elapsed_s:.0f} s, {rows / elapsed_s:,.0f} rows/s")
    print(f"{'of the run':>10} {'memory MB':>10} {'descriptors':>12} {'threads':>8} {'WAL MB':>8} {'database MB':>12}")
    for tenth in range(10):
        part = samples[tenth * len(samples) // 10 : (tenth + 1) * len(samples) // 10] or samples[-1:]
        print(
            f"{(tenth + 1) * 10:>9}% {statistics.median(each.rss_mb for each in part):>10.0f}"
            f" {max(each.descriptors for each in part):>12} {max(each.threads for each in part):>8}"
            f" {max(each.wal_mb for each in part):>8.1f} {part[-1].database_mb:>12.1f}"
        )
    memory, descriptors = grown(samples, "rss_mb"), grown(samples, "descriptors")
    most_wal_mb = max(each.wal_mb for each in samples)
    print(f"memory {memory:+.1%}, descriptors {descriptors:+.1%}, write-ahead log at most {most_wal_mb:.1f} MB")
    faults += ["memory grows"] if memory > 0.1 else []
    faults += ["descriptors grow"] if descriptors > 0.2 else []
    faults += ["the write-ahead log is not bounded"] if most_wal_mb > MOST_WAL_MB else []
    for fault in faults:
        print(f"FAULT  {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
