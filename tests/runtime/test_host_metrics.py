"""Figures of the machine: real ones of the processor, faked ones of a GPU."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from semid_daemon.runtime.host_metrics import GPU_GAUGES, Gpu, Host


class NVMLError(Exception):
    pass


def refuse(handle):
    raise NVMLError("not supported")


def test_the_machine(tmp_path: Path):
    gauges = Host(tmp_path).gauges()
    assert 0 < gauges["memory_used_bytes"] < gauges["memory_total_bytes"]
    assert gauges["process_rss_bytes"] > 1 << 20
    assert gauges["disk_free_bytes"] > 0
    assert gauges["cpu_count"] >= 1
    assert [gauges[name] for name in GPU_GAUGES] == [None] * len(GPU_GAUGES)
    assert Host(tmp_path / "gone").gauges()["disk_free_bytes"] is None


def test_a_gpu_without_all_figures():
    nvml = SimpleNamespace(
        NVMLError=NVMLError,
        NVML_TEMPERATURE_GPU=0,
        nvmlDeviceGetName=lambda handle: "NVIDIA H100",
        nvmlDeviceGetUtilizationRates=refuse,
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(used=3, total=9),
        nvmlDeviceGetPowerUsage=lambda handle: 450_500,
        nvmlDeviceGetTemperature=lambda handle, sensor: 61,
    )
    assert Gpu(nvml, "handle").gauges() == {
        "gpu_name": "NVIDIA H100",
        "gpu_percent": None,
        "gpu_memory_used_bytes": 3,
        "gpu_memory_total_bytes": 9,
        "gpu_watts": 450.5,
        "gpu_celsius": 61,
    }


@pytest.mark.parametrize(
    ("visible", "index", "asked"),
    [("", 1, ("index", 1)), ("3,5", 1, ("index", 5)), ("GPU-abc", 0, ("uuid", "GPU-abc")), ("4", 2, ("index", 2))],
)
def test_the_device_that_cuda_counts_so(visible: str, index: int, asked: tuple, monkeypatch: pytest.MonkeyPatch):
    import pynvml

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda number: ("index", number))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", lambda name: ("uuid", name))
    found = Gpu.find(index)
    assert found is not None
    assert found._handle == asked
