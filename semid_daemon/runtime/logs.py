"""How log lines look: for a terminal, a journal, a file, or as JSON. One line per event, on stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal

from semid_daemon.base.clock import utc_text
from semid_daemon.base.text import escape

Form = Literal["terminal", "journal", "json", "plain"]

# sd-daemon(3): how the journal is told a line's priority.
_PRIORITIES = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "INFO": 6, "DEBUG": 7}


def form_of_log(*, as_json: bool = False, environment: Mapping[str, str] = os.environ) -> Form:
    """JSON where that is asked for; else what stderr is: a terminal, systemd's journal, or something else."""
    if as_json:
        return "json"
    if sys.stderr is None:
        return "plain"
    if sys.stderr.isatty():
        return "terminal"
    try:
        stream = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return "plain"
    return "journal" if environment.get("JOURNAL_STREAM") == f"{stream.st_dev}:{stream.st_ino}" else "plain"


class LineFormatter(logging.Formatter):
    """One line for each event: control characters are escaped, a traceback's ends of line too."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        trace = self.formatException(record.exc_info) if record.exc_info else None
        if self._form == "json":
            at = utc_text(datetime.fromtimestamp(record.created, UTC))
            event = {"at": at, "level": record.levelname.lower(), "message": message}
            return json.dumps(event if trace is None else {**event, "traceback": trace})
        line = escape(message if trace is None else f"{message}\n{trace}")
        if self._form == "journal":
            return f"<{_PRIORITIES.get(record.levelname, 6)}>{line}"
        return f"{record.levelname} {line}"


def log_what_nobody_caught() -> None:
    """Where programs read the log, a mistake of ours is an event like any other."""

    def told(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        logging.getLogger("semid").critical("internal error: %s", error, exc_info=(kind, error, trace))

    sys.excepthook = told
