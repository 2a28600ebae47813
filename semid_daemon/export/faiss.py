"""`faiss`: the codebooks as a FAISS residual quantizer, where FAISS would give the same codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from semid_daemon.export.job import ExportError, Form, Job


def write(job: Job, path: Path) -> None:
    """A trained, empty IndexResidualQuantizer that encodes greedily (beam 1).

    Raises ExportError where FAISS could not be the same function.
    """
    codebooks = job.load_codebooks()
    if codebooks.normalize_residuals:
        raise ExportError(
            "faiss: this generation normalizes residuals; FAISS subtracts without normalizing again, so that the same"
            " codebooks give other codes. Train with normalize_residuals = false for it"
        )
    if codebooks.beam_width > 1 or codebooks.biases_LK is not None:
        raise ExportError("faiss: only greedy codebooks give the same codes there, without beam_width and balanced")
    bits = codebooks.codebook_size.bit_length() - 1
    if codebooks.codebook_size != 1 << bits:
        raise ExportError(f"faiss: its codebooks have 2^n codes, this generation's {codebooks.codebook_size}")
    try:
        import faiss
    except ImportError:
        raise ExportError("faiss: is not installed; pip install 'semid[faiss]'") from None
    index = faiss.IndexResidualQuantizer(codebooks.dim, codebooks.layers, bits)
    index.rq.max_beam_size = 1
    faiss.copy_array_to_vector(np.ascontiguousarray(codebooks.centroids_LKD).reshape(-1), index.rq.codebooks)
    index.rq.is_trained = index.is_trained = True
    faiss.write_index(index, str(path))


FORM = Form("faiss", write, of_items=False)
