"""From a file to committed rows: every stage alone, all of them together, and what others do in its place.

    python benchmarks/pipeline.py                                      # 1,000,000 × 384 float16, on the CPU
    python benchmarks/pipeline.py --rows 250000 --dim 2048 --dtype float32
    python benchmarks/pipeline.py --device cuda --rows 10000000

One .npy file is written, and for each way an empty database on the same disk. "Alone": the daemon's own stages, one
after the other in one thread, where encoding on the CPU leaves a core idle. "Together": as the daemon runs them, from
hashing the file to the last commit. Beside them in the same run a straightforward script (numpy.load, a chain of exact
FAISS indexes or, without FAISS, of torch on the device, one executemany into a table with a primary key and an index)
and the encoding part of GRID's predict step, over some of the rows. Training is not measured. Prints Markdown tables,
asserts nothing.
"""

from __future__ import annotations

import argparse
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import _data
import _peers
import _report
import numpy as np
import torch

from semid_daemon.base.drop_file import DropFile
from semid_daemon.base.steps import finish
from semid_daemon.base.types import Baseline, Codebooks, FloatArray
from semid_daemon.codebooks.baseline import measure_baseline
from semid_daemon.config import Config
from semid_daemon.drop.scan import signature_of
from semid_daemon.ingest.chunk_stages import ChunkStages
from semid_daemon.ingest.crash_marker import CrashMarker
from semid_daemon.ingest.file_encoder import FileEncoder
from semid_daemon.ingest.learner import Learner
from semid_daemon.ingest.pending import PendingFile, PendingFiles
from semid_daemon.ingest.pipeline import Backlog, prefetch
from semid_daemon.ingest.register import Register
from semid_daemon.quantizer import Encoder, LloydTrainer, describe_device, resolve_device
from semid_daemon.runtime.context import WorkContext
from semid_daemon.runtime.device_watchdog import Watchdog
from semid_daemon.runtime.events import EventLog
from semid_daemon.runtime.gc_tuning import relaxed_gc
from semid_daemon.runtime.progress import PlainProgress
from semid_daemon.runtime.stage_timing import Stages
from semid_daemon.store.write.generations import NewGeneration
from semid_daemon.store.write.store import Store

_WAYS = {
    "together": "semid, together",
    "alone": "semid, stages alone",
    "script": "script",
    "grid": "GRID's formula, encoding only",
}
_PART_ROWS = 1 << 18
_TRAINED_ROWS = 1 << 15
_SCRIPT_ROWS = 1 << 16


def write_file(path: Path, rows: int, dim: int, dtype: str, device: torch.device) -> FloatArray:
    """Rows of a mixture (see _data.py) as one .npy file; the first of them, to train on."""
    file_ND = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(rows, dim))
    rows_ND = _data.mixture(rows, dim, seed=1, device=device)
    for start in range(0, rows, _PART_ROWS):
        file_ND[start : start + _PART_ROWS] = rows_ND[start : start + _PART_ROWS].cpu().numpy()
    file_ND.flush()
    return rows_ND[:_TRAINED_ROWS].cpu().numpy().copy()


def train(rows_ND: FloatArray, device: torch.device) -> tuple[Codebooks, Baseline]:
    """Three layers of 256 codes; residuals as they are, which the other ways know how to do too."""
    trainer = LloydTrainer(
        n_layers=3, n_clusters=256, normalize_residuals=False, seed=1, device=device, iterations=10, tolerance=1e-4
    )
    for _ in trainer.train(rows_ND):
        pass
    return trainer.codebooks, measure_baseline(Encoder(trainer.codebooks, device), rows_ND, len(rows_ND))


def in_turn(items: Iterator[Any], name: str, patience_s: float = 0.0, demand: Backlog | None = None) -> Iterator[Any]:
    """In the place of `pipeline.prefetch`: one stage after the other, each alone, with as many cores as beside
    the others."""
    if demand is not None:
        demand.has_item = True
    return items


