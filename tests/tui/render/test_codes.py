"""The codes of a layer."""

from __future__ import annotations

import pytest

from semid_tui.render.codes import Grid


@pytest.mark.parametrize(("codes", "size_", "grid"), [
    (256, (120, 28), (32, 3)), (256, (80, 12), (32, 2)), (8192, (80, 20), (64, 1)), (8192, (160, 40), (128, 1)),
    (2, (20, 5), (4, 3)),
])  # fmt: skip
def test_grids_fit_their_screen(codes: int, size_: tuple[int, int], grid: tuple[int, int]):
    found = Grid.fitting(codes, *size_)
    assert (found.per_row, found.cell) == grid
    assert found.per_row * found.cell + 7 <= size_[0]
