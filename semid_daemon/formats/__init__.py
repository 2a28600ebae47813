"""Drop file -> stream of `EmbeddingBatch`, one file per format.

`open_source` checks what a file declares against what it holds; `batches` then reads it in bounded
memory. Nothing that a file contains is ever executed, and a parser library is imported only when
its format is met.
"""

from semid_daemon.formats.detect import SIDECAR_SUFFIXES, is_supported, open_source
from semid_daemon.formats.source import EmbeddingSource

__all__ = ["SIDECAR_SUFFIXES", "EmbeddingSource", "is_supported", "open_source"]
