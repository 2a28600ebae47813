"""A catalogue that grows for fifteen months: what moves, what drifts, what a candidate gains, what a refresh costs.

Plays real Python packages to the daemon in the order in which they came: trains on 2005-2024, appends 2025-q1 to
2026-03, prepares a generation from the candidate and one trained anew, promotes, rolls back. With --data DIR for the
directory of the packages; without it the bundled sample is cut into a base and six files, which shows how it works
and no drift. Prints tables, asserts nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from _measure import reconstruction_error
from _report import heading, machine, note, progress, table

from semid_daemon.base.types import Codebooks, FloatArray
from semid_daemon.codebooks.files import load_codebooks
from semid_daemon.codebooks.trainers import make_trainer
from semid_daemon.command_client import send_command
from semid_daemon.config import Config, load_config, template
from semid_daemon.daemon.run import run_daemon
from semid_daemon.quantizer import Encoder, resolve_device
from semid_daemon.store.read.compare import ComparisonQueries
from semid_daemon.store.read.connection import ReadConnection
from semid_daemon.store.read.status import StatusQueries
from semid_daemon.store.write.store import Store

_NAMES = ["2025-q1", "2025-q2", "2025-q3", "2025-q4", "2026-01", "2026-02", "2026-03"]
_REFRESH_AFTER = "2025-q4"
_SAMPLE_PARTS = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="directory with 2005-2024.npz, 2025-q1.npz and so on")
    parser.add_argument("--threads", type=int, default=2, help="torch's threads (default 2)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory(prefix="semid-continual-") as directory:
        root = Path(directory)
        base, parts = _packages(arguments.data, root / "packages")
        config = _catalogue(root / "catalogue")
        _stream(config, base, parts, root)
        _last_switch(config)
    note(machine([torch.device("cpu")], arguments.threads))


def _packages(data: Path | None, sample: Path) -> tuple[Path, list[Path]]:
    """The base and the files that come later, in order."""
    if data is not None:
        return data / "2005-2024.npz", [data / f"{name}.npz" for name in _NAMES]
    sample.mkdir()
    with files("semid_daemon.sample").joinpath("packages-popular.npz").open("rb") as file, np.load(file) as arrays:
        item_ids, embeddings_ND = arrays["item_ids"], arrays["embeddings"]
    cuts = np.array_split(np.arange(len(item_ids)), _SAMPLE_PARTS + 9)
    pieces = [np.concatenate(cuts[:9]), *cuts[9:]]
    for number, rows in enumerate(pieces):
        np.savez(sample / f"part-{number}.npz", item_ids=item_ids[rows], embeddings=embeddings_ND[rows])
    base, *parts = sorted(sample.glob("*.npz"))
    return base, parts


def _catalogue(root: Path) -> Config:
    root.mkdir()
    (root / "semid.toml").write_text(template().replace("min_rows = 3072", "min_rows = 2048"), encoding="utf-8")
    return load_config(root / "semid.toml")


# -- the stream --------------------------------------------------------------------------------------


def _stream(config: Config, base: Path, parts: list[Path], root: Path) -> None:
    progress(f"training on {base.stem}")
    _drop(config, base)
    lines, drifts = [], []
    middle = next((part for part in parts if part.stem == _REFRESH_AFTER), parts[len(parts) // 2])
    refreshed = root / "refreshed"
    for part in parts:
        progress(part.stem)
        frozen, candidate = _errors(config, part)
        _remember(config, root / "before.db")
        _drop(config, part)
        published, moved = _moved(config, root / "before.db")
        lines.append([part.stem, f"{_rows(part):,}", f"{published:,}", str(moved), f"{frozen:.4f}", f"{candidate:.4f}"])
        drifts.append([part.stem, *_drift(config)])
        if part == middle:
            shutil.copytree(config.root, refreshed)
    heading("Appending: what moves, and whose error is lower on the next file")
    table(["file", "rows", "published before", "of them moved", "frozen error", "candidate's error"], lines)
    note(
        "Moved: published items whose semantic ID, suffix or generation is another after the file than before, by SQL. "
        "Errors: of each file's rows before it was dropped; squared distance of a row of length 1 to what its codes "
        "reconstruct."
    )
    heading("Drift against generation 1, by the window of recent rows after each file")
    table(["file", "error ratio", "tail share", "JS 0", "JS 1", "JS 2", "dead alive", "collisions"], drifts)
    note("Events: " + "; ".join(_events(config)))
    _refreshes(load_config(refreshed / "semid.toml"), middle.stem, [base, *parts[: parts.index(middle) + 1]])


def _drop(config: Config, source: Path | None) -> None:
    """Have the daemon work on a file, and on whatever was asked of it."""
    config.drop_dir.mkdir(exist_ok=True)
    if source is not None:
        shutil.copyfile(source, config.drop_dir / f".{source.name}.tmp")
        (config.drop_dir / f".{source.name}.tmp").rename(config.drop_dir / source.name)
    run_daemon(config, once=True, quiet=True)


def _ask(config: Config, command: str, **arguments: object) -> str:
    name = send_command(config.commands_dir, command, arguments)
    _drop(config, None)
    with ReadConnection(config.database) as connection:
        answered = StatusQueries(connection).command_answer(name)
    return "no answer" if answered is None else f"{answered[0]}: {answered[1]}"


def _codebooks(config: Config, generation: int) -> Codebooks:
    with Store(config.database) as store:
        return load_codebooks(config.codebooks_dir, store.generations.fingerprint(generation))


def _errors(config: Config, part: Path) -> tuple[float, float]:
    """Of a file that nobody has seen yet: the frozen generation's error, and the candidate's."""
    codebooks = _codebooks(config, 1)
    with Store(config.database) as store:
        candidate = store.candidates.get(1)
    centroids_LKD = codebooks.centroids_LKD if candidate is None else candidate.centroids_LKD
    rows_ND = _embeddings(part)
    return _error(codebooks, rows_ND), _error(Codebooks(centroids_LKD, codebooks.normalize_residuals), rows_ND)


def _error(codebooks: Codebooks, rows_ND: FloatArray) -> float:
    return reconstruction_error(rows_ND, Encoder(codebooks, resolve_device("cpu")).encode(rows_ND), codebooks)


def _embeddings(part: Path) -> FloatArray:
    with np.load(part) as arrays:
        return np.ascontiguousarray(arrays["embeddings"], dtype=np.float32)


def _rows(part: Path) -> int:
    with np.load(part) as arrays:
        return len(arrays["item_ids"])


@contextlib.contextmanager
def _database(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        yield connection


def _remember(config: Config, target: Path) -> None:
    """Copy what is published now into a database of its own."""
    target.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(target)) as copy, copy:
        copy.execute("ATTACH ? AS semid", (str(config.database),))
        copy.execute("CREATE TABLE before AS SELECT item_id, semantic_id, suffix, generation FROM semid.semantic_ids")
        copy.execute("CREATE INDEX before_by_item ON before(item_id)")


def _moved(config: Config, target: Path) -> tuple[int, int]:
    """How many items were published before, and how many of them are not what they were."""
    with contextlib.closing(sqlite3.connect(target)) as copy:
        copy.execute("ATTACH ? AS semid", (str(config.database),))
        published, moved = copy.execute(
            "SELECT count(*), coalesce(sum((b.semantic_id, b.suffix, b.generation)"
            " IS NOT (s.semantic_id, s.suffix, s.generation)), 0)"
            " FROM before b LEFT JOIN semid.semantic_ids s USING (item_id)"
        ).fetchone()
        return int(published), int(moved)


def _drift(config: Config) -> list[str]:
    with _database(config.database) as connection:
        newest = "(SELECT max(step) FROM metrics WHERE run = 'drift-1')"
        found = {
            (name, layer): value
            for name, layer, value in connection.execute(
                f"SELECT name, layer, value FROM metrics WHERE run = 'drift-1' AND step = {newest}"
            )
        }
    if not found:
        return ["-"] * 7
    return [
        f"{found['drift_error_ratio', None]:.4f}",
        f"{found['drift_tail_share', None]:.4f}",
        *(f"{found['drift_js', layer]:.4f}" for layer in range(3)),
        " / ".join(f"{found['drift_dead_alive', layer]:.0f}" for layer in range(3)),
        f"{found['drift_collision_rate', None]:.4f}",
    ]


def _events(config: Config) -> list[str]:
    with _database(config.database) as connection:
        found = connection.execute("SELECT message FROM events WHERE message GLOB 'refresh *recommended*'").fetchall()
    return [message for (message,) in found] or ["no refresh was recommended"]


# -- refreshes ---------------------------------------------------------------------------------------


def _refreshes(config: Config, after: str, seen: list[Path]) -> None:
    """From the candidate, anew with matched codes, and anew as the codes fall: which share of codes stays."""
    lines = []
    for name, origin in (("from the candidate", "candidate"), ("anew, matched", "anew")):
        progress(f"refresh {name}")
        _ask(config, "train", **{"from": origin})
        with ReadConnection(config.database) as connection:
            comparing = ComparisonQueries(connection)
            pair = comparing.default_pair()
            churn, quality = comparing.churn(*pair), comparing.quality(*pair)
        kept = [1 - moved / churn.items for moved in (*churn.moved_by_layer, churn.moved)]
        figures = {(each.name, each.layer): each.new for each in quality}
        lines.append([name, *_shares(kept), *_quality(figures)])
        before = {(each.name, each.layer): each.old for each in quality}
    progress("refresh anew, unmatched")
    trainer = make_trainer(config.quantizer, config.training, resolve_device("cpu"))
    rows_ND = np.concatenate([_embeddings(part) for part in seen])
    for _ in trainer.train(rows_ND):
        pass
    old, new = _codebooks(config, 1), trainer.codebooks
    old_NL, new_NL = (Encoder(each, resolve_device("cpu")).encode(rows_ND) for each in (old, new))
    kept = [*(old_NL == new_NL).mean(axis=0).tolist(), float((old_NL == new_NL).all(axis=1).mean())]
    lines.append(["anew, unmatched", *_shares(kept), *["-"] * 5])
    lines.append(["generation 1, as it is", *["100.0%"] * 4, *_quality(before)])
    heading(f"A refresh on everything up to {after}: share of the {churn.items:,} items that keep their code")
    columns = ["layer 0", "layer 1", "layer 2", "whole ID", "error", "unique rate", "recall 1", "recall 2", "recall 3"]
    table(["refresh", *columns], lines)
    note(
        "Error and neighbour recall on the same sample of all items. Recall d: of an item's ten nearest neighbours by "
        "cosine among 32,768 items at most, the share that has the same first d codes."
    )


def _shares(kept: list[float]) -> list[str]:
    return [f"{share:.1%}" for share in kept]


def _quality(figures: dict[tuple[str, int | None], float | None]) -> list[str]:
    names: list[tuple[str, int | None]] = [("error", None), ("unique_rate", None)]
    names += [("neighbour_recall", layer) for layer in range(3)]
    return ["-" if figures.get(name) is None else f"{figures[name]:.4f}" for name in names]


def _last_switch(config: Config) -> None:
    """Promote what the whole stream has taught, and go back: generation 1 is what it was."""
    lines = []
    everything = "SELECT count(*), sum(length(semantic_id)), total(suffix) FROM all_semantic_ids WHERE generation = 1"
    published = "SELECT count(*), min(generation), max(generation) FROM semantic_ids"
    digest = "SELECT group_concat(item_id || semantic_id || suffix, '') FROM (SELECT * FROM all_semantic_ids"
    digest += " WHERE generation = 1 ORDER BY item_id)"
    first = ""
    for command in (None, "train", "promote", "rollback"):
        progress(command or "the stream's end")
        answer = "" if command is None else _ask(config, command)
        with _database(config.database) as connection:
            items, low, high = connection.execute(published).fetchone()
            text = str(connection.execute(digest).fetchone())
            kept = connection.execute(everything).fetchone()[0]
        first = first or text
        same = "equal" if text == first else "CHANGED"
        generations = str(low) if low == high else f"{low}-{high}"
        lines.append([command or "-", f"{items:,}", generations, f"{kept:,}", same, answer.split(":")[0] or "-"])
    heading("Promoted, and rolled back")
    table(["command", "published items", "generation", "items in generation 1", "their IDs", "answer"], lines)


if __name__ == "__main__":
    main()
