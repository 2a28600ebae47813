"""Records of the database that both its writer and its readers use. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LayerHealth:
    """How well one layer's K codes are used: used codes / K, unused codes, exp(entropy of code use in nats)."""

    layer: int
    coverage: float
    dead_codes: int
    perplexity: float
