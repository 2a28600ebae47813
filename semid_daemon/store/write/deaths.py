"""Files that a process was working on when it died, and how often that has happened."""

from __future__ import annotations

from semid_daemon.store.write.database import Database


class Deaths:
    """Deaths of processes by the file, its signature and the row they were at."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, name: str, signature: str, first_row: int) -> int:
        """Count a death at this row of the file; returns the deaths at this row so far.

        A death at another row starts the count anew: the file made progress in between.
        """
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO _suspects (name, signature, first_row, deaths) VALUES (?, ?, ?, 1)"
                " ON CONFLICT DO UPDATE SET first_row = excluded.first_row,"
                " deaths = CASE WHEN first_row = excluded.first_row THEN deaths + 1 ELSE 1 END",
                (name, signature, first_row),
            )
        return self.counts()[name, signature]

    def counts(self) -> dict[tuple[str, str], int]:
        """Deaths by name and signature."""
        rows = self._database.read("SELECT name, signature, deaths FROM _suspects")
        return {(name, signature): deaths for name, signature, deaths in rows}

    def clear(self, name: str) -> None:
        """Forget the deaths of a file: it ended in an orderly way."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM _suspects WHERE name = ?", (name,))
