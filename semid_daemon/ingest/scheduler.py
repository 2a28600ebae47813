"""Whose turn it is: small files do not wait for a huge one to end, nor a huge one for ever for small ones."""

from __future__ import annotations

from collections.abc import Collection, Generator

MOST_OPEN = 2  # each holds a few chunks that were read ahead

Job = Generator[int, None, None]


class FileScheduler:
    """Chooses among pending files, by ledger ID, and keeps the jobs of suspended ones.

    New files and suspended files alternate, each in the order in which they came. At most `MOST_OPEN` jobs are kept
    open; a file whose job was closed goes on at the row where it stopped, like after a restart.
    """

    def __init__(self) -> None:
        self._jobs: dict[int, Job | None] = {}  # of suspended files, the longest waiting first
        self._last_was_new = False

    def choose(self, pending: Collection[int]) -> int | None:
        """The pending file whose turn it is; `pending` holds ledger IDs in the order in which they came."""
        for file_id in [known for known in self._jobs if known not in pending]:
            self.forget(file_id)
        new = self.next_new(pending)
        suspended = next(iter(self._jobs), None)
        self._last_was_new = suspended is None or (new is not None and not self._last_was_new)
        return new if self._last_was_new else suspended

    def is_new(self, file_id: int) -> bool:
        """Whether the file was not begun yet."""
        return file_id not in self._jobs

    def next_new(self, pending: Collection[int]) -> int | None:
        """The first of the files that wait that was not begun yet."""
        return next((file_id for file_id in pending if file_id not in self._jobs), None)

    def resume(self, file_id: int) -> Job | None:
        """The job of a suspended file, if it is still open."""
        return self._jobs.pop(file_id, None)

    def suspend(self, file_id: int, job: Job) -> None:
        """The file's turn is over before its rows are."""
        self._jobs[file_id] = job
        still_open = [known for known, kept in self._jobs.items() if kept is not None]
        for longest_open in still_open[:-MOST_OPEN]:
            self._close(longest_open)
            self._jobs[longest_open] = None

    def forget(self, file_id: int) -> None:
        """The file waits no more."""
        self._close(file_id)
        self._jobs.pop(file_id, None)

    def close(self) -> None:
        """Close every job: files are left as after a stop."""
        for file_id in list(self._jobs):
            self.forget(file_id)

    def _close(self, file_id: int) -> None:
        job = self._jobs.get(file_id)
        if job is not None:
            job.close()
