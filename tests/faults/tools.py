"""Running, killing and checking small catalogues."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

from semid_daemon.config import Config, parse_config
from semid_daemon.daemon.outcome import Outcome
from semid_daemon.daemon.service import Service
from semid_daemon.daemon.state_lock import hold_state, make_directories
from semid_daemon.runtime.context import Limits, WorkContext
from semid_daemon.runtime.progress import PlainProgress
from semid_daemon.store.read.checks import check_database
from semid_daemon.store.write.store import Store
from tests.catalogues import SMALL, Rows, drop_npz, ids

_LIMITS = Limits()
NOT_YET = ("", "never started", "stopped", "starting")
SEMID = [sys.executable, "-m", "semid_daemon"]


def configured(root: Path, *changes: tuple[str, str]) -> Config:
    """The small catalogue with lines added to its sections: configured(root, ("drop", "rescan_s = 0.2"))."""
    text = SMALL
    for section, line in changes:
        key = line.split("=")[0].strip()
        text = "\n".join(each for each in text.splitlines() if each.split("=")[0].strip() != key)
        text = text.replace(f"[{section}]", f"[{section}]\n{line}")
    (root / "semid.toml").write_text(text)
    (root / "drop").mkdir(exist_ok=True)
    return parse_config(text.encode(), source="t", root=root)


def run(config: Config, limits: Limits = _LIMITS) -> Outcome:
    """`semid run --once`, in this process."""
    make_directories(config)
    with hold_state(config.state_dir) as lock, Store(config.database) as store:
        return Service(config, store, PlainProgress(), WorkContext(once=True, limits=limits), lock).run()


@contextlib.contextmanager
def live(config: Config, limits: Limits = _LIMITS) -> Iterator[threading.Thread]:
    """The daemon in a thread of this process, until the block ends. What it raised is raised at the end."""
    stop = threading.Event()
    raised: list[BaseException] = []

    def work() -> None:
        try:
            make_directories(config)
            with hold_state(config.state_dir) as lock, Store(config.database) as store:
                Service(config, store, PlainProgress(), WorkContext(stop, limits=limits), lock).run()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        wait_until(lambda: not thread.is_alive() or state_of(config) not in NOT_YET)
        yield thread
    finally:
        stop.set()
        thread.join(timeout=60)
        assert not thread.is_alive()
        if raised:
            raise raised[0]


def trained_catalogue(root: Path, clustered: Rows, *changes: tuple[str, str]) -> Config:
    """The small catalogue, changed like that, with a generation and 70 items."""
    config = configured(root, *changes)
    drop_npz(config.drop_dir, "base.npz", ids("base", 70), clustered(70, 16))
    run(config)
    return config


def semid(*arguments: str | Path, failpoint: str = "", **options) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "SEMID_CONFIG"}
    if failpoint:
        environment["SEMID_FAILPOINT"] = failpoint
    return subprocess.run(
        [*SEMID, *map(str, arguments)], capture_output=True, text=True, timeout=120, env=environment, **options
    )


def start(config: Config) -> subprocess.Popen[bytes]:
    """The daemon in a process of its own."""
    return subprocess.Popen(
        [*SEMID, "run", "-c", str(config.root / "semid.toml")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def wait_until(condition: Callable[[], object], timeout_s: float = 60) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, "timed out"
        time.sleep(0.02)


def query(config: Config, sql: str) -> list[tuple]:
    with contextlib.closing(sqlite3.connect(f"{config.database.as_uri()}?mode=ro", uri=True, timeout=10)) as connection:
        return connection.execute(sql).fetchall()


def state_of(config: Config) -> str:
    try:
        return query(config, "SELECT state FROM daemon")[0][0]
    except sqlite3.OperationalError:  # not there yet
        return ""


def files_of(config: Config) -> dict[str, str]:
    return dict(query(config, "SELECT file, status FROM files"))


def reason_of(config: Config, name: str) -> str:
    return query(config, f"SELECT coalesce(reason, '') FROM files WHERE file = '{name}'")[0][0]


def items(config: Config) -> int:
    return query(config, "SELECT count(*) FROM semantic_ids")[0][0]


def assert_sound(config: Config, count: int) -> None:
    """So many items, and every count in the database equal to its rows."""
    faults = check_database(config.database).faults
    assert not faults, faults
    assert items(config) == count


def assert_sound_after_restart(config: Config, count: int) -> None:
    run(config)
    assert_sound(config, count)


def benchmark(name: str) -> ModuleType:
    """A script of benchmarks/ as a module."""
    path = Path(__file__).parents[2] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module
