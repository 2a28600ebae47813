"""`semid init`: a new catalogue."""

from __future__ import annotations

from pathlib import Path

import click

from semid_daemon.config import DEFAULT_NAME, load_config, template
from semid_daemon.daemon.state_lock import hold_state, make_directories
from semid_daemon.store.write.store import Store


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--anew", is_flag=True, help="Begin a new database although done/ holds files of a former one.")
def init(directory: Path, anew: bool) -> None:
    """Make a catalogue in DIRECTORY: semid.toml, the drop directory, and the database.

    An existing semid.toml is kept as it is; missing directories and a missing database are made.

    \b
    semid init catalogue
    semid run -c catalogue/semid.toml
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / DEFAULT_NAME
    if not path.exists():
        path.write_text(template(), encoding="utf-8")
    config = load_config(path)
    make_directories(config, anew=anew)
    with hold_state(config.state_dir):
        Store(config.database).close()
    click.echo(f"settings   {path}", err=True)
    click.echo(f"drop into  {config.drop_dir}", err=True)
    click.echo(f"database   {config.database}", err=True)
    click.echo(f"next       semid run -c {path}", err=True)
