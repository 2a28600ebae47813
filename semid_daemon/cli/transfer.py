"""Commands that exchange with other programs: what goes out as others read it, what comes in from them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from semid_daemon.base.errors import BadFileError, ConfigError
from semid_daemon.cli.generations import ask_long, wait_option
from semid_daemon.cli.options import config_option, escape, json_option
from semid_daemon.config import Config, Ingest, find_config, load_config
from semid_daemon.export.forms import FORMS

if TYPE_CHECKING:
    from semid_daemon.export.job import IdType
    from semid_daemon.runtime.progress import Advance


@contextlib.contextmanager
def _tidy_end() -> Iterator[None]:
    """SIGTERM ends a command as ctrl-C does: what is half written goes."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    previous = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def is_prefix(text: str) -> bool:
    return all(code.isdecimal() and code.isascii() for code in text.split("-"))


@click.command(
    epilog="\b\nForms:\n" + "\n".join(f"  {name:<13} {what}" for name, what in FORMS.items()),
)
@config_option
@click.option("--format", "name", type=click.Choice(list(FORMS)), metavar="FORM", required=True)
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--generation", type=int, metavar="G", help="This generation's IDs. Default: the active one's.")
@click.option("--prefix", metavar="CODES", help="Only items whose semantic ID begins with these codes, like 12-250.")
@click.option(
    "--since",
    metavar="TIME",
    help="Only items assigned then or later, for deltas: 2026-01-31, or 2026-01-31T12:04:51Z. UTC unless it says"
    " otherwise. `latest` in OUT.semid.json is what to give next time.",
)
@click.option(
    "--item-ids",
    "id_type",
    type=click.Choice(["auto", "text", "integer"]),
    help="Item IDs as text or as int64. Default: integers in grid-pickle, onerec and torcheasyrec when all of the"
    " generation's are, else text.",
)
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
def export(
    config_path: Path | None,
    name: str,
    out: Path,
    generation: int | None,
    prefix: str | None,
    since: str | None,
    id_type: IdType | None,
    quiet: bool,
) -> None:
    """Write the catalogue to OUT in a form that another program reads, while the daemon runs.

    OUT is there whole or not at all; a file that was there is replaced. Beside it: OUT.semid.json tells which
    generation it is, and for the forms that only number their items (grid, npy, index-json) OUT.ids.json is the
    list of item IDs by row. Rows are ordered by length of the item ID, then by item ID: items numbered 0...N-1
    keep their number.
    """
    from semid_daemon.base.clock import stored_time
    from semid_daemon.codebooks.files import load_codebooks
    from semid_daemon.export.forms import form_named
    from semid_daemon.export.writing import export
    from semid_daemon.runtime.progress import start_logging
    from semid_daemon.store.read.export_items import Catalogue, Selection

    config = load_config(find_config(config_path))
    if prefix is not None and not is_prefix(prefix):
        raise click.BadParameter(f"{prefix!r} is not codes joined by '-', like 12-250", param_hint="--prefix")
    try:
        selection = Selection(prefix, None if since is None else stored_time(since))
    except ValueError:
        raise click.BadParameter(f"{since!r} is no time like 2026-01-31T12:04:51Z", param_hint="--since") from None
    if out.absolute().resolve().is_relative_to(config.drop_dir.resolve()):
        raise ConfigError(f"{out}: lies in the drop directory, where it would be taken for embeddings; write elsewhere")
    progress = start_logging(quiet=quiet)
    with _tidy_end(), Catalogue(config.database, generation) as catalogue:
        published = catalogue.published
        rows = catalogue.count(selection)
        with progress.task(f"exporting {name}", rows) as advance:
            exported = export(
                catalogue,
                form_named(name),
                out,
                selection=selection,
                id_type=id_type,
                load_codebooks=lambda: load_codebooks(config.codebooks_dir, published.fingerprint),
                advance=advance,
            )
    for warning in exported.warnings:
        click.echo(f"semid: {warning}", err=True)
    *beside, main_path = exported.paths
    what = f"{exported.rows:,} items of generation {published.generation}" if exported.rows or rows else "codebooks"
    click.echo(
        f"{escape(str(main_path))}: {what}, {name}; beside it {', '.join(path.name for path in beside)}", err=True
    )


@click.command()
@config_option
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def inspect(config_path: Path | None, file: Path, as_json: bool) -> None:
    """Say what the daemon would read of FILE, without giving anything an ID.

    Its format, rows, dimension and dtype, the fields of vectors and item IDs that were found, the first item IDs,
    and how many rows would be left out and why. The file is read through. Field names and the policy for vectors
    of zeros come from semid.toml where there is one.

    \b
    Exit status:
      0  it would be read
      3  it would be rejected; the reason is on stderr
    """
    from semid_daemon.cli.inspect_file import inspect_file
    from semid_daemon.runtime.progress import start_logging

    settings = _ingest_settings(config_path)
    progress = start_logging(quiet=True)
    with contextlib.ExitStack() as stack:
        try:
            found = inspect_file(file, settings, lambda rows: stack.enter_context(progress.task(file.name, rows)))
        except BadFileError as error:
            click.echo(f"semid: {escape(str(file))}: would be rejected: {error}", err=True)
            sys.exit(3)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found)))
        return
    ids = found.sidecar or found.id_field or "none: made from the file's name and the row"
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
    click.echo("\n".join(lines))


