"""Which device computes: the configured one, or a refusal. Never a silent fall-back to the CPU."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache

import numpy as np
import torch

from semid_daemon.base.errors import ConfigError
from semid_daemon.base.types import FloatArray


def resolve_device(name: str) -> torch.device:
    """The device of a configured name: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.

    `auto` is CUDA where there is one, else the CPU. Raises ConfigError when a named device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= found:
            raise ConfigError(
                f'quantizer.device = "{name}": this machine shows torch {torch.__version__} {found} CUDA device(s);'
                ' check the driver and the torch build, or set device = "auto" or "cpu"'
            )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError('quantizer.device = "mps": torch finds no Metal device here; set device = "auto" or "cpu"')
    return device


def describe_device(device: torch.device) -> str:
    """The device's name for people, as `cuda:0 NVIDIA H100 80GB HBM3` or `cpu (2 threads)`."""
    if device.type == "cuda":
        return f"cuda:{device.index or 0} {torch.cuda.get_device_name(device)}"
    if device.type == "cpu":
        return f"cpu ({torch.get_num_threads()} threads)"
    return device.type


def memory_for(device: torch.device) -> Callable[[int, int], FloatArray]:
    """What makes arrays (N×D float32, not set) whose rows go to the device: for CUDA in pinned memory."""
    if device.type != "cuda":
        return lambda rows, dim: np.empty((rows, dim), np.float32)
    return lambda rows, dim: torch.empty((rows, dim), pin_memory=True).numpy()


@cache
def has_triton() -> bool:
    """Whether the fused CUDA kernels can be compiled here."""
    return importlib.util.find_spec("triton") is not None
