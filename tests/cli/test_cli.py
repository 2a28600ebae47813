"""The `semid` command as users run it: real processes, real signals, exit statuses, stdout and stderr."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from semid_daemon.base.text import printable
from semid_daemon.cli.control import _dropped_name
from semid_daemon.config import load_config
from semid_daemon.store.write.store import Store
from tests.catalogues import SMALL, Rows, drop_npz, ids

# Run as a user's shell would, but with this interpreter.
SEMID = [sys.executable, "-m", "semid_daemon"]


def semid(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*SEMID, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, env=environment())


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "SEMID_CONFIG"}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A catalogue made by `semid init`, then configured small."""
    made = semid("init", tmp_path)
    assert made.returncode == 0, made.stderr
    (tmp_path / "semid.toml").write_text(SMALL)
    return tmp_path


def start_daemon(root: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*SEMID, "run", "-c", root / "semid.toml"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def wait_until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, "timed out"
        time.sleep(0.05)


def query(root: Path, sql: str) -> list[tuple]:
    connection = sqlite3.connect(f"{(root / 'state' / 'semid.db').as_uri()}?mode=ro", uri=True)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def items(root: Path) -> int:
    return query(root, "SELECT count(*) FROM semantic_ids")[0][0]


def test_init_run_status_lookup(tmp_path: Path, clustered: Rows):
    made = semid("init", tmp_path / "catalogue")
    assert made.returncode == 0
    root = tmp_path / "catalogue"
    assert sorted(path.name for path in root.iterdir()) == ["drop", "semid.toml", "state"]
    before = semid("status", cwd=root)
    assert (before.returncode, before.stderr) == (0, "")
    assert "none yet" in before.stdout

    (root / "semid.toml").write_text(SMALL)
    assert semid("init", root).returncode == 0
    assert (root / "semid.toml").read_text() == SMALL  # what the user wrote is kept
    drop_npz(root / "drop", "a.npz", ids("a", 40), clustered(40, 16, seed=1))
    gathering = semid("run", "--once", cwd=root)
    assert gathering.returncode == 0
    assert "24 more rows are needed" in gathering.stderr
    drop_npz(root / "drop", "b.npz", ids("b", 130), clustered(130, 16, seed=2))
    ran = semid("run", "--once", "-c", root / "semid.toml")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == ""

    status = json.loads(semid("status", "--json", cwd=root).stdout)
    promised = "state device generation items unique_rate singleton_rate max_bucket layers files heartbeat_at"
    assert set(promised.split()) <= set(status)
    assert (status["state"], status["generation"], status["items"]) == ("stopped", 1, 170)
    assert status["files"]["done"] == 2
    assert [set(layer) for layer in status["layers"]] == [{"layer", "coverage", "dead_codes", "perplexity"}] * 3

    (item,) = json.loads(semid("lookup", "a7", "--json", cwd=root).stdout)
    assert list(item) == [
        "item_id",
        "semantic_id",
        "suffix",
        "codes",
        "generation",
        "file",
        "assigned_at",
        "siblings",
    ]
    assert item["item_id"] == "a7"
    assert item["semantic_id"] == "-".join(map(str, item["codes"]))
    assert 0 < len(item["siblings"]) <= 20
    found = json.loads(semid("lookup", "--prefix", item["semantic_id"], "--json", cwd=root).stdout)
    assert "a7" in [each["item_id"] for each in found]
    unknown = semid("lookup", "a7", "nobody", cwd=root)
    assert unknown.returncode == 1
    assert unknown.stdout.startswith("a7\t")
    assert unknown.stderr == "semid: nobody: no such item in the active generation\n"


@pytest.mark.parametrize("arguments", [["run"], ["status"], ["lookup", "x"]])
def test_without_configuration(tmp_path: Path, arguments: list[str]):
    refused = semid(*arguments, cwd=tmp_path)
    assert refused.returncode == 78
    assert refused.stderr.startswith("semid: semid.toml: no such file")
    assert refused.stderr.count("\n") == 1


def test_wrong_configuration(small: Path):
    (small / "semid.toml").write_text("[quantizer]\ncodes = 3\n")
    refused = semid("run", "--once", cwd=small)
    assert refused.returncode == 78
    assert "unknown key quantizer.codes" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "Traceback" in semid("--debug", "run", "--once", cwd=small).stderr


def test_a_device_that_is_not_there_is_refused(small: Path):
    (small / "semid.toml").write_text('[quantizer]\ndevice = "cuda:17"\n')
    refused = semid("run", "--once", cwd=small)
    assert refused.returncode == 78
    assert 'quantizer.device = "cuda:17"' in refused.stderr


def test_lookup_needs_items_or_a_prefix(small: Path):
    assert semid("lookup", cwd=small).returncode == 2
    assert semid("lookup", "a", "--prefix", "1", cwd=small).returncode == 2
    assert "not codes" in semid("lookup", "--prefix", "1-*", cwd=small).stderr


def test_status_without_database(tmp_path: Path):
    (tmp_path / "semid.toml").write_text("")
    refused = semid("status", cwd=tmp_path)
    assert refused.returncode == 1
    assert "no database yet" in refused.stderr


def test_a_rejected_file_is_told_by_the_exit_status(small: Path, clustered: Rows):
    (small / "drop" / "bad.npz").write_text("not an archive")
    ran = semid("run", "--once", cwd=small)
    assert ran.returncode == 3
    assert "bad.npz: rejected" in ran.stderr
    assert (small / "rejected" / "bad.npz.reason.txt").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_daemon_works_until_it_is_told_to_stop(small: Path, clustered: Rows, number: int):
    daemon = start_daemon(small)
    try:
        wait_until(lambda: query(small, "SELECT state FROM daemon") == [("idle",)])
        drop_npz(small / "drop", "a.npz", ids("a", 100), clustered(100, 16))
        wait_until(lambda: items(small) == 100)
        drop_npz(small / "drop", "b.npz", ids("b", 30), clustered(30, 16, seed=5))
        wait_until(lambda: items(small) == 130)
        second = semid("run", "--once", cwd=small)
        assert second.returncode == 75
        assert f"process {daemon.pid}" in second.stderr
        daemon.send_signal(number)
        assert daemon.wait(timeout=20) == 0
    finally:
        daemon.kill()
        output, errors = daemon.communicate()
    assert output == ""
    assert "Traceback" not in errors
    assert query(small, "SELECT state FROM daemon") == [("stopped",)]


def test_killed_at_any_moment_nothing_is_lost_or_done_twice(small: Path, clustered: Rows):
    """kill -9 again and again while files are being dropped; then everything is there exactly once."""
    (small / "semid.toml").write_text(SMALL.replace("chunk_rows = 50", "chunk_rows = 16"))
    drop_npz(small / "drop", "base.npz", ids("base", 100), clustered(100, 16))
    for round_number in range(8):
        daemon = start_daemon(small)
        drop_npz(
            small / "drop", f"r{round_number}.npz", ids(f"r{round_number}-", 400), clustered(400, 16, seed=round_number)
        )
        # Later and later after the start: in start-up, in training, between chunks, when idle.
        if round_number > 1:
            wait_until(lambda: query(small, "SELECT state FROM daemon")[0][0] in ("encoding", "idle", "training"))
            time.sleep(0.02 * round_number)
        daemon.kill()
        daemon.wait()
        daemon.communicate()
    last = semid("run", "--once", cwd=small)
    assert last.returncode == 0, last.stderr
    assert query(small, "SELECT count(*), count(DISTINCT item_id) FROM semantic_ids") == [(3300, 3300)]
    assert query(small, "SELECT status, count(*) FROM files GROUP BY status") == [("done", 9)]
    assert query(small, "SELECT sum(assigned), sum(rows) FROM _chunks") == [(3300, 3300)]
    assert query(small, "SELECT sum(items) FROM code_usage WHERE layer = 2") == [(3300,)]
    assert query(small, "PRAGMA integrity_check") == [("ok",)]


def test_retry_brings_a_rejected_file_back(small: Path, clustered: Rows):
    drop_npz(small / "drop", "a.npz", ids("a", 70), clustered(70, 16))
    (small / "drop" / "sub").mkdir()
    drop_npz(small / "drop" / "sub", "wide.npz", ids("w", 5), clustered(5, 17))
    assert semid("run", "--once", cwd=small).returncode == 3
    assert (small / "rejected" / "sub" / "wide.npz").exists()
    waiting = semid("retry", small / "rejected" / "sub" / "wide.npz", cwd=small)
    assert waiting.returncode == 0
    assert "the daemon does not answer; the command waits" in waiting.stderr
    again = semid("run", "--once", cwd=small)
    assert again.returncode == 3
    assert "wrong dimension" in again.stderr
    assert query(small, "SELECT command, state, answer FROM commands") == [
        ("retry", "done", f"1 to be tried again, 1 of them moved back from {small / 'rejected'}")
    ]
    assert sorted(path.name for path in (small / "rejected" / "sub").iterdir()) == ["wide.npz", "wide.npz.reason.txt"]
    assert semid("retry", cwd=small).returncode == 2


def test_commands_to_a_daemon_that_runs(small: Path, clustered: Rows):
    daemon = start_daemon(small)
    try:
        wait_until(lambda: query(small, "SELECT state FROM daemon") == [("idle",)])
        assert semid("rescan", cwd=small).stdout == "scanning\n"
        assert semid("retry", "nobody.npz", cwd=small).stdout == (
            "0 to be tried again; neither deferred nor rejected: nobody.npz\n"
        )
        assert semid("retry", "--all", cwd=small).stdout == "0 to be tried again\n"
    finally:
        daemon.terminate()
        assert daemon.wait(timeout=20) == 0
        daemon.communicate()


def test_doctor(small: Path, clustered: Rows):
    drop_npz(small / "drop", "a.npz", ids("a", 70), clustered(70, 16))
    semid("run", "--once", cwd=small)
    healthy = semid("doctor", "--json", cwd=small)
    assert healthy.returncode == 0, healthy.stdout
    findings = json.loads(healthy.stdout)
    assert {finding["check"] for finding in findings} >= {"database", "codebooks", "directories", "device", "sqlite"}
    assert not [finding for finding in findings if finding["level"] == "error"]
    (codebooks,) = (small / "state" / "codebooks").iterdir()
    codebooks.write_bytes(codebooks.read_bytes()[:-1] + b"x")
    connection = sqlite3.connect(small / "state" / "semid.db")
    connection.execute("UPDATE _generations SET items = items + 1")
    connection.execute("UPDATE _code_usage SET items = items + 1 WHERE layer = 1 AND code = 2")
    connection.commit()
    connection.close()
    ill = semid("doctor", cwd=small)
    assert ill.returncode == 1
    for fault in ("not what its fingerprint says", "items are not counted right: 1", "codes whose use is not"):
        assert fault in ill.stdout
    assert "restore a backup" in ill.stdout


def test_backup_and_restore(small: Path, clustered: Rows, tmp_path: Path):
    drop_npz(small / "drop", "a.npz", ids("a", 70), clustered(70, 16))
    semid("run", "--once", cwd=small)
    target = tmp_path / "catalogue.tar"
    made = semid("backup", target, cwd=small)
    assert made.returncode == 0, made.stderr
    again = semid("backup", target, cwd=small)
    assert again.returncode == 78
    assert "is there already" in again.stderr
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    shutil.rmtree(small / "state")
    (small / "state").mkdir()
    subprocess.run(["tar", "-xf", target, "-C", small / "state"], check=True)
    assert semid("doctor", cwd=small).returncode == 1  # the directory for commands is made by the next run
    assert semid("run", "--once", cwd=small).returncode == 0
    assert semid("doctor", cwd=small).returncode == 0
    assert items(small) == 70


@pytest.mark.parametrize(
    "arguments",
    [
        ["init", "/dev/null/x"],
        ["backup", "/dev/null/x.tar", "-c", "CATALOGUE"],
        ["lookup", "\udcff", "-c", "CATALOGUE"],
        ["lookup", "--prefix", "7-7", "-c", "CATALOGUE"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_mistakes_are_told_in_one_line(small: Path, arguments: list[str]):
    done = semid(*(str(small / "semid.toml") if each == "CATALOGUE" else each for each in arguments))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("semid: ")
    assert len(done.stderr.splitlines()) == 1
    assert len(done.stderr) > 20


def test_a_prefix_of_nothing_is_an_empty_list(small: Path):
    done = semid("lookup", "--prefix", "7", "--json", "-c", small / "semid.toml")
    assert (done.returncode, done.stdout) == (1, "[]\n")


def test_once_without_a_drop_directory(small: Path):
    """Gone after the daemon made it: as when it is unmounted."""
    code = (
        "import os, sys; from semid_daemon.daemon import state_lock as state; from semid_daemon.cli.main import main\n"
        "make = state.make_directories\n"
        "def make_then_lose(config): make(config); os.rmdir(config.drop_dir)\n"
        "state.make_directories = make_then_lose\n"
        "main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, "run", "--once", "-q", "-c", str(small / "semid.toml")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if line.startswith("semid: ")] == [
        f"semid: source missing: {small / 'drop'}: No such file or directory"
    ]


def test_status_of_a_daemon_that_died(small: Path):
    with Store(small / "state" / "semid.db") as store:
        store.daemon.started(1, "cpu", "1")
        store.daemon.heartbeat("encoding", "a.npz")
        fresh = semid("status", "-c", small / "semid.toml")
        with store.database.transaction() as connection:
            connection.execute("UPDATE _daemon SET heartbeat_at = '2026-01-01T00:00:00.000Z'")
        silent = semid("status", "-c", small / "semid.toml")
        as_json = json.loads(semid("status", "--json", "-c", small / "semid.toml").stdout)
        with store.database.transaction() as connection:
            connection.execute("UPDATE _daemon SET state = 'stopped'")
        stopped = semid("status", "-c", small / "semid.toml")
    assert "the daemon seems dead or stuck" not in fresh.stdout + stopped.stdout
    assert " s: the daemon seems dead or stuck" in silent.stdout
    assert as_json["heartbeat_age_s"] > 5


def test_names_that_are_not_utf8_are_asked_for_as_the_ledger_shows_them(small: Path):
    config = load_config(small / "semid.toml")
    name = os.fsdecode(b"caf\xe9\n.npy")
    assert _dropped_name(config, name) == printable(Path(name))
    assert _dropped_name(config, str(config.drop_dir / name)) == printable(Path(name))


def test_every_command_has_help_worth_reading():
    listed = semid("--help")
    assert listed.returncode == 0
    for command in ("init", "run", "status", "lookup", "retry", "rescan", "doctor", "backup", "demo"):
        shown = semid(command, "--help")
        assert shown.returncode == 0
        assert len(shown.stdout.splitlines()) > 6
        assert command in listed.stdout


def test_demo(tmp_path: Path):
    ran = semid("demo", "--dir", tmp_path / "demo", "--device", "cpu")
    assert ran.returncode == 0, ran.stderr
    assert "3,618 items have a semantic ID" in ran.stdout
    assert "numpy\t" in ran.stdout
    assert items(tmp_path / "demo") == 3618
    assert query(tmp_path / "demo", "SELECT file, status, rows FROM files") == [
        ("packages-1.npz", "done", 1809),
        ("packages-2.parquet", "done", 1809),
    ]
    again = semid("demo", "--dir", tmp_path / "demo")
    assert again.returncode == 78
    assert "holds a catalogue already" in again.stderr
