"""The intake alone: what is registered, what waits, and where files end."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest

from semid_daemon.base.steps import finish
from semid_daemon.config import Config
from semid_daemon.daemon.state_lock import make_directories
from semid_daemon.ingest.crash_marker import CrashMarker
from semid_daemon.ingest.intake import Intake
from semid_daemon.ingest.quarantine import Quarantine
from semid_daemon.runtime.context import Limits, WorkContext
from semid_daemon.runtime.events import EventLog
from semid_daemon.runtime.progress import PlainProgress
from semid_daemon.store.write.store import Store
from tests.catalogues import Rows, drop_npz, ids
from tests.faults.tools import query


@pytest.fixture
def intake(catalogue: Config) -> Iterator[Intake]:
    """The intake of a catalogue without a generation, by a clock that stands still between looks."""
    make_directories(catalogue)
    clock = [0.0]
    with Store(catalogue.database) as store, contextlib.closing(CrashMarker(catalogue.crash_marker)) as marker:
        events = EventLog(store)
        context = WorkContext(now=lambda: clock[0], limits=Limits(most_pending=3))
        intake = Intake(catalogue, store, events, PlainProgress(), Quarantine(store, events, marker, 50), context)
        intake.clock = clock
        yield intake


def settle(intake: Intake) -> None:
    """Look until all that lies there is taken up."""
    for _ in range(3):
        intake.clock[0] += 10
        finish(intake.look())
        while finish(intake.take_up(gathering=True)):
            pass


STATES = "SELECT s.name, f.status FROM _files f JOIN _sightings s ON s.file_id = f.id ORDER BY f.id, s.id"


def test_a_waiting_file_that_changes_is_waited_for_no_more(intake: Intake, catalogue: Config, clustered: Rows):
    path = drop_npz(catalogue.drop_dir, "a.npz", ids("a", 10), clustered(10, 16))
    settle(intake)
    (first,) = intake.pending
    os.utime(path, ns=(1, 1))
    intake.clock[0] += 10
    finish(intake.look())
    assert not intake.pending
    assert query(catalogue, STATES) == [("a.npz", "deferred")]
    settle(intake)
    assert list(intake.pending) == [first]
    assert intake.pending[first].file.signature.mtime_ns == 1
    assert query(catalogue, STATES) == [("a.npz", "pending")]

    drop_npz(catalogue.drop_dir, "a.npz", ids("b", 10), clustered(10, 16, seed=2))
    settle(intake)
    assert len(intake.pending) == 1
    assert first not in intake.pending
    assert query(catalogue, STATES) == [("a.npz", "deferred"), ("a.npz", "pending")]


def test_content_that_was_replaced_while_nobody_looked_is_gone(intake: Intake, catalogue: Config, clustered: Rows):
    drop_npz(catalogue.drop_dir, "a.npz", ids("a", 10), clustered(10, 16))
    settle(intake)
    # What the service does when the file turns out to be another while it is read.
    (waiting,) = intake.pending.values()
    intake.withdraw(waiting, "changed while it was being read")
    drop_npz(catalogue.drop_dir, "a.npz", ids("b", 10), clustered(10, 16, seed=2))
    settle(intake)
    assert query(catalogue, STATES) == [("a.npz", "deferred"), ("a.npz", "pending")]


@pytest.mark.parametrize("status", ["done", "rejected"])
def test_a_version_that_arrives_before_the_move_is_read(
    intake: Intake, catalogue: Config, clustered: Rows, status: str
):
    drop_npz(catalogue.drop_dir, "a.npz", ids("a", 10), clustered(10, 16))
    settle(intake)
    (waiting,) = intake.pending.values()
    newer = drop_npz(catalogue.drop_dir, "a.npz", ids("b", 10), clustered(10, 16, seed=2))
    content = newer.read_bytes()
    assert not intake.unstable
    if status == "done":
        intake.finish(waiting.file, waiting.ledger)
    else:
        intake.reject(waiting, "bad")
    assert intake.unstable
    assert newer.read_bytes() == content
    assert not [path for path in catalogue.root.glob("*/*") if path.parent.name in ("done", "rejected")]
    settle(intake)
    (waiting,) = intake.pending.values()
    assert waiting.ledger.status == "pending"


def test_retry_of_names_that_are_shown_escaped(intake: Intake, catalogue: Config, clustered: Rows):
    raw = b"\xff \\ \x85.npz"
    path = catalogue.drop_dir / os.fsdecode(raw)
    drop_npz(catalogue.drop_dir, "a.npz", ids("a", 10), clustered(10, 16)).rename(path)
    settle(intake)
    (waiting,) = intake.pending.values()
    for name in (waiting.file.name, os.fsdecode(raw)):
        (waiting,) = intake.pending.values()
        intake.reject(waiting, "bad")
        assert not path.exists()
        assert intake.retry([name]) == f"1 to be tried again, 1 of them moved back from {catalogue.rejected_dir}"
        assert path.exists()
        settle(intake)
    assert intake.retry([waiting.file.name]).endswith(f"neither deferred nor rejected: {waiting.file.name}")


def test_retry_counts_what_is_there_and_goes_on_after_an_error(intake: Intake, catalogue: Config, clustered: Rows):
    for name in ("blocked/a.npz", "gone.npz", "good.npz"):
        (catalogue.drop_dir / name).parent.mkdir(exist_ok=True)
        aside = drop_npz(catalogue.root, "aside.npz", ids(name, 10), clustered(10, 16))
        aside.rename(catalogue.drop_dir / name)
    settle(intake)
    for waiting in list(intake.pending.values()):
        intake.reject(waiting, "bad")
    (catalogue.rejected_dir / "gone.npz").unlink()
    (catalogue.drop_dir / "blocked").rmdir()
    (catalogue.drop_dir / "blocked").write_text("a file where a directory was")
    answer = intake.retry(None)
    assert answer.startswith(f"1 to be tried again, 1 of them moved back from {catalogue.rejected_dir}; ")
    assert "; not there, drop again: gone.npz; cannot be moved back: blocked/a.npz: " in answer
    assert query(catalogue, STATES) == [
        ("blocked/a.npz", "rejected"),
        ("gone.npz", "deferred"),
        ("good.npz", "pending"),
    ]
    assert (catalogue.drop_dir / "good.npz").exists()


def test_the_bytes_of_queued_files_are_those_of_the_files_that_lie_there(
    intake: Intake, catalogue: Config, clustered: Rows
):
    """One file is replaced by another: as many files, other bytes."""
    sizes = []
    for rows in (10, 500):
        path = drop_npz(catalogue.drop_dir, "a.npz", ids("a", rows), clustered(rows, 16))
        for _ in range(2):
            intake.clock[0] += 10
            finish(intake.look())
        assert (intake.queued, intake.queued_bytes()) == (1, path.stat().st_size)
        sizes.append(path.stat().st_size)
    assert sizes[0] < sizes[1]
    settle(intake)
    assert (intake.queued, intake.queued_bytes()) == (0, 0)


def test_no_more_than_may_wait_are_registered_once_there_are_codebooks(
    intake: Intake, catalogue: Config, clustered: Rows
):
    for number in range(5):
        drop_npz(catalogue.drop_dir, f"{number}.npz", ids(f"{number}-", 10), clustered(10, 16))
    for _ in range(2):
        intake.clock[0] += 10
        finish(intake.look())
    assert finish(intake.take_up(gathering=False))
    assert (len(intake.pending), intake.queued) == (3, 2)
    assert not finish(intake.take_up(gathering=False))
    assert finish(intake.take_up(gathering=True))
    assert (len(intake.pending), intake.queued) == (5, 0)


def test_hashing_a_large_file_is_given_up_between_its_blocks(intake: Intake, catalogue: Config, clustered: Rows):
    drop_npz(catalogue.drop_dir, "a.npz", ids("a", 100_000), clustered(100_000, 64))
    for _ in range(2):
        intake.clock[0] += 10
        finish(intake.look())
    steps = intake.take_up(gathering=True)
    next(steps)
    steps.close()
    assert query(catalogue, STATES) == []
    settle(intake)
    assert query(catalogue, STATES) == [("a.npz", "pending")]
