"""Commands that were put to the daemon, and its answers."""

from __future__ import annotations

from semid_daemon.base.clock import utc_now
from semid_daemon.base.failpoints import failpoint
from semid_daemon.store.write.database import Database

_COMMANDS_KEPT = 1_000


class Commands:
    """Commands by the name of the file that asked for them; the oldest are deleted in the end."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def accept(self, name: str, command: str, arguments: str, requested_at: str) -> str:
        """Record a command under the name of its file, once; returns its state: accepted, done or failed."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO _commands (name, command, arguments, state, requested_at) VALUES (?, ?, ?, 'accepted', ?)"
                " ON CONFLICT DO NOTHING",
                (name, command, arguments, requested_at),
            )
            connection.execute(
                "DELETE FROM _commands WHERE id <= (SELECT max(id) FROM _commands) - ? AND name != ?",
                (_COMMANDS_KEPT, name),
            )
        failpoint("command-accepted")
        (state,) = self._database.read_one("SELECT state FROM _commands WHERE name = ?", name)
        return str(state)

    def answer(self, name: str, state: str, answer: str) -> None:
        """Record how a command ended (done or failed) and the answer to its sender."""
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE _commands SET state = ?, answered_at = ?, answer = ? WHERE name = ?",
                (state, utc_now(), answer, name),
            )
        failpoint("command-answered")
