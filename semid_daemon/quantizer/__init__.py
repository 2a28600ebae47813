"""Residual k-means: the only room with torch."""

from torch import device as Device  # noqa: N812 - rooms that only pass a device on name it without importing torch

from semid_daemon.quantizer.continual import CandidateState, ContinualTrainer
from semid_daemon.quantizer.device import describe_device, resolve_device
from semid_daemon.quantizer.distance import SquaredEuclideanDistance
from semid_daemon.quantizer.encoding import Encoder
from semid_daemon.quantizer.grid_schedule import GridTrainer
from semid_daemon.quantizer.initializers import KMeansPlusPlusInitInitializer
from semid_daemon.quantizer.judging import NextBest, quantization_errors
from semid_daemon.quantizer.kmeans import MiniBatchKMeans
from semid_daemon.quantizer.lloyd import LloydTrainer
from semid_daemon.quantizer.losses import WeightedSquaredError
from semid_daemon.quantizer.residual import ResidualQuantization
from semid_daemon.quantizer.training_loop import train

__all__ = [
    "CandidateState",
    "ContinualTrainer",
    "Device",
    "Encoder",
    "GridTrainer",
    "KMeansPlusPlusInitInitializer",
    "LloydTrainer",
    "MiniBatchKMeans",
    "NextBest",
    "ResidualQuantization",
    "SquaredEuclideanDistance",
    "WeightedSquaredError",
    "describe_device",
    "quantization_errors",
    "resolve_device",
    "train",
]
