"""The quantizer side by side with its peers: `python benchmarks/quantizer.py` prints every table.

It asserts nothing. Peers come with the extra `bench` (FAISS, scikit-learn) and, on a machine with CUDA, by
`pip install flash-kmeans`; one that is not installed is left out. The tables:

    encode   rows per second, and the share of the matrix product's speed; also which rows get the same codes
    train    seconds, and the quality on held-out rows, on a synthetic mixture
    quality  the quality on real packages, trained on the base and judged on it and on the newest month
    lloyd    one k-means iteration (CUDA only)
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import _peers
import torch
from _encode import encode_tables
from _lloyd import lloyd_table
from _report import machine, progress
from _train import quality_tables, shapes, train_tables

from semid_daemon.quantizer import Device

_TABLES = ("encode", "train", "quality", "lloyd")


def main() -> None:
    """Parse the options, print the machine and the tables."""
    parser = argparse.ArgumentParser(description="Tables of the quantizer side by side with its peers.")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller shapes, in about a minute")
    parser.add_argument("--large", action="store_true", help="also train on up to 1,000,000 rows, and with K=8192")
    parser.add_argument(
        "--shape",
        type=_shape,
        action="append",
        metavar="NxDxK",
        help="train on so many rows, with so many codes, instead (may be given several times)",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), help="semid's device (default: every one there is)")
    parser.add_argument("--only", choices=_TABLES, help="one kind of table")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="packages as 2005-2024.npz, 2026-03.npz… (default: the bundled sample)"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads of every method")
    parser.add_argument(
        "--patience",
        type=float,
        default=600.0,
        metavar="S",
        help="seconds of training after which a method is given up",
    )
    options = parser.parse_args()

    has_cuda = torch.cuda.is_available()
    if options.device == "cuda" and not has_cuda:
        parser.error("torch finds no CUDA device here")
    if options.only == "lloyd" and not (has_cuda and options.device != "cpu"):
        parser.error("the table `lloyd` needs a CUDA device")
    names = [options.device] if options.device else ["cpu", "cuda"] if has_cuda else ["cpu"]
    devices = [Device(name) for name in names]
    wanted = [options.only] if options.only else _TABLES
    _peers.set_threads(options.threads)
    print(machine(devices, options.threads))

    if "encode" in wanted:
        for device in devices:
            encode_tables(device, options.quick)
    if "lloyd" in wanted:
        for device in devices:
            if device.type == "cuda":
                lloyd_table(device, options.quick)
    if "quality" in wanted:
        quality_tables(devices, options.data, options.threads, options.patience)
    if "train" in wanted:
        train_tables(devices, options.shape or shapes(options.quick, options.large), options.threads, options.patience)
    progress("done")


def _shape(text: str) -> tuple[int, int, int]:
    rows, dim, size = map(int, text.split("x"))
    return rows, dim, size


if __name__ == "__main__":
    main()
