"""Commands that exchange with other programs, as users run them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from semid_daemon.cli.main import main
from semid_daemon.config import load_config
from tests.catalogues import SMALL, Rows, drop_npz, ids
from tests.cli.test_cli import SEMID, environment, query, semid
from tests.daemon.test_service import run


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory, clustered: Rows) -> Path:
    """A catalogue of 170 items, all encoded; its daemon stopped."""
    root = tmp_path_factory.mktemp("encoded")
    assert invoke("init", root).exit_code == 0
    (root / "semid.toml").write_text(SMALL)
    drop_npz(root / "drop", "a.npz", ids("a", 170), clustered(170, 16, seed=1))
    run(load_config(root / "semid.toml"))
    return root


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


@pytest.mark.parametrize("command", ["export", "encode"])
def test_sigterm_leaves_nothing_half_written(encoded: Path, tmp_path: Path, monkeypatch, clustered: Rows, command: str):
    def ended(*arguments: object, **options: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    config = ["-c", encoded / "semid.toml"]
    if command == "export":
        monkeypatch.setattr("semid_daemon.export.writing._origin", ended)
        done = invoke("export", *config, "--format", "csv", tmp_path / "ids.csv")
    else:
        monkeypatch.setattr("semid_daemon.cli.encode_offline.semantic_ids_of", ended)
        drop_npz(encoded, "rows.npz", ids("a", 60), clustered(60, 16))
        done = invoke("encode", *config, encoded / "rows.npz", "-o", tmp_path / "ids.parquet")
    assert done.exit_code == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


# -- files without a daemon ----------------------------------------------------------------------------


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def rows(tmp_path: Path, clustered: Rows) -> Path:
    """20 rows with fields of their own names, one of them with a NaN and one of zeros."""
    embeddings_ND = clustered(20, 16, seed=9)
    embeddings_ND[3, 5] = np.nan
    embeddings_ND[4] = 0
    np.savez(tmp_path / "rows.npz", clip=embeddings_ND, sku=np.array(ids("s", 20)))
    return tmp_path / "rows.npz"


def test_inspect(rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SEMID_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    refused = invoke("inspect", "rows.npz")
    assert (refused.exit_code, refused.stdout) == (3, "")
    assert "no field named embeddings" in refused.stderr
    assert "ingest.vector_field" in refused.stderr

    (tmp_path / "semid.toml").write_text('[ingest]\nvector_field = "clip"\nid_field = "sku"\n')
    found = json.loads(invoke("inspect", "rows.npz", "--json").stdout)
    assert found == {
        "file": "rows.npz",
        "format": "npz",
        "rows": 20,
        "dim": 16,
        "dtype": "float32",
        "vector_field": "clip",
        "id_field": "sku",
        "sidecar": None,
        "first_ids": ["s0", "s1", "s2", "s5", "s6"],
        "rows_usable": 18,
        "rows_rejected": 2,
        "rejected": {"not finite": 1, "zero vector": 1},
    }
    shown = invoke("inspect", "rows.npz").stdout
    assert "20 rows × 16, float32, from clip" in shown
    assert "left out    2 rows (not finite: 1, zero vector: 1)" in shown


def test_inspect_sees_the_sidecar(tmp_path: Path):
    np.save(tmp_path / "a.npy", np.ones((2, 3)))
    (tmp_path / "a.ids.txt").write_text("x\ny\n")
    os.symlink(tmp_path / "a.npy", tmp_path / "link.npy")
    found = json.loads(invoke("inspect", tmp_path / "a.npy", "--json").stdout)
    assert (found["sidecar"], found["first_ids"], found["dtype"]) == ("a.ids.txt", ["x", "y"], "float64")
    assert json.loads(invoke("inspect", tmp_path / "link.npy", "--json").stdout)["first_ids"] == ["link:0", "link:1"]
    assert invoke("inspect", tmp_path).exit_code == 3
    assert "No such file" in invoke("inspect", tmp_path / "b.npy").stderr


def test_the_daemon_reads_configured_fields(rows: Path, tmp_path: Path, clustered: Rows):
    root = tmp_path / "catalogue"
    assert invoke("init", root).exit_code == 0
    (root / "semid.toml").write_text(SMALL.replace("[ingest]", '[ingest]\nvector_field = "clip"\nid_field = "sku"'))
    np.savez(root / "drop" / "a.npz", clip=clustered(70, 16), sku=np.array(ids("a", 70)), id=np.arange(70))
    os.rename(rows, root / "drop" / "rows.npz")
    run(load_config(root / "semid.toml"))
    assert query(root, "SELECT count(*), min(item_id), max(item_id) FROM semantic_ids") == [(88, "a0", "s9")]


def test_encode_gives_what_the_daemon_gave(encoded: Path, tmp_path: Path, clustered: Rows):
    drop_npz(tmp_path, "a.npz", ids("a", 170), clustered(170, 16, seed=1))
    (codebooks,) = (encoded / "state" / "codebooks").glob("*.safetensors")
    out = tmp_path / "ids.parquet"
    by_file = invoke("encode", tmp_path / "a.npz", "--codebooks", codebooks, "-o", out, "--device", "cpu")
    assert by_file.exit_code == 0, by_file.stderr
    assert f"170 rows by codebooks {codebooks.stem}" in by_file.stderr
    table = pq.read_table(out)
    expected = dict(query(encoded, "SELECT item_id, semantic_id FROM semantic_ids"))
    assert dict(zip(table["item_id"].to_pylist(), table["semantic_id"].to_pylist(), strict=True)) == expected
    assert ["-".join(map(str, codes)) for codes in table["codes"].to_pylist()] == table["semantic_id"].to_pylist()

    again = tmp_path / "again.parquet"
    by_catalogue = invoke("encode", "-c", encoded / "semid.toml", tmp_path / "a.npz", tmp_path / "a.npz", "-o", again)
    assert by_catalogue.exit_code == 0, by_catalogue.stderr
    assert pq.read_table(again).num_rows == 340


def test_encode_writes_all_or_nothing(encoded: Path, tmp_path: Path, clustered: Rows, rows: Path):
    drop_npz(tmp_path, "a.npz", ids("a", 60), clustered(60, 16))
    drop_npz(tmp_path, "b.npz", ids("b", 60), clustered(60, 8))
    out = tmp_path / "ids.parquet"
    out.write_text("old")
    config = ["-c", encoded / "semid.toml"]
    before = sorted(os.listdir(tmp_path))
    for given, says in [
        ([tmp_path / "a.npz", tmp_path / "b.npz"], "b.npz: wrong dimension: 8, expected 16"),
        ([tmp_path / "a.npz", rows], "rows.npz: no field named"),
        ([tmp_path / "nowhere.npz"], "No such file"),
        ([tmp_path / "a.npz", "--generation", "9"], "no generation 9"),
    ]:
        refused = invoke("encode", *config, *given, "-o", out)
        assert refused.exit_code == 1
        assert says in refused.stderr
        assert "Traceback" not in refused.stderr
    assert (out.read_text(), sorted(os.listdir(tmp_path))) == ("old", before)
    np.savez(tmp_path / "z.npz", embeddings=np.vstack([np.zeros(16), np.ones(16)]))
    done = invoke("encode", *config, tmp_path / "z.npz", "-o", out)
    assert "1 rows by codebooks" in done.stderr
    assert "1 rows left out (zero vector: 1)" in done.stderr
