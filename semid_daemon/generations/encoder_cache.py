"""The codebooks of generations on the device."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from semid_daemon.base.types import CodeArray, FloatArray
from semid_daemon.codebooks.files import load_codebooks
from semid_daemon.quantizer import Device, Encoder
from semid_daemon.quantizer.device_faults import encode_rows
from semid_daemon.runtime.background import run_in_background
from semid_daemon.runtime.device_watchdog import Watchdog
from semid_daemon.store.write.store import Store


class EncoderCache:
    """One encoder for each generation that was asked for."""

    def __init__(self, store: Store, codebooks_dir: Path, device: Device, watchdog: Watchdog) -> None:
        self._store = store
        self._codebooks_dir = codebooks_dir
        self._watchdog = watchdog
        self._encoders: dict[int, Encoder] = {}
        self.device = device

    def get(self, generation: int) -> Encoder:
        """The encoder of a generation, whose codebooks are checked against their fingerprint when first used.

        Raises CodebookError when they are missing or damaged, KeyError for a generation there never was.
        """
        if generation not in self._encoders:
            fingerprint = self._store.generations.fingerprint(generation)
            self._encoders[generation] = Encoder(load_codebooks(self._codebooks_dir, fingerprint), self.device)
        return self._encoders[generation]

    def encode_watched(self, generation: int, embeddings_ND: FloatArray, what: str) -> Generator[None, None, CodeArray]:
        """Codes (N×L int32) of rows (N×D float32), computed in a thread.

        The watchdog ends a process that hangs, and says in `what`. Raises as `get` and `encode_rows` do.
        """
        encoder = self.get(generation)

        def work() -> CodeArray:
            with self._watchdog.watch(what):
                return encode_rows(encoder, embeddings_ND)

        return (yield from run_in_background(work))
