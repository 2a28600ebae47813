"""Text and file names that terminals, logs, JSON and the ledger can hold. Standard library only."""

from __future__ import annotations

import os
import re
from pathlib import Path

_ESCAPE = re.compile(r"\\(\\|[nrt]|x[0-9a-f]{2}|u[0-9a-f]{4}|U000[0-9a-f]{5})")


def printable(path: Path) -> str:
    """A path as text that any terminal, database and JSON can hold; no two paths have the same.

    Bytes that are not UTF-8, characters that cannot be shown and backslashes are escaped; see `path_of`.
    """
    text = os.fsencode(path).decode("utf-8", errors="surrogateescape")
    return text if text.isprintable() and "\\" not in text else "".join(map(_reversible, text))


def _reversible(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    if "\x80" <= character <= "\xff" and not character.isprintable():
        return f"\\u{ord(character):04x}"  # unlike the byte of that number
    return "\\\\" if character == "\\" else _escaped(character)


def path_of(name: str) -> Path:
    """The path that `printable` made this text of."""

    def unescaped(match: re.Match[str]) -> str:
        code = match[1]
        if code[0] not in "xuU":
            return {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}[code]
        number = int(code[1:], 16)
        return chr(0xDC00 + number if code[0] == "x" and number >= 0x80 else number)

    return Path(os.fsdecode(_ESCAPE.sub(unescaped, name).encode("utf-8", errors="surrogateescape")))


def escape(text: str) -> str:
    """Text from outside, made safe for a terminal, a line of a log and a reason: control characters are escaped."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")


def cut_name(name: str, size_bytes: int) -> str:
    """The beginning of a file name that fits into `size_bytes`; no character is cut in two."""
    raw = os.fsencode(name)
    if len(raw) <= size_bytes:
        return name
    end = size_bytes
    while end > size_bytes - 3 and raw[end] & 0xC0 == 0x80:
        end -= 1
    return os.fsdecode(raw[:end])
