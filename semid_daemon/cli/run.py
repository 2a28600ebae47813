"""`semid run`: the daemon in the foreground."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from semid_daemon.base.errors import SemidError
from semid_daemon.cli.options import config_option
from semid_daemon.config import Config, find_config, load_config
from semid_daemon.daemon.outcome import Outcome
from semid_daemon.daemon.run import run_daemon
from semid_daemon.runtime.logs import Form, form_of_log
from semid_daemon.runtime.progress import start_logging, tell


@click.command()
@config_option
@click.option("--once", is_flag=True, help="Handle what is in the drop directory, then exit.")
@click.option("-q", "--quiet", is_flag=True, help="Log warnings and errors only.")
@click.option("--log-json", is_flag=True, help="Log one JSON object a line: at, level, message.")
def run(config_path: Path | None, once: bool, quiet: bool, log_json: bool) -> None:
    """Run the daemon in the foreground; `semid install-service` has systemd run it.

    The log goes to stderr: a progress bar with lines above it on a terminal, lines with priorities in systemd's
    journal, plain lines elsewhere. The catalogue keeps the same events: SELECT * FROM events.

    SIGTERM, SIGHUP or Ctrl-C stops the daemon after the current chunk, with exit status 0; a second one stops it at
    once. The next run continues where this one stopped, whatever the reason.

    \b
    semid run -c catalogue/semid.toml
    semid run -c catalogue/semid.toml --once

    \b
    Exit status:
      0   stopped, or with --once: all done (or rows still missing before the first training)
      1   with --once: some file, or the drop directory, could not be read just now
      3   with --once: some file was rejected; `<name>.reason.txt` beside it says why
      75  another daemon holds the state directory
      77  the state directory, or a file in it, belongs to another user
      78  the configuration cannot be used, or a newer semid wrote the database
    """
    form = form_of_log(as_json=log_json)
    try:
        config = load_config(find_config(config_path))
        outcome = run_daemon(config, once=once, quiet=quiet, form=form)
        status = _report(outcome, config, form) if once else 0
    except SemidError as error:
        if form not in ("journal", "json"):
            raise
        start_logging(form)
        tell(form, str(error))
        status = error.exit_code
    sys.exit(status)


def _report(outcome: Outcome, config: Config, form: Form) -> int:
    """Report what `run --once` left undone. Returns the exit status."""
    if outcome.source_missing is not None:
        tell(form, f"source missing: {outcome.source_missing}")
    elif outcome.missing_rows and not outcome.stopped:
        tell(
            form,
            f"{outcome.missing_rows:,} more rows are needed before the first training"
            f" (training.min_rows = {config.training.min_rows:,}); the files stay pending",
        )
    if outcome.rejected:
        tell(form, f"{outcome.rejected} file(s) rejected; see {config.rejected_dir}")
        return 3
    return 1 if outcome.deferred or outcome.source_missing is not None else 0
