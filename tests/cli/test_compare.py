"""`semid compare`."""

from __future__ import annotations

import json

import pytest

from semid_daemon.config import Config
from tests.catalogues import Rows, drop_npz, ids
from tests.cli.tools import invoke
from tests.faults.tools import query, run


def test_compare_in_words_and_as_json(grown: Config):
    text = invoke("compare", "-c", grown.root / "semid.toml").stdout
    assert text.startswith("generation 1 -> 2, 500 items that both have\n")
    found = json.loads(invoke("compare", "-c", grown.root / "semid.toml", "1", "2", "--json").stdout)
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
    names = {(figure["name"], figure["layer"]) for figure in found["quality"]}
    assert {("error", None), ("unique_rate", None), ("neighbour_recall", 2), ("perplexity", 0)} <= names
    assert all(figure["old"] is not None and figure["new"] is not None for figure in found["quality"])
    listed = invoke("compare", "-c", grown.root / "semid.toml", "--moved").stdout.splitlines()
    assert listed == ["\t".join(move) for move in moved]
    assert len(json.loads(invoke("compare", "-c", grown.root / "semid.toml", "--moved", "--json").stdout)) == len(moved)


@pytest.mark.parametrize(
    ("arguments", "exit_code", "says"),
    [
        (["1"], 2, "give both generations, or none"),
        (["1", "9"], 1, "there is no generation 9; `semid generations` lists those there are"),
    ],
)
def test_compare_refuses(grown: Config, arguments: list[str], exit_code: int, says: str):
    done = invoke("compare", "-c", grown.root / "semid.toml", *arguments)
    assert done.exit_code == exit_code
    assert says in done.stderr


def test_nothing_to_compare_yet(catalogue: Config, clustered: Rows):
    drop_npz(catalogue.drop_dir, "a.npz", ids("a", 100), clustered(100, 16))
    run(catalogue)
    done = invoke("compare", "-c", catalogue.root / "semid.toml")
    assert done.exit_code == 1
    assert "there are no two generations to compare" in done.stderr
