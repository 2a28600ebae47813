"""Warm starts: codebooks of other programs become generation 1, or the next one, through the daemon."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from semid_daemon.base.types import FloatArray
from semid_daemon.cli.main import main
from semid_daemon.codebooks import Codebooks
from semid_daemon.command_client import send_command
from semid_daemon.config import load_config
from semid_daemon.daemon.outcome import Outcome
from tests.catalogues import SMALL, Rows, drop_npz, ids
from tests.cli.tools import SEMID, environment, query
from tests.daemon.test_service import run

D = 16


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def run_once(root: Path) -> Outcome:
    return run(load_config(root / "semid.toml"))


def run_and_die(root: Path, failpoint: str) -> int:
    command = [*SEMID, "run", "--once", "-c", root / "semid.toml"]
    variables = {**environment(), "SEMID_FAILPOINT": failpoint}
    return subprocess.run(command, env=variables, capture_output=True, timeout=120).returncode


def minionerec(path: Path, rows_ND: FloatArray, codes: int = 8) -> Path:
    """Codebooks as MiniOneRec saves them, two layers: rows, and differences of rows."""
    layers = [rows_ND[:codes], 0.3 * (rows_ND[codes : 2 * codes] - rows_ND[2 * codes : 3 * codes])]
    np.savez_compressed(path, **{f"codebook_{layer}": values for layer, values in enumerate(layers)})
    return path


def expected(codebooks: Path, item_ids: list[str], rows_ND: FloatArray, tmp_path: Path) -> dict[str, str]:
    """The IDs by the same codebooks, without a daemon."""
    out = tmp_path / "converted.safetensors"
    converted = invoke("import-codebooks", codebooks, "-o", out)
    assert converted.exit_code == 0, converted.stderr
    return dict(zip(item_ids, Codebooks.load(out).semantic_ids(rows_ND), strict=True))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "catalogue"
    assert invoke("init", root).exit_code == 0
    (root / "semid.toml").write_text(SMALL)
    return root


def published(root: Path) -> dict[str, str]:
    return dict(query(root, "SELECT item_id, semantic_id FROM semantic_ids"))


def answers(root: Path) -> list[tuple]:
    return query(root, "SELECT command, state, answer FROM commands")


def test_generation_1_and_the_next(root: Path, tmp_path: Path, clustered: Rows):
    # With fields of their own names, which finished files are read again by.
    names = '[ingest]\nvector_field = "clip"\nid_field = "sku"'
    (root / "semid.toml").write_text(SMALL.replace("[ingest]", names))
    rows_ND = clustered(50, D, seed=3)
    first = minionerec(tmp_path / "first.npz", rows_ND)
    others = {"embeddings": -rows_ND[:40], "item_ids": np.arange(40)}
    np.savez(root / "drop" / "a.npz", clip=rows_ND[:40], sku=np.array(ids("a", 40)), **others)  # too few to train on
    assert run_once(root).missing_rows == 24

    asked = invoke("import-codebooks", first, "-c", root / "semid.toml")
    assert asked.exit_code == 0, asked.stderr
    assert "MiniOneRec, 2 layers of 8 codes, dim 16, residuals as they are" in asked.stderr
    assert "the daemon does not answer; the command waits" in asked.stderr
    run_once(root)
    assert published(root) == expected(first, ids("a", 40), rows_ND[:40], tmp_path)
    ((command, state, answer),) = answers(root)
    assert (command, state) == ("import-codebooks", "done")
    assert answer == "generation 1 is active: it has these codebooks"
    assert query(root, "SELECT origin, layers, trained_rows FROM generations") == [("imported", 2, 40)]
    assert query(root, "SELECT trained_error > 0 FROM _generations") == [(1,)]  # new rows are judged by these
    assert not list((root / "state" / "commands").glob(".*.safetensors"))

    # Later files are encoded with them; then others become the next generation, which changes nothing by itself.
    np.savez(root / "drop" / "b.npz", clip=rows_ND[40:], sku=np.array(ids("b", 10)))
    second = minionerec(tmp_path / "second.npz", rows_ND[::-1].copy())
    assert invoke("import-codebooks", second, "-c", root / "semid.toml").exit_code == 0
    run_once(root)
    every = [*ids("a", 40), *ids("b", 10)]
    assert published(root) == expected(first, every, rows_ND, tmp_path)
    assert answers(root)[1][1] == "done"
    assert "generation 2 is ready" in answers(root)[1][2]
    assert query(root, "SELECT status, origin FROM generations WHERE generation = 2") == [("ready", "imported")]
    assert invoke("promote", "-c", root / "semid.toml").exit_code == 0
    run_once(root)
    assert published(root) == expected(second, every, rows_ND, tmp_path)
    assert invoke("doctor", "-c", root / "semid.toml").exit_code == 0


@pytest.mark.slow
@pytest.mark.parametrize("point", ["published", "command-answered"])
def test_killed_while_importing(root: Path, tmp_path: Path, clustered: Rows, point: str):
    rows_ND = clustered(40, D, seed=3)
    codebooks = minionerec(tmp_path / "first.npz", rows_ND)
    drop_npz(root / "drop", "a.npz", ids("a", 40), rows_ND)
    assert invoke("import-codebooks", codebooks, "-c", root / "semid.toml").exit_code == 0
    assert run_and_die(root, point) == -signal.SIGKILL
    run_once(root)
    assert query(root, "SELECT count(*) FROM generations") == [(1,)]
    assert [state for _, state, _ in answers(root)] == ["done"]
    assert published(root) == expected(codebooks, ids("a", 40), rows_ND, tmp_path)
    assert os.listdir(root / "state" / "commands") == []


def test_codebooks_of_another_dimension_publish_nothing(root: Path, tmp_path: Path, clustered: Rows):
    drop_npz(root / "drop", "a.npz", ids("a", 40), clustered(40, 8))
    run_once(root)
    codebooks = minionerec(tmp_path / "first.npz", clustered(40, D))
    assert invoke("import-codebooks", codebooks, "-c", root / "semid.toml").exit_code == 0
    run_once(root)
    ((_, state, answer),) = answers(root)
    assert (state, answer) == ("failed", "a.npz has dim 8, the codebooks 16; nothing was published")
    assert query(root, "SELECT count(*) FROM generations") == [(0,)]
    assert query(root, "SELECT status FROM files") == [("pending",)]
    assert os.listdir(root / "state" / "commands") == []

    (root / "semid.toml").write_text(SMALL.replace("layers = 3", "layers = 3\ndim = 8"))
    refused = invoke("import-codebooks", codebooks, "-c", root / "semid.toml")
    assert refused.exit_code == 78
    assert "quantizer.dim in semid.toml is 8, that of the codebooks 16" in refused.stderr


def test_files_that_cannot_be_imported_ask_nothing(root: Path, tmp_path: Path, clustered: Rows):
    np.savez(tmp_path / "a.npz", embeddings=clustered(4, D))
    refused = invoke("import-codebooks", tmp_path / "a.npz", "-c", root / "semid.toml")
    assert refused.exit_code == 1
    assert "holds no codebooks of a kind that is known" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert os.listdir(root / "state" / "commands") == []


@pytest.mark.parametrize("given", ["../../etc/passwd", "0" * 32])
def test_a_command_cannot_name_just_any_file(root: Path, given: str):
    send_command(root / "state" / "commands", "import-codebooks", {"codebooks": given})
    run_once(root)
    ((_, state, answer),) = answers(root)
    assert state == "failed"
    assert "give the fingerprint" in answer or "cannot be read" in answer
