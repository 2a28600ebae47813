"""`Codebooks`: from a file to codes, in Python."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from semid_daemon.base.errors import SemidError
from semid_daemon.base.types import Codebooks as Stored
from semid_daemon.base.types import FloatArray
from semid_daemon.codebooks import Codebooks
from semid_daemon.codebooks.files import save_codebooks
from semid_daemon.quantizer import Encoder


@pytest.fixture(scope="module")
def stored(popular: tuple[list[str], FloatArray]) -> Stored:
    """Three layers of 64 packages as centroids."""
    rows_ND = popular[1][np.random.default_rng(3).permutation(3 * 64)]
    return Stored(np.ascontiguousarray(rows_ND.reshape(3, 64, 384)) * 0.5, normalize_residuals=True)


@pytest.fixture(scope="module")
def file(stored: Stored, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("codebooks")
    return directory / f"{save_codebooks(directory, stored, {'seed': '3'})}.safetensors"


def test_the_codes_are_the_daemons(file: Path, stored: Stored, popular: tuple[list[str], FloatArray]):
    codebooks = Codebooks.load(file)
    expected = Encoder(stored, torch.device("cpu")).encode(popular[1])
    codes_NL = codebooks.encode(popular[1])
    assert (codes_NL.dtype, codes_NL.shape) == (np.int32, (3618, 3))
    assert np.array_equal(codes_NL, expected)
    assert codebooks.semantic_ids(popular[1][:2]) == ["-".join(map(str, row)) for row in expected[:2]]
    assert (codebooks.layers, codebooks.codebook_size, codebooks.dim) == (3, 64, 384)
    assert codebooks.fingerprint == file.stem
    assert codebooks.fingerprint in repr(codebooks)
    assert codebooks.encode(popular[1][:0]).shape == (0, 3)


def test_threads_share_it(file: Path, popular: tuple[list[str], FloatArray]):
    codebooks = Codebooks.load(file)
    parts = np.array_split(popular[1], 24)
    with ThreadPoolExecutor(8) as threads:
        codes_NL = np.concatenate(list(threads.map(codebooks.encode, parts)))
    assert np.array_equal(codes_NL, codebooks.encode(popular[1]))


def test_what_may_go_in(file: Path, popular: tuple[list[str], FloatArray]):
    codebooks = Codebooks.load(file)
    rows_ND = popular[1][:50].astype(np.float16)  # as the sample stores them
    expected = codebooks.encode(rows_ND.astype(np.float32))
    for given in (rows_ND, rows_ND.astype(np.float64), np.asfortranarray(rows_ND), rows_ND.tolist()):
        assert np.array_equal(codebooks.encode(given), expected)
    assert np.array_equal(codebooks.encode(rows_ND[::2]), expected[::2])
    assert not codebooks.centroids.flags.writeable


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (np.ones(384, np.float32), r"shape \(384,\)"),
        (np.ones((2, 5), np.float32), "N×384"),
        (np.full((2, 384), "x"), "dtype"),
        (np.vstack([np.ones(384), np.full(384, np.nan)]), "row 1 has a NaN"),
        (np.full((1, 384), 1e300), "row 0 has a NaN or an infinity"),
    ],
)
def test_what_may_not(file: Path, rows: np.ndarray, says: str):
    with pytest.raises(ValueError, match=says):
        Codebooks.load(file).encode(rows)


def test_a_copy_under_another_name_is_still_checked(file: Path, tmp_path: Path):
    copy = tmp_path / "mine.safetensors"
    copy.write_bytes(file.read_bytes())
    assert Codebooks.load(copy).fingerprint == file.stem
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    copy.write_bytes(content)
    with pytest.raises(SemidError, match="not what its fingerprint says"):
        Codebooks.load(copy)


def test_files_that_are_none(tmp_path: Path):
    with pytest.raises(SemidError, match="cannot be read: No such file"):
        Codebooks.load(tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").write_bytes(safetensors.numpy.save({"x": np.ones(3)}))
    with pytest.raises(SemidError, match="no codebooks of semid"):
        Codebooks.load(tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").write_text("{}")
    with pytest.raises(SemidError, match="no codebooks of semid"):
        Codebooks.load(tmp_path / "a.safetensors")


def test_importing_the_room_does_not_wait_for_torch():
    code = "import semid_daemon.codebooks, sys, json; print(json.dumps('torch' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout) is False
