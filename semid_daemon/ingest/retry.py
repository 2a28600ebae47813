"""Deferred and rejected files are taken up again, because somebody asked for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from semid_daemon.base.errors import error_text
from semid_daemon.base.text import printable
from semid_daemon.config import Config
from semid_daemon.drop.dispose import bring_back, lies_in
from semid_daemon.formats import SIDECAR_SUFFIXES
from semid_daemon.store.write.files import Sighting
from semid_daemon.store.write.store import Store

GONE = "gone from the drop directory; taken up again when it is back"


def retry(store: Store, config: Config, names: list[str] | None, forget: Callable[[str], None]) -> str:
    """Take up those of `names`, or all; what came of it, in words. `forget` what is remembered of a name."""
    # Names are given as they are or as the ledger shows them.
    shown = None if names is None else {name: {name, printable(Path(name))} for name in names}
    found = store.files.retriable(None if shown is None else sorted(set().union(*shown.values())))
    again = brought = 0
    lacking, failed = [], []
    for sighting in found:
        try:
            there, moved = _bring_back(sighting, config)
        except OSError as error:
            failed.append(f"{sighting.name}: {error_text(error)}")
            continue
        brought += moved
        again += there
        store.files.readmit(sighting.ledger.id)
        if not there:
            store.files.defer(sighting.ledger.id, GONE)
            lacking.append(sighting.name)
        forget(sighting.name)
    answer = f"{again:,} to be tried again"
    if brought:
        answer += f", {brought:,} of them moved back from {config.rejected_dir}"
    if lacking:
        answer += f"; not there, drop again: {_some(lacking)}"
    if failed:
        answer += f"; cannot be moved back: {_some(failed)}"
    known = {sighting.name for sighting in found}
    unknown = sorted(name for name, forms in (shown or {}).items() if not forms & known)
    if unknown:
        answer += f"; neither deferred nor rejected: {_some(unknown)}"
    return answer


def _bring_back(sighting: Sighting, config: Config) -> tuple[bool, bool]:
    """Whether the file lies in the drop directory now, and whether it was moved there from the rejected ones."""
    drop_dir, ledger = config.drop_dir, sighting.ledger
    moved = ledger.status == "rejected" and bring_back(
        sighting.name, ledger.digest, drop_dir, config.rejected_dir, SIDECAR_SUFFIXES
    )
    return moved or lies_in(drop_dir, sighting.name), moved


def _some(names: list[str]) -> str:
    return ", ".join(names[:10]) + (" ..." if len(names) > 10 else "")
