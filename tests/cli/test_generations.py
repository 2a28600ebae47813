"""The commands about generations, as a shell and a script see them."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from semid_daemon.cli.main import main
from semid_daemon.config import Config
from tests.catalogues import Rows, drop_npz, ids
from tests.faults.tools import configured, live, query, run, wait_until


@pytest.fixture(scope="module")
def grown(tmp_path_factory, clustered: Rows) -> Config:
    """A catalogue of 500 items with generation 2 ready beside generation 1."""
    config = configured(tmp_path_factory.mktemp("grown"))
    drop_npz(config.drop_dir, "a.npz", ids("a", 200), clustered(200, 16))
    run(config)
    drop_npz(config.drop_dir, "b.npz", ids("b", 300), clustered(300, 16, seed=1) + 0.5)
    run(config)
    asked = semid(config, "train")
    assert asked.exit_code == 0
    assert "the daemon does not answer; the command waits for it in" in asked.stderr
    run(config)
    return config


def semid(config: Config, command: str, *arguments: str) -> Result:
    return CliRunner().invoke(main, [command, "-c", str(config.root / "semid.toml"), *arguments])


def test_generations(grown: Config):
    lines = semid(grown, "generations").stdout.splitlines()
    assert "1  active" in lines[0]
    assert "from the first rows" in lines[0]
    assert "2  ready" in lines[1]
    assert "500 items  from the candidate of generation 1  not published" in lines[1]
    listed = json.loads(semid(grown, "generations", "--json").stdout)
    assert [(each["generation"], each["status"], each["items"], each["behind"]) for each in listed] == [
        (1, "active", 500, 0),
        (2, "ready", 500, 0),
    ]


def test_status_tells_of_the_generation_that_is_ready(grown: Config):
    text = semid(grown, "status").stdout
    assert "\nnext        2, ready: `semid compare 1 2`, `semid promote 2`\n" in text
    found = json.loads(semid(grown, "status", "--json").stdout)
    assert (found["generation"], found["next_generation"], found["next_ready"]) == (1, 2, True)


def test_compare_in_words_and_as_json(grown: Config):
    text = semid(grown, "compare").stdout
    assert text.startswith("generation 1 -> 2, 500 items that both have\n")
    found = json.loads(semid(grown, "compare", "1", "2", "--json").stdout)
    assert (found["old"], found["new"], found["churn"]["items"]) == (1, 2, 500)
    pairs = query(
        grown,
        "SELECT a.item_id, a.semantic_id, b.semantic_id FROM all_semantic_ids a JOIN all_semantic_ids b"
        " USING (item_id) WHERE a.generation = 1 AND b.generation = 2 ORDER BY item_id",
    )
    moved = [(item, old, new) for item, old, new in pairs if old != new]
    assert 0 < len(moved) < 500
    assert found["churn"]["moved"] == len(moved)
    by_layer = [sum(old.split("-")[layer] != new.split("-")[layer] for _, old, new in pairs) for layer in range(3)]
    assert found["churn"]["moved_by_layer"] == by_layer
    assert f"{by_layer[0] / 500:.2%}) " not in text  # padded
    assert f"{1 - by_layer[0] / 500:7.2%} keep it" in text
    names = {(each["name"], each["layer"]) for each in found["quality"]}
    assert {("error", None), ("unique_rate", None), ("neighbour_recall", 2), ("perplexity", 0)} <= names
    assert all(each["old"] is not None and each["new"] is not None for each in found["quality"])
    listed = semid(grown, "compare", "--moved").stdout.splitlines()
    assert listed == ["\t".join(each) for each in moved]
    assert len(json.loads(semid(grown, "compare", "--moved", "--json").stdout)) == len(moved)


@pytest.mark.parametrize(
    ("arguments", "exit_code", "says"),
    [
        (["1"], 2, "give both generations, or none"),
        (["1", "9"], 1, "there is no generation 9; `semid generations` lists those there are"),
    ],
)
def test_compare_refuses(grown: Config, arguments: list[str], exit_code: int, says: str):
    done = semid(grown, "compare", *arguments)
    assert done.exit_code == exit_code
    assert says in done.stderr


def test_nothing_to_compare_yet(catalogue: Config, clustered: Rows):
    drop_npz(catalogue.drop_dir, "a.npz", ids("a", 100), clustered(100, 16))
    run(catalogue)
    done = semid(catalogue, "compare")
    assert done.exit_code == 1
    assert "there are no two generations to compare" in done.stderr


def test_a_daemon_that_runs_is_waited_for(grown: Config):
    with live(grown):
        wait_until(lambda: query(grown, "SELECT state FROM daemon") == [("idle",)])
        promoted = semid(grown, "promote", "--wait", "--json")
        assert json.loads(promoted.stdout) == {
            "command": "promote",
            "state": "done",
            "answer": "generation 2 is active",
        }
        assert semid(grown, "rollback", "--wait").stdout == "generation 1 is active\n"
        again = semid(grown, "promote", "7")
        assert again.exit_code == 1
        assert again.stdout == "there is no generation 7\n"
        assert semid(grown, "promote", "2", "--wait").stdout == "generation 2 is active\n"
    lines = semid(grown, "generations").stdout.splitlines()
    assert "1  retired" in lines[0]
    assert "2  active" in lines[1]