@click.command()
@config_option
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@click.option("-o", "--output", "out", required=True, type=click.Path(path_type=Path), metavar="OUT.parquet")
@click.option(
    "--codebooks",
    "codebook_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A codebook file of semid: state/codebooks/<fingerprint>.safetensors. Default: the catalogue's, of its active"
    " generation or that of --generation.",
)
@click.option("--generation", type=int, metavar="G", help="The catalogue's generation to encode with.")
@click.option("--device", help="auto, cpu, cuda, cuda:1 or mps. Default: quantizer.device, or auto.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
def encode(
    config_path: Path | None,
    files: tuple[Path, ...],
    out: Path,
    codebook_file: Path | None,
    generation: int | None,
    device: str | None,
    quiet: bool,
) -> None:
    """Encode files of embeddings into OUT.parquet: item_id, semantic_id, codes. Publishes nothing.

    The codes are those that the daemon would give. With --codebooks neither daemon nor database is needed;
    field names and the policy for vectors of zeros come from semid.toml where there is one. Codes are the nearest
    ones: suffixes, and other codes where buckets are full (collisions = "next-best"), are the catalogue's to give.
    """
    from semid_daemon.cli.encode_offline import encode_files
    from semid_daemon.codebooks.api import Codebooks
    from semid_daemon.runtime.progress import start_logging

    if codebook_file is not None and generation is not None:
        raise click.UsageError("give --codebooks or --generation")
    if codebook_file is None:
        codebook_file = _published_codebooks(load_config(find_config(config_path)), generation)
    config = _config_if_there(config_path)
    codebooks = Codebooks.load(codebook_file, device or (config.quantizer.device if config else "auto"))
    progress = start_logging(quiet=quiet)
    with _tidy_end(), contextlib.ExitStack() as stack:

        def on_open(path: Path, rows: int) -> Advance:
            stack.close()
            return stack.enter_context(progress.task(path.name, rows))

        rows, left_out = encode_files(files, out, codebooks, config.ingest if config else Ingest(), on_open)
    reasons = ", ".join(f"{reason}: {count:,}" for reason, count in left_out.items())
    omitted = f"; {sum(left_out.values()):,} rows left out ({reasons})" if left_out else ""
    click.echo(f"{escape(str(out))}: {rows:,} rows by codebooks {codebooks.fingerprint}{omitted}", err=True)


def _published_codebooks(config: Config, generation: int | None) -> Path:
    from semid_daemon.codebooks.files import codebook_path
    from semid_daemon.store.read.export_items import Catalogue

    with Catalogue(config.database, generation) as catalogue:
        return codebook_path(config.codebooks_dir, catalogue.published.fingerprint)


def _config_if_there(path: Path | None) -> Config | None:
    """The configuration that is named; without a name the one that lies here, if any."""
    found = find_config(path)
    if path is None and "SEMID_CONFIG" not in os.environ and not found.exists():
        return None
    return load_config(found)


def _ingest_settings(path: Path | None) -> Ingest:
    config = _config_if_there(path)
    return config.ingest if config else Ingest()


@click.command("import-codebooks")
@config_option
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--normalize-residuals/--no-normalize-residuals",
    "normalize",
    default=None,
    help="Whether the program that made them L2-normalizes every layer's input. Only GRID has both; it is asked for"
    " where its checkpoint does not say.",
)
@click.option(
    "-o",
    "--output",
    "out",
    type=click.Path(path_type=Path),
    metavar="OUT.safetensors",
    help="Only write them as a codebook file of semid, for `semid encode` and Python. No catalogue is needed.",
)
@wait_option
@json_option
def import_codebooks(
    config_path: Path | None, file: Path, normalize: bool | None, out: Path | None, wait: bool, as_json: bool
) -> None:
    """Start from codebooks that another program trained: a GRID checkpoint, MiniOneRec's .npz (codebook_0...),
    OpenOneRec's state dict (centroids.0...), a FAISS IndexResidualQuantizer, or a codebook file of semid.

    In a catalogue without a generation they become generation 1, instead of a training, and what has gathered is
    encoded with them. Otherwise they are prepared as the next generation beside the active one, as `semid train`
    does: nothing published changes before `semid promote`. Codes are the program's own; codebooks with which
    semid could not give the same codes are refused. Nothing in FILE is executed. Asks the daemon; while it is
    down, the command waits for it.
    """
    from semid_daemon.codebooks.files import fingerprint, stage_codebooks, write_codebooks
    from semid_daemon.codebooks.foreign import read_foreign

    foreign = read_foreign(file, normalize)
    codebooks = foreign.codebooks
    click.echo(
        f"{escape(str(file))}: {foreign.program}, {codebooks.layers} layers of {codebooks.codebook_size:,} codes, dim"
        f" {codebooks.dim:,}, residuals {'normalized' if codebooks.normalize_residuals else 'as they are'}"
        + (f", beam {codebooks.beam_width}" if codebooks.beam_width > 1 else "")
        + f": {fingerprint(codebooks)}",
        err=True,
    )
    settings = {"origin": "imported", "program": foreign.program, "file": file.name}
    if out is not None:
        write_codebooks(out, codebooks, settings)
        return
    config = load_config(find_config(config_path))
    if config.quantizer.dim not in (None, codebooks.dim):
        raise ConfigError(
            f"quantizer.dim in semid.toml is {config.quantizer.dim}, that of the codebooks {codebooks.dim}"
        )
    arguments = {"codebooks": stage_codebooks(config, codebooks, settings)}
    ask_long(config, "import-codebooks", arguments, wait=wait, as_json=as_json)


COMMANDS = (export, inspect, encode, import_codebooks)
