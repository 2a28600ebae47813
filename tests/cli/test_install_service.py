"""The units: what they promise, what systemd says of them, and the daemon run by a real service manager."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from semid_daemon.base.errors import ConfigError
from semid_daemon.cli.install_service import below, plan, write
from semid_daemon.store.read.status import read_status
from tests.catalogues import SMALL, drop_npz

SYSTEMD = Path(__file__).parents[2] / "systemd"
SEMID = [sys.executable, "-m", "semid_daemon"]
needs_analyze = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")

HARDENED = """
NoNewPrivileges=yes CapabilityBoundingSet= AmbientCapabilities= PrivateIPC=yes PrivateMounts=yes PrivateNetwork=yes
PrivateTmp=yes PrivateUsers=yes IPAddressDeny=any RestrictAddressFamilies=AF_UNIX ProtectSystem=strict ProtectHome=yes
ProtectProc=invisible ProtectClock=yes ProtectControlGroups=yes ProtectHostname=yes ProtectKernelLogs=yes
ProtectKernelModules=yes ProtectKernelTunables=yes RestrictNamespaces=yes RestrictRealtime=yes RestrictSUIDSGID=yes
RemoveIPC=yes LockPersonality=yes SystemCallArchitectures=native DevicePolicy=closed LimitCORE=0
"""


def settings(*texts: str) -> dict[str, list[str]]:
    """Every `Key=value` of units, a list for each key: later files add to earlier ones."""
    found: dict[str, list[str]] = {}
    for text in texts:
        for line in text.splitlines():
            if "=" in line and not line.startswith("#"):
                key, _, value = line.partition("=")
                found.setdefault(key, []).append(value)
    return found


def run(*command: str | Path, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=60, **options)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """What `semid install-service` writes for one daemon, and for one instance on a GPU, below a directory."""
    for options in ([], ["--instance", "music", "--gpu"]):
        done = run(*SEMID, "install-service", *options, "--root", tmp_path)
        assert done.returncode == 0, done.stderr
    return tmp_path


def test_what_every_unit_promises():
    text = (SYSTEMD / "semid-daemon.service").read_text()
    unit = settings(text)
    for promise in HARDENED.split():
        key, _, value = promise.partition("=")
        assert unit[key] == [value], promise
    assert "MemoryDenyWriteExecute" not in unit
    assert unit["Type"] == ["notify"]
    assert unit["Restart"] == ["on-failure"]
    assert unit["RestartPreventExitStatus"] == ["77 78"]
    assert unit["KillMode"] == ["mixed"]
    assert unit["User"] == unit["Group"] == unit["StateDirectory"] == ["semid"]
    assert int(unit["LimitNOFILE"][0]) >= 65536
    assert unit["TimeoutStopSec"] == ["11min"]  # above the default of ingest.watchdog_s, 600 s
    assert unit["WatchdogSec"] == ["3min"]
    assert {line.split("=")[0] for line in text.splitlines() if line.startswith("#Memory")} == {
        "#MemoryHigh",
        "#MemoryMax",
    }
    gpu = settings(text, (SYSTEMD / "gpu.conf").read_text())
    assert gpu["PrivateDevices"] == ["yes", "no"]
    assert gpu["ProcSubset"][-1] == "all"
    assert {"char-nvidia-frontend rw", "char-nvidia-uvm rw", "char-nvidia-caps rw"} <= set(gpu["DeviceAllow"])


def test_the_template_is_the_unit_with_an_instance():
    def essence(name: str) -> list[str]:
        return [line for line in (SYSTEMD / name).read_text().splitlines() if not line.startswith("# ")]

    one = [line.replace("semid-daemon@N", "semid-daemon") for line in essence("semid-daemon@.service")]
    assert [line.replace("semid-%i", "semid") for line in one] == essence("semid-daemon.service")


def test_what_install_service_writes_and_says(installed: Path):
    done = run(*SEMID, "install-service", "--root", installed)
    unit = settings((installed / "etc/systemd/system/semid-daemon.service").read_text())
    (start,) = unit["ExecStart"]
    assert start.endswith(" run -c %S/semid/semid.toml")
    assert Path(start.split()[0]).exists()
    assert (installed / "etc/systemd/system/semid-daemon@music.service.d/gpu.conf").exists()
    assert "d /var/lib/semid-music/drop" in (installed / "etc/tmpfiles.d/semid-music.conf").read_text()
    for line in ("systemd-sysusers semid.conf", "systemd-tmpfiles --create semid.conf", "init /var/lib/semid\n"):
        assert line in done.stdout
    assert "systemctl enable --now semid-daemon.service" in done.stdout
    assert not [path for path in installed.rglob(".*") if path.is_file()]


def test_what_cannot_be_installed(tmp_path: Path):
    for instance in ("", "a/b", "-x", "a b", "x" * 65):
        with pytest.raises(ConfigError, match="--instance"):
            plan(instance=instance)
    (tmp_path / "etc").write_text("a file")
    with pytest.raises(ConfigError, match="cannot be written"):
        write(plan().files, tmp_path)


def test_a_user_service_asks_nothing_that_only_root_may(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (file,) = plan(user=True, gpu=True).files
    assert file.path == tmp_path / ".config/systemd/user/semid-daemon.service"
    unit = settings(file.text)
    assert not {"User", "StateDirectory", "CapabilityBoundingSet", "PrivateDevices", "ProtectHome"} & set(unit)
    assert unit["WantedBy"] == ["default.target"]
    assert unit["ExecStart"][0].endswith("run -c %h/.local/state/semid/semid.toml")
    assert (unit["Type"], unit["NoNewPrivileges"]) == (["notify"], ["yes"])


@needs_analyze
@pytest.mark.parametrize("unit", ["semid-daemon.service", "semid-daemon@music.service"])
def test_systemd_verifies_it_in_silence_and_finds_it_hardened(installed: Path, unit: str):
    directory = installed / "etc/systemd/system"
    path = directory / unit
    if not path.exists():
        path.symlink_to("semid-daemon@.service")
    verified = run("systemd-analyze", "verify", path)
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")
    # A drop-in beside it, like the one for GPUs, is part of what is judged.
    rated = run("systemd-analyze", "security", "--offline=true", "--threshold=10", "--no-pager", path)
    assert rated.returncode == 0, rated.stdout[-300:]


@needs_analyze
def test_systemd_verifies_the_user_unit_in_silence(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    files = plan(user=True).files
    write(files)
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    verified = run("systemd-analyze", "--user", "verify", files[0].path, env=environment)
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")


@pytest.mark.skipif(not shutil.which("systemd-sysusers"), reason="systemd-sysusers is not installed")
def test_systemd_takes_the_snippets(installed: Path):
    made = run("systemd-sysusers", f"--root={installed}", "semid.conf")
    assert made.returncode == 0, made.stderr
    assert "semid:x:" in (installed / "etc/passwd").read_text()
    if getpass.getuser() != "root" or not shutil.which("systemd-tmpfiles"):
        return
    made = run("systemd-tmpfiles", f"--root={installed}", "--create", "semid.conf")
    assert made.returncode == 0, made.stderr
    modes = {name: (installed / "var/lib/semid" / name).stat().st_mode & 0o7777 for name in ("", "drop", "state")}
    assert modes == {"": 0o750, "drop": 0o2770, "state": 0o750}


# A service manager of its own, in namespaces of its own: sees the daemon start, die and be started again.
_SCRIPT = """
set -e
mount -t tmpfs none /run
mkdir -p /run/systemd/system /run/user/0
chmod 700 /run/user/0
"$SYSTEMD" --user --show-status=no --log-target=null &
manager=$!
for try in $(seq 100); do systemctl --user is-system-running >/dev/null 2>&1 && break; sleep 0.1; done
status() { systemctl --user show --value -p "$1" semid-daemon; }
systemctl --user start semid-daemon
echo "started $(status ActiveState) $(status Type)"
for try in $(seq 200); do status StatusText | grep -q '^idle, 0 files wait, 1 done' && break; sleep 0.1; done
echo "status $(status StatusText | cut -d, -f1-3)"
echo "watchdog $(status WatchdogUSec)"
systemctl --user kill -s KILL semid-daemon
for try in $(seq 300); do [ "$(status NRestarts) $(status SubState)" = "1 running" ] && break; sleep 0.1; done
echo "again $(status ActiveState) $(status NRestarts)"
systemctl --user stop semid-daemon
echo "stopped $(status ActiveState) $(status ExecMainStatus)"
kill $manager
wait
"""
_MANAGER = next((path for path in ("/usr/lib/systemd/systemd", "/lib/systemd/systemd") if Path(path).exists()), None)


@pytest.mark.slow
def test_a_real_service_manager_runs_it(tmp_path: Path, clustered, monkeypatch):
    unshare = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if (
        _MANAGER is None
        or not shutil.which("unshare")
        or run(*unshare, "mount", "-t", "tmpfs", "none", "/run").returncode
    ):
        pytest.skip("no systemd here, or no right to namespaces of our own")
    monkeypatch.setenv("HOME", str(tmp_path))
    write(plan(user=True).files)
    unit = tmp_path / ".config/systemd/user/semid-daemon.service"
    unit.write_text(unit.read_text().replace("RestartSec=3s", "RestartSec=100ms"))
    root = tmp_path / ".local/state/semid"
    (root / "drop").mkdir(parents=True)
    (root / "semid.toml").write_text(SMALL)
    drop_npz(root / "drop", "a.npz", [f"a{row}" for row in range(100)], clustered(100, 16))
    environment = {**os.environ, "SYSTEMD": _MANAGER, "XDG_RUNTIME_DIR": "/run/user/0", "OMP_NUM_THREADS": "1"}
    done = run(*unshare, "bash", "-c", _SCRIPT, env=environment)
    assert done.stdout.splitlines() == [
        "started active notify",
        "status idle, 0 files wait, 1 done",
        "watchdog 13min",
        "again active 1",
        "stopped inactive 0",
    ], done.stderr
    status = read_status(root / "state/semid.db")
    assert (status.state, status.items) == ("stopped", 100)


def test_below_keeps_the_path():
    assert below(Path("/x"), Path("/etc/a")) == Path("/x/etc/a")
