"""`semid export` in every form: seconds, rows per second, peak memory and size, each in a process of its own.

python benchmarks/export.py --rows 1000000
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from semid_daemon.export.forms import FORMS

LAYERS, CODES, DIM = 3, 256, 16
CHUNK_ROWS = 50_000


def publish(root: Path, rows: int) -> None:
    """A catalogue of items with text IDs and random codes, the low ones oftener, so that some collide."""
    # Not in the process that measures: what a process has in memory when it starts another is counted as the other's.
    import numpy as np

    from semid_daemon.base.types import Codebooks, EmbeddingBatch
    from semid_daemon.codebooks.files import save_codebooks
    from semid_daemon.config import load_config
    from semid_daemon.daemon.state_lock import make_directories
    from semid_daemon.store.write.generations import NewGeneration
    from semid_daemon.store.write.store import Store

    (root / "semid.toml").write_text("")
    config = load_config(root / "semid.toml")
    make_directories(config)
    random = np.random.default_rng(1)
    codebooks = Codebooks(random.normal(size=(LAYERS, CODES, DIM)).astype(np.float32), normalize_residuals=False)
    fingerprint = save_codebooks(config.codebooks_dir, codebooks, {})
    with Store(config.database) as store:
        store.generations.publish(NewGeneration(fingerprint, codebooks, trained_rows=0))
        ledger = store.files.record_sighting("items.npy", "1:1:1:1:1", "digest", 1)
        ledger = store.files.begin_loading(ledger.id, rows=rows, dim=DIM, generation=1, chunk_rows=CHUNK_ROWS)
        for start in range(0, rows, CHUNK_ROWS):
            count = min(CHUNK_ROWS, rows - start)
            codes_NL = np.minimum(np.abs(random.normal(size=(count, LAYERS)) * 90), CODES - 1).astype(np.int32)
            item_ids = [str(10**9 + number) for number in range(start, start + count)]
            batch = EmbeddingBatch(start, count, item_ids, random.normal(size=(count, DIM)).astype(np.float32))
            store.chunks.commit(store.files.get(ledger.id), batch, codes_NL)


def measure(command: list[str | Path]) -> tuple[float, float, float]:
    """Seconds by the clock, seconds of processor time, and peak resident MB of a process."""
    started = time.monotonic()
    child = subprocess.Popen([str(each) for each in command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{command} ended with {child.returncode}")
    return time.monotonic() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def size_mb(path: Path) -> float:
    files = path.rglob("*") if path.is_dir() else path.parent.glob(f"{path.name}*")
    return sum(file.stat().st_size for file in files if file.is_file()) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--form", choices=list(FORMS), action="append", help="only these; all by default")
    parser.add_argument("--publish", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.publish is not None:
        publish(arguments.publish, arguments.rows)
        return
    with tempfile.TemporaryDirectory(prefix="semid-export-") as directory:
        root = Path(directory)
        measure([sys.executable, __file__, "--rows", str(arguments.rows), "--publish", root])
        semid = [sys.executable, "-m", "semid_daemon"]
        print(f"{arguments.rows:,} items\n")
        print("| form | seconds | processor s | rows/s | peak memory, MB | size, MB |")
        print("| --- | --: | --: | --: | --: | --: |")
        for form in arguments.form or FORMS:
            out = root / form
            seconds, processor_s, peak_mb = measure(
                [*semid, "export", "-q", "-c", root / "semid.toml", "--format", form, out]
            )
            rate = "" if form == "faiss" else f"{arguments.rows / seconds:,.0f}"
            print(
                f"| `{form}` | {seconds:.1f} | {processor_s:.1f} | {rate} | {peak_mb:.0f} | {size_mb(out):.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
