"""The watchdog behind device calls, in processes of their own."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from semid_daemon.runtime.device_watchdog import EXIT_HUNG

pytestmark = pytest.mark.slow

BEGIN = "import ctypes, time\nfrom semid_daemon.runtime.device_watchdog import Watchdog\nwatchdog = Watchdog(0.5)\n"


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", BEGIN + code], capture_output=True, text=True, timeout=120)


def test_a_call_that_holds_the_interpreters_lock_ends_with_a_traceback():
    started = time.monotonic()
    ended = run("with watchdog.watch('encoding'):\n    ctypes.PyDLL(None).sleep(600)\n")
    assert ended.returncode == 1
    assert "Timeout" in ended.stderr
    assert "most recent call first" in ended.stderr
    assert 'File "<string>", line 5' in ended.stderr
    assert time.monotonic() - started < 100


def test_a_call_that_lets_others_run_is_ended_by_the_watchdog_itself():
    ended = run("with watchdog.watch('encoding'):\n    time.sleep(600)\n")
    assert ended.returncode == EXIT_HUNG
    assert "encoding: no end after 0.5 s" in ended.stderr


@pytest.mark.slow
def test_calls_that_end_in_time_leave_no_timer_behind():
    """Many short calls, together longer than the limit, then a long one that is not watched."""
    ended = run(
        "for _ in range(40):\n"
        "    with watchdog.watch('encoding'):\n"
        "        time.sleep(0.05)\n"
        "time.sleep(0.5)\n"
        "ctypes.PyDLL(None).sleep(3)\n"
        "print('alive')\n"
    )
    assert (ended.returncode, ended.stdout) == (0, "alive\n")
