"""The project's own rules: lint, types, import contracts, and what light commands must not load."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = Path(sysconfig.get_path("scripts"))


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True, timeout=280)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
        ["lint-imports", "--no-cache"],
    ],
    ids=" ".join,
)
def test_checks(command: list[str]):
    done = run(SCRIPTS / command[0], *command[1:])
    assert done.returncode == 0, done.stdout + done.stderr


def loaded_by(code: str) -> set[str]:
    """Top-level modules in memory after running code in a new interpreter."""
    done = run(
        sys.executable,
        "-c",
        f"import json, sys\n{code}\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))",
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


HEAVY = {"torch", "pyarrow", "pandas", "scipy"}


def command(*arguments: str) -> str:
    return f"from semid_daemon.cli.main import main\nmain({list(arguments)!r}, standalone_mode=False)"


@pytest.mark.parametrize(
    ("code", "also"),
    [
        ("import semid_daemon", {"numpy", "click"}),
        ("import semid_daemon.store.read.status", {"numpy", "click", "sqlite_utils"}),
        (command("status", "-c", "CATALOGUE/semid.toml"), {"numpy", "sqlite_utils"}),
        (command("lookup", "-c", "CATALOGUE/semid.toml", "--prefix", "1"), {"numpy", "sqlite_utils"}),
        (
            "import semid_daemon.command_client as c; c.wait_for_answer.__defaults__ = (0.0,)\n"
            + command("retry", "--all", "-c", "CATALOGUE/semid.toml"),
            {"numpy", "sqlite_utils"},
        ),
        ("import semid_daemon.cli.inspect, semid_daemon.ingest.sandbox", set()),
        ("import semid_tui.app, semid_tui.cli", {"numpy", "sqlite_utils"}),
    ],
)
def test_light_things_stay_light(code: str, also: set[str], tmp_path: Path):
    assert run(sys.executable, "-m", "semid_daemon", "init", tmp_path).returncode == 0
    loaded = loaded_by(code.replace("CATALOGUE", str(tmp_path)))
    assert not loaded & (HEAVY | also)


def test_versions_of_torch_are_bounded():
    assert '"torch>=2.10,<2.14"' in (ROOT / "pyproject.toml").read_text()
