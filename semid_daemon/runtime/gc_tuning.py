"""Python's cyclic garbage collector, kept from looking for cycles where there are none."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

# Of containers made and not given up yet, and of looks at the youngest before older ones are looked at.
_THRESHOLDS = (20_000, 20, 20)


@contextmanager
def relaxed_gc() -> Iterator[None]:
    """Look for cycles less often inside, and never among what is there already: libraries, some 500,000 objects.

    A chunk is tens of thousands of short-lived tuples, each given up by its last reference. By Python's own
    thresholds they make the collector look through everything several times a chunk, an eighth of an ingest's time.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
