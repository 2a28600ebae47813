"""Commands that the daemon answers at once: try files again, look again, pause, go on."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from semid_daemon.base.text import printable
from semid_daemon.cli.options import config_option, escape
from semid_daemon.config import Config, find_config, load_config


@click.command()
@config_option
@click.argument("names", nargs=-1, metavar="[FILE]...")
@click.option("--all", "everything", is_flag=True, help="Every deferred and every rejected file.")
def retry(config_path: Path | None, names: tuple[str, ...], everything: bool) -> None:
    """Try deferred and rejected files again, at once.

    FILE is a name as the `files` view shows it, or a path in the drop directory or among the rejected files.
    A rejected file is moved back to the drop directory. Asks the daemon; while it is down, the command waits
    for it.
    """
    if bool(names) == everything:
        raise click.UsageError("give files, or --all")
    config = load_config(find_config(config_path))
    _ask(config, "retry", {"all": True} if everything else {"files": [_dropped_name(config, n) for n in names]})


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
    """Have the daemon look at the drop directory at once, and at everything in it anew.

    Hardly ever needed: it looks by itself when something changes, and every `drop.rescan_s` seconds.
    Forgets the pauses of files that the machine refused. While the daemon is down, the command waits for it.
    """
    _ask(load_config(find_config(config_path)), "rescan", {})


@click.command()
@config_option
def pause(config_path: Path | None) -> None:
    """Have the daemon stop working after the chunk or training step in hand, until `semid resume`.

    Nothing is lost. A pause outlives the daemon's process; meanwhile it answers commands and writes its heartbeat.
    """
    _ask(load_config(find_config(config_path)), "pause", {})


@click.command()
@config_option
def resume(config_path: Path | None) -> None:
    """Let a paused daemon go on where it stopped."""
    _ask(load_config(find_config(config_path)), "resume", {})


def _ask(config: Config, command: str, arguments: dict[str, Any]) -> None:
    """Put a command in the daemon's way, wait briefly for its answer, and print it."""
    from semid_daemon.command_client import send_command, wait_for_answer

    name = send_command(config.commands_dir, command, arguments)
    answered = wait_for_answer(config.database, name)
    if answered is None:
        click.echo(f"semid: the daemon does not answer; the command waits for it in {config.commands_dir}", err=True)
        return
    state, answer = answered
    click.echo(escape(answer))
    if state == "failed":
        sys.exit(1)


COMMANDS = (retry, rescan, pause, resume)
