"""New codebooks get the code numbers of the old ones, so that a vocabulary keeps as much of its meaning as it can.

Shape suffixes: N rows, K codes, L layers.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import scipy.optimize
import scipy.sparse

from semid_daemon.base.types import CodeArray, Codebooks, FloatArray

# Beyond so many codes the dense assignment, which takes K³ operations at worst, gives way to a greedy one.
MOST_EXACT = 8192


def match_codes(
    old_N: npt.NDArray[np.integer], new_N: npt.NDArray[np.integer], far_KK: npt.NDArray[np.floating]
) -> CodeArray:
    """Which old code number each new code gets (K), every number once.

    `old_N` and `new_N` are the codes that the same rows have in one layer; `far_KK` the squared distances of new
    centroids (rows) to old ones. As many rows as possible keep their code: a linear assignment (Kuhn 1955) on how many
    rows each pair of codes has in common, by SciPy. Pairs without rows in common go by distance.
    """
    codes = far_KK.shape[0]
    together = scipy.sparse.coo_array((np.ones(len(old_N)), (new_N, old_N)), shape=(codes, codes)).tocsr()
    together.sum_duplicates()
    if codes > MOST_EXACT:
        return _match_greedily(together.tocoo())
    # All distances together weigh less than one row.
    closeness_KK = -far_KK.astype(np.float64) / (max(float(far_KK.max()), 1e-200) * codes * 2)
    _, number_K = scipy.optimize.linear_sum_assignment(together.toarray() + closeness_KK, maximize=True)
    return np.asarray(number_K, dtype=np.int32)


def _match_greedily(together: scipy.sparse.coo_array) -> CodeArray:
    """The pairs with most rows in common first; what is left over in order."""
    codes = together.shape[0]
    number_K = np.full(codes, -1, dtype=np.int32)
    free_K = np.ones(codes, dtype=bool)
    news, olds = together.coords
    for pair in np.argsort(-together.data, kind="stable"):
        if number_K[news[pair]] < 0 and free_K[olds[pair]]:
            number_K[news[pair]] = olds[pair]
            free_K[olds[pair]] = False
    number_K[number_K < 0] = np.flatnonzero(free_K)
    return number_K


def renumber(codebooks: Codebooks, number_LK: npt.NDArray[np.integer]) -> Codebooks:
    """The same codebooks with code k of layer l called `number_LK[l, k]`."""
    centroids_LKD = np.empty_like(codebooks.centroids_LKD)
    biases_LK = None if codebooks.biases_LK is None else np.empty_like(codebooks.biases_LK)
    for layer, number_K in enumerate(number_LK):
        centroids_LKD[layer, number_K] = codebooks.centroids_LKD[layer]
        if biases_LK is not None and codebooks.biases_LK is not None:
            biases_LK[layer, number_K] = codebooks.biases_LK[layer]
    return replace(codebooks, centroids_LKD=centroids_LKD, biases_LK=biases_LK)


def match_codebooks(new: Codebooks, old: Codebooks, new_NL: CodeArray, old_NL: CodeArray) -> Codebooks:
    """The new codebooks with the old code numbers, layer by layer, where a layer has as many codes as before."""
    number_LK = np.tile(np.arange(new.codebook_size), (new.layers, 1))
    if new.codebook_size == old.codebook_size:
        for layer in range(min(new.layers, old.layers)):
            far_KK = _squared_distances(new.centroids_LKD[layer], old.centroids_LKD[layer])
            number_LK[layer] = match_codes(old_NL[:, layer], new_NL[:, layer], far_KK)
    return renumber(new, number_LK)


def _squared_distances(new_KD: FloatArray, old_KD: FloatArray) -> npt.NDArray[np.float64]:
    # In float64: squares of float32 values are beyond float32, and differences small beside a common offset.
    new, old = new_KD.astype(np.float64), old_KD.astype(np.float64)
    squares_KK = np.square(new).sum(axis=1)[:, None] + np.square(old).sum(axis=1)
    far_KK: npt.NDArray[np.float64] = np.maximum(squares_KK - 2 * new @ old.T, 0)
    return far_KK
