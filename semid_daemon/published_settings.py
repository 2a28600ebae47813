"""Settings of semid.toml that the active generation contradicts: they take effect with another generation only."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, Protocol

from semid_daemon.config import Config

REMEDY = "correct semid.toml, or train a generation with these settings: `semid train --from anew`"

_LONGEST_HEADER = 1 << 20  # bytes; that of a codebook file has some hundred


class Generation(Protocol):
    """What the database says of a generation."""

    @property
    def fingerprint(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def layers(self) -> int: ...
    @property
    def codebook_size(self) -> int: ...
    @property
    def normalize_residuals(self) -> int: ...


def ignored_settings(config: Config, active: Generation | None) -> list[str]:
    """The settings of [quantizer] that differ from the active generation, each with both values.

    `beam_width` and `balanced` are compared where its codebook file can be read and the trainer heeds them.
    """
    if active is None:
        return []
    published: dict[str, Any] = {
        "dim": active.dim,
        "layers": active.layers,
        "codebook_size": active.codebook_size,
        "normalize_residuals": bool(active.normalize_residuals),
    }
    if config.training.trainer != "grid":
        published |= _of_file(config.codebooks_dir / f"{active.fingerprint}.safetensors")
    wanted = {key: getattr(config.quantizer, key) for key in published}
    return [
        f"quantizer.{key} = {_toml(wanted[key])} is not in effect: the active generation has {_toml(value)}"
        for key, value in published.items()
        if wanted[key] is not None and wanted[key] != value
    ]


def _of_file(path: Path) -> dict[str, Any]:
    """`beam_width` and `balanced` by the header of a codebook file; nothing where it cannot be read."""
    try:
        with path.open("rb") as file:
            (size_bytes,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(size_bytes, _LONGEST_HEADER)))
        return {"beam_width": int(header["__metadata__"]["beam_width"]), "balanced": "biases" in header}
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return {}


def _toml(value: int | bool) -> str:
    return str(value).lower()
