"""A file's entry in the ledger, found by its content."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from semid_daemon.base.drop_file import DropFile
from semid_daemon.base.errors import BadFileError, IncompleteFileError
from semid_daemon.drop.open_file import digest_of, open_drop_file, signature_text
from semid_daemon.ingest.open_embeddings import source_of
from semid_daemon.store.write.files import LedgerFile
from semid_daemon.store.write.store import Store


@dataclass(frozen=True, slots=True)
class Registered:
    """What is known of a file after one look into it. `ledger` is None while it may still be being written."""

    ledger: LedgerFile | None
    problem: BadFileError | None = None


def register(
    store: Store, file: DropFile, root: str, on_hashed: Callable[[int], None], is_stable: Callable[[], bool]
) -> Registered:
    """Find the file's entry in the ledger by its content, or make one. A file whose signature is already in the
    ledger is not read again.

    A file shorter than it says is not registered until `is_stable` says that nobody is writing it any more.
    """
    signature = signature_text(file)
    known = store.files.known_digest(file.name, signature)
    if known is not None:
        if known.status == "deferred" and known.retry_at is None:  # gone under another name, and still here
            known = store.files.record_sighting(file.name, signature, known.digest, file.signature.size_bytes, root)
        return Registered(known)
    problem: BadFileError | None = None
    with open_drop_file(file) as opened:
        try:
            with source_of(opened):
                pass
        except BadFileError as error:
            if isinstance(error, IncompleteFileError) and not is_stable():
                return Registered(None, error)
            problem = error
        digest = digest_of(opened, on_hashed)
    return Registered(
        store.files.record_sighting(file.name, signature, digest, file.signature.size_bytes, root), problem
    )


def register_unopened(store: Store, file: DropFile, root: str, on_hashed: Callable[[int], None]) -> LedgerFile:
    """The file's entry in the ledger, from its bytes alone."""
    with open_drop_file(file) as opened:
        digest = digest_of(opened, on_hashed)
    return store.files.record_sighting(file.name, signature_text(file), digest, file.signature.size_bytes, root)
