"""The drop directory as the daemon sees it: scanned, missed while it is not there, and told of."""

from __future__ import annotations

from collections.abc import Generator

from semid_daemon.base.errors import error_text
from semid_daemon.config import Config
from semid_daemon.drop.dispose import tidy
from semid_daemon.drop.scan import Scan, scan
from semid_daemon.formats import SIDECAR_SUFFIXES, is_supported
from semid_daemon.runtime.events import EventLog

_MOST_TOLD = 20


class DropDirectory:
    """`missing` says why it cannot be scanned."""

    def __init__(self, config: Config, events: EventLog) -> None:
        self._config = config
        self._events = events
        self._told: dict[str, str] = {}  # what was passed over, so that it is said once
        self._tidied = False
        self.missing: str | None = None

    def look(self, former: Scan | None) -> Generator[None, None, Scan | None]:
        """What lies there, None while it cannot be scanned. A warning says if it is another than in the former scan."""
        self._tidy()
        drop_dir = self._config.drop_dir
        try:
            found = yield from scan(
                drop_dir,
                supported=is_supported,
                sidecar_suffixes=SIDECAR_SUFFIXES,
                fields=self._config.ingest.fields,
            )
        except OSError as error:
            self._miss(f"{drop_dir}: {error.strerror}")
            return None
        if self.missing is not None:
            self._events.info(f"{drop_dir}: the source is there again")
            self.missing = None
        if former is not None and former.root != found.root:
            self._events.warning(
                f"source missing: {drop_dir} is another directory than before (made anew, unmounted or"
                " mounted); files that waited in the former one stay as they are in the ledger"
            )
        self._tell_skipped(found.skipped)
        return found

    def tell_again(self) -> None:
        """Say once more what is passed over."""
        self._told = {}

    def _tidy(self) -> None:
        """Once, before the first scan: what a process that died was moving or deleting."""
        if not self._tidied and self._config.drop_dir.is_dir():
            target_dirs = (self._config.done_dir, self._config.rejected_dir)
            self._tidied = True
            try:
                tidy(self._config.drop_dir, target_dirs, is_supported, SIDECAR_SUFFIXES)
            except OSError as error:
                self._events.warning(f"{self._config.drop_dir}: what was left half moved stays: {error_text(error)}")

    def _miss(self, why: str) -> None:
        if self.missing != why:
            self._events.warning(f"source missing: {why}; its files stay as they are in the ledger")
        self.missing = why

    def _tell_skipped(self, skipped: dict[str, str]) -> None:
        """Say what is passed over, and why, once for each."""
        fresh = [name for name, why in skipped.items() if self._told.get(name) != why]
        for name in fresh[:_MOST_TOLD]:
            self._events.warning(f"{name}: {skipped[name]}")
        if len(fresh) > _MOST_TOLD:
            self._events.warning(f"{len(fresh) - _MOST_TOLD:,} more are passed over in {self._config.drop_dir}")
        self._told = skipped
