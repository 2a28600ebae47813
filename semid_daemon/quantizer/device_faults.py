"""Failures of a device in the words of the rest: DeviceError, or MachineError where it lacks memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from semid_daemon.base.errors import DeviceError, MachineError
from semid_daemon.base.types import CodeArray, FloatArray
from semid_daemon.quantizer import Encoder, OnDevice

_FEWEST_ROWS = 64  # a chunk that needs less than this on the device is not cut further


def copied(encoder: Encoder, embeddings_ND: FloatArray) -> OnDevice | None:
    """Rows on the device; None where it has not memory enough for all at once. Raises DeviceError when it fails."""
    try:
        with device_errors():
            return encoder.copy(embeddings_ND)
    except MachineError:
        return None


def encode_rows(encoder: Encoder, embeddings_ND: FloatArray, on_device: OnDevice | None = None) -> CodeArray:
    """Codes (N×L), in halves where the device has not memory enough for all at once.

    `on_device` are the same rows, where they were copied there already. Raises MachineError when even few rows do
    not fit, DeviceError when the device fails otherwise.
    """
    try:
        return encoder.encode(embeddings_ND) if on_device is None else encoder.encode_copied(on_device)
    except (MemoryError, RuntimeError) as error:
        # torch's own kind is told by its name: torch stays in its room.
        if not isinstance(error, MemoryError) and type(error).__name__ != "OutOfMemoryError":
            raise DeviceError(f"the device failed: {_first_line(error)}; start the daemon again") from error
        rows = embeddings_ND.shape[0]
        if rows <= _FEWEST_ROWS:
            raise MachineError(f"out of memory while encoding {rows} rows: {_first_line(error)}") from error
    half = rows // 2
    return np.concatenate([encode_rows(encoder, embeddings_ND[:half]), encode_rows(encoder, embeddings_ND[half:])])


@contextlib.contextmanager
def device_errors() -> Iterator[None]:
    """A device's failure as DeviceError, its lack of memory as MachineError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # torch's own kind is told by its name: torch stays in its room.
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            raise MachineError(f"out of memory: {_first_line(error)}") from error
        raise DeviceError(f"the device failed: {_first_line(error)}; start the daemon again") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
