"""Long work in steps: a generator that gives control back at every `yield`, and returns its result at the end."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeVar

T = TypeVar("T")


def finish(steps: Generator[Any, None, T]) -> T:
    """Run all steps at once; the result of the work."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
