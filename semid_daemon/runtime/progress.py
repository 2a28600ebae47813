"""What the daemon says while it works: a progress bar on a terminal, plain log lines elsewhere. On stderr."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import click

from semid_daemon.base.text import escape
from semid_daemon.runtime.logs import Form, LineFormatter, form_of_log, log_what_nobody_caught

Advance = Callable[[int], None]

_PLAIN_INTERVAL_S = 10.0


class Progress(Protocol):
    """Shows long work: `task` gives a function to be told of every bit of work done."""

    def task(self, title: str, total: int, unit: str = "rows") -> contextlib.AbstractContextManager[Advance]: ...


class PlainProgress:
    """A log line every ten seconds, for a journal or a file."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._told = now()
        self._log = logging.getLogger("semid")

    @contextlib.contextmanager
    def task(self, title: str, total: int, unit: str = "rows") -> Iterator[Advance]:
        started = self._now()
        done = 0

        def advance(amount: int) -> None:
            nonlocal done
            done += amount
            now = self._now()
            # Said once per interval, whatever the number of tasks.
            if now - self._told >= _PLAIN_INTERVAL_S and now > started:
                self._told = now
                rate = done / (now - started)
                # Of steps the total is the most there may be: no time can be told from it.
                timed = unit == "rows" and total > done and rate > 0
                eta = f", {(total - done) / rate:,.0f} s left" if timed else ""
                self._log.info(
                    "%s: %s of %s %s, %s %s/s%s",
                    title,
                    f"{done:,}",
                    f"{total:,}",
                    unit,
                    f"{rate:,.{0 if rate >= 10 else 1}f}",
                    unit,
                    eta,
                )

        yield advance


class TerminalProgress:
    """A rich progress bar with rate and time left, log lines above it."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True)

    @contextlib.contextmanager
    def task(self, title: str, total: int, unit: str = "rows") -> Iterator[Advance]:
        from rich.markup import escape as escape_markup
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(f"{unit}, {{task.fields[rate]}}/s, left"),
            TimeRemainingColumn(elapsed_when_finished=False),
        )
        with Progress(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(escape_markup(title), total=total, rate="-")

            def advance(amount: int) -> None:
                bar.update(task, advance=amount)
                speed = bar.tasks[0].speed
                bar.update(task, rate=f"{speed:,.0f}" if speed else "-")

            yield advance


def start_logging(form: Form | None = None, *, quiet: bool = False) -> Progress:
    """Send log lines to stderr and choose the kind of progress: a bar when stderr is a terminal."""
    level = logging.WARNING if quiet else logging.INFO
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    form = form or form_of_log()
    if form == "terminal":
        from rich.logging import RichHandler

        terminal = TerminalProgress()
        handler: logging.Handler = RichHandler(
            console=terminal.console,
            show_path=False,
            markup=False,
            highlighter=None,
            log_time_format="%H:%M:%S",
        )
        logging.basicConfig(level=level, format="%(message)s", handlers=[handler], force=True)
        return terminal
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(form))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    if form != "plain":
        log_what_nobody_caught()
    return PlainProgress()


def tell(form: Form, message: str) -> None:
    """The command's last word: an event where programs read the log, else a line of its own."""
    if form in ("journal", "json"):
        logging.getLogger("semid").error("%s", message)
    else:
        click.echo(f"semid: {escape(message)}", err=True)
