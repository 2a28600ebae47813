"""`semid export`: the catalogue in the form that another program reads."""

from __future__ import annotations

from pathlib import Path

import click

from semid_daemon.base.clock import stored_time
from semid_daemon.base.errors import ConfigError
from semid_daemon.base.text import escape
from semid_daemon.cli.options import GENERATION, config_option, prefix_option
from semid_daemon.cli.signals import exit_on_sigterm
from semid_daemon.codebooks.files import load_codebooks
from semid_daemon.config import find_config, load_config
from semid_daemon.export.companions import check_export
from semid_daemon.export.forms import FORMS, form_named
from semid_daemon.export.job import DEFAULT_TEMPLATE, IdType
from semid_daemon.export.writing import export as write_export
from semid_daemon.runtime.progress import start_logging
from semid_daemon.store.read.export_items import Catalogue, Selection


@click.command(
    epilog="\b\nForms:\n" + "\n".join(f"  {name:<13} {what}" for name, what in FORMS.items()),
)
@config_option
@click.option("--format", "name", type=click.Choice(list(FORMS)), metavar="FORM", help="One of the forms below.")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--generation", type=GENERATION, metavar="G", help="This generation's IDs. Default: the active one's.")
@prefix_option("Only items whose semantic ID begins with these codes, like 12-250.")
@click.option(
    "--since",
    metavar="TIME",
    help="Only items assigned then or later, for deltas: 2026-01-31, or 2026-01-31T12:04:51Z. UTC unless it says"
    " otherwise. `latest` in OUT.semid.json is the TIME for the next delta.",
)
@click.option(
    "--item-ids",
    "id_type",
    type=click.Choice(["auto", "text", "integer"]),
    help="Item IDs as text or as int64. Default: integers in grid-pickle, onerec and torcheasyrec when all of the"
    " generation's are, else text.",
)
@click.option(
    "--compact",
    is_flag=True,
    help="The consumer's own compact form of grid, index-json, tokens and torcheasyrec: a suffix only where items"
    " have the same codes. Later items then change what was exported of earlier ones.",
)
@click.option(
    "--order",
    type=click.Choice(["assigned", "item-id"]),
    default="assigned",
    show_default=True,
    help="Rows in the order in which their IDs were assigned, so that later items come last; or by length of the item"
    " ID and item ID, so that items numbered 0...N-1 keep their number.",
)
@click.option(
    "--vocabulary-offset",
    type=click.IntRange(0, 2**30),
    default=0,
    metavar="N",
    help="The number of the first token in sid-gr, xllm, trie-npz and added-tokens. A code's token is N +"
    " layer * codebook_size + code; suffixes come after the last layer.",
)
@click.option(
    "--token-template",
    "token_templates",
    multiple=True,
    default=(DEFAULT_TEMPLATE,),
    show_default=True,
    metavar="TEXT",
    help="Tokens of index-json, tokens and added-tokens, with {code}, and {layer} (a, b, ...) or {level} (0, 1, ...)."
    " Once for all layers, or once for each of them and the suffix.",
)
@click.option(
    "--first-code",
    type=click.IntRange(0, 1),
    default=0,
    help="1 counts the codes and suffixes in tokens from 1, as MiniOneRec's index.json does. Default: 0.",
)
@click.option("--check", is_flag=True, help="Write nothing: check that OUT and what lies beside it belong together.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
def export(
    config_path: Path | None,
    name: str | None,
    out: Path,
    generation: int | None,
    prefix: str | None,
    since: str | None,
    id_type: IdType | None,
    compact: bool,
    order: str,
    vocabulary_offset: int,
    token_templates: tuple[str, ...],
    first_code: int,
    check: bool,
    quiet: bool,
) -> None:
    """Write the catalogue to OUT in a form that another program reads, while the daemon runs.

    OUT is written whole or not at all, and replaces an earlier file. OUT.semid.json beside it names the generation;
    for the forms that only number their items (grid, npy, index-json), OUT.ids.json lists the item IDs by row. What
    an export says of an item stays the same in later exports of the generation.

    \b
    semid export --format parquet ids.parquet
    semid export --format grid --generation 2 sids.pt
    """
    if check:
        origin = check_export(out)
        click.echo(
            f"{escape(str(out))}: {origin['rows']:,} rows of generation {origin['generation']}, {origin['format']}:"
            " belongs to what lies beside it",
            err=True,
        )
        return
    if name is None:
        raise click.UsageError("Missing option '--format'.")
    config = load_config(find_config(config_path))
    try:
        selection = Selection(prefix, None if since is None else stored_time(since))
    except ValueError:
        raise click.BadParameter(f"{since!r} is no time like 2026-01-31T12:04:51Z", param_hint="--since") from None
    if out.absolute().resolve().is_relative_to(config.drop_dir.resolve()):
        raise ConfigError(
            f"{out}: lies in the drop directory, where the daemon would read it as embeddings; write elsewhere"
        )
    progress = start_logging(quiet=quiet)
    with exit_on_sigterm(), Catalogue(config.database, generation) as catalogue:
        published = catalogue.published
        rows = catalogue.count(selection)
        with progress.task(f"exporting {name}", rows) as advance:
            exported = write_export(
                catalogue,
                form_named(name),
                out,
                selection=selection,
                id_type=id_type,
                compact=compact,
                by_item_id=order == "item-id",
                vocabulary_offset=vocabulary_offset,
                token_templates=token_templates,
                first_code=first_code,
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
