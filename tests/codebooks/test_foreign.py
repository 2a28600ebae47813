"""Codebooks of other programs: the same codes as theirs, or a refusal. Nothing in their files is executed."""

from __future__ import annotations

import functools
import pathlib
from collections import OrderedDict
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch

from semid_daemon.base.errors import CodebookError
from semid_daemon.base.types import Codebooks, FloatArray
from semid_daemon.codebooks.files import save_codebooks
from semid_daemon.codebooks.foreign import Foreign, read_foreign
from semid_daemon.quantizer import (
    Encoder,
    KMeansPlusPlusInitInitializer,
    MiniBatchKMeans,
    ResidualQuantization,
    SquaredEuclideanDistance,
)

L, K, D = 3, 16, 384
GOLDEN = Path(__file__).parent.parent / "data" / "golden"


@pytest.fixture(scope="module")
def rows(popular: tuple[list[str], FloatArray]) -> FloatArray:
    return popular[1][:600]


@pytest.fixture(scope="module")
def centroids(rows: FloatArray) -> FloatArray:
    """Packages, then differences of packages: what residuals look like."""
    random = np.random.default_rng(5)
    chosen = rows[random.integers(len(rows), size=(L, 2, K))]
    return np.ascontiguousarray(np.stack([chosen[0, 0], *(0.5 * (chosen[1:, 0] - chosen[1:, 1]))]))


def codes_by(foreign: Foreign, rows: FloatArray) -> np.ndarray:
    return Encoder(foreign.codebooks, torch.device("cpu")).encode(rows)


def grid_model(centroids: FloatArray, *, normalize_residuals: bool) -> ResidualQuantization:
    distance = SquaredEuclideanDistance()
    initializer = KMeansPlusPlusInitInitializer(K, distance)
    layer = MiniBatchKMeans(n_clusters=K, n_features=D, distance_function=distance, initializer=initializer)
    model = ResidualQuantization(n_layers=L, quantization_layer=layer, normalize_residuals=normalize_residuals)
    for each, centroids_KD in zip(model.quantization_layer_list, centroids, strict=True):
        each.centroids.data = torch.from_numpy(centroids_KD.copy())
        each.is_initialized = True
    return model.eval()


def lightning(state: dict, **hyper_parameters: object) -> dict:
    """What Lightning saves beside a state: much that is no data."""
    return {
        "epoch": 1,
        "global_step": 30,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": state,
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 1}}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(0.5), "dirpath": None}},
        "optimizer_states": [{"state": {0: {"momentum_buffer": None}}, "param_groups": [{"lr": 0.5, "params": [0]}]}],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {
            "optimizer": functools.partial(torch.optim.SGD, lr=0.5),
            "path": pathlib.PurePosixPath("/data"),
            "names": {"a", "b"},
            "loss": torch.nn.MSELoss(),
            **hyper_parameters,
        },
    }


@pytest.mark.parametrize("normalize", [True, False])
def test_grid(rows: FloatArray, centroids: FloatArray, tmp_path: Path, normalize: bool):
    """The state of the class that GRID's checkpoints are of, in what Lightning saves around it."""
    model = grid_model(centroids, normalize_residuals=normalize)
    assert "quantization_layer_list.0.centroids" in model.state_dict()
    path = tmp_path / "checkpoint_000_000030.ckpt"
    torch.save(lightning(model.state_dict(), normalize_residuals=normalize), path)
    foreign = read_foreign(path)
    assert (foreign.program, foreign.codebooks.normalize_residuals) == ("GRID", normalize)
    expected, _ = model.predict_step(torch.from_numpy(rows))
    assert np.array_equal(codes_by(foreign, rows), expected.numpy())


@pytest.mark.parametrize("norm", [0, 1])
def test_grids_own_codes(tmp_path: Path, norm: int):
    """Centroids that GRID's code trained give the semantic IDs that GRID's code gave."""
    with np.load(GOLDEN / f"grid_tiny_norm{norm}.npz") as golden:
        state = {f"quantization_layer_list.{i}.centroids": torch.tensor(c) for i, c in enumerate(golden["centroids"])}
        torch.save(lightning(state), tmp_path / "a.ckpt")
        codes = codes_by(read_foreign(tmp_path / "a.ckpt", bool(norm)), golden["embeddings"])
        differ = (codes != golden["semantic_ids"]).any(axis=1).sum()
    assert differ <= 2  # GRID decides in float32


