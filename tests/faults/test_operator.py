"""Faults that operators and their machines bring about: commands, owners, places, settings, leftovers."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from semid_daemon.base.clock import utc_in
from semid_daemon.cli.backup import make_backup
from semid_daemon.cli.doctor import examine
from semid_daemon.config import Config, load_config
from semid_daemon.daemon.state_lock import hold_state, user_name
from semid_daemon.store.read.status import read_status
from tests.catalogues import Rows, drop_npz, ids
from tests.faults.tools import (
    SEMID,
    assert_sound_after_restart,
    configured,
    live,
    query,
    run,
    semid,
    start,
    state_of,
    trained_catalogue,
    wait_until,
)


@pytest.fixture
def trained(tmp_path: Path, clustered: Rows) -> Config:
    """A catalogue with a generation and 70 items; looks every 0.2 s and retries soon."""
    return trained_catalogue(tmp_path, clustered, ("drop", "rescan_s = 0.2"), ("ingest", "retry_s = 0.2"))


def test_fault_67_a_number_beyond_64_bits(trained: Config):
    """a command with a number beyond 64 bits: answered, consumed, and nobody sends one by mistake"""
    for number, generation in enumerate([1 << 63, -(1 << 64), 10**400]):
        request = {"command": "promote", "arguments": {"generation": generation}}
        (trained.commands_dir / f"{number}.json").write_text(json.dumps(request))
    with live(trained):
        wait_until(lambda: not os.listdir(trained.commands_dir))
    answers = query(trained, "SELECT state, answer FROM commands ORDER BY rowid")
    assert [state for state, _ in answers] == ["failed"] * 3
    assert all("there is no generation" in answer for _, answer in answers)
    for command in (["promote", str(1 << 63)], ["compare", "1", str(1 << 64)]):
        refused = semid(*command, "-c", trained.root / "semid.toml")
        assert refused.returncode == 2
        assert "not in the range" in refused.stderr
    assert_sound_after_restart(trained, 70)


@pytest.mark.slow
def test_fault_67_thousands_of_commands(trained: Config, clustered: Rows):
    """thousands of command files, links and FIFOs among them: consumed, while files have their turns"""
    for number in range(2_000):
        path = trained.commands_dir / f"{number:05}.json"
        if number % 7 == 0:
            os.symlink("/dev/zero", path)
        elif number % 7 == 1:
            os.mkfifo(path)
        else:
            path.write_text('{"command": "rescan", "arguments": {}}' if number % 7 < 4 else "?" * number)
    with live(trained):
        drop_npz(trained.drop_dir, "b.npz", ids("b", 30), clustered(30, 16))
        wait_until(lambda: not (trained.drop_dir / "b.npz").exists())
        wait_until(lambda: not os.listdir(trained.commands_dir), timeout_s=300)
    assert_sound_after_restart(trained, 100)


def test_fault_70_another_user_than_the_owner(trained: Config):
    """a writing command by another user than the owner: refused, naming the owner; doctor finds foreign files"""
    if os.geteuid():
        pytest.skip("only root can give files away")
    os.chown(trained.codebooks_dir, 65534, 65534)
    found = [finding for finding in examine(trained) if finding.check == "owners"]
    assert [finding.level for finding in found] == ["error"]
    assert str(trained.codebooks_dir) in found[0].message
    os.chown(trained.codebooks_dir, 0, 0)
    os.chown(trained.state_dir, 65534, 65534)
    for command in (["run", "--once", "-c", trained.root / "semid.toml"], ["init", trained.root]):
        refused = semid(*command)
        assert refused.returncode == 77
        assert f"belongs to {user_name(65534)}" in refused.stderr


def test_fault_70_nobody_else_may_read(tmp_path: Path):
    """directories, databases and backups are closed to other users whatever the umask"""
    assert semid("init", tmp_path / "made").returncode == 0
    make_backup(load_config(tmp_path / "made/semid.toml"), tmp_path / "made/semid.toml", tmp_path / "b.tar")
    paths = [*(tmp_path / "made").rglob("*"), tmp_path / "made", tmp_path / "b.tar"]
    assert [path for path in paths if path.stat().st_mode & 0o027] == []


def test_fault_71_the_working_directory_is_gone(trained: Config):
    """the working directory is gone: run and doctor compute all the same"""
    gone = trained.root / "gone"
    for command in ("run --once", "doctor"):
        gone.mkdir()
        script = f'cd {gone} && rmdir {gone} && exec "$@"'
        arguments = [*SEMID, *command.split(), "-c", str(trained.root / "semid.toml")]
        done = subprocess.run(["sh", "-c", script, "sh", *arguments], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert "oneMKL" not in done.stderr


def test_fault_72_output_onto_a_link_or_fifo(trained: Config):
    """output onto a FIFO, device or link: refused, and what was there stays"""
    (trained.root / "real.csv").write_text("mine")
    (trained.root / "link").symlink_to("real.csv")
    os.mkfifo(trained.root / "pipe")
    for out in (trained.root / "link", trained.root / "pipe", "-"):
        refused = semid("export", "--format", "csv", out, "-c", trained.root / "semid.toml", cwd=trained.root)
        assert refused.returncode == 78, refused.stderr
    assert (trained.root / "link").is_symlink()
    assert (trained.root / "pipe").is_fifo()
    assert (trained.root / "real.csv").read_text() == "mine"
    assert not (trained.root / "-").exists()


def test_fault_83_the_state_disk_is_not_mounted(trained: Config):
    """the state disk is not mounted: no second catalogue begins while done/ holds files, unless on purpose"""
    trained.state_dir.rename(trained.root / "disk")
    for command in (["run", "--once", "-c", trained.root / "semid.toml"], ["init", trained.root]):
        refused = semid(*command)
        assert refused.returncode == 1
        assert "holds finished files" in refused.stderr
        assert not trained.state_dir.exists()
    (trained.root / "disk").rename(trained.state_dir)
    assert_sound_after_restart(trained, 70)


def test_status_says_that_the_disk_is_full(tmp_path: Path, clustered: Rows):
    config = configured(tmp_path)
    config.state_dir.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(config.state_dir)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount here")
    try:
        trained_catalogue(tmp_path, clustered)
        status = ["status", "-c", config.root / "semid.toml"]
        assert "disk        full" not in semid(*status).stdout
        with contextlib.suppress(OSError), (config.state_dir / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))
        assert f"bytes free for {config.state_dir}" in semid(*status).stdout
    finally:
        subprocess.run(["umount", "-l", str(config.state_dir)], check=True)


def test_fault_76_settings_that_contradict_the_catalogue(trained: Config):
    """settings that contradict the published catalogue: named at start, by status and by doctor"""
    assert not [finding for finding in examine(trained) if finding.check == "settings" and finding.level != "ok"]
    quantizer = ["dim = 17", "layers = 2", "codebook_size = 16", "normalize_residuals = false", "beam_width = 4"]
    lines = [("quantizer", line) for line in (*quantizer, "balanced = true")]
    changed = configured(trained.root, *lines)
    named = [
        "quantizer.dim = 17 is not in effect: the active generation has 16",
        "quantizer.layers = 2 is not in effect: the active generation has 3",
        "quantizer.codebook_size = 16 is not in effect: the active generation has 8",
        "quantizer.normalize_residuals = false is not in effect: the active generation has true",
        "quantizer.beam_width = 4 is not in effect: the active generation has 1",
        "quantizer.balanced = true is not in effect: the active generation has false",
    ]
    assert [finding.message for finding in examine(changed) if finding.check == "settings"] == named
    printed = semid("status", "-c", trained.root / "semid.toml").stdout
    assert [line for line in printed.splitlines() if line.startswith("settings    quantizer.")] == [
        f"settings    {text}" for text in named
    ]
    as_json = json.loads(semid("status", "--json", "-c", trained.root / "semid.toml").stdout)
    assert as_json["ignored_settings"] == named
    run(changed)
    told = query(changed, "SELECT message FROM events WHERE level = 'warning' AND message GLOB '*not in effect*'")
    assert sorted(text.split(";")[0] for (text,) in told) == sorted(named)
    run(configured(trained.root))
    assert_sound_after_restart(trained, 70)


def test_fault_83_files_that_the_ledger_never_saw(trained: Config, clustered: Rows):
    """files in done/ that the catalogue does not have (a restored backup): doctor names them; renamed ones are known"""
    make_backup(trained, trained.root / "semid.toml", trained.root / "b.tar")
    drop_npz(trained.drop_dir, "base.npz", ids("c", 40), clustered(40, 16))  # done/ has a file of this name
    drop_npz(trained.drop_dir, "late.npz", ids("d", 30), clustered(30, 16))
    run(trained)
    assert len(list(trained.done_dir.iterdir())) == 3
    assert [finding.level for finding in examine(trained) if finding.check == "finished"] == ["ok"]
    shutil.rmtree(trained.state_dir)
    trained.state_dir.mkdir()
    subprocess.run(["tar", "-xf", trained.root / "b.tar", "-C", trained.state_dir], check=True)
    (found,) = [finding for finding in examine(trained) if finding.check == "finished"]
    assert found.level == "warning"
    assert "2 files that the catalogue does not have" in found.message
    assert "late.npz" in found.message
    for path in list(trained.done_dir.iterdir()):
        if path.name != "base.npz":
            path.rename(trained.drop_dir / path.name)
    assert_sound_after_restart(trained, 140)


def test_doctor_is_right_for_a_member_of_the_group(trained: Config):
    if os.geteuid():
        pytest.skip("only root can become another user")
    for directory in (trained.root, *list(trained.root.parents)[:-1]):
        if directory != Path("/tmp"):
            directory.chmod(0o755)
    for path in (trained.root, *trained.root.rglob("*")):
        os.chown(path, 65533, 65534)
        path.chmod(0o750 if path.is_dir() else 0o640)
    code = (
        "import os, sys; from pathlib import Path; from semid_daemon.config import load_config\n"
        "from semid_daemon.cli.doctor import examine; import semid_daemon.quantizer\n"
        "config = load_config(Path(sys.argv[1]))\n"
        "semid_daemon.quantizer.describe_device(semid_daemon.quantizer.resolve_device('cpu'))\n"
        "os.setgroups([]), os.setgid(65534), os.setuid(65534)\n"
        "found = list(examine(config))\n"
        "print(*[f'{finding.check} {finding.message}' for finding in found if finding.level == 'error'], sep='\\n')\n"
    )
    command = [sys.executable, "-c", code, trained.root / "semid.toml"]
    whole = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (whole.returncode, whole.stdout.strip()) == (0, ""), whole.stderr
    trained.drop_dir.chmod(0o550)
    refused = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (
        refused.stdout.strip() == f"directories paths.drop: {trained.drop_dir} is not readable and writable for 65533"
    )


def test_fault_87_a_heartbeat_from_the_future(trained: Config):
    """the clock was set back: whoever holds the lock is alive, and asking keeps no daemon from starting"""
    status = ["status", "-c", trained.root / "semid.toml"]
    with contextlib.closing(sqlite3.connect(trained.database, isolation_level=None)) as connection:
        connection.execute("UPDATE _daemon SET state = 'encoding', pid = 1, heartbeat_at = ?", [utc_in(3600)])
    dead = read_status(trained.database)
    assert dead.liveness() == "silent"
    assert "the clock was set back since, and no daemon runs" in semid(*status).stdout
    with hold_state(trained.state_dir):
        assert dead.liveness() == "live"
        assert "no daemon runs" not in semid(*status).stdout
    assert dead.liveness() == "silent"
    asking = threading.Event()

    def ask() -> None:
        while not asking.wait(0.001):
            dead.liveness()

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        for _ in range(20):
            with hold_state(trained.state_dir):
                pass
    finally:
        asking.set()
        thread.join()
    assert_sound_after_restart(trained, 70)


def test_fault_85_a_link_in_the_place_of_a_sub_directory(trained: Config):
    """drop/sub becomes a link to state/commands: `retry` puts no file there, and says why"""
    (trained.drop_dir / "sub").mkdir()
    bad = trained.drop_dir / "sub" / "bad.npy"
    bad.write_bytes(b"not an array")
    os.utime(bad, (1, 1))
    assert run(trained).rejected == 1
    assert not bad.exists()
    with live(trained):
        wait_until(lambda: state_of(trained) == "idle")
        (trained.drop_dir / "sub").rmdir()
        (trained.drop_dir / "sub").symlink_to(trained.commands_dir)
        told = semid("retry", "-c", trained.root / "semid.toml", "--all")
        assert "a link is not followed" in told.stdout + told.stderr
        assert not (trained.commands_dir / "bad.npy").exists()
    assert (trained.rejected_dir / "sub" / "bad.npy").exists()
    assert_sound_after_restart(trained, 70)


def test_a_hang_up_ends_the_daemon_in_order(trained: Config):
    daemon = start(trained)
    try:
        wait_until(lambda: state_of(trained) == "idle")
        daemon.send_signal(signal.SIGHUP)
        assert daemon.wait(timeout=60) == 0
    finally:
        daemon.kill()
        daemon.wait()
    assert state_of(trained) == "stopped"
