"""`semid lookup`."""

from __future__ import annotations

from pathlib import Path

from tests.cli.tools import semid


def test_lookup_needs_items_or_a_prefix(small: Path):
    assert semid("lookup", cwd=small).returncode == 2
    assert semid("lookup", "a", "--prefix", "1", cwd=small).returncode == 2
    assert "not codes" in semid("lookup", "--prefix", "1-*", cwd=small).stderr


def test_a_prefix_of_nothing_is_an_empty_list(small: Path):
    done = semid("lookup", "--prefix", "7", "--json", "-c", small / "semid.toml")
    assert (done.returncode, done.stdout) == (1, "[]\n")
