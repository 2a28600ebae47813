"""File names and texts from outside as terminals, logs and the ledger hold them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from semid_daemon.base.text import cut_name, escape, path_of, printable


def test_no_two_paths_are_shown_alike():
    raws = [
        b"\xff",
        b"\\xff",
        b"\x85",
        b"\xc2\x85",
        b"\\u0085",
        b"\n",
        b"\\n",
        b"\\\\n",
        b"\x1b",
        b"a\\",
        "é\u202e😀\U000e0001".encode(),
    ]
    shown = [printable(Path(os.fsdecode(raw))) for raw in raws]
    assert len(set(shown)) == len(raws)
    assert all(name.isprintable() for name in shown)
    assert [os.fsencode(path_of(name)) for name in shown] == raws


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain é 三 😀", "plain é 三 😀"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("two\nlines\r\tand a tab", "two\\nlines\\r\\tand a tab"),
        ("\x85\x9b2J", "\\x85\\x9b2J"),
        ("abc\u202edef\u2028", "abc\\u202edef\\u2028"),
        ("\udcff", "\\udcff"),
        ("a\\b", "a\\b"),
    ],
)
def test_control_characters_are_escaped(text: str, escaped: str):
    assert escape(text) == escaped
    assert escape(text).isprintable()


@pytest.mark.parametrize("size_bytes", range(12))
def test_a_name_is_cut_between_characters(size_bytes: int):
    name = "aé三😀b"
    cut = cut_name(name, size_bytes)
    assert name.startswith(cut)
    assert len(cut.encode()) <= size_bytes
    following = name[: len(cut) + 1]
    assert cut == name or len(following.encode()) > size_bytes
