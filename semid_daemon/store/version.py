"""What a semid database says of itself in its header. Standard library only."""

from __future__ import annotations

APPLICATION_ID = 0x53454D49  # "SEMI": file(1) and other programs can tell whose it is
SCHEMA_VERSION = 1  # how many migrations this code knows; PRAGMA user_version of an up-to-date database
