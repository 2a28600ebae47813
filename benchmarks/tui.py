"""What the terminal UI costs, measured over a real pseudo-terminal: CPU, bytes written, memory, waiting.

`python benchmarks/tui.py` makes a catalogue of a million items and one of 100,000 files in a temporary directory
(a minute or two), runs `semid-tui` on them, and prints the table. `--items`, `--files`, `--seconds` make it smaller.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil

from semid_daemon.base.types import Codebooks, EmbeddingBatch, TrainingStep
from semid_daemon.config import Config, load_config
from semid_daemon.store.write.generations import NewGeneration
from semid_daemon.store.write.store import Store
from semid_daemon.store.write.telemetry import Metric

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.tui.terminal import Terminal  # noqa: E402

LAYERS, CODES, CHUNK = 3, 1024, 50_000


def make_catalogue(root: Path, items: int) -> Config:
    """So many items in one generation of 3×1024 codes, and a run of 10,000 steps, by the store's own writer."""
    config = configured(root)
    random = np.random.default_rng(1)
    with Store(config.database) as store:
        store.database.connection.execute("PRAGMA synchronous = OFF")
        store.daemon.started(os.getpid(), "cpu", "0")
        losses = 0.2 + np.exp(-np.arange(10_000) / 900) + 0.05 * random.random(10_000)
        steps = [TrainingStep(n + 1, n // 3334, n % 3334 + 1, float(loss)) for n, loss in enumerate(losses)]
        store.telemetry.add_training_steps("train-1", steps)
        books = Codebooks(np.zeros((LAYERS, CODES, 4), dtype=np.float32), True)
        store.generations.publish(NewGeneration("f" * 32, books, trained_rows=items))
        file = store.files.record_sighting("items.parquet", "s", "d", 1_000_000_000)
        file = store.files.begin_loading(file.id, rows=2 * items, dim=4, generation=1, chunk_rows=CHUNK)
        for first in range(0, items, CHUNK):
            add_rows(store, file, first, min(CHUNK, items - first), random)
        store.daemon.heartbeat("idle")
    return config


def add_rows(store: Store, file: object, first: int, rows: int, random: np.random.Generator) -> None:
    codes_NL = (random.random((rows, LAYERS)) ** 2 * CODES).astype(np.int32)
    batch = EmbeddingBatch(
        first, rows, [f"item-{n:08}" for n in range(first, first + rows)], random.random((rows, 4), dtype=np.float32)
    )
    store.chunks.commit(file, batch, codes_NL, [Metric("rows_per_s", 1e5)])  # type: ignore[arg-type]


def make_files(root: Path, files: int) -> Config:
    """So many files in the ledger, some of them rejected."""
    config = configured(root)
    with Store(config.database) as store:
        store.daemon.started(os.getpid(), "cpu", "0")
        store.daemon.heartbeat("idle")
    connection = sqlite3.connect(config.database)
    connection.executemany(
        "INSERT INTO _files (digest, size_bytes, status, rows, reason, seen_at) VALUES (?, ?, ?, ?, ?, ?)",
        (
            (
                str(n),
                1000 + n,
                "rejected" if n % 1000 == 0 else "done",
                None,
                "no vectors" if n % 1000 == 0 else None,
                "2026-01-01T00:00:00.000Z",
            )
            for n in range(files)
        ),
    )
    connection.execute(
        "INSERT INTO _sightings (name, file_id, signature, root, seen_at)"
        " SELECT printf('part-%06d.parquet', id), id, 's', 'r', seen_at FROM _files"
    )
    connection.commit()
    connection.close()
    return config


def configured(root: Path) -> Config:
    root.mkdir(parents=True)
    (root / "semid.toml").write_text("[quantizer]\ncodebook_size = 1024\n")
    for name in ("drop", "state", "state/commands"):
        (root / name).mkdir()
    return load_config(root / "semid.toml")


@contextlib.contextmanager
def busy_daemon(config: Config, items: int) -> Iterator[None]:
    """Once a second: a chunk of rows, training steps, an event and a heartbeat with figures, in a thread."""
    stop = threading.Event()

    def work() -> None:
        random = np.random.default_rng(2)
        with Store(config.database) as store:
            (file_id, done) = store.database.read_one("SELECT id, rows_done FROM _files WHERE status = 'loading'")
            step = 10_000
            while not stop.wait(1.0):
                file = store.files.get(file_id)
                add_rows(store, file, done, 1000, random)
                done += 1000
                step += 4
                losses = [TrainingStep(step - n, 2, step - n, 0.3 + 0.05 * random.random()) for n in range(4)]
                store.telemetry.add_training_steps("train-1", losses[::-1])
                store.telemetry.add_events([("info", f"step {step}")])
                figures = {
                    "rows_per_s": 1000 + 50 * random.random(),
                    "file": "items.parquet",
                    "file_rows": 2 * items,
                    "file_rows_done": done,
                    "file_eta_s": (2 * items - done) / 1000,
                    "cpu_percent": 100 * random.random(),
                    "memory_used_bytes": 1e9,
                    "memory_total_bytes": 2e9,
                    "cpu_count": 2,
                    "process_rss_bytes": 5e8,
                }
                store.daemon.heartbeat("encoding", "items.parquet", figures)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def cost(terminal: Terminal, seconds: float) -> tuple[float, float, float]:
    """(share of a core, bytes per second, resident MB) while nobody types."""
    process = psutil.Process(terminal.process.pid)
    used, written = process.cpu_times(), terminal.written_bytes
    started = time.perf_counter()
    terminal.read(seconds)
    elapsed_s = time.perf_counter() - started
    now = process.cpu_times()
    cpu = (now.user + now.system - used.user - used.system) / elapsed_s
    return cpu, (terminal.written_bytes - written) / elapsed_s, process.memory_info().rss / 2**20


def first_paint(config: Config) -> float:
    """From the start of the process to the first line on the screen."""
    with Terminal(config.root / "semid.toml", size=(160, 45)) as terminal:
        terminal.until(lambda: "Overview" in terminal.text)
        return time.perf_counter() - terminal.started_s


def lookup_ms(terminal: Terminal, items: int) -> float:
    """The median time from a key in the lookup to the result it asks for."""
    terminal.press("5")
    terminal.sees("an item by its ID")
    took = []
    for number in range(items // 7, items, items // 7):
        item = f"item-{number:08}"
        terminal.press(item[:-1])
        terminal.sees(item[:-1], "matches")
        terminal.read(0.3)
        terminal.press(item[-1])
        took.append(terminal.sees(f"─{item}─"))
        terminal.press("\x7f" * len(item))
        terminal.sees("an item by its ID")
    return 1000 * statistics.median(took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=20, help="how long each rate is measured")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="semid-tui-") as directory:
        items = make_catalogue(Path(directory) / "items", given.items)
        files = make_files(Path(directory) / "files", given.files)
        rows = []
        paint_s = statistics.median(first_paint(items) for _ in range(3))
        with Terminal(items.root / "semid.toml", size=(160, 45)) as terminal:
            terminal.sees("codebooks g1")
            terminal.read(3)
            idle, _, _ = cost(terminal, given.seconds)
            with busy_daemon(items, given.items):
                terminal.read(3)
                live, rate, memory = cost(terminal, given.seconds)
                for screen in "23":
                    terminal.press(screen)
                    terminal.read(2)
                    cpu, written, memory = cost(terminal, given.seconds / 2)
                    rows.append((f"live, screen {screen}: CPU", f"{cpu:.1%}", "-"))
                    rows.append((f"live, screen {screen}: written", f"{written / 1000:.1f} kB/s", "-"))
            lookup = lookup_ms(terminal, given.items)
            memory = max(memory, psutil.Process(terminal.process.pid).memory_info().rss / 2**20)
        with Terminal(files.root / "semid.toml", size=(160, 45)) as terminal:
            terminal.sees("done")
            terminal.read(1)
            terminal.press("4")
            ready_s = terminal.sees(f"part-{given.files:06d}.parquet")
            terminal.press("G")
            end_s = terminal.sees("part-000001.parquet")
        rows = [
            ("first paint, 160×45", f"{paint_s:.2f} s", "≤ 1 s"),
            ("idle: CPU", f"{idle:.1%}", "≤ 1%"),
            ("live at 1 Hz, overview: CPU", f"{live:.1%}", "≤ 5%"),
            ("live at 1 Hz, overview: written", f"{rate / 1000:.1f} kB/s", "≤ 10 kB/s"),
            *rows,
            ("memory after all of it", f"{memory:.0f} MB", "≤ 80 MB"),
            (f"Files, {given.files:,} files: ready", f"{ready_s:.2f} s", "≤ 0.3 s"),
            (f"Files, {given.files:,} files: its last row", f"{end_s:.2f} s", "≤ 0.3 s"),
            (f"lookup key to result, {given.items:,} items", f"{lookup:.0f} ms", "≤ 50 ms"),
        ]
        for name, measured, budget in [("figure", "measured", "budget"), *rows]:
            print(f"{name:<42}{measured:>12}{budget:>12}")


if __name__ == "__main__":
    main()