def test_grid_without_hyper_parameters_needs_the_flag(centroids: FloatArray, tmp_path: Path):
    path = tmp_path / "a.ckpt"
    torch.save(lightning(grid_model(centroids, normalize_residuals=True).state_dict()), path)
    with pytest.raises(CodebookError, match="give --normalize-residuals"):
        read_foreign(path)
    assert read_foreign(path, True).codebooks.normalize_residuals
    assert not read_foreign(path, False).codebooks.normalize_residuals
    said = lightning(grid_model(centroids, normalize_residuals=True).state_dict(), normalize_residuals=True)
    torch.save(said, path)
    with pytest.raises(CodebookError, match="GRID normalizes residuals"):
        read_foreign(path, False)


class ResKmeans(torch.nn.Module):
    """OpenOneRec tokenizer/res_kmeans.py, what its encode needs."""

    def __init__(self, centroids: FloatArray) -> None:
        super().__init__()
        self.centroids = torch.nn.ParameterList(torch.nn.Parameter(torch.from_numpy(c.copy())) for c in centroids)

    @torch.no_grad()
    def encode(self, x: torch.Tensor) -> torch.Tensor:
        out = []
        for centroids in self.centroids:
            norms = x.pow(2.0).sum(dim=1, keepdim=True) + centroids.T.pow(2.0).sum(dim=0, keepdim=True)
            code = torch.addmm(norms, x, centroids.T, alpha=-2.0).argmin(dim=-1)
            x = x - centroids[code]
            out.append(code)
        return torch.stack(out, dim=1)


@pytest.mark.parametrize("wrapped", [False, True])
def test_openonerec(rows: FloatArray, centroids: FloatArray, tmp_path: Path, wrapped: bool):
    model = ResKmeans(centroids)
    state = model.state_dict()
    torch.save({"state_dict": state, "config": {}} if wrapped else state, tmp_path / "model.pt")
    foreign = read_foreign(tmp_path / "model.pt")
    assert (foreign.program, foreign.codebooks.normalize_residuals) == ("OpenOneRec", False)
    expected = model.encode(torch.from_numpy(rows)).numpy()
    assert (codes_by(foreign, rows) != expected).any(axis=1).sum() <= 1  # its argmin is of float32
    with pytest.raises(CodebookError, match="OpenOneRec does not normalize"):
        read_foreign(tmp_path / "model.pt", True)


def test_minionerec(rows: FloatArray, centroids: FloatArray, tmp_path: Path):
    """rq/rqkmeans_constrained.py: `np.savez_compressed(path, **{f'codebook_{i}': cb})`, residuals by subtraction."""
    path = tmp_path / "Books.codebooks_constrained.npz"
    np.savez_compressed(path, **{f"codebook_{i}": cb.astype(np.float64) for i, cb in enumerate(centroids)})
    foreign = read_foreign(path)
    assert (foreign.program, foreign.codebooks.normalize_residuals) == ("MiniOneRec", False)
    residual_ND, codes = rows.astype(np.float64), []
    for centroids_KD in centroids.astype(np.float64):
        squares_NK = ((residual_ND[:, None] - centroids_KD[None]) ** 2).sum(axis=2)
        codes.append(squares_NK.argmin(axis=1))
        residual_ND = residual_ND - centroids_KD[codes[-1]]
    assert np.array_equal(codes_by(foreign, rows), np.stack(codes, axis=1))


@pytest.mark.parametrize("beam", [1, 4])
def test_faiss(rows: FloatArray, centroids: FloatArray, tmp_path: Path, beam: int):
    index = faiss.IndexResidualQuantizer(D, L, 4)
    index.rq.max_beam_size = beam
    faiss.copy_array_to_vector(centroids.reshape(-1), index.rq.codebooks)
    index.rq.is_trained = index.is_trained = True
    path = tmp_path / "rq.faiss"
    faiss.write_index(index, str(path))
    foreign = read_foreign(path)
    assert (foreign.program, foreign.codebooks.beam_width) == ("FAISS", beam)
    theirs = faiss.unpack_bitstrings(index.sa_encode(rows), L, 4)
    assert (codes_by(foreign, rows) != theirs).any(axis=1).sum() <= 1  # it decides in float32
    with pytest.raises(CodebookError, match="FAISS does not normalize"):
        read_foreign(path, True)


