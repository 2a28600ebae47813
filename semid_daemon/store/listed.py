"""A generation as lists show it. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GenerationRow:
    """A generation as `semid generations` lists it. `behind`: items of the active one that it does not have yet."""

    generation: int
    status: str
    items: int
    behind: int
    trained_rows: int
    origin: str
    based_on: int | None
    collisions: str
    fingerprint: str
    created_at: str
    published_at: str | None


# The fields of a GenerationRow, of `_generations g`.
GENERATION_COLUMNS = (
    "g.generation, g.status, g.items, CASE WHEN g.status IN ('preparing', 'ready', 'retired') THEN"
    " max(0, coalesce((SELECT a.items FROM _generations a WHERE a.status = 'active'), 0) - g.items) ELSE 0 END,"
    " g.trained_rows, g.origin, g.based_on, g.collisions, g.fingerprint, g.created_at, g.published_at"
)
