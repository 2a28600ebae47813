"""The thread that reads the database."""

from __future__ import annotations

import queue

import pytest

from semid_daemon.config import Config
from semid_daemon.store.read.connection import ReadConnection, UnavailableError
from semid_daemon.store.write.store import Store
from semid_tui.data.poller import DatabaseUnavailable, OverviewRead, Poller, QueryAnswered, Report
from semid_tui.data.queries import EventsQuery
from tests.tui.recorded import AppDriver, alive, drive


@pytest.mark.slow
def test_nothing_is_held_between_two_looks(recorded: Config):
    """A checkpoint finds no reader, though the UI is open: no cursor, no transaction."""

    async def script(ui: AppDriver) -> None:
        for key in "12345678":
            await ui.press("escape", key)
            await ui.pilot.pause(0.1)
        for _ in range(20):
            with Store(recorded.database) as store:
                store.telemetry.add_events([("info", "more")])
                busy, *_ = store.database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                if not busy:
                    return
            await ui.pilot.pause(0.02)
        raise AssertionError("some reader holds a snapshot")

    drive(recorded, script)


def test_may_not_be_read_is_told(recorded: Config, monkeypatch: pytest.MonkeyPatch):
    """The same for root, whom permissions do not stop."""

    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr("semid_daemon.store.read.connection.os.stat", refuse)
        with pytest.raises(UnavailableError, match="share a group") as raised:
            ReadConnection(recorded.database)
    assert raised.value.title == "The database may not be read"


def receive(reports: queue.Queue[Report], kind: type[Report]) -> Report:
    """The next report of a kind."""
    while not isinstance(report := reports.get(timeout=30), kind):
        pass
    return report


@pytest.fixture
def running(recorded: Config):
    """A poller on a recorded catalogue, and its reports."""
    reports: queue.Queue[Report] = queue.Queue()
    poller = Poller(recorded.database, reports.put, refresh_s=0.02)
    poller.start()
    yield poller, reports
    poller.stop()


def test_a_subscribed_query_is_answered_again_when_its_data_changed(running, recorded: Config):
    poller, reports = running
    assert receive(reports, OverviewRead).overview.state == "encoding"
    poller.subscribe({"events": EventsQuery(1)})
    first = receive(reports, QueryAnswered)
    assert (first.slot, first.query, first.error) == ("events", EventsQuery(1), None)
    with Store(recorded.database) as store:
        alive(store)  # nothing that the query depends on
        receive(reports, OverviewRead)
        store.telemetry.add_events([("info", "newer")])
    assert receive(reports, QueryAnswered).result[0].message == "newer"
    poller.subscribe({})
    with Store(recorded.database) as store:
        store.telemetry.add_events([("info", "newest")])
    receive(reports, OverviewRead)
    poller.subscribe({"events": EventsQuery(1)}, again=True)
    assert receive(reports, QueryAnswered).result[0].message == "newest"


def test_while_frozen_no_overview_is_read(running, recorded: Config):
    poller, reports = running
    receive(reports, OverviewRead)
    poller.freeze(True)
    poller.subscribe({"events": EventsQuery(2)})
    receive(reports, QueryAnswered)  # the look that was under way is over
    with Store(recorded.database) as store:
        store.telemetry.add_events([("info", "unseen")])
    poller.subscribe({"events": EventsQuery(1)})
    assert isinstance(reports.get(timeout=30), QueryAnswered)
    assert reports.empty()
    poller.freeze(False)
    receive(reports, OverviewRead)


def test_a_database_that_goes_is_reported_and_one_that_comes_is_read(running, recorded: Config):
    _, reports = running
    receive(reports, OverviewRead)
    for path in recorded.database.parent.glob("semid.db*"):
        path.rename(path.with_name(f"aside-{path.name}"))
    assert receive(reports, DatabaseUnavailable).error.title == "No database yet"
    for path in recorded.database.parent.glob("aside-semid.db*"):
        path.rename(path.with_name(path.name.removeprefix("aside-")))
    receive(reports, OverviewRead)
