"""The codebooks of generations on the device."""

from __future__ import annotations

from pathlib import Path

from semid_daemon.codebooks.files import load_codebooks
from semid_daemon.quantizer import Device, Encoder
from semid_daemon.store.write.store import Store


class EncoderCache:
    """One for each generation that was asked for."""

    def __init__(self, store: Store, codebooks_dir: Path, device: Device) -> None:
        self._store = store
        self._codebooks_dir = codebooks_dir
        self._device = device
        self._encoders: dict[int, Encoder] = {}

    def get(self, generation: int) -> Encoder:
        """Its codebooks are checked against their fingerprint when first used. Raises CodebookError."""
        if generation not in self._encoders:
            fingerprint = self._store.generations.fingerprint(generation)
            self._encoders[generation] = Encoder(load_codebooks(self._codebooks_dir, fingerprint), self._device)
        return self._encoders[generation]
