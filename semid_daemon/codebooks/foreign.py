"""Codebooks of other programs, accepted where semid encodes with them exactly as the program does."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semid_daemon.base.errors import BadFileError, CodebookError
from semid_daemon.base.types import Codebooks, FloatArray
from semid_daemon.codebooks.files import read_codebooks
from semid_daemon.formats.checkpoints import Checkpoint, open_checkpoint
from semid_daemon.formats.faults import show_names

# Tensor names by layer, and whether the program normalizes residuals: None where that is a setting of it.
_PROGRAMS: tuple[tuple[str, re.Pattern[str], bool | None], ...] = (
    ("GRID", re.compile(r"(?:^|\.)quantization_layer_list\.(\d+)\.centroids$"), None),
    ("OpenOneRec", re.compile(r"(?:^|\.)centroids\.(\d+)$"), False),
    ("MiniOneRec", re.compile(r"^codebook_(\d+)$"), False),
)
_OTHER_PARTS = re.compile(r"encoder|decoder|norm|proj|vq_layers")
_MOST_LAYERS, _MOST_CODES = 16, 65_536  # what the configuration allows as well


@dataclass(frozen=True, slots=True)
class Foreign:
    """Imported codebooks and the program that wrote them."""

    codebooks: Codebooks
    program: str


def read_foreign(path: Path, normalize_residuals: bool | None = None) -> Foreign:
    """Read the codebooks of a GRID checkpoint, MiniOneRec's .npz, OpenOneRec's state dict, a FAISS index, or semid.

    `normalize_residuals` has to be given where the file does not say it (GRID without hyper-parameters), and may
    not contradict what the program does. Raises CodebookError where that is so, where the file holds anything
    else, and where semid would be another function; nothing in the file is executed.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(4)
            if head[:2] == b"Ix":
                return _of_faiss(path, normalize_residuals)
            checkpoint = open_checkpoint(stream)
            if "codebooks" in checkpoint.shapes and len(checkpoint.shapes["codebooks"]) == 3:
                return _of_semid(path, normalize_residuals)
            return _of_checkpoint(checkpoint, normalize_residuals)
    except BadFileError as error:
        raise CodebookError(f"{path}: {error}") from error
    except OSError as error:
        raise CodebookError(f"{path}: cannot be read: {error.strerror or error}") from error


def _of_semid(path: Path, normalize_residuals: bool | None) -> Foreign:
    codebooks, _ = read_codebooks(path)
    _settled("semid", codebooks.normalize_residuals, normalize_residuals)
    return Foreign(codebooks, "semid")


def _of_checkpoint(checkpoint: Checkpoint, normalize_residuals: bool | None) -> Foreign:
    found = _codebooks_in(checkpoint)
    if found is None:
        parts = [name for name in checkpoint.shapes if _OTHER_PARTS.search(name)]
        if parts:
            raise BadFileError(
                f"holds {show_names(parts)}: a network's codes are of its output and not of the embeddings; encode with"
                " that network, and let semid train on what it gives"
            )
        raise BadFileError(
            "holds no codebooks of a kind that is known (quantization_layer_list.0.centroids, centroids.0, codebook_0);"
            f" found {show_names(checkpoint.shapes)}"
        )
    program, names, fixed = found
    others = [
        name
        for name, shape in checkpoint.shapes.items()
        if name not in names.values()
        and "quantization_layer" not in name
        and (len(shape) > 1 or _OTHER_PARTS.search(name))
    ]
    if others:
        raise BadFileError(
            f"holds {show_names(others)} beside the codebooks: where embeddings pass through anything first, semid"
            " cannot give the same codes"
        )
    if sorted(names) != list(range(len(names))):
        raise BadFileError(f"holds codebooks of layers {sorted(names)}, not of all from 0 on")
    layers = [checkpoint.read(names[layer]) for layer in range(len(names))]
    said = checkpoint.settings.get("normalize_residuals")
    normalize = _settled(program, fixed if not isinstance(said, bool) else said, normalize_residuals)
    return Foreign(_codebooks(layers, normalize), program)


def _codebooks_in(checkpoint: Checkpoint) -> tuple[str, dict[int, str], bool | None] | None:
    """The program whose codebooks these are, the names of its layers, and whether it normalizes residuals."""
    for program, pattern, fixed in _PROGRAMS:
        names = {int(match[1]): name for name in checkpoint.shapes if (match := pattern.search(name))}
        if names:
            return program, names, fixed
    return None


def _of_faiss(path: Path, normalize_residuals: bool | None) -> Foreign:
    try:
        import faiss
    except ImportError:
        raise BadFileError("is a FAISS index, and FAISS is not installed; pip install 'semid[faiss]'") from None
    try:
        index = faiss.read_index(os.fspath(path))
    except RuntimeError as error:
        raise BadFileError(f"damaged FAISS index: {str(error).splitlines()[0][:200]}") from error
    if not isinstance(index, faiss.IndexResidualQuantizer):
        raise BadFileError(
            f"is a FAISS {type(index).__name__}; only an IndexResidualQuantizer subtracts centroid after centroid as"
            " semid does"
        )
    bits = set(faiss.vector_to_array(index.rq.nbits).tolist())
    if len(bits) != 1:
        raise BadFileError(f"has layers of {sorted(bits)} bits; semid's codebooks have the same size in every layer")
    size = 1 << bits.pop()
    layers = faiss.vector_to_array(index.rq.codebooks).reshape(index.rq.M, size, index.rq.d)
    normalize = _settled("FAISS", False, normalize_residuals)
    return Foreign(_codebooks(list(layers), normalize, beam_width=index.rq.max_beam_size), "FAISS")


def _settled(program: str, known: bool | None, asked: bool | None) -> bool:
    """Whether residuals are normalized: as the program does it, which nobody may contradict."""
    if known is None and asked is None:
        raise BadFileError(
            f"does not say whether {program} normalized residuals; give --normalize-residuals (as its"
            " rkmeans_train_flat has it) or --no-normalize-residuals"
        )
    if known is not None and asked is not None and known != asked:
        does = "normalizes" if known else "does not normalize"
        raise BadFileError(f"{program} {does} residuals with these codebooks; with the other, codes would be others")
    return bool(known if known is not None else asked)


def _codebooks(layers: list[FloatArray], normalize_residuals: bool, beam_width: int = 1) -> Codebooks:
    shapes = {layer.shape for layer in layers}
    if len(shapes) != 1:
        raise BadFileError(f"has codebooks of shapes {sorted(shapes)}; semid's have one shape in every layer")
    centroids_LKD = np.ascontiguousarray(np.stack(layers), dtype=np.float32)
    n_layers, codes, _ = centroids_LKD.shape
    if n_layers > _MOST_LAYERS or not 2 <= codes <= _MOST_CODES:
        raise BadFileError(f"has {n_layers} layers of {codes:,} codes; 1 to {_MOST_LAYERS} of 2 to {_MOST_CODES:,} fit")
    if not np.isfinite(centroids_LKD).all():
        raise BadFileError("has centroids with a NaN or an infinity")
    if beam_width > 64:
        raise BadFileError(f"was made for a beam of {beam_width}; at most 64 is searched")
    return Codebooks(centroids_LKD, normalize_residuals, None, int(beam_width))
