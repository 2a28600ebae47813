"""`semid retry`, `rescan`, `pause`, `resume`: what the daemon answers at once."""

from __future__ import annotations

import os
from pathlib import Path

import click

from semid_daemon.base.text import printable
from semid_daemon.cli.options import config_option
from semid_daemon.cli.requests import ask
from semid_daemon.config import Config, find_config, load_config


@click.command()
@config_option
@click.argument("names", nargs=-1, metavar="[FILE]...")
@click.option("--all", "everything", is_flag=True, help="Every deferred and every rejected file.")
def retry(config_path: Path | None, names: tuple[str, ...], everything: bool) -> None:
    """Try deferred and rejected files again, at once.

    FILE is a name as the view `files` shows it, or a path in the drop directory or among the rejected files. A
    rejected file is moved back to the drop directory. While the daemon is down, the command waits for it.

    \b
    semid retry rejected/items.parquet
    semid retry --all
    """
    if bool(names) == everything:
        raise click.UsageError("give files, or --all")
    config = load_config(find_config(config_path))
    ask(config, "retry", {"all": True} if everything else {"files": [_dropped_name(config, name) for name in names]})


def _dropped_name(config: Config, given: str) -> str:
    """A name below the drop directory, from a path there or among the rejected files."""
    path = Path(os.path.abspath(given))
    for directory in (config.drop_dir, config.rejected_dir):
        if path.is_relative_to(directory.absolute()):
            given = str(path.relative_to(directory.absolute()))
            break
    return given if given.isprintable() else printable(Path(given))


@click.command()
@config_option
def rescan(config_path: Path | None) -> None:
    """Have the daemon scan the drop directory at once, and examine every file in it again.

    Hardly ever needed: the daemon notices changes, and scans every `drop.rescan_s` seconds anyway. Ends the pauses
    of files that are deferred after machine faults. While the daemon is down, the command waits for it.

    \b
    semid rescan -c catalogue/semid.toml
    """
    ask(load_config(find_config(config_path)), "rescan", {})


@click.command()
@config_option
def pause(config_path: Path | None) -> None:
    """Pause the daemon after its current chunk or training step, until `semid resume`.

    Nothing is lost. The pause outlasts a restart of the daemon; a paused daemon answers commands and writes its
    heartbeat.

    \b
    semid pause -c catalogue/semid.toml
    """
    ask(load_config(find_config(config_path)), "pause", {})


@click.command()
@config_option
def resume(config_path: Path | None) -> None:
    """Let a paused daemon continue where it stopped.

    \b
    semid resume -c catalogue/semid.toml
    """
    ask(load_config(find_config(config_path)), "resume", {})
