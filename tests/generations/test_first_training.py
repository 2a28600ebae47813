"""The first training works in steps: between them commands are answered, and an import of generation 1 ends it."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator

import numpy as np

from semid_daemon.base.types import Codebooks
from semid_daemon.codebooks.files import stage_codebooks
from semid_daemon.command_client import send_command
from semid_daemon.config import Config
from semid_daemon.daemon.service import Service
from semid_daemon.daemon.state_lock import make_directories
from semid_daemon.runtime.context import WorkContext
from semid_daemon.runtime.progress import Advance, PlainProgress
from semid_daemon.store.write.store import Store
from tests.catalogues import Rows, drop_npz, ids
from tests.faults.tools import query

LOSSES = "SELECT count(*) FROM metrics WHERE run = 'train-1' AND name = 'loss'"


class AfterFirstStep(PlainProgress):
    """Calls something once the first step of a training is done."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__()
        self._call: Callable[[], object] | None = call

    @contextlib.contextmanager
    def task(self, title: str, total: int, unit: str = "rows") -> Iterator[Advance]:
        def advance(amount: int) -> None:
            if title == "training" and self._call is not None:
                call, self._call = self._call, None
                call()

        with super().task(title, total, unit):
            yield advance


def run(config: Config, after_first_step: Callable[[], object]) -> None:
    """`semid run --once` by a clock that goes on by a tenth of a second with every look at it."""
    make_directories(config)
    ticks = itertools.count()
    with Store(config.database) as store:
        progress = AfterFirstStep(after_first_step)
        Service(config, store, progress, WorkContext(once=True, now=lambda: next(ticks) / 10)).run()


def import_of(config: Config, centroids_LKD: np.ndarray) -> str:
    """Ask for an import; the fingerprint of the codebooks."""
    codebooks = Codebooks(centroids_LKD.astype(np.float32), normalize_residuals=True)
    fingerprint = stage_codebooks(config, codebooks, {})
    send_command(config.commands_dir, "import-codebooks", {"codebooks": fingerprint})
    return fingerprint


def test_an_import_ends_a_first_training_that_is_under_way(catalogue: Config, clustered: Rows):
    drop_npz(catalogue.drop_dir, "a.npz", ids("a", 80), clustered(80, 16))
    centroids_LKD = np.random.default_rng(0).normal(size=(2, 8, 16))
    run(catalogue, lambda: import_of(catalogue, centroids_LKD))
    ((origin, layers),) = query(catalogue, "SELECT origin, layers FROM generations")
    assert (origin, layers) == ("imported", 2)
    assert 1 <= query(catalogue, LOSSES)[0][0] < 3 * 5
    assert query(catalogue, "SELECT count(*) FROM events WHERE message GLOB 'training ended: *imported'") == [(1,)]
    assert query(catalogue, "SELECT count(*) FROM semantic_ids") == [(80,)]


def test_an_import_that_fails_lets_the_training_begin_again(catalogue: Config, clustered: Rows):
    drop_npz(catalogue.drop_dir, "a.npz", ids("a", 80), clustered(80, 16))
    centroids_LKD = np.random.default_rng(0).normal(size=(2, 8, 5))  # of another dimension
    run(catalogue, lambda: import_of(catalogue, centroids_LKD))
    ((origin, layers),) = query(catalogue, "SELECT origin, layers FROM generations")
    assert (origin, layers) == ("first", 3)
    ((state, answer),) = query(catalogue, "SELECT state, answer FROM commands")
    assert state == "failed"
    assert answer == "a.npz has dim 16, the codebooks 5; nothing was published"
    assert query(catalogue, "SELECT DISTINCT run FROM metrics WHERE run GLOB 'train-*' ORDER BY 1") == [
        ("train-1",),
        ("train-2",),
    ]
