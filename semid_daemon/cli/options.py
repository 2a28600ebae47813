"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from semid_daemon.config import DEFAULT_NAME, Config, find_config, load_config

Command = TypeVar("Command", bound=Callable[..., Any])


def config_option(command: Command) -> Command:
    """-c, --config FILE, as `config_path`."""
    return click.option(
        "-c",
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help=f"The catalogue's semid.toml. Default: $SEMID_CONFIG, then ./{DEFAULT_NAME}.",
    )(command)


GENERATION = click.IntRange(1, (1 << 63) - 1)  # what the database can hold as a number

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")

wait_option = click.option("--wait", is_flag=True, help="Wait until the daemon has finished, however long it takes.")


def prefix_option(help: str) -> Callable[[Command], Command]:
    """--prefix CODES, refused unless it is codes joined by '-'."""
    return click.option("--prefix", metavar="CODES", callback=_checked_prefix, help=help)


def _checked_prefix(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not all(code.isdecimal() and code.isascii() for code in value.split("-")):
        raise click.BadParameter(f"{value!r} is not codes joined by '-', like 12-250")
    return value


def optional_config(path: Path | None) -> Config | None:
    """The configuration that `path` or $SEMID_CONFIG names, or ./semid.toml if it exists.

    Raises ConfigError for a file that is named and missing, and for a file that cannot be used.
    """
    found = find_config(path)
    if path is None and "SEMID_CONFIG" not in os.environ and not found.exists():
        return None
    return load_config(found)
