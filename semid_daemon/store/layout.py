"""What a semid database says of itself in its header. Standard library only."""

from __future__ import annotations

APPLICATION_ID = 0x53454D49  # "SEMI": file(1) and other programs can tell whose it is
SCHEMA_VERSION = 2  # how many migrations this code knows; PRAGMA user_version of an up-to-date database


BITS = 20  # of each code


def prefix_key(generation: int, first: int = 0, second: int = 0) -> int:
    """One integer for a generation and two codes (each below 2**20); keys sort as the three do.

    The keys of a generation are from its own on and below that of the next, and so are those of a first code.
    """
    return generation << 2 * BITS | first << BITS | second
