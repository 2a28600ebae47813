"""The result of one run of the daemon."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run of the daemon leaves behind."""

    rejected: int  # files
    deferred: int  # files
    missing_rows: int  # still needed before the first training
    source_missing: str | None = None  # why the drop directory could not be scanned
    stopped: bool = False  # by a signal, before all was handled
