"""What a file can be at fault for: reasons for rows, one place that turns parser errors into reasons."""

from __future__ import annotations

import errno
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from semid_daemon.base.errors import BadFileError, SemidError
from semid_daemon.base.text import escape

NOT_FINITE = "not finite"
NULL_EMBEDDING = "null embedding"
WRONG_LENGTH = "wrong length"
ID_EMPTY = "empty item ID"
ID_TOO_LONG = "item ID too long"
ID_NOT_TEXT = "item ID is not text"
ID_HAS_NUL = "item ID has a NUL character"

_SHOWN_NAMES = 8
_SHOWN_CHARACTERS = 60
_SHOWN_ERROR = 160

# Whatever a parser of untrusted bytes raises. MemoryError is among them because a damaged size
# makes a parser ask for absurd amounts; buffers for rows are allocated outside `content_errors`.
CONTENT_FAULTS = (
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
    Warning,  # of the standard library's parsers, where warnings are errors
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


@contextmanager
def content_errors(format_name: str, *more: type[Exception]) -> Iterator[None]:
    """Turn what a parser raises over a file's content into BadFileError.

    A real I/O error (an OSError with an errno) is the machine's fault and propagates. pyarrow
    reports damaged content as an OSError too, but without an errno; and an offset in a file that
    leads before its beginning comes as EINVAL from the seek.
    """
    try:
        yield
    except SemidError:
        raise
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):
            raise
        raise _damaged(format_name, error) from error
    except CONTENT_FAULTS + more as error:
        raise _damaged(format_name, error) from error


def _damaged(format_name: str, error: Exception) -> BadFileError:
    detail = show(str(error).strip() or type(error).__name__, _SHOWN_ERROR)
    return BadFileError(f"damaged {format_name} file: {detail}; write it again")


def show(text: str, limit: int = _SHOWN_CHARACTERS) -> str:
    """Text from a file, fit for one line of a message: control characters escaped, cut at `limit`."""
    return escape(text[:limit]) + ("..." if len(text) > limit else "")


def show_names(names: Iterable[str]) -> str:
    """The first few names, comma separated; "nothing" when there are none."""
    every = list(names)
    shown = ", ".join(show(name) for name in every[:_SHOWN_NAMES])
    if len(every) > _SHOWN_NAMES:
        shown += f" and {len(every) - _SHOWN_NAMES} more"
    return shown or "nothing"


def quoted_field(name: str) -> str:
    """A field of a file as messages call it."""
    return f"field {show(name)}"
