"""`semid inspect`: it reads a file as the daemon does."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from semid_daemon.config import load_config
from tests.catalogues import SMALL, Rows, ids
from tests.cli.tools import invoke, query
from tests.daemon.test_service import run


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
        "remark": None,
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
    linked = json.loads(invoke("inspect", tmp_path / "link.npy", "--json").stdout)
    assert [item_id.split("@")[0] for item_id in linked["first_ids"]] == ["link.npy", "link.npy"]
    assert "has no item IDs" in linked["remark"]
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
