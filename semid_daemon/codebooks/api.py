"""Codebooks for notebooks and batch jobs: NumPy in, NumPy out, without daemon or database."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from semid_daemon.base.errors import CodebookError
from semid_daemon.base.types import CodeArray, FloatArray
from semid_daemon.base.types import Codebooks as Stored
from semid_daemon.codebooks.files import fingerprint, read_codebooks
from semid_daemon.quantizer import Encoder, describe_device, resolve_device


class Codebooks:
    """The codebooks of one generation, ready to encode. Safe to share between threads.

    Gives the codes that the daemon gives: they depend neither on the device nor on how rows are batched.
    """

    def __init__(self, stored: Stored, device: str = "cpu") -> None:
        """`device` as in semid.toml: cpu, auto, cuda, cuda:1, mps. Raises ConfigError when it is not there."""
        self._stored = stored
        self._encoder = Encoder(stored, resolve_device(device))

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str = "cpu") -> Codebooks:
        """Read a codebook file (`state/codebooks/<fingerprint>.safetensors`, or a copy under any name).

        Raises CodebookError when it is none, damaged, or cannot be read; ConfigError as the constructor does.
        """
        try:
            stored, _ = read_codebooks(Path(path))
        except OSError as error:
            raise CodebookError(f"{os.fspath(path)}: cannot be read: {error.strerror or error}") from error
        return cls(stored, device)

    @property
    def centroids(self) -> FloatArray:
        """The centroids, L×K×D float32; read-only."""
        view = self._stored.centroids_LKD.view()
        view.flags.writeable = False
        return view

    @property
    def layers(self) -> int:
        return self._stored.layers

    @property
    def codebook_size(self) -> int:
        return self._stored.codebook_size

    @property
    def dim(self) -> int:
        return self._stored.dim

    @property
    def normalize_residuals(self) -> bool:
        return self._stored.normalize_residuals

    @property
    def fingerprint(self) -> str:
        return fingerprint(self._stored)

    def __repr__(self) -> str:
        shape = f"{self.layers} layers of {self.codebook_size} codes, dim {self.dim}"
        return f"<Codebooks {self.fingerprint}: {shape}, on {describe_device(self._encoder.device)}>"

    def encode(self, embeddings: npt.ArrayLike) -> CodeArray:
        """Codes (N×L int32) of embeddings (N×D; float16, float32, float64 or integers).

        A row of zeros gets codes like any other. Raises ValueError for another shape or dtype, and where a value
        is not finite in float32.
        """
        rows_ND = np.asarray(embeddings)
        if rows_ND.ndim != 2 or rows_ND.shape[1] != self.dim:
            raise ValueError(f"embeddings of shape {rows_ND.shape}; these codebooks encode N×{self.dim}")
        if rows_ND.dtype.kind not in "fiu":
            raise ValueError(f"embeddings of dtype {rows_ND.dtype}; give floats")
        with np.errstate(over="ignore"):
            rows_ND = np.ascontiguousarray(rows_ND, dtype=np.float32)
        finite_N = np.isfinite(rows_ND).all(axis=1)
        if not finite_N.all():
            row = int(np.flatnonzero(~finite_N)[0])
            raise ValueError(f"row {row} has a NaN or an infinity; leave such rows out")
        return self._encoder.encode(rows_ND)

    def semantic_ids(self, embeddings: npt.ArrayLike) -> list[str]:
        """Semantic IDs as text (`12-250-7`); otherwise as `encode`."""
        return semantic_ids_of(self.encode(embeddings))


def semantic_ids_of(codes_NL: npt.NDArray[np.integer[Any]]) -> list[str]:
    """Codes (N×L) as the database writes them: `12-250-7`."""
    return ["-".join(map(str, codes)) for codes in codes_NL.tolist()]
