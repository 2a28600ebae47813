"""Catalogues as a daemon leaves them, written by the store's own writer: small, seeded, the same every time."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from semid_daemon.base.types import Codebooks, EmbeddingBatch, TrainingStep
from semid_daemon.config import Config, load_config
from semid_daemon.store.write.generations import NewGeneration
from semid_daemon.store.write.store import Store
from semid_daemon.store.write.telemetry import Metric
from semid_tui.app import MonitorApp
from semid_tui.context import Marker

LAYERS, CODES, ITEMS = 3, 16, 600
NASTY = "evil[red]\x1b[31m\nname\u202e.npz"  # markup, an escape sequence, a line break, a change of direction
SEED_TEXT = "[quantizer]\nlayers = 3\ncodebook_size = 16\n[training]\nmin_rows = 64\n"


def configured(root: Path) -> Config:
    (root / "semid.toml").write_text(SEED_TEXT)
    for name in ("drop", "state", "state/commands"):
        (root / name).mkdir(exist_ok=True)
    return load_config(root / "semid.toml")


def record(config: Config) -> None:
    """A catalogue with two generations, a live daemon that encodes, files in every state, and dead codes in layer 1."""
    random = np.random.default_rng(6)
    with Store(config.database) as store:
        store.daemon.started(4711, "cpu (2 threads)", "0.1.0")
        losses = np.concatenate([scale * (0.2 + np.exp(-np.arange(400) / 60)) for scale in (1.0, 0.7, 0.5)])
        losses *= 1 + 0.05 * random.random(1200)
        store.telemetry.add_training_steps(
            "train-1",
            [TrainingStep(step + 1, step // 400, step % 400 + 1, float(loss)) for step, loss in enumerate(losses)],
        )
        codebooks = Codebooks(np.zeros((LAYERS, CODES, 4), dtype=np.float32), True)
        store.generations.publish(NewGeneration("0f" * 16, codebooks, trained_rows=64))
        encode(store, "first.npz", [f"item-{number}" for number in range(64)], codes(random, 64), generation=1)
        store.generations.publish(NewGeneration("1e" * 16, codebooks, trained_rows=ITEMS))
        ids = [f"item-{number}" for number in range(ITEMS - 2)] + ["Ünïcode-データ", "a[b]c"]
        encode(store, "items-a.parquet", ids, codes(random, ITEMS), generation=2)
        later = store.files.record_sighting("items-b.parquet", "sig", "later", 2_000_000)
        later = store.files.begin_loading(later.id, rows=1000, dim=4, generation=2, chunk_rows=100)
        commit(store, later, 0, [f"later-{number}" for number in range(100)], codes(random, 100))
        for number in range(3):
            store.files.record_sighting(f"waiting-{number}.npz", "sig", f"w{number}", 1000)
        store.files.reject(
            store.files.record_sighting("broken.npz", "sig", "b", 10).id, "wrong dimension: 512, expected 768"
        )
        store.files.reject(store.files.record_sighting(NASTY, "sig", "n", 10).id, f"cannot be read: {NASTY}")
        retry_at = (datetime.now(UTC) + timedelta(seconds=90)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        store.files.defer(
            store.files.record_sighting("disk.npz", "sig", "d", 10).id, "No space left on device", retry_at
        )
        store.telemetry.add_events(
            [("info", "generation 2 published after 1.2 s"), ("warning", "the disk is nearly full")]
        )
        store.telemetry.add_events([("error", f"{NASTY}: rejected")])
        store.commands.accept("1.json", "retry", '{"all": true}', "2026-01-01T00:00:00.000Z")
        store.commands.answer("1.json", "done", "2 files are tried again")
        alive(store)


def alive(store: Store, state: str = "encoding") -> None:
    """A heartbeat of just now, with figures."""
    store.daemon.heartbeat(
        state,
        "items-b.parquet",
        {
            "rows_per_s": 48_100,
            "file": "items-b.parquet",
            "file_rows": 1000,
            "file_rows_done": 100,
            "file_eta_s": 90,
            "eta_s": 2290,
            "bytes_left": 5 << 30,
            "cpu_percent": 37.5,
            "cpu_count": 2,
            "memory_used_bytes": 8 << 30,
            "memory_total_bytes": 16 << 30,
            "process_rss_bytes": 1 << 30,
            "gpu_percent": 81,
            "gpu_memory_used_bytes": 60 << 30,
            "gpu_memory_total_bytes": 80 << 30,
            "gpu_celsius": 61,
            "gpu_watts": 450,
            "disk_free_bytes": 100 << 30,
            "stage_read_s": 1.0,
            "stage_encode_s": 3.0,
            "bottleneck": "encode",
        },
    )


def codes(random: np.random.Generator, rows: int) -> np.ndarray:
    """Random codes; in layer 1 only the first ten of sixteen are used."""
    codes_NL = random.integers(0, CODES, size=(rows, LAYERS))
    codes_NL[:, 1] %= 10
    return codes_NL.astype(np.int32)


def encode(store: Store, name: str, item_ids: list[str], codes_NL: np.ndarray, generation: int) -> None:
    """A file from its sighting to its end."""
    ledger = store.files.record_sighting(name, "sig", name, 1_000_000)
    rows = len(item_ids)
    ledger = store.files.begin_loading(ledger.id, rows=rows, dim=4, generation=generation, chunk_rows=rows)
    commit(store, ledger, 0, item_ids, codes_NL)


def commit(store: Store, ledger: Any, first_row: int, item_ids: list[str], codes_NL: np.ndarray) -> None:
    embeddings_ND = np.random.default_rng(first_row).normal(size=(len(item_ids), 4)).astype(np.float32)
    batch = EmbeddingBatch(first_row, len(item_ids), item_ids, embeddings_ND)
    store.chunks.commit(ledger, batch, codes_NL, [Metric("rows_per_s", 48_100.0)])


def copy_of(recorded: Config, root: Path) -> Config:
    """The recorded catalogue again, its daemon's last heartbeat just now."""
    shutil.copytree(recorded.root, root, dirs_exist_ok=True)
    config = load_config(root / "semid.toml")
    with Store(config.database) as store:
        alive(store)
    return config


