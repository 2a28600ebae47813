"""Very many rows in few statements: one statement of 128 rows costs half of 128 statements."""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

_ROWS = 128
_LISTED_AT_ONCE = 50_000


def insert_rows(
    connection: sqlite3.Connection, sql: str, columns: Sequence[Sequence[Any]], row: str | None = None
) -> None:
    """Run an INSERT for all rows of columns of equal length; `{}` in `sql` stands for the rows of VALUES.

    `row` is the text of one row of VALUES, where some of its values are the same for all: "(7, ?, ?)".
    """
    width, rows = len(columns), len(columns[0])
    flat: list[Any] = [None] * (width * rows)
    for index, column in enumerate(columns):
        flat[index::width] = column
    one = row or _placeholders(width)
    whole = rows // _ROWS * _ROWS * width
    if whole:
        many = sql.format(",".join([one] * _ROWS))
        for start in range(0, whole, _ROWS * width):
            connection.execute(many, flat[start : start + _ROWS * width])
    connection.executemany(sql.format(one), _in_rows(flat[whole:], width))


def select_rows(
    connection: sqlite3.Connection, sql: str, columns: Sequence[Sequence[Any]], *constants: Any
) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a SELECT over the table `given`, whose columns c0, c1… are `columns` of equal length.

    `constants` are the values of the placeholders in `sql`. Columns that are sorted by the key that they look up cost
    less: pages are visited in order.
    """
    width, rows = len(columns), len(columns[0])
    names = ",".join(f"c{index}" for index in range(width))
    for start in range(0, rows, _ROWS):
        parts = [column[start : start + _ROWS] for column in columns]
        values = ",".join([_placeholders(width)] * len(parts[0]))
        given = itertools.chain.from_iterable(zip(*parts, strict=True))
        yield from connection.execute(
            f"WITH given ({names}) AS (VALUES {values}) {sql}", [*given, *constants]
        ).fetchall()


def _placeholders(width: int) -> str:
    return f"({','.join('?' * width)})"


def _in_rows(flat: list[Any], width: int) -> Iterator[list[Any]]:
    return (flat[start : start + width] for start in range(0, len(flat), width))


def listed(values: Sequence[Any]) -> Iterator[str]:
    """Yield values as JSON arrays for json_each, in slices: SQLite limits a text to 1,000,000,000 bytes."""
    for start in range(0, len(values), _LISTED_AT_ONCE):
        yield json.dumps(values[start : start + _LISTED_AT_ONCE], ensure_ascii=False)
