"""The files that wait for their rows to be committed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass

from semid_daemon.base.drop_file import DropFile
from semid_daemon.store.write.files import LedgerFile


@dataclass(frozen=True, slots=True)
class PendingFile:
    """A settled file in the drop directory whose rows are not all committed, and its ledger entry."""

    file: DropFile
    ledger: LedgerFile


class PendingFiles(MutableMapping[int, PendingFile]):
    """The files that wait, by ledger ID, in the order in which they came, and what is gathered in them.

    Everything is kept up to date with each change, so that asking costs the same however many there are.
    """

    def __init__(self) -> None:
        # Ordered dictionaries proper: looking for the first of a plain one passes all that were deleted before it.
        self._files: OrderedDict[int, PendingFile] = OrderedDict()
        self._uncounted: OrderedDict[int, None] = OrderedDict()
        self._usable: OrderedDict[int, None] = OrderedDict()
        self.rows_usable = 0

    def __setitem__(self, file_id: int, pending: PendingFile) -> None:
        self._discount(file_id)
        self._files[file_id] = pending
        rows = pending.ledger.rows_usable
        if rows is None:
            self._uncounted[file_id] = None
        elif rows:
            self._usable[file_id] = None
            self.rows_usable += rows

    def __delitem__(self, file_id: int) -> None:
        self._discount(file_id)
        del self._files[file_id]

    def _discount(self, file_id: int) -> None:
        self._uncounted.pop(file_id, None)
        if file_id in self._usable:
            del self._usable[file_id]
            self.rows_usable -= self._files[file_id].ledger.rows_usable or 0

    def __getitem__(self, file_id: int) -> PendingFile:
        return self._files[file_id]

    def __contains__(self, file_id: object) -> bool:
        return file_id in self._files

    def __iter__(self) -> Iterator[int]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def first_uncounted(self) -> PendingFile | None:
        """A file whose usable rows are not counted yet."""
        return self._first(self._uncounted)

    def first_usable(self) -> PendingFile | None:
        """The file that was the first found to hold rows that can be used."""
        return self._first(self._usable)

    def _first(self, among: OrderedDict[int, None]) -> PendingFile | None:
        file_id = next(iter(among), None)
        return None if file_id is None else self._files[file_id]
