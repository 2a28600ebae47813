"""The state of the daemon's process: what it does, since when, and whether it is paused."""

from __future__ import annotations

from collections.abc import Mapping

from semid_daemon.base.clock import utc_now
from semid_daemon.store.write.database import Database
from semid_daemon.store.write.telemetry import Gauge, Telemetry


class DaemonStatus:
    """The one row of the `daemon` view."""

    def __init__(self, database: Database, telemetry: Telemetry) -> None:
        self._database = database
        self._telemetry = telemetry

    def started(self, pid: int, device: str, version: str) -> None:
        """Record that a daemon took over this database."""
        now = utc_now()
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE _daemon SET pid = ?, state = 'starting', detail = '', device = ?, version = ?,"
                " started_at = ?, heartbeat_at = ?",
                (pid, device, version, now, now),
            )

    def heartbeat(self, state: str, detail: str = "", gauges: Mapping[str, Gauge] | None = None) -> None:
        """Record that the daemon is alive, and its state: idle, gathering, training, encoding, paused or stopped."""
        with self._database.transaction() as connection:
            connection.execute("UPDATE _daemon SET state = ?, detail = ?, heartbeat_at = ?", (state, detail, utc_now()))
            self._telemetry.set_gauges(gauges or {})

    def paused_at(self) -> str | None:
        """The time at which work was paused, None while it is not paused."""
        (at,) = self._database.read_one("SELECT paused_at FROM _daemon")
        return None if at is None else str(at)

    def set_paused(self, paused: bool) -> None:
        """Pause work, or resume it. A pause outlives the process."""
        with self._database.transaction() as connection:
            if paused:
                connection.execute("UPDATE _daemon SET paused_at = coalesce(paused_at, ?)", (utc_now(),))
            else:
                connection.execute("UPDATE _daemon SET paused_at = NULL")
