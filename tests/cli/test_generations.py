"""The commands about generations, as a shell and a script see them."""

from __future__ import annotations

import json

import pytest

from semid_daemon.config import Config
from tests.cli.tools import invoke
from tests.faults.tools import live, query, wait_until


def test_generations(grown: Config):
    lines = invoke("generations", "-c", grown.root / "semid.toml").stdout.splitlines()
    assert "1  active" in lines[0]
    assert "from the first rows" in lines[0]
    assert "2  ready" in lines[1]
    assert "500 items  from the candidate of generation 1  not published" in lines[1]
    listed = json.loads(invoke("generations", "-c", grown.root / "semid.toml", "--json").stdout)
    assert [(row["generation"], row["status"], row["items"], row["behind"]) for row in listed] == [
        (1, "active", 500, 0),
        (2, "ready", 500, 0),
    ]


def test_status_tells_of_the_generation_that_is_ready(grown: Config):
    text = invoke("status", "-c", grown.root / "semid.toml").stdout
    assert "\nnext        2, ready: `semid compare 1 2`, `semid promote 2`\n" in text
    found = json.loads(invoke("status", "-c", grown.root / "semid.toml", "--json").stdout)
    assert (found["generation"], found["next_generation"], found["next_ready"]) == (1, 2, True)


@pytest.mark.slow
def test_a_daemon_that_runs_is_waited_for(grown: Config):
    with live(grown):
        wait_until(lambda: query(grown, "SELECT state FROM daemon") == [("idle",)])
        promoted = invoke("promote", "-c", grown.root / "semid.toml", "--wait", "--json")
        assert json.loads(promoted.stdout) == {
            "command": "promote",
            "state": "done",
            "answer": "generation 2 is active",
        }
        assert invoke("rollback", "-c", grown.root / "semid.toml", "--wait").stdout == "generation 1 is active\n"
        again = invoke("promote", "-c", grown.root / "semid.toml", "7")
        assert again.exit_code == 1
        assert again.stdout == "there is no generation 7\n"
        assert invoke("promote", "-c", grown.root / "semid.toml", "2", "--wait").stdout == "generation 2 is active\n"
    lines = invoke("generations", "-c", grown.root / "semid.toml").stdout.splitlines()
    assert "1  retired" in lines[0]
    assert "2  active" in lines[1]
