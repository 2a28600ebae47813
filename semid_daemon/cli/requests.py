"""Requests to the daemon: send a command, wait for its answer, print it."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from semid_daemon.base.text import escape
from semid_daemon.command_client import send_command, wait_for_answer
from semid_daemon.config import Config
from semid_daemon.store.read.status import read_status

_PATIENCE_S = 5.0


def ask(config: Config, command: str, arguments: dict[str, Any], *, wait: bool = False, as_json: bool = False) -> None:
    """Send a command to the daemon and print its answer; `wait`: for as long as it takes while the daemon is alive.

    A daemon that is down carries the command out when it starts. Ends the process with status 1 where the daemon
    refuses. Raises ConfigError when the command cannot be written, StoreError when there is no database.
    """
    name = send_command(config.commands_dir, command, arguments)
    answered = wait_for_answer(config.database, name, _PATIENCE_S if _is_alive(config) else 0.0)
    while answered is None and wait and _is_alive(config):
        answered = wait_for_answer(config.database, name, _PATIENCE_S)
    state, answer = answered or ("accepted", "")
    if as_json:
        click.echo(json.dumps({"command": command, "state": state, "answer": answer or None}))
    elif answered is not None:
        click.echo(escape(answer))
    elif _is_alive(config):
        click.echo("semid: still running; `semid status` shows progress", err=True)
    else:
        click.echo(f"semid: the daemon does not answer; the command waits for it in {config.commands_dir}", err=True)
    if state == "failed":
        sys.exit(1)


def _is_alive(config: Config) -> bool:
    return read_status(config.database).liveness() in ("live", "stale")
