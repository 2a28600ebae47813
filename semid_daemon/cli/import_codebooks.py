"""`semid import-codebooks`: start from codebooks that another program trained."""

from __future__ import annotations

from pathlib import Path

import click

from semid_daemon.base.errors import ConfigError
from semid_daemon.base.output import refuse_special
from semid_daemon.base.text import escape
from semid_daemon.cli.options import config_option, json_option, wait_option
from semid_daemon.cli.requests import ask
from semid_daemon.codebooks.files import fingerprint, stage_codebooks, write_codebooks
from semid_daemon.codebooks.foreign import read_foreign
from semid_daemon.config import find_config, load_config


@click.command("import-codebooks")
@config_option
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--normalize-residuals/--no-normalize-residuals",
    "normalize",
    default=None,
    help="Whether the program that trained them L2-normalizes every layer's input. Needed only for a GRID checkpoint"
    " that does not say.",
)
@click.option(
    "-o",
    "--output",
    "out",
    type=click.Path(path_type=Path),
    metavar="OUT.safetensors",
    help="Only convert: write a codebook file of semid, for `semid encode` and Python. Needs no catalogue.",
)
@wait_option
@json_option
def import_codebooks(
    config_path: Path | None, file: Path, normalize: bool | None, out: Path | None, wait: bool, as_json: bool
) -> None:
    """Start from codebooks that another program trained: a GRID checkpoint, MiniOneRec's .npz (codebook_0...),
    OpenOneRec's state dict (centroids.0...), a FAISS IndexResidualQuantizer, or a codebook file of semid.

    In a catalogue without a generation they become generation 1 without a training, and the pending files are encoded
    with them. Otherwise they are prepared as the next generation beside the active one, as by `semid train`: nothing
    published changes before `semid promote`. The codes are those that the program itself would give; codebooks for
    which semid could not give the same codes are refused. Nothing in FILE is executed. While the daemon is down, the
    command waits for it.

    \b
    semid import-codebooks checkpoint_000_000030.ckpt
    semid import-codebooks index.faiss -o codebooks.safetensors
    """
    if out is not None:
        refuse_special(out)
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
    ask(config, "import-codebooks", arguments, wait=wait, as_json=as_json)
