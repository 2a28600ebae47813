"""Codebooks: training them, keeping them, and using them from Python.

```python
from semid_daemon.codebooks import Codebooks

codebooks = Codebooks.load("state/codebooks/<fingerprint>.safetensors")
codes = codebooks.encode(embeddings)  # N×D floats -> N×L int32
```
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semid_daemon.codebooks.api import Codebooks

__all__ = ["Codebooks"]


def __getattr__(name: str) -> object:
    # Only who asks for it waits for torch.
    if name == "Codebooks":
        from semid_daemon.codebooks.api import Codebooks

        return Codebooks
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
