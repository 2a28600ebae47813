"""How the `semid` command treats errors, and how it lists its commands."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from semid_daemon.base.errors import SemidError
from semid_daemon.base.text import printable

# What each command is for in a few words; `semid COMMAND --help` has the rest.
_SECTIONS = {
    "Begin": {
        "demo": "all of it on real embeddings, in a directory of its own",
        "init": "make a catalogue: settings, drop directory, database",
        "run": "the daemon; --once handles what is there and exits",
        "install-service": "have systemd run the daemon",
    },
    "Look": {
        "status": "the daemon, the catalogue, the codebooks, the files",
        "lookup": "items' semantic IDs, or the items of a prefix",
        "inspect": "what would be read of a file",
        "generations": "the generations: what became of each",
        "compare": "two generations, figure by figure",
        "doctor": "check everything, change nothing, say what to do",
    },
    "Ask the daemon": {
        "retry": "try deferred and rejected files again",
        "rescan": "look at the drop directory anew",
        "pause": "stop working, until `resume`",
        "resume": "go on",
        "train": "prepare a new generation",
        "import-codebooks": "start from codebooks that were trained elsewhere",
        "promote": "make a prepared generation the active one",
        "rollback": "go back to an earlier generation",
    },
    "Take out": {
        "export": "the catalogue in the form that another program reads",
        "encode": "semantic IDs for files, publishing nothing",
        "backup": "database, codebooks and settings in one file, while the daemon runs",
    },
}


class Group(click.Group):
    """Turns SemidError into one line on stderr and its exit status; --debug shows the traceback."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        _open_standard_streams()
        return super().main(*arguments, **options)

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except SemidError as error:
            if context.params.get("debug"):
                raise
            click.echo(f"semid: {error}", err=True)
            context.exit(error.exit_code)
        except BrokenPipeError:
            # Whoever read our output has seen enough; Python would complain once more while it shuts down.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            context.exit(1)
        except OSError as error:
            if context.params.get("debug"):
                raise
            parts = [error.filename and printable(Path(os.fsdecode(error.filename))), error.strerror or str(error)]
            click.echo(f"semid: {': '.join(part for part in parts if part)}", err=True)
            context.exit(1)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands by what they are for."""
        told = {name for section in _SECTIONS.values() for name in section}
        more = {name: each.get_short_help_str(70) for name, each in sorted(self.commands.items()) if name not in told}
        for title, section in {**_SECTIONS, "More": more}.items():
            rows = [(name, what) for name, what in section.items() if name in self.commands]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def _open_standard_streams() -> None:
    """Where stdin, stdout or stderr came closed, give their numbers to nothing else: never to the database."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