def test_faiss_indexes_that_are_another_function(tmp_path: Path):
    faiss.write_index(faiss.index_factory(16, "OPQ4,PQ4"), str(tmp_path / "a.faiss"))
    with pytest.raises(CodebookError, match="is a FAISS IndexPreTransform"):
        read_foreign(tmp_path / "a.faiss")
    bits = faiss.UInt64Vector()
    for layer_bits in (4, 5):
        bits.push_back(layer_bits)
    index = faiss.IndexResidualQuantizer(16, bits)
    faiss.copy_array_to_vector(np.ones(16 * (16 + 32), np.float32), index.rq.codebooks)
    faiss.write_index(index, str(tmp_path / "a.faiss"))
    with pytest.raises(CodebookError, match=r"layers of \[4, 5\] bits"):
        read_foreign(tmp_path / "a.faiss")
    (tmp_path / "a.faiss").write_bytes((tmp_path / "a.faiss").read_bytes()[:30])
    with pytest.raises(CodebookError, match="damaged FAISS index"):
        read_foreign(tmp_path / "a.faiss")


def test_semids_own(centroids: FloatArray, tmp_path: Path):
    stored = Codebooks(centroids, True, np.ones((L, K), np.float32), 2)
    name = save_codebooks(tmp_path, stored, {})
    found = read_foreign(tmp_path / f"{name}.safetensors")
    assert found.program == "semid"
    assert np.array_equal(found.codebooks.centroids_LKD, centroids)
    assert (found.codebooks.normalize_residuals, found.codebooks.beam_width) == (True, 2)


def state(**changes: object) -> dict[str, torch.Tensor]:
    tensors = {f"quantization_layer_list.{layer}.centroids": torch.ones(4, 3) for layer in range(2)}
    return {**tensors, **changes}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (state(**{"encoder.0.weight": torch.ones(3, 3)}), "encoder.0.weight beside the codebooks"),
        (state(**{"normalization_layer.bias": torch.ones(3)}), "normalization_layer.bias beside the codebooks"),
        ({"rq.vq_layers.0.embedding.weight": torch.ones(4, 3)}, "a network's codes are of its output"),
        ({"weight": torch.ones(4, 3)}, "no codebooks of a kind that is known"),
        (state(**{"quantization_layer_list.3.centroids": torch.ones(4, 3)}), r"layers \[0, 1, 3\], not of all"),
        (state(**{"quantization_layer_list.1.centroids": torch.ones(5, 3)}), "one shape in every layer"),
        (state(**{"quantization_layer_list.1.centroids": torch.full((4, 3), torch.nan)}), "a NaN or an infinity"),
        (state(**{"quantization_layer_list.1.centroids": torch.ones(4)}), "1-dimensional"),
        ([torch.ones(4, 3)], "holds a list"),
    ],
)
def test_what_cannot_be_the_same_function_is_refused(content: object, says: str, tmp_path: Path):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(CodebookError, match=says) as refused:
        read_foreign(tmp_path / "a.pt", True)
    assert "\n" not in str(refused.value)


class Runs:
    """Would make a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self._path,)


def test_nothing_is_executed(tmp_path: Path):
    harm = tmp_path / "harm"
    torch.save(lightning(OrderedDict(state()), normalize_residuals=True, evil=Runs(harm)), tmp_path / "a.ckpt")
    assert read_foreign(tmp_path / "a.ckpt").codebooks.layers == 2
    assert not harm.exists()


def test_files_that_are_none(tmp_path: Path):
    with pytest.raises(CodebookError, match="cannot be read: No such file"):
        read_foreign(tmp_path / "a.pt")
    for content in (b"", b"\x80\x02}.", b"PK\x03\x04 and no more", b"\x20\0\0\0\0\0\0\0{}", b"Ix"):
        (tmp_path / "a.pt").write_bytes(content)
        with pytest.raises(CodebookError):
            read_foreign(tmp_path / "a.pt")
