"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from semid_daemon.base.text import escape
from semid_daemon.config import DEFAULT_NAME

__all__ = ["config_option", "json_option", "escape"]

Command = TypeVar("Command", bound=Callable[..., Any])


def config_option(command: Command) -> Command:
    return click.option(
        "-c",
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help=f"The catalogue's semid.toml. Default: $SEMID_CONFIG, then ./{DEFAULT_NAME}.",
    )(command)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
