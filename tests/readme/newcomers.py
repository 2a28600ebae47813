"""A clean installation from the built packages, as a newcomer would have it, and a catalogue made with it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.readme.blocks import ROOT

# The shell of sqlite3, where the machine has none.
_SQLITE3 = """#!{python}
import sqlite3, sys
connection = sqlite3.connect(f"file:{{sys.argv[-2]}}?mode=ro", uri=True)
for row in connection.execute(sys.argv[-1]):
    print("|".join("" if value is None else str(value) for value in row))
"""


@dataclass(frozen=True)
class Newcomer:
    """A home, a PATH and nothing else of this machine's environment; `home` is where commands are typed."""

    home: Path
    bin: Path
    packages: Path  # the wheel and the sdist that were built

    @property
    def environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "PATH": f"{self.bin}:/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            "SEMID_CONFIG": str(self.home / "catalogue" / "semid.toml"),
            "OMP_NUM_THREADS": "1",  # where others compute too, threads that wait for each other crawl
        }

    def type(self, command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run what a line of a document says, stderr together with stdout as a terminal shows them."""
        return subprocess.run(
            ["bash", "-c", command],
            cwd=cwd or self.home,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
        )


@pytest.fixture(scope="session")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Newcomer:
    """The wheel, built from the sdist, in a virtual environment of its own; dependencies are those of this one."""
    home = tmp_path_factory.mktemp("home")
    packages = tmp_path_factory.mktemp("packages")

    def run(*command: str | Path) -> None:
        done = subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", packages, ".")
    environment = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    (wheel,) = packages.glob("*.whl")
    python = environment / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "-q", wheel)
    (site,) = environment.glob("lib/python*/site-packages")
    # Not this environment's .pth files: semid itself comes from the wheel.
    paths = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (site / "dependencies.pth").write_text("\n".join(paths) + "\n")
    shell = environment / "bin" / "sqlite3"
    shell.write_text(_SQLITE3.format(python=python))
    shell.chmod(0o755)
    os.chmod(home, 0o700)
    return Newcomer(home, environment / "bin", packages)
