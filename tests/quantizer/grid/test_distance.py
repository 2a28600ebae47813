from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semid_daemon.quantizer import SquaredEuclideanDistance, distance
from semid_daemon.quantizer.distance import full_float32_matmul

DISTANCE = SquaredEuclideanDistance()
CPU = torch.device("cpu")


def precisions() -> tuple[str, str]:
    return torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision


@pytest.fixture
def _low_precision():
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision("highest")


def test_distances_worked_by_hand() -> None:
    x_ND = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    y_KD = torch.tensor([[0.0, 0.0], [3.0, 0.0], [3.0, 4.0]])
    assert DISTANCE.compute(x_ND, y_KD).tolist() == [[0, 9, 25], [25, 16, 0]]
    assert DISTANCE(x_ND, y_KD).tolist() == [[0, 9, 25], [25, 16, 0]]


def test_distances_are_never_negative() -> None:
    x_ND = torch.randn(200, 64, generator=torch.Generator().manual_seed(0)) + 100
    assert DISTANCE.compute(x_ND, x_ND).min() >= 0


@given(n=st.integers(0, 20), k=st.integers(1, 9), d=st.integers(1, 5), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=50)
def test_nearest_is_the_argmin_of_the_distances(n: int, k: int, d: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x_ND = torch.randn(n, d, generator=generator, dtype=torch.float64)
    y_KD = torch.randn(k, d, generator=generator, dtype=torch.float64)
    wanted_N = (x_ND[:, None] - y_KD[None]).square().sum(dim=2).argmin(dim=1)
    assert torch.equal(DISTANCE.nearest(x_ND, y_KD), wanted_N)


def test_nearest_is_the_same_in_blocks_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    x_ND = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    whole_N = DISTANCE.nearest(x_ND, x_ND[:7])
    monkeypatch.setattr(distance, "MAX_BLOCK_ELEMENTS", 30)
    blocks = distance._row_blocks(x_ND, 7)
    assert max(len(block) for block in blocks) * 7 <= 30
    assert torch.equal(DISTANCE.nearest(x_ND, x_ND[:7]), whole_N)


def test_the_first_of_equals_is_nearest() -> None:
    assert DISTANCE.nearest(torch.zeros(3, 2), torch.ones(4, 2)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("other", [torch.zeros(2, 4), torch.zeros(3)])
def test_two_widths_are_refused(other: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="one width"):
        DISTANCE.compute(torch.zeros(2, 3), other)
    with pytest.raises(ValueError, match="one width"):
        DISTANCE.nearest(torch.zeros(2, 3), other)


@pytest.mark.usefixtures("_low_precision")
def test_products_are_in_full_precision_and_the_switches_stand_as_before() -> None:
    before = precisions()
    assert before == ("tf32", "bf16")
    with full_float32_matmul(CPU):
        assert precisions() == ("ieee", "ieee")
    with pytest.raises(RuntimeError, match="inside"), full_float32_matmul(CPU):
        raise RuntimeError("inside")
    assert precisions() == before
    assert torch.get_float32_matmul_precision() == "medium"
    assert torch.backends.cuda.matmul.allow_tf32

    x_ND = torch.randn(300, 256, generator=torch.Generator().manual_seed(0))
    exact_NK = DISTANCE.compute(x_ND.double(), x_ND[:32].double())
    assert (DISTANCE.compute(x_ND, x_ND[:32]) - exact_NK).abs().max() < 1e-3


def test_autocast_does_not_lower_the_precision() -> None:
    x_ND = torch.randn(300, 256, generator=torch.Generator().manual_seed(0))
    wanted_NK = DISTANCE.compute(x_ND, x_ND[:32])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(DISTANCE.compute(x_ND, x_ND[:32]), wanted_NK)


def test_precision_switches_of_callers_that_overlap():
    """The first of two to come leaves first: the other's products stay exact, and its leaving restores."""
    before = precisions()
    first, second = full_float32_matmul(CPU), full_float32_matmul(CPU)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert precisions() == ("ieee", "ieee")
    second.__exit__(None, None, None)
    assert precisions() == before
