"""From the drop directory to the ledger: which files wait for their rows to be committed, and where each ends."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from semid_daemon.config import Config
from semid_daemon.console import Progress
from semid_daemon.drop.finish import delete, move_away, reject
from semid_daemon.drop.reading import FileChangedError, signature_text
from semid_daemon.drop.scan import scan
from semid_daemon.drop.settling import Settling
from semid_daemon.errors import BadFileError, IncompleteFileError
from semid_daemon.formats import SIDECAR_SUFFIXES, is_supported
from semid_daemon.ingest import Waiting, open_embeddings, register
from semid_daemon.journal import Journal
from semid_daemon.records import DropFile
from semid_daemon.store.writer import LedgerFile, Writer

_log = logging.getLogger("semid")


class Intake:
    """Knows what lies in the drop directory. `waiting` holds, by ledger ID, the files still to be worked on."""

    def __init__(
        self,
        config: Config,
        writer: Writer,
        journal: Journal,
        progress: Progress,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._writer = writer
        self._journal = journal
        self._progress = progress
        self._now = now
        self._settling = Settling(config.drop.settle_ms / 1000)
        self._handled: dict[str, str] = {}  # name -> signature of files that need nothing more
        self._told: dict[str, str] = {}  # what was passed over, so that it is said once
        self._retry_at: dict[str, float] = {}
        self.waiting: dict[int, Waiting] = {}
        self.unsettled = False
        self.rejected = 0
        self.deferred = 0

    def look(self) -> None:
        """Scan the drop directory, register what has settled, forget what has gone."""
        found = scan(self._config.drop_dir, supported=is_supported, sidecar_suffixes=SIDECAR_SUFFIXES)
        for name, why in found.skipped.items():
            if self._told.get(name) != why:
                _log.warning("%s: %s", name, why)
        self._told = found.skipped
        now = self._now()
        settled, self.unsettled = self._settling.look(found.files, now)
        self._handled = {name: sig for name, sig in self._handled.items() if name in found.files}
        self._retry_at = {name: at for name, at in self._retry_at.items() if name in found.files}
        in_work = {waiting.file.name: signature_text(waiting.file) for waiting in self.waiting.values()}
        for file in settled:
            signature = signature_text(file)
            if signature in (self._handled.get(file.name), in_work.get(file.name)):
                continue
            if now >= self._retry_at.get(file.name, 0.0):
                self._take_up(file)
        self._forget_gone(found.files)

    def _take_up(self, file: DropFile) -> None:
        """Register one settled file, unless it moves on meanwhile or the machine does not let us."""
        try:
            self._register(file)
        except FileChangedError:
            self.unsettled = True
        except OSError as error:
            self.postpone(file, None, f"cannot be read or moved: {error.strerror or error}")

    def _register(self, file: DropFile) -> None:
        """The file waits, or ends here because of what the ledger knows of its content."""
        problem: BadFileError | None = None
        try:
            with open_embeddings(file):
                pass
        except IncompleteFileError as error:
            if not self._has_rested(file):
                self.unsettled = True
                return
            problem = error
        except BadFileError as error:
            problem = error
        with self._progress.task(f"hashing {file.name}", file.signature.size_bytes, "bytes") as advance:
            ledger = register(self._writer, file, advance)
        if ledger.status == "done":
            self.finish(file, ledger)
        elif ledger.status == "rejected":
            self._reject_known(file, ledger, ledger.reason or "rejected before")
        elif problem is not None:
            self.reject(Waiting(file, ledger), str(problem))
        else:
            self.waiting.setdefault(ledger.id, Waiting(file, ledger))

    def _has_rested(self, file: DropFile) -> bool:
        """Whether an incomplete file has looked the same for so long that nobody can be writing it."""
        grace_s = self._config.drop.incomplete_grace_s
        rested_s = self._settling.resting_s(file.name, self._now())
        # The wall clock only shortens the wait for files that are plainly old; it is never relied on.
        age_s = time.time() - file.signature.mtime_ns / 1e9
        return rested_s >= grace_s or age_s >= max(grace_s, 1.0)

    def _forget_gone(self, present: dict[str, DropFile]) -> None:
        for file_id, waiting in list(self.waiting.items()):
            if waiting.file.name not in present:
                del self.waiting[file_id]
        if not self.unsettled:
            for ledger in self._writer.unfinished_files():
                if ledger.id not in self.waiting and ledger.status != "deferred":
                    self._writer.defer(ledger.id, "gone from the drop directory; taken up again when it is back")

    # -- where files end ---------------------------------------------------------------------------

    def finish(self, file: DropFile, ledger: LedgerFile) -> None:
        """All rows are committed: move, keep or delete the file, as configured."""
        self.waiting.pop(ledger.id, None)
        on_done = self._config.drop.on_done
        if on_done == "move":
            move_away(file, self._config.drop_dir, self._config.done_dir, ledger.digest)
        elif on_done == "delete":
            delete(file)
        else:
            self._handled[file.name] = signature_text(file)

    def reject(self, waiting: Waiting, reason: str) -> None:
        """The file can never be used: the ledger says why, and the file goes to the rejected ones."""
        self._writer.reject(waiting.ledger.id, reason)
        self._reject_known(waiting.file, waiting.ledger, reason)

    def _reject_known(self, file: DropFile, ledger: LedgerFile, reason: str) -> None:
        self.waiting.pop(ledger.id, None)
        self.rejected += 1
        self._journal.warning(f"{file.name}: rejected: {reason}")
        reject(file, self._config.drop_dir, self._config.rejected_dir, ledger.digest, reason)

    def postpone(self, file: DropFile, ledger: LedgerFile | None, reason: str) -> None:
        """Not the file's fault: tried again after the next periodic scan."""
        if ledger is not None:
            self.waiting.pop(ledger.id, None)
            self._writer.defer(ledger.id, reason)
        self.deferred += 1
        self._retry_at[file.name] = self._now() + self._config.drop.rescan_s
        self._journal.warning(f"{file.name}: deferred: {reason}")
