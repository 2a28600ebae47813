"""`semid demo`: the whole of semid on bundled embeddings of Python packages, in a directory of its own."""

from __future__ import annotations

import os
import tempfile
from importlib.resources import files
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from semid_daemon.base.errors import ConfigError, SemidError
from semid_daemon.cli.lookup import item_text
from semid_daemon.config import load_config, template
from semid_daemon.daemon.run import run_daemon
from semid_daemon.daemon.state_lock import make_directories
from semid_daemon.store.read.connection import ReadConnection
from semid_daemon.store.read.search import SearchQueries
from semid_daemon.store.read.status import StatusQueries

SHOWN = ("numpy", "django", "pytest", "boto3")


@click.command()
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to make the demo's catalogue. Default: a new temporary directory.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps.")
def demo(directory: Path | None, device: str) -> None:
    """Run everything on real embeddings: 3,618 well-known Python packages, dropped in two files.

    Makes a catalogue, trains codebooks, gives every package its semantic ID, and looks a few of them up.

    \b
    semid demo --dir demo
    """
    run_demo(directory, device)


def run_demo(directory: Path | None, device: str) -> None:
    """Make a catalogue, drop the sample in two files, run the daemon once, and print the result."""
    root = directory or Path(tempfile.mkdtemp(prefix="semid-demo-"))
    if (root / "semid.toml").exists():
        raise ConfigError(f"{root}: holds a catalogue already; choose an empty directory")
    root.mkdir(parents=True, exist_ok=True)
    settings = root / "semid.toml"
    settings.write_text(template().replace('device = "auto"', f'device = "{device}"'), encoding="utf-8")
    config = load_config(settings)
    make_directories(config)

    with (
        files("semid_daemon.sample").joinpath("packages-popular.npz").open("rb") as sample,
        np.load(sample) as arrays,
    ):
        item_ids, embeddings_ND = arrays["item_ids"], arrays["embeddings"]
    half = len(item_ids) // 2
    # Producers write under a name that scans ignore, then rename.
    first = config.drop_dir / ".packages-1.npz.tmp"
    with first.open("wb") as file:
        np.savez(file, item_ids=item_ids[:half], embeddings=embeddings_ND[:half])
    os.rename(first, config.drop_dir / "packages-1.npz")
    second = config.drop_dir / ".packages-2.parquet.tmp"
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(embeddings_ND[half:].reshape(-1)), embeddings_ND.shape[1])
    pq.write_table(pa.table({"item_id": item_ids[half:].tolist(), "embedding": vectors}), second)
    os.rename(second, config.drop_dir / "packages-2.parquet")
    click.echo(f"dropped packages-1.npz and packages-2.parquet, {len(item_ids):,} items, into {config.drop_dir}\n")

    outcome = run_daemon(config, once=True)
    if outcome.stopped:
        raise SemidError(f"the demo was stopped; `semid run -c {settings}` goes on with it")
    if outcome.rejected or outcome.deferred or outcome.missing_rows or outcome.source_missing:
        raise SemidError(f"the demo's files could not be ingested; `semid status -c {settings}` says more")
    with ReadConnection(config.database) as connection:
        snapshot, search = StatusQueries(connection).status(), SearchQueries(connection)
        click.echo(f"\n{snapshot.items:,} items have a semantic ID; unique rate {snapshot.unique_rate:.3f}")
        for layer in snapshot.layers:
            click.echo(
                f"  layer {layer.layer}: {config.quantizer.codebook_size - layer.dead_codes} of"
                f" {config.quantizer.codebook_size} codes in use, perplexity {layer.perplexity:.0f}"
            )
        click.echo("\nsemid lookup " + " ".join(SHOWN))
        for name in SHOWN:
            item = search.lookup(name)
            if item is not None:
                click.echo(item_text(item))
        query = "SELECT item_id, semantic_id FROM semantic_ids WHERE item_id LIKE 'flask%' ORDER BY item_id LIMIT 3"
        click.echo(f'\nsqlite3 {config.database} "{query}"')
        for row in connection.rows(query):
            click.echo("|".join(row))
        example = search.lookup(SHOWN[0])
    prefix = "-".join(map(str, example.codes[:2])) if example else "0"
    click.echo(f"\nThe catalogue is in {root}. Type next:")
    click.echo(f"  semid status -c {settings}")
    click.echo(f"  semid lookup -c {settings} --prefix {prefix}")
    click.echo(f"  semid run -c {settings}      # then drop more files into {config.drop_dir}")
