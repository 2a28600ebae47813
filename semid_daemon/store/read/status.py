"""The state of the daemon and of the catalogue, in one snapshot. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from semid_daemon.base.lock_probe import is_held
from semid_daemon.store.read.connection import ReadConnection
from semid_daemon.store.read.generations import GenerationQueries, GenerationRow
from semid_daemon.store.records import LayerHealth

# The daemon writes a heartbeat every second.
STALE_S = 5.0  # the age of a heartbeat from which on it is stale
SILENT_S = 30.0  # and from which on nothing is expected of the daemon any more

Liveness = Literal["live", "stale", "silent", "off"]

_FILE_STATUSES = ("pending", "loading", "done", "rejected", "deferred")


@dataclass(frozen=True, slots=True)
class Status:
    """The daemon, the active generation with the health of its layers, and the files by status.

    `next_generation` is the one prepared beside the active one, `next_ready` whether all its items are encoded; `lock`
    is the lock file that the daemon holds.
    """

    state: str
    detail: str
    pid: int | None
    device: str | None
    version: str | None
    started_at: str | None
    heartbeat_at: str | None
    paused_at: str | None
    active: GenerationRow | None
    layers: tuple[LayerHealth, ...]
    files: Mapping[str, int]
    next_generation: int | None
    next_ready: bool
    lock: Path

    @property
    def generation(self) -> int | None:
        return self.active.generation if self.active else None

    @property
    def fingerprint(self) -> str | None:
        return self.active.fingerprint if self.active else None

    @property
    def items(self) -> int:
        return self.active.items if self.active else 0

    @property
    def unique_rate(self) -> float | None:
        """Distinct semantic IDs per item; None while nothing has an ID."""
        return self.active.unique_rate if self.active else None

    @property
    def singleton_rate(self) -> float | None:
        """Share of the items that are alone in their bucket; None while nothing has an ID."""
        return self.active.singleton_rate if self.active else None

    @property
    def max_bucket(self) -> int:
        return self.active.max_bucket if self.active else 0

    @property
    def exact_duplicates(self) -> int:
        return self.active.exact_duplicates if self.active else 0

    def heartbeat_age_s(self) -> float | None:
        """Seconds since the last heartbeat, 0 for one from the future; None before the first."""
        seconds = self._since_heartbeat_s()
        return None if seconds is None else max(0.0, seconds)

    def clock_was_set_back(self) -> bool:
        """Whether the last heartbeat is from the future, so that its age tells nothing."""
        seconds = self._since_heartbeat_s()
        return seconds is not None and seconds < -STALE_S

    def _since_heartbeat_s(self) -> float | None:
        if self.heartbeat_at is None:
            return None
        return (datetime.now(UTC) - datetime.fromisoformat(self.heartbeat_at)).total_seconds()

    def liveness(self) -> Liveness:
        """By the age of the heartbeat; `off` for a daemon that was stopped or has never run.

        For a heartbeat from the future: by whether some process holds the lock.
        """
        age_s = self.heartbeat_age_s()
        if self.state in ("stopped", "never started") or age_s is None:
            return "off"
        if self.clock_was_set_back():
            return "live" if is_held(self.lock, self.pid) else "silent"
        return "live" if age_s <= STALE_S else "stale" if age_s <= SILENT_S else "silent"


class StatusQueries:
    """The state of the daemon and of the catalogue, and answers to commands."""

    def __init__(self, connection: ReadConnection) -> None:
        self._connection = connection
        self._generations = GenerationQueries(connection)

    def status(self) -> Status:
        """One snapshot, cheap whatever the size of the catalogue."""
        with self._connection.snapshot():
            state, detail, pid, device, version, started_at, heartbeat_at, paused_at = self._connection.row(
                "SELECT state, detail, pid, device, version, started_at, heartbeat_at, paused_at FROM daemon"
            )
            active = self._generations.active()
            layers = self._generations.health(active.generation) if active else ()
            following = self._connection.first(
                "SELECT generation, status = 'ready' FROM _generations WHERE status IN ('preparing', 'ready')"
                " ORDER BY generation DESC LIMIT 1"
            )
            files: dict[str, int] = dict(self._connection.rows("SELECT status, files FROM _file_counts"))
        return Status(
            state=state,
            detail=detail,
            pid=pid,
            device=device,
            version=version,
            started_at=started_at,
            heartbeat_at=heartbeat_at,
            paused_at=paused_at,
            active=active,
            layers=layers,
            files={**dict.fromkeys(_FILE_STATUSES, 0), **files},
            next_generation=following[0] if following else None,
            next_ready=bool(following and following[1]),
            lock=self._connection.path.with_name("lock"),
        )

    def command_answer(self, name: str) -> tuple[str, str] | None:
        """State and answer of the command in a command file of this name; None while the daemon has not seen it."""
        row = self._connection.first("SELECT state, coalesce(answer, '') FROM _commands WHERE name = ?", name)
        return None if row is None else (row[0], row[1])


def read_status(path: Path) -> Status:
    """The status of the database at a path. Raises UnavailableError."""
    with ReadConnection(path) as connection:
        return StatusQueries(connection).status()
