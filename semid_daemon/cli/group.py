"""The group of all commands: imports a command when it is called, turns errors into one line and an exit status."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click
from click.shell_completion import CompletionItem

from semid_daemon.base.errors import SemidError
from semid_daemon.base.process import private_umask
from semid_daemon.base.text import printable


class LazyCommand(NamedTuple):
    """Where a command is, `module:attribute` below semid_daemon.cli, and what it is for in a few words."""

    target: str
    short_help: str


class LazyGroup(click.Group):
    """Lists commands by section without importing them; `semid COMMAND` imports the module of that command only.

    SemidError and OSError end a command with one line on stderr and an exit status; --debug shows the traceback.
    """

    def __init__(self, *arguments: Any, sections: Mapping[str, Mapping[str, LazyCommand]], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._sections = sections
        self._lazy = {name: command for section in sections.values() for name, command in section.items()}

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted(self._lazy)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in self._lazy:
            return None
        module, attribute = self._lazy[name].target.split(":")
        command: click.Command = getattr(importlib.import_module(f"semid_daemon.cli.{module}"), attribute)
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        for title, section in self._sections.items():
            with formatter.section(title):
                formatter.write_dl([(name, command.short_help) for name, command in section.items()])

    def shell_complete(self, context: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names of commands, and the group's own options; nothing is imported for them."""
        names = [
            CompletionItem(name, help=command.short_help)
            for name, command in self._lazy.items()
            if name.startswith(incomplete)
        ]
        return names + click.Command.shell_complete(self, context, incomplete)

    def main(self, *arguments: Any, **options: Any) -> Any:
        _open_standard_streams()
        return super().main(*arguments, **options)

    def invoke(self, context: click.Context) -> Any:
        try:
            with private_umask():
                return super().invoke(context)
        except SemidError as error:
            if context.params.get("debug"):
                raise
            click.echo(f"semid: {error}", err=True)
            context.exit(error.exit_code)
        except BrokenPipeError:
            # The reader of stdout has gone; without this Python would complain again while it shuts down.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            context.exit(1)
        except OSError as error:
            if context.params.get("debug"):
                raise
            parts = [error.filename and printable(Path(os.fsdecode(error.filename))), error.strerror or str(error)]
            click.echo(f"semid: {': '.join(part for part in parts if part)}", err=True)
            context.exit(1)


def _open_standard_streams() -> None:
    """Give the numbers of closed standard streams to /dev/null: the database must never get one of them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
