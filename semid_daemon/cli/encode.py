"""`semid encode`: semantic IDs for files, without publishing them."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from semid_daemon.base.output import refuse_special
from semid_daemon.base.text import escape
from semid_daemon.cli.options import GENERATION, config_option, optional_config
from semid_daemon.cli.signals import exit_on_sigterm
from semid_daemon.codebooks.files import codebook_path
from semid_daemon.config import Config, Ingest, find_config, load_config
from semid_daemon.runtime.progress import Advance, start_logging
from semid_daemon.store.read.export_items import Catalogue


@click.command()
@config_option
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    "out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="OUT.parquet",
    help="Replaced whole, or left as it was.",
)
@click.option(
    "--codebooks",
    "codebook_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A codebook file of semid: state/codebooks/<fingerprint>.safetensors. Default: the catalogue's, of its active"
    " generation or that of --generation.",
)
@click.option("--generation", type=GENERATION, metavar="G", help="The catalogue's generation to encode with.")
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

    The codes are those that the daemon would give. With --codebooks neither a daemon nor a database is needed; field
    names and the policy for vectors of zeros come from semid.toml, if there is one. Codes are always the nearest
    ones: suffixes, and the codes of items beyond bucket_capacity (collisions = "next-best"), exist in a catalogue only.

    \b
    semid encode items.parquet -o ids.parquet
    semid encode items.npz -o ids.parquet --codebooks codebooks.safetensors
    """
    if codebook_file is not None and generation is not None:
        raise click.UsageError("give --codebooks or --generation")
    refuse_special(out)
    # torch takes seconds to import; --help and wrong options do not wait for it.
    from semid_daemon.cli.parquet_encoder import encode_files
    from semid_daemon.codebooks.api import Codebooks

    if codebook_file is None:
        codebook_file = _published_codebooks(load_config(find_config(config_path)), generation)
    config = optional_config(config_path)
    codebooks = Codebooks.load(codebook_file, device or (config.quantizer.device if config else "auto"))
    settings = config.ingest if config else Ingest()
    directories = (config.drop_dir, config.done_dir) if config else ()
    progress = start_logging(quiet=quiet)
    with exit_on_sigterm(), contextlib.ExitStack() as stack:

        def on_open(path: Path, rows: int) -> Advance:
            stack.close()
            return stack.enter_context(progress.task(path.name, rows))

        def on_remark(path: Path, remark: str) -> None:
            click.echo(f"semid: {escape(str(path))}: {remark}", err=True)

        rows, left_out = encode_files(files, out, codebooks, settings, on_open, directories, on_remark)
    reasons = ", ".join(f"{reason}: {count:,}" for reason, count in left_out.items())
    omitted = f"; {sum(left_out.values()):,} rows left out ({reasons})" if left_out else ""
    click.echo(f"{escape(str(out))}: {rows:,} rows by codebooks {codebooks.fingerprint}{omitted}", err=True)


def _published_codebooks(config: Config, generation: int | None) -> Path:
    with Catalogue(config.database, generation) as catalogue:
        return codebook_path(config.codebooks_dir, catalogue.published.fingerprint)
