"""What a generation's training rows come to in its codebooks."""

from __future__ import annotations

import numpy as np

from semid_daemon.base.types import Baseline, FloatArray
from semid_daemon.quantizer import Encoder, quantization_errors

_CHUNK_ROWS = 8192


def measure_baseline(encoder: Encoder, rows_ND: FloatArray, total_rows: int) -> Baseline:
    """The baseline of training rows (N×D float32), counts scaled up where they are a sample of `total_rows`."""
    codebooks = encoder.codebooks
    counts_LK = np.zeros((codebooks.layers, codebooks.codebook_size))
    errors = []
    for start in range(0, len(rows_ND), _CHUNK_ROWS):
        chunk_ND = rows_ND[start : start + _CHUNK_ROWS]
        codes_NL = encoder.encode(chunk_ND)
        errors.append(quantization_errors(codebooks, chunk_ND, codes_NL, encoder.device))
        for layer, codes_N in enumerate(codes_NL.T):
            counts_LK[layer] += np.bincount(codes_N, minlength=codebooks.codebook_size)
    errors_N = np.concatenate(errors)
    return Baseline(
        error=float(errors_N.mean(dtype=np.float64)),
        error_p99=float(np.quantile(errors_N, 0.99)),
        counts_LK=counts_LK * (total_rows / len(rows_ND)),
    )
