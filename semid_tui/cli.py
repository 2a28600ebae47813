"""The `semid-tui` command."""

from __future__ import annotations

from pathlib import Path

import click

from semid_daemon.config import find_config, load_config
from semid_daemon.errors import SemidError


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-c",
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The catalogue's semid.toml. Default: $SEMID_CONFIG, then ./semid.toml.",
)
def main(config_path: Path | None) -> None:
    """Watch a catalogue in the terminal: the daemon, the codebooks and the files. Only reads; q quits."""
    try:
        config = load_config(find_config(config_path))
    except SemidError as error:
        click.echo(f"semid-tui: {error}", err=True)
        raise SystemExit(error.exit_code) from None
    from semid_tui.app import MonitorApp

    MonitorApp(config.database).run()
