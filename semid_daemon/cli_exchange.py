"""Commands that exchange with other programs: what goes out as others read it, what comes in from them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from semid_daemon.cli_options import config_option, shown
from semid_daemon.config import find_config, load_config
from semid_daemon.errors import ConfigError
from semid_daemon.export.forms import FORMS

if TYPE_CHECKING:
    from semid_daemon.export.job import IdType


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
    from semid_daemon.console import start_logging
    from semid_daemon.export.forms import form_named
    from semid_daemon.export.writing import export
    from semid_daemon.generations.codebook_files import load_codebooks
    from semid_daemon.store.catalogue import Catalogue, Selection
    from semid_daemon.store.clock import stored_time

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
    with Catalogue(config.database, generation) as catalogue:
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
        f"{shown(str(main_path))}: {what}, {name}; beside it {', '.join(path.name for path in beside)}", err=True
    )


COMMANDS = (export,)
