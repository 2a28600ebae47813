"""How long to wait before the next try of something that the machine refused."""

from __future__ import annotations

LONGEST_S = 3600.0


def pause_s(first_s: float, failures: int) -> float:
    """The pause after so many failures in a row: doubled each time, an hour at most."""
    return min(LONGEST_S, first_s * 2.0 ** min(max(failures, 1) - 1, 30))
