"""`semid export`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.cli.tools import SEMID, environment, invoke, query, semid


def test_export(encoded: Path, tmp_path: Path):
    done = semid("export", "-c", encoded / "semid.toml", "--format", "npy", tmp_path / "sids.npy")
    assert (done.returncode, done.stdout) == (0, "")
    assert "170 items of generation 1, npy; beside it sids.npy.ids.json, sids.npy.semid.json" in done.stderr
    item_ids = json.loads((tmp_path / "sids.npy.ids.json").read_text())
    found = [
        (item_id, "-".join(map(str, row[:-1])), row[-1])
        for item_id, row in zip(item_ids, np.load(tmp_path / "sids.npy").tolist(), strict=True)
    ]
    assert sorted(found) == query(encoded, "SELECT item_id, semantic_id, suffix FROM semantic_ids ORDER BY item_id")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--format", "csv", "--since", "soon", "x"], "no time like"),
        (["--format", "csv", "--prefix", "1-", "x"], "is not codes"),
        (["--format", "xml", "x"], "'xml' is not one of 'grid'"),
        (["--format", "csv", "--generation", "4", "x"], "there is no generation 4; there are: 1"),
        (["--format", "csv", "nowhere/x"], "no such directory"),
        (["--format", "parquet", "DROP/x.parquet"], "lies in the drop directory"),
        (["--format", "faiss", "x"], "subtracts without normalizing"),
    ],
)
def test_export_refuses_in_one_line(encoded: Path, tmp_path: Path, monkeypatch, arguments: list[str], says: str):
    arguments = [argument.replace("DROP", str(encoded / "drop")) for argument in arguments]
    monkeypatch.chdir(tmp_path)
    done = invoke("export", "-c", encoded / "semid.toml", *arguments)
    assert done.exit_code in (1, 2, 78)
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_export_killed_before_its_end_leaves_the_old_one(encoded: Path, tmp_path: Path):
    (tmp_path / "ids.csv").write_text("old")
    command = [*SEMID, "export", "-c", encoded / "semid.toml", "--format", "csv", tmp_path / "ids.csv"]
    killed = subprocess.run(
        command, env={**environment(), "SEMID_FAILPOINT": "export-written"}, capture_output=True, timeout=60
    )
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "ids.csv").read_text() == "old"
    left = [name for name in os.listdir(tmp_path) if name != "ids.csv"]
    assert all(name.startswith(".ids.csv.") and name.endswith(".part") for name in left)


@pytest.mark.slow
def test_export_killed_anywhere_leaves_no_map_of_another(encoded: Path, tmp_path: Path):
    """Killed before each of its steps: there is never a map, or a companion, that belongs to another export."""
    out = tmp_path / "ids.npy"
    command = ["export", "-q", "-c", encoded / "semid.toml", "--format", "npy"]
    for passes in range(1, 5):
        first = semid(*command, "--prefix", prefix_of(encoded), out)
        assert first.returncode == 0
        assert semid("export", "--check", out).returncode == 0
        before = out.read_bytes()
        killed = subprocess.run(
            [*SEMID, *command, out],
            env={**environment(), "SEMID_FAILPOINT": f"export-publishing:{passes}"},
            capture_output=True,
            timeout=60,
        )
        assert killed.returncode == -signal.SIGKILL
        rows = np.load(out)
        map_path = out.with_name("ids.npy.ids.json")
        assert (out.read_bytes() == before) == (passes == 1)
        assert map_path.exists() == (passes > 2)
        if map_path.exists():
            assert len(json.loads(map_path.read_text())) == len(rows) == 170
        checked = semid("export", "--check", out)
        assert (checked.returncode == 0) == (passes == 4)
        if passes < 4:
            assert checked.stderr.splitlines()[-1].endswith("No such file or directory; export again")


def prefix_of(catalogue: Path) -> str:
    ((semantic_id,),) = query(catalogue, "SELECT min(semantic_id) FROM semantic_ids")
    return str(semantic_id).split("-")[0]


def test_sigterm_leaves_nothing_half_written(encoded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("semid_daemon.export.writing._origin", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    done = invoke("export", "-c", encoded / "semid.toml", "--format", "csv", tmp_path / "ids.csv")
    assert done.exit_code == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


def test_options_of_forms_reach_them(encoded: Path, tmp_path: Path):
    config = ["-q", "-c", str(encoded / "semid.toml")]
    names = ["--token-template", "<s_{layer}_{code}>", "--first-code", "1"]
    done = invoke("export", *config, "--format", "index-json", "--order", "item-id", *names, str(tmp_path / "i.json"))
    assert done.exit_code == 0
    item_ids = json.loads((tmp_path / "i.json.ids.json").read_text())
    assert item_ids == sorted(item_ids, key=lambda item_id: (len(item_id), item_id))
    found = dict(query(encoded, "SELECT item_id, semantic_id || '-' || suffix FROM semantic_ids"))
    for item_id, tokens in zip(item_ids, json.loads((tmp_path / "i.json").read_text()).values(), strict=True):
        codes = [int(code) for code in found[item_id].split("-")]
        assert tokens == [f"<s_{layer}_{code + 1}>" for layer, code in zip("abcdef", codes, strict=False)]
    done = invoke("export", *config, "--format", "sid-gr", "--vocabulary-offset", "7000", str(tmp_path / "c.jsonl"))
    assert done.exit_code == 0
    assert json.loads((tmp_path / "c.jsonl").read_text().splitlines()[0])["token_ids"][0] >= 7000
    done = invoke("export", *config, "--format", "grid", "--compact", str(tmp_path / "a.pt"))
    assert "--compact: an item's last row changes" in done.stderr
    assert invoke("export", *config, str(tmp_path / "x")).exit_code == 2
