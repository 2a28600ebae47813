"""`semid inspect`: what the daemon would read from a file, and what it would leave out. Loads no torch."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

from semid_daemon.base.errors import BadFileError, StoreError
from semid_daemon.base.text import escape
from semid_daemon.cli.named_file import open_named_file
from semid_daemon.cli.options import config_option, json_option, optional_config
from semid_daemon.config import Config, Ingest
from semid_daemon.ingest.open_embeddings import check_usable, usable, wrong_dimension
from semid_daemon.runtime.progress import Advance, start_logging
from semid_daemon.store.read.export_items import Catalogue

_FIRST_IDS = 5


@click.command()
@config_option
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def inspect(config_path: Path | None, file: Path, as_json: bool) -> None:
    """Show what the daemon would read from FILE, without giving anything an ID.

    Shows its format, rows, dimension and dtype, the fields of vectors and item IDs, the first item IDs, and how many
    rows would be left out and why. The whole file is read. Field names and the policy for vectors of zeros come from
    semid.toml, if there is one.

    \b
    semid inspect items.parquet

    \b
    Exit status:
      0   it would be read
      3   it would be rejected; the reason is on stderr
    """
    config = optional_config(config_path)
    settings = config.ingest if config else Ingest()
    dim = _catalogue_dim(config) if config else None
    progress = start_logging(quiet=True)
    with contextlib.ExitStack() as stack:
        try:
            found = inspect_file(
                file,
                settings,
                lambda rows: stack.enter_context(progress.task(file.name, rows)),
                (config.drop_dir, config.done_dir) if config else (),
                dim,
            )
        except BadFileError as error:
            click.echo(f"semid: {escape(str(file))}: would be rejected: {error}", err=True)
            sys.exit(3)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found)))
        return
    ids = found.sidecar or found.id_field or "none: made from the file's path, its content and the row"
    lines = [
        f"format      {found.format}",
        f"vectors     {found.rows:,} rows × {found.dim:,}, {found.dtype}"
        + (f", from {escape(found.vector_field)}" if found.vector_field else ""),
        f"item IDs    {escape(ids)}",
        f"first       {', '.join(map(escape, found.first_ids)) or '-'}",
        f"usable      {found.rows_usable:,} rows",
    ]
    if found.rejected:
        reasons = ", ".join(f"{reason}: {rows:,}" for reason, rows in found.rejected.items())
        lines.append(f"left out    {found.rows_rejected:,} rows ({reasons})")
    if found.remark:
        lines.append(f"remark      {found.remark}")
    click.echo("\n".join(lines))


def _catalogue_dim(config: Config) -> int | None:
    """The length of the vectors of the active generation; of the settings while there is none."""
    with contextlib.suppress(StoreError), Catalogue(config.database) as catalogue:
        return catalogue.published.dim
    return config.quantizer.dim


@dataclass(frozen=True, slots=True)
class Inspected:
    """What the daemon would read from a file. `vector_field` and `id_field` are None if the format names none."""

    file: str
    format: str
    rows: int
    dim: int
    dtype: str
    vector_field: str | None
    id_field: str | None
    sidecar: str | None
    first_ids: list[str]
    rows_usable: int
    rows_rejected: int
    rejected: Mapping[str, int] = field(default_factory=dict)
    remark: str | None = None


def inspect_file(
    path: Path,
    settings: Ingest,
    on_open: Callable[[int], Advance],
    directories: Sequence[Path] = (),
    dim: int | None = None,
) -> Inspected:
    """Read a whole file as the daemon would. `on_open` takes its number of rows and returns a callback for progress.
    `directories` are those of a catalogue's files, `dim` is the length of its vectors, where it has one.

    Raises BadFileError when the daemon would reject it, OSError when it cannot be read.
    """
    rejected: Counter[str] = Counter()
    first_ids: list[str] = []
    rows_usable = 0
    with open_named_file(path, settings.fields, directories, dim) as (file, source):
        if dim is not None and source.rows and source.dim != dim:
            raise wrong_dimension(source.dim, dim, "the catalogue's")
        advance = on_open(source.rows)
        for read in source.batches(settings.chunk_rows):
            batch = usable(read, settings)
            rejected.update(batch.rejected)
            rows_usable += len(batch.item_ids)
            first_ids += batch.item_ids[: _FIRST_IDS - len(first_ids)]
            advance(batch.rows_read)
        check_usable(source.rows, rejected, settings)
        return Inspected(
            file=str(path),
            format=source.format,
            rows=source.rows,
            dim=source.dim,
            dtype=source.dtype,
            vector_field=source.vector_name,
            id_field=None if source.id_name == "sidecar" else source.id_name,
            sidecar=file.sidecar.name if source.id_name == "sidecar" and file.sidecar else None,
            first_ids=first_ids,
            rows_usable=rows_usable,
            rows_rejected=sum(rejected.values()),
            rejected=dict(rejected),
            remark=source.remark if source.rows else None,
        )
