"""What can go wrong, as few kinds as callers tell apart.

A bad *file* is data: `BadFileError` becomes a reason in the ledger. A bad *machine* (disk,
device, permissions) is for now: OSError, MemoryError and MachineError are tried again later.
Every message says what happened, to which file or key, and what to do.
"""


class SemidError(Exception):
    """A failure with a message meant for the user: one line, no traceback."""

    exit_code = 1


class ConfigError(SemidError):
    """The configuration cannot be used; a restart does not help (EX_CONFIG)."""

    exit_code = 78


class StateLockedError(SemidError):
    """Another daemon holds, or may hold, the state directory (EX_TEMPFAIL)."""

    exit_code = 75


class OwnerError(SemidError):
    """The state directory, or a file in it, belongs to another user (EX_NOPERM)."""

    exit_code = 77


class StoreError(SemidError):
    """The database is missing, of another version, or unreadable."""


class SchemaError(StoreError):
    """The database was written by a newer semid; a restart does not help (EX_CONFIG)."""

    exit_code = 78


class CodebookError(SemidError):
    """A codebook file is missing, damaged, or not the one its fingerprint names."""


class MachineError(SemidError):
    """The machine cannot just now: no space, an I/O error, a lock held by others, memory. Tried again later."""


class DeviceError(SemidError):
    """The device failed in the middle of its work; the process has to be started anew."""


class BadFileError(SemidError):
    """A drop file that will never be readable as it is; the message is its reason in the ledger."""


class IncompleteFileError(BadFileError):
    """A drop file shorter than its own header declares: perhaps still being written."""


class CommandError(Exception):
    """The daemon will not carry out a command; the message is its answer."""


def error_text(error: BaseException) -> str:
    """What the machine says."""
    if isinstance(error, MemoryError):
        return "out of memory"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)
