"""The `semid-tui` command."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from semid_daemon.base.errors import SemidError
from semid_daemon.config import find_config, load_config

if TYPE_CHECKING:
    from semid_tui.context import Marker


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "-c",
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The catalogue's semid.toml. Default: $SEMID_CONFIG, then ./semid.toml.",
)
@click.option("--readonly", is_flag=True, help="Only look: the keys that ask the daemon for something are absent.")
@click.option(
    "--refresh",
    "refresh_s",
    type=click.FloatRange(0.1, 60),
    default=1.0,
    show_default=True,
    metavar="S",
    help="Look at the database every S seconds.",
)
@click.option(
    "--marker",
    type=click.Choice(["auto", "braille", "block", "ascii"]),
    default="auto",
    show_default=True,
    help="What charts and bars are drawn with. auto: braille, or ascii where the terminal has no UTF-8.",
)
@click.option("--light", is_flag=True, help="Start in the light theme; t changes it.")
@click.option("--once", is_flag=True, help="Print the overview as plain text and exit.")
@click.option("--json", "as_json", is_flag=True, help="Print the document of `semid status --json` and exit.")
@click.option("--serve", is_flag=True, help="Serve it to a browser on this machine, read-only; needs semid[serve].")
@click.version_option(package_name="semid", prog_name="semid-tui")
@click.option("--port", type=click.IntRange(1, 65_535), default=8000, show_default=True, help="Of --serve.")
def main(
    config_path: Path | None,
    readonly: bool,
    refresh_s: float,
    marker: str,
    light: bool,
    once: bool,
    as_json: bool,
    serve: bool,
    port: int,
) -> None:
    """Watch a catalogue in the terminal, and act on it.

    Eight screens, keys 1 to 8: overview, training, codes, files, lookup, tree, generations, events. Lowercase keys
    look, uppercase ones ask the daemon for something, after asking you. ? shows all keys, q quits.

    Reads the database only, with the daemon running, stopped or dead.

    \b
    Exit status of --once and --json:
      0   printed
      1   the database cannot be read
      78  the configuration cannot be used
    """
    try:
        path = find_config(config_path)
        config = load_config(path)
        chosen = _marker(marker)
        if once or as_json:
            if as_json:
                from semid_daemon.published_settings import ignored_settings
                from semid_daemon.store.read.status import read_status
                from semid_daemon.store.read.status_document import status_document

                ignored = ignored_settings(config, read_status(config.database).active)
                click.echo(json.dumps({**status_document(config.database), "ignored_settings": ignored}))
            else:
                from semid_tui.once import overview_text

                click.echo(overview_text(config, int(os.environ.get("COLUMNS") or 0) or 80, chosen))
            return
        if serve:
            from semid_tui.serve import serve_readonly

            serve_readonly(path.absolute(), port, refresh_s)
            return
    except SemidError as error:
        click.echo(f"semid-tui: {error}", err=True)
        raise SystemExit(error.exit_code) from None
    except OSError as error:  # of stdout: a closed pipe, a full device
        click.echo(f"semid-tui: stdout: {error.strerror}", err=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left in its buffer goes nowhere
        raise SystemExit(1) from None
    # A driver that was chosen from outside, as textual-serve does, needs no terminal.
    if "TEXTUAL_DRIVER" not in os.environ and not (sys.stdin.isatty() and sys.stdout.isatty()):
        click.echo("semid-tui: stdin or stdout is no terminal; --once prints the overview as text", err=True)
        raise SystemExit(1)
    if not os.environ.get("NO_COLOR"):
        os.environ.pop("NO_COLOR", None)  # an empty one does not count, though Textual thinks so
    from semid_tui.app import MonitorApp

    MonitorApp(config, readonly=readonly, refresh_s=refresh_s, marker=chosen, light=light).run()


def _marker(asked: str) -> Marker:
    if asked != "auto":
        return cast("Marker", asked)
    encoding = (getattr(sys.stdout, "encoding", None) or "").lower()
    return "braille" if "utf" in encoding else "ascii"
