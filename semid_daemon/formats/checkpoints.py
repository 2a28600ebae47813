"""Tensors by name from a checkpoint, of which nothing is executed: torch.save's files, .npz and .safetensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np

from semid_daemon.base.errors import BadFileError
from semid_daemon.base.types import FloatArray
from semid_daemon.formats.archive import MAGICS, Archive, open_archive
from semid_daemon.formats.byte_ranges import read_at
from semid_daemon.formats.faults import content_errors
from semid_daemon.formats.npy import vector_array
from semid_daemon.formats.npy_header import read_npy_header
from semid_daemon.formats.pt import open_torch, vectors_of
from semid_daemon.formats.torch_pickle import Tensor, read_checkpoint_pickle
from semid_daemon.formats.vectors import VectorArray

# Where training frameworks put a model's tensors in what they save.
_STATES = ("state_dict", "model_state_dict", "model", "module")
_SETTINGS = "hyper_parameters"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint holds: the shape of every tensor by its name, and its settings where it has them.

    `read(name)` gives a 2-D float tensor as float32; it raises BadFileError for another.
    """

    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], FloatArray]
    settings: Mapping[Any, Any] = field(default_factory=dict)


def open_checkpoint(stream: BinaryIO) -> Checkpoint:
    """Tensors by name. Raises BadFileError for a file that is none of the three, or damaged."""
    head = read_at(stream, 0, 9)
    if head[:4] in MAGICS:
        with content_errors("checkpoint"):
            archive = open_archive(stream)
            if any(name.endswith("/data.pkl") for name in archive.members):
                return _of_torch(stream)
            return _of_npz(archive)
    if head[8:9] == b"{":
        return _of_safetensors(stream)
    raise BadFileError("is no .npz, .safetensors, .pt, .pth or .ckpt file; legacy torch pickles are never loaded")


def _of_torch(stream: BinaryIO) -> Checkpoint:
    file = open_torch(stream)
    content = read_checkpoint_pickle(file.read("data.pkl"))
    if not isinstance(content, dict):
        raise BadFileError(f"holds a {type(content).__name__}, and no state by name")
    nested = [content[name] for name in _STATES if isinstance(content.get(name), dict)]
    states: Iterator[dict[Any, Any]] = (
        named for named in [content, *nested] if any(isinstance(value, Tensor) for value in named.values())
    )
    state = next(states, {})
    tensors = {name: value for name, value in state.items() if isinstance(name, str) and isinstance(value, Tensor)}
    settings = content.get(_SETTINGS)

    def read(name: str) -> FloatArray:
        with content_errors("checkpoint"):
            file.archive.verify([file.member(tensors[name])])
            return _read(vectors_of(file, tensors[name], name))

    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    return Checkpoint(shapes, read, settings if isinstance(settings, dict) else {})


def _of_npz(archive: Archive) -> Checkpoint:
    members = {name.removesuffix(".npy"): name for name in archive.members if name.endswith(".npy")}
    shapes = {name: read_npy_header(archive.byte_range(member), name).shape for name, member in members.items()}

    def read(name: str) -> FloatArray:
        with content_errors("npz"):
            archive.verify([members[name]])
            byte_range = archive.byte_range(members[name])
            return _read(vector_array(byte_range, read_npy_header(byte_range, name), name))

    return Checkpoint(shapes, read)


def _of_safetensors(stream: BinaryIO) -> Checkpoint:
    import safetensors
    import safetensors.numpy

    stream.seek(0)
    try:
        tensors = safetensors.numpy.load(stream.read())
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise BadFileError(f"damaged safetensors file, or with tensors that numpy lacks: {error}") from error
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    return Checkpoint(shapes, lambda name: tensors[name].astype(np.float32))


def _read(vectors: VectorArray) -> FloatArray:
    values_ND = np.empty((vectors.rows, vectors.dim), np.float32)
    vectors.read_into(0, values_ND)
    return values_ND
