"""Failures of a device in the words of the rest: DeviceError, or MachineError where it lacks memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from semid_daemon.base.errors import DeviceError, MachineError
from semid_daemon.base.types import CodeArray, FloatArray
from semid_daemon.quantizer.encoding import Encoder


def copied(encoder: Encoder, embeddings_ND: FloatArray) -> Tensor | None:
    """Rows on the device; None where it has not memory enough for all at once. Raises DeviceError when it fails."""
    try:
        with device_errors():
            return encoder.copy(embeddings_ND)
    except MachineError:
        return None


def encode_rows(encoder: Encoder, embeddings_ND: FloatArray, on_device: Tensor | None = None) -> CodeArray:
    """Codes (N×L int32) of embeddings (N×D float32).

    `on_device` are the same rows, where they were copied there already. Raises MachineError when even few rows do
    not fit, DeviceError when the device fails otherwise.
    """
    with device_errors(f" while encoding {len(embeddings_ND):,} rows"):
        return encoder.encode(embeddings_ND) if on_device is None else encoder.encode_copied(on_device)


@contextlib.contextmanager
def device_errors(doing: str = "") -> Iterator[None]:
    """A device's failure as DeviceError, its lack of memory as MachineError that says what it was `doing`."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise MachineError(f"out of memory{doing}: {_first_line(error)}") from error
    except RuntimeError as error:
        raise DeviceError(f"the device failed: {_first_line(error)}; start the daemon again") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