class Run:
    """The daemon's way of one file into an empty database."""

    def __init__(self, root: Path, path: Path, codebooks: Codebooks, baseline: Baseline, device: torch.device) -> None:
        self._root, self._path, self._baseline, self._device = root, path, baseline, device
        self._encoder = Encoder(codebooks, device)

    def __call__(self, *, overlapping: bool) -> tuple[float, dict[str, float]]:
        """Seconds in all, and of work by stage."""
        root = Path(tempfile.mkdtemp(dir=self._root))
        config = Config(root=root)
        config.state_dir.mkdir()
        signature = signature_of(self._path.stat())
        file = DropFile(path=self._path, name=self._path.name, signature=signature)
        stages, marker = Stages(), CrashMarker(config.crash_marker)
        self._encoder.encode(np.ones((1024, self._encoder.codebooks.dim), np.float32))  # kernels are made now
        with Store(config.database) as store, relaxed_gc():
            store.database.limit_wal(config.ingest.max_wal_mb << 20)
            store.generations.publish(NewGeneration("benchmark", self._encoder.codebooks, 1, self._baseline))
            register = Register(store, EventLog(store), PlainProgress(), PendingFiles())
            learner = Learner(config, store, self._device, lambda generation: self._encoder)
            context = WorkContext()
            made_by = ChunkStages(
                config.ingest,
                Watchdog(0),
                stages,
                context.limits.patience_s,
                prefetch=prefetch if overlapping else in_turn,  # type: ignore[arg-type]
            )
            encoder = FileEncoder(context, store, learner, None, lambda generation: self._encoder, made_by, marker)
            started = time.perf_counter()
            ledger = finish(register.enter(file, lambda: True)).ledger
            hashed_s = time.perf_counter() - started
            assert ledger is not None
            for _ in encoder.run(PendingFile(file, ledger), 1):
                pass
            elapsed_s = time.perf_counter() - started
            assert store.files.get(ledger.id).status == "done"
        marker.close()
        shutil.rmtree(root)
        return elapsed_s, {"hash": hashed_s, **stages.seconds()}


def script(root: Path, path: Path, codebooks: Codebooks, device: torch.device) -> tuple[float, dict[str, float]]:
    """What one writes in an afternoon: all in memory, suffixes from a dictionary, one transaction at the end."""
    took: dict[str, float] = {}
    started = at = time.perf_counter()

    def done(stage: str) -> None:
        nonlocal at
        took[stage], at = time.perf_counter() - at, time.perf_counter()

    embeddings_ND = np.load(path)
    done("load")
    encode = script_encoder(codebooks, device)
    codes = []
    for start in range(0, len(embeddings_ND), _SCRIPT_ROWS):
        codes.append(encode(embeddings_ND[start : start + _SCRIPT_ROWS].astype(np.float32)))
    codes_NL = np.concatenate(codes)
    done("encode")
    taken: dict[str, int] = {}
    rows = []
    for row, codes_L in enumerate(codes_NL.tolist()):
        semantic_id = "-".join(map(str, codes_L))
        suffix = taken.get(semantic_id, 0)
        taken[semantic_id] = suffix + 1
        rows.append((f"{path.stem}:{row}", semantic_id, suffix))
    done("IDs and suffixes")
    database = root / "script.db"
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE items (item_id TEXT PRIMARY KEY, semantic_id TEXT, suffix INTEGER)")
    connection.execute("CREATE INDEX items_by_semantic_id ON items (semantic_id)")
    connection.executemany("INSERT INTO items VALUES (?, ?, ?)", rows)
    connection.commit()
    connection.close()
    done("executemany")
    database.unlink()
    return time.perf_counter() - started, took


def script_encoder(codebooks: Codebooks, device: torch.device) -> _peers.Encode:
    if _peers.HAS_FAISS and device.type == "cpu":
        return _peers.faiss_chain(codebooks)
    encode = _peers.torch_loop(codebooks, device, tf32=False)
    return lambda rows_ND: encode(torch.from_numpy(rows_ND).to(device)).cpu().numpy()