def execute(config: Config, sql: str, *values: object) -> None:
    connection = sqlite3.connect(config.database, isolation_level=None)
    connection.execute(sql, values)
    connection.close()


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# -- looking at the app --------------------------------------------------------------------------------


def screen_text(app: MonitorApp) -> str:
    """What the terminal shows, line by line."""
    return "\n".join(strip.text.rstrip() for strip in app.screen._compositor.render_strips())


class AppDriver:
    """An app with a pilot: keys are pressed, and what appears is awaited."""

    def __init__(self, app: MonitorApp, pilot: Any) -> None:
        self.app, self.pilot = app, pilot

    @property
    def text(self) -> str:
        return screen_text(self.app)

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    async def until(self, condition: Callable[[], object], timeout_s: float = 15) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        while not condition():
            assert loop.time() < end, f"timed out; on the screen:\n{self.text}"
            await self.pilot.pause(0.01)

    async def sees(self, *texts: str) -> str:
        """Wait until all of these are on the screen."""
        await self.until(lambda: all(text in self.text for text in texts))
        return self.text


def drive(
    config: Config,
    script: Callable[[AppDriver], Awaitable[None]],
    size: tuple[int, int] = (80, 24),
    *,
    readonly: bool = False,
    marker: Marker = "braille",
    light: bool = False,
) -> None:
    """Run the app over a catalogue, and a script over the app."""

    async def run() -> None:
        app = MonitorApp(config, readonly=readonly, refresh_s=0.05, marker=marker, light=light)
        async with app.run_test(size=size, notifications=True) as pilot:
            await script(AppDriver(app, pilot))

    asyncio.run(run())
