"""Residual k-means: the only room with torch."""

# Rooms that only pass a device or a tensor on name them without importing torch.
from torch import Tensor as OnDevice
from torch import device as Device  # noqa: N812

from semid_daemon.quantizer.continual import CandidateState, ContinualTrainer
from semid_daemon.quantizer.device import describe_device, memory_for, resolve_device
from semid_daemon.quantizer.distance import SquaredEuclideanDistance
from semid_daemon.quantizer.encoding import Encoder
from semid_daemon.quantizer.evaluate import LastCodeRanking, quantization_errors
from semid_daemon.quantizer.grid.initializers import KMeansPlusPlusInitInitializer
from semid_daemon.quantizer.grid.kmeans import MiniBatchKMeans
from semid_daemon.quantizer.grid.losses import WeightedSquaredError
from semid_daemon.quantizer.grid.residual import ResidualQuantization
from semid_daemon.quantizer.grid.train import train
from semid_daemon.quantizer.grid.trainer import GridTrainer
from semid_daemon.quantizer.lloyd import LloydTrainer
from semid_daemon.quantizer.neighbours import neighbours, shared_prefixes
from semid_daemon.quantizer.threads import reserve_core, worker_beside_others

__all__ = [
    "CandidateState",
    "ContinualTrainer",
    "Device",
    "Encoder",
    "GridTrainer",
    "KMeansPlusPlusInitInitializer",
    "LloydTrainer",
    "MiniBatchKMeans",
    "LastCodeRanking",
    "OnDevice",
    "ResidualQuantization",
    "SquaredEuclideanDistance",
    "WeightedSquaredError",
    "describe_device",
    "reserve_core",
    "memory_for",
    "neighbours",
    "quantization_errors",
    "resolve_device",
    "shared_prefixes",
    "train",
    "worker_beside_others",
]
