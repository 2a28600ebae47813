"""A file's entry in the ledger, found by its content."""

from __future__ import annotations

from collections.abc import Callable, Container, Generator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from semid_daemon.base.drop_file import DropFile
from semid_daemon.base.errors import BadFileError, IncompleteFileError
from semid_daemon.drop.open_file import OpenFile, digest_of, open_drop_file, signature_text
from semid_daemon.drop.scan import Scan
from semid_daemon.ingest.open_embeddings import source_of
from semid_daemon.ingest.pending import PendingFiles
from semid_daemon.ingest.retry import GONE
from semid_daemon.runtime.background import run_in_background
from semid_daemon.runtime.events import EventLog
from semid_daemon.runtime.progress import Progress
from semid_daemon.store.write.files import LedgerFile, Sighting
from semid_daemon.store.write.store import Store

CHANGED = "changed before it was read; taken up again when it is back"


_QUICKLY_OPENED_BYTES = 1 << 20  # beyond, what a file says about itself may take long to parse


@dataclass(frozen=True, slots=True)
class Registered:
    """What is known of a file after one look into it. `ledger` is None while it may still be being written."""

    ledger: LedgerFile | None
    problem: BadFileError | None = None


class Register:
    """Enters files into the ledger, and tells it what has become of those that wait in `pending`."""

    def __init__(self, store: Store, events: EventLog, progress: Progress, pending: PendingFiles) -> None:
        self._store = store
        self._events = events
        self._progress = progress
        self._pending = pending
        self._contents: dict[str, int] = {}  # name -> ledger ID of what was last found under it
        self._is_accounted = False
        self.root = ""  # which directory the files lie in

    # -- entering ------------------------------------------------------------------------------------

    def enter(self, file: DropFile, is_stable: Callable[[], bool]) -> Generator[None, None, Registered]:
        """Find the file's entry in the ledger by its content, or make one.

        A file whose signature is already in the ledger is not read again. A file shorter than it says is not
        registered until `is_stable` says that nobody is writing it any more.
        Raises FileChangedError or OSError.
        """
        registered = self._known(file)
        if registered is None:
            registered = yield from self._read(file, is_stable)
        if registered.ledger is not None:
            former = self._contents.get(file.name, registered.ledger.id)
            self._contents[file.name] = registered.ledger.id
            if former != registered.ledger.id and former not in self._pending:
                self._store.files.defer(former, CHANGED)
        return registered

    def enter_unopened(self, file: DropFile) -> Generator[None, None, LedgerFile]:
        """The file's entry in the ledger, from its bytes alone."""
        with open_drop_file(file) as opened:
            digest = yield from self._digest(opened)
        return self._record(file, digest)

    def _known(self, file: DropFile) -> Registered | None:
        known = self._store.files.known_digest(file.name, signature_text(file))
        if known is None:
            return None
        if known.status == "deferred" and known.retry_at is None:  # gone under another name, and still here
            known = self._record(file, known.digest)
        return Registered(known)

    def _read(self, file: DropFile, is_stable: Callable[[], bool]) -> Generator[None, None, Registered]:
        problem: BadFileError | None = None
        remark: str | None = None
        with open_drop_file(file) as opened:
            try:
                if file.signature.size_bytes <= _QUICKLY_OPENED_BYTES:
                    remark = _open(opened)
                else:
                    remark = yield from run_in_background(partial(_open, opened))
            except BadFileError as error:
                if isinstance(error, IncompleteFileError) and not is_stable():
                    return Registered(None, error)
                problem = error
            digest = yield from self._digest(opened)
        if remark is not None:
            self._events.warning(f"{file.name}: {remark}")
        return Registered(self._record(file, digest), problem)

    def _digest(self, opened: OpenFile) -> Generator[None, None, str]:
        file = opened.file
        with self._progress.task(f"hashing {file.name}", file.signature.size_bytes, "bytes") as advance:
            hashing = digest_of(opened)
            while True:
                try:
                    size_bytes = next(hashing)
                except StopIteration as end:
                    return str(end.value)
                advance(size_bytes)
                yield

    def _record(self, file: DropFile, digest: str) -> LedgerFile:
        signature, size_bytes = signature_text(file), file.signature.size_bytes
        return self._store.files.record_sighting(file.name, signature, digest, size_bytes, self.root)

    # -- what became of them ---------------------------------------------------------------------------

    def withdraw(self, file_id: int, reason: str) -> None:
        """A pending file is not there any more, or holds something else."""
        self._pending.pop(file_id, None)
        self._store.files.defer(file_id, reason)

    def forget(self) -> None:
        """Nothing is known of any name."""
        self._contents.clear()

    def keep_only(self, names: Container[str]) -> None:
        """Nothing is known of other names."""
        self._contents = {name: file_id for name, file_id in self._contents.items() if name in names}

    def account(self, found: Scan, drop_dir: Path) -> None:
        """Once, when all files are registered: defer what the ledger still waits for and is not there any more."""
        if self._is_accounted:
            return
        self._is_accounted = True
        elsewhere = 0
        for sighting in self._store.files.unfinished():
            ledger = sighting.ledger
            if ledger.id in self._pending or self._is_there(sighting, found):
                continue
            if sighting.root != found.root:
                elsewhere += 1
            elif ledger.digest.startswith("unread:"):
                self._store.files.forget_unread(sighting.name)
            elif ledger.status != "deferred" or ledger.retry_at:
                self._store.files.defer(ledger.id, GONE)
        if elsewhere:
            self._events.warning(
                f"source missing: {elsewhere:,} unfinished files were seen in another directory than what is now"
                f" {drop_dir} (made anew, or not mounted); they stay as they are in the ledger"
            )

    def skip_account(self) -> None:
        """The directory is missing: what is there when it is back may be another one."""
        self._is_accounted = True

    def account_again(self) -> None:
        """The next account looks at everything anew."""
        self._is_accounted = False

    def _is_there(self, sighting: Sighting, found: Scan) -> bool:
        """Whether the name still holds that content, as far as is known."""
        file = found.files.get(sighting.name)
        if file is None:
            return False
        known = self._store.files.known_digest(file.name, signature_text(file))
        return known is None or known.id == sighting.ledger.id


def _open(opened: OpenFile) -> str | None:
    """Have the reader check what the file declares; what is to be said of it. Raises as `open_embeddings`."""
    with source_of(opened) as source:
        return source.remark if source.rows else None
