"""Codebook health from counts of use: pure functions over numpy arrays.

Definitions are TorchEasyRec's (tzrec, `SidQualityAccumulator`): coverage = used codes / K, dead
codes = unused ones, perplexity = exp(entropy in nats) of the code use, between 1 and K.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from semid_daemon.store.records import LayerHealth


def layer_health(usage_LK: npt.NDArray[np.int64]) -> list[LayerHealth]:
    """Health of every layer from the number of items per code (L×K). No items: perplexity 0."""
    health = []
    for layer, usage_K in enumerate(usage_LK):
        used = usage_K[usage_K > 0]
        perplexity = 0.0
        if used.size:
            share = used / used.sum()
            perplexity = float(np.exp(-(share * np.log(share)).sum()))
        health.append(
            LayerHealth(
                layer=layer,
                coverage=used.size / usage_K.size,
                dead_codes=int(usage_K.size - used.size),
                perplexity=perplexity,
            )
        )
    return health
