"""What the benchmarks print: progress on stderr, Markdown tables and the machine's description on stdout."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Sequence

import torch

_started = time.perf_counter()


def progress(message: str) -> None:
    """A line on stderr, with the seconds since the start."""
    print(f"[{time.perf_counter() - _started:6.1f} s] {message}", file=sys.stderr, flush=True)


def heading(text: str) -> None:
    """A Markdown heading on stdout."""
    print(f"\n### {text}\n", flush=True)


def note(text: str) -> None:
    """A line of prose below a table."""
    print(f"\n{text}", flush=True)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A Markdown table on stdout, the first column to the left and the others to the right."""
    widths = [max(len(line[column]) for line in [header, *rows]) for column in range(len(header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    for line in [header, rule, *rows]:
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        print("| " + " | ".join(cells) + " |", flush=True)


def rounded(value: float) -> str:
    """A rate with three significant digits and separators: 131234.5 is 131,000."""
    if value >= 1e6:
        return f"{value / 1e6:.3g} M"
    return f"{float(f'{value:.3g}'):,.0f}" if value >= 100 else f"{value:.3g}"


def machine(devices: Sequence[torch.device], threads: int) -> str:
    """One line that names the processors and the versions."""
    parts = [f"{_cpu_model()}, {os.cpu_count()} cores, {threads} threads"]
    if any(device.type == "cuda" for device in devices):
        parts.append(f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}")
    parts.append(f"Python {platform.python_version()}, torch {torch.__version__}")
    parts += [f"{name} {_version(name)}" for name in ("faiss-cpu", "scikit-learn", "flash-kmeans") if _version(name)]
    return "Machine: " + "; ".join(parts)


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            fields = dict(line.split(":", 1) for line in lines if line.startswith("model name"))
    except OSError:  # not Linux
        fields = {}
    return next((value.strip() for value in fields.values()), "") or platform.processor() or platform.machine()


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""