def grid(path: Path, codebooks: Codebooks, device: torch.device, rows: int) -> float:
    """Seconds for the encoding part of GRID's predict step, over at most so many rows of the file."""
    file_ND = np.load(path, mmap_mode="r")
    encode, _ = _peers.grid_formula(codebooks, device, 1 << 26 if device.type == "cpu" else 1 << 32)
    started = time.perf_counter()
    for start in range(0, rows, _SCRIPT_ROWS):
        part_ND = torch.from_numpy(file_ND[start : min(rows, start + _SCRIPT_ROWS)].astype(np.float32))
        encode(part_ND.to(device)).cpu()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--dtype", choices=["float16", "float32"], default="float16")
    parser.add_argument(
        "--ways", nargs="+", choices=list(_WAYS), default=list(_WAYS), help="all, unless some are named"
    )
    parser.add_argument("--rounds", type=int, default=1, help="every way is taken so often, in turn; medians are shown")
    parser.add_argument("--directory", type=Path, help="where the file and the databases are written")
    arguments = parser.parse_args()
    device, rows = resolve_device(arguments.device), arguments.rows
    with tempfile.TemporaryDirectory(prefix="semid-pipeline-", dir=arguments.directory) as directory:
        root, path = Path(directory), Path(directory) / "items.npy"
        _report.progress(f"writing {rows:,} × {arguments.dim} {arguments.dtype}")
        first_ND = write_file(path, rows, arguments.dim, arguments.dtype, device)
        codebooks, baseline = train(first_ND, device)
        run = Run(root, path, codebooks, baseline, device)
        grid_rows = min(rows, 8_192 if device.type == "cpu" else 1_000_000)
        every_way: dict[str, Callable[[], tuple[float, dict[str, float]]]] = {
            "together": lambda: run(overlapping=True),
            "alone": lambda: run(overlapping=False),
            "script": lambda: script(root, path, codebooks, device),
            "grid": lambda: (grid(path, codebooks, device, grid_rows) * rows / grid_rows, {}),
        }
        ways = {way: every_way[way] for way in arguments.ways}
        taken: dict[str, list[tuple[float, dict[str, float]]]] = {name: [] for name in ways}
        for round_number in range(arguments.rounds):
            for name, way in ways.items():
                _report.progress(f"round {round_number + 1}: {_WAYS[name]}")
                taken[name].append(way())
                elapsed_s, by_stage = taken[name][-1]
                stages = ", ".join(f"{stage} {took_s:.2f}" for stage, took_s in by_stage.items())
                _report.progress(f"{_WAYS[name]}: {elapsed_s:.2f} s" + (f" ({stages})" if stages else ""))
        report(arguments, rows, path.stat().st_size, taken, device)


def report(
    arguments: argparse.Namespace,
    rows: int,
    size_bytes: int,
    taken: dict[str, list[tuple[float, dict[str, float]]]],
    device: torch.device,
) -> None:
    _report.heading(
        f"{rows:,} × {arguments.dim} {arguments.dtype}, {size_bytes / 1e9:.2f} GB, {describe_device(device)}"
    )
    seconds = {name: float(np.median([elapsed_s for elapsed_s, _ in runs])) for name, runs in taken.items()}
    stages = {
        name: {stage: float(np.median([by_stage[stage] for _, by_stage in runs])) for stage in runs[0][1]}
        for name, runs in taken.items()
    }
    alone, together = stages.get("alone", {}), stages.get("together", {})
    if alone or together:
        lines = [
            [
                stage,
                _report.rounded(rows / alone[stage]) if alone else "-",
                f"{alone[stage]:.2f}" if alone else "-",
                f"{together[stage]:.2f}" if together else "-",
            ]
            for stage, took_s in (alone or together).items()
            if took_s
        ]
        _report.table(["stage", "alone, rows/s", "alone, s", "together, s"], lines)
    _report.heading("File to commit")
    lines = [[_WAYS[way], _report.rounded(rows / took_s), f"{took_s:.2f}"] for way, took_s in seconds.items()]
    _report.table(["", "rows/s", "s"], lines)
    if together and alone:
        share = max(alone.values()) / seconds["together"]
        _report.note(f"Together at {share:.0%} of the rate of the slowest stage alone.")
    if together and "script" in stages:
        parts = ", ".join(f"{stage} {took_s:.2f} s" for stage, took_s in stages["script"].items())
        _report.note(f"Together {seconds['script'] / seconds['together']:.2f} times as fast as the script ({parts}).")
    _report.note(_report.machine([device], torch.get_num_threads()))


if __name__ == "__main__":
    main()
