"""What the machine does, as gauges: processor, memory, disk, and the GPU that computes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from semid_daemon.store.write.telemetry import Gauge


class Host:
    """Asked once per heartbeat: a few system calls. `gpu` is the index of the CUDA device in use, if any."""

    def __init__(self, state_dir: Path, gpu: int | None = None) -> None:
        self._state_dir = state_dir
        self._process = psutil.Process()
        self._process.cpu_percent()  # the first call of either only sets where the next one counts from
        psutil.cpu_percent()
        self._gpu = None if gpu is None else Gpu.find(gpu)

    def gauges(self) -> dict[str, Gauge]:
        memory = psutil.virtual_memory()
        with self._process.oneshot():
            rss_bytes, process_percent = self._process.memory_info().rss, self._process.cpu_percent()
        try:
            disk_free_bytes: Gauge = psutil.disk_usage(str(self._state_dir)).free
        except OSError:
            disk_free_bytes = None
        return {
            "cpu_percent": psutil.cpu_percent(),
            "cpu_count": float(psutil.cpu_count() or 1),
            "process_cpu_percent": process_percent,
            "memory_used_bytes": memory.total - memory.available,
            "memory_total_bytes": memory.total,
            "process_rss_bytes": rss_bytes,
            "disk_free_bytes": disk_free_bytes,
            **(self._gpu.gauges() if self._gpu is not None else dict.fromkeys(GPU_GAUGES)),
        }


GPU_GAUGES = ("gpu_name", "gpu_percent", "gpu_memory_used_bytes", "gpu_memory_total_bytes", "gpu_celsius", "gpu_watts")


class Gpu:
    """One NVIDIA device, through NVML. A figure that the device does not have is left out."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml = nvml
        self._handle = handle

    @classmethod
    def find(cls, index: int) -> Gpu | None:
        """The device that CUDA counts as `index`; None where NVML does not know it."""
        import pynvml

        visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
        name = visible[index] if index < len(visible) else str(index)
        try:
            pynvml.nvmlInit()
            if name.isdecimal():
                return cls(pynvml, pynvml.nvmlDeviceGetHandleByIndex(int(name)))
            return cls(pynvml, pynvml.nvmlDeviceGetHandleByUUID(name))
        except pynvml.NVMLError:
            return None

    def gauges(self) -> dict[str, Gauge]:
        nvml, handle = self._nvml, self._handle
        asked: tuple[tuple[Callable[[], Any], Callable[[Any], dict[str, Gauge]]], ...] = (
            (lambda: nvml.nvmlDeviceGetName(handle), lambda name: {"gpu_name": name}),
            (lambda: nvml.nvmlDeviceGetUtilizationRates(handle), lambda rates: {"gpu_percent": rates.gpu}),
            (
                lambda: nvml.nvmlDeviceGetMemoryInfo(handle),
                lambda memory: {"gpu_memory_used_bytes": memory.used, "gpu_memory_total_bytes": memory.total},
            ),
            (lambda: nvml.nvmlDeviceGetPowerUsage(handle), lambda milliwatts: {"gpu_watts": milliwatts / 1000}),
            (
                lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
                lambda celsius: {"gpu_celsius": celsius},
            ),
        )
        found: dict[str, Gauge] = dict.fromkeys(GPU_GAUGES)
        for ask, tell in asked:
            try:
                found |= tell(ask())
            except nvml.NVMLError:
                continue
        return found
