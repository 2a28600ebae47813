"""File names as text, and back: what the ledger, JSON and terminals can hold. Standard library only."""

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
    return text if text.isprintable() and "\\" not in text else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    if "\x80" <= character <= "\xff" and not character.isprintable():
        return f"\\u{ord(character):04x}"  # unlike the byte of that number
    if character == "\\" or not character.isprintable():
        return character.encode("unicode_escape").decode("ascii")
    return character


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
    """Text from outside, made safe for a terminal and for a line of a log: control characters escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
