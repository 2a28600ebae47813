"""Which fields of a file hold vectors and item IDs, where the configuration says so."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FieldNames:
    """The fields of vectors and of item IDs as the configuration names them; None: found by themselves."""

    vectors: str | None = None
    item_ids: str | None = None
