"""The stages of a file's chunks before their commit: read, copied to the device, encoded, each ahead of the next."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

from semid_daemon.base.row_hash import row_hashes
from semid_daemon.base.types import CodeArray, EmbeddingBatch
from semid_daemon.config import Ingest
from semid_daemon.formats import EmbeddingSource
from semid_daemon.ingest.open_embeddings import usable
from semid_daemon.ingest.pipeline import Backlog, mapped, prefetch
from semid_daemon.quantizer import Encoder, OnDevice, memory_for, reserve_core
from semid_daemon.quantizer.device_faults import copied, device_errors, encode_rows
from semid_daemon.runtime.device_watchdog import Watchdog
from semid_daemon.runtime.stage_timing import Stages
from semid_daemon.store.write.placement import Integers


@dataclass(frozen=True, slots=True)
class EncodedChunk:
    """A chunk on its way: read, with the hashes of its embeddings, then (where that takes a copy) on the device too,
    then with its codes (N×L)."""

    batch: EmbeddingBatch
    contents: Integers
    on_device: OnDevice | None = None
    codes_NL: CodeArray | None = None


@dataclass(frozen=True, slots=True)
class ChunkStages:
    """Reads and encodes chunks ahead of their commits. Work on the device is timed and watched.

    `prefetch` runs a stage ahead of the next, as `pipeline.prefetch` does.
    """

    settings: Ingest
    watchdog: Watchdog
    timing: Stages
    patience_s: float  # without a chunk, before None is given instead of one
    prefetch: Callable[..., Generator[Any, None, None]] = prefetch

    def chunks(
        self, source: EmbeddingSource, first_row: int, at_a_time: int, encoder: Encoder, name: str
    ) -> Generator[EncodedChunk | None, None, None]:
        """The encoded chunks from a row on, of `at_a_time` rows each; None now and then while one takes long."""
        backlog = Backlog()

        def copy(chunk: EncodedChunk) -> EncodedChunk:
            with self.at_work("copy", f"{name}: copying rows from {chunk.batch.first_row:,}"):
                return dataclasses.replace(chunk, on_device=copied(encoder, chunk.batch.embeddings_ND))

        def encode(chunk: EncodedChunk) -> EncodedChunk:
            # While chunks wait to be committed, commits get a core to themselves.
            cores = reserve_core() if backlog.has_item else contextlib.nullcontext()
            with self.at_work("encode", f"{name}: encoding rows from {chunk.batch.first_row:,}"), cores:
                codes_NL = encode_rows(encoder, chunk.batch.embeddings_ND, chunk.on_device)
                return dataclasses.replace(chunk, on_device=None, codes_NL=codes_NL)

        read = self._read(source, first_row, at_a_time, encoder)
        if source.rows - first_row <= at_a_time:
            return mapped(encode, read)  # a single chunk has nothing to overlap with
        chunks = self.prefetch(read, "read")
        if encoder.device.type != "cpu":
            chunks = self.prefetch(mapped(copy, chunks), "copy")
        return self.prefetch(mapped(encode, chunks), "encode", self.patience_s, backlog)

    def _read(
        self, source: EmbeddingSource, first_row: int, at_a_time: int, encoder: Encoder
    ) -> Generator[EncodedChunk, None, None]:
        batches = source.batches(at_a_time, first_row, empty=memory_for(encoder.device))
        while True:
            with self.timing.timed("read"):
                batch = next(batches, None)
                if batch is None:
                    return
                batch = usable(batch, self.settings)
                chunk = EncodedChunk(batch, row_hashes(batch.embeddings_ND))
            yield chunk

    @contextlib.contextmanager
    def at_work(self, stage: str, what: str) -> Iterator[None]:
        """The block is work of this stage on the device."""
        with self.timing.timed(stage), self.watchdog.watch(what), device_errors():
            yield
