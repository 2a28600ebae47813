"""The next generation beside the active one: trained, given every item of the catalogue, compared.

The long methods are generators of steps. After the death of a process a training starts again; all other work goes on
where it was.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace

import numpy as np

from semid_daemon.base.types import Codebooks, FloatArray
from semid_daemon.codebooks.files import codebook_path, save_codebooks, staged_codebooks
from semid_daemon.codebooks.matching import match_codebooks
from semid_daemon.codebooks.sampling import RowSample
from semid_daemon.codebooks.trainers import training_settings
from semid_daemon.config import Config
from semid_daemon.generations.encoder_cache import EncoderCache
from semid_daemon.generations.evaluate import Evaluation, encode_in_steps
from semid_daemon.generations.source_rows import RowsGoneError, SourceChunk, SourceRows
from semid_daemon.generations.steps import Steps
from semid_daemon.generations.training import BASELINE_ROWS, CodebookTraining
from semid_daemon.ingest.learner import Learner
from semid_daemon.quantizer import Encoder
from semid_daemon.quantizer.device_faults import device_errors
from semid_daemon.runtime.background import run_in_background
from semid_daemon.runtime.context import WorkContext
from semid_daemon.store.write.chunks import Chunk
from semid_daemon.store.write.generations import Generation, NewGeneration, Origin
from semid_daemon.store.write.store import Store

_ROWS_PER_DELETION = 20_000

# What a generation is made of: its codebooks, and rows (N×D float32) of the catalogue to measure them by.
_Prepared = tuple[Codebooks, FloatArray]


class CannotPrepareError(Exception):
    """A generation cannot be prepared; the message says why and what to do."""


class GenerationBuilder:
    """Prepares a generation, encodes the catalogue with it, and deletes what is no longer wanted."""

    def __init__(
        self,
        config: Config,
        store: Store,
        training: CodebookTraining,
        encoders: EncoderCache,
        learner: Learner,
        source_rows: SourceRows,
        context: WorkContext,
    ) -> None:
        self._config = config
        self._store = store
        self._training = training
        self._encoders = encoders
        self._learner = learner
        self._source_rows = source_rows
        self._context = context
        self._evaluation = Evaluation(config, store, source_rows, encoders, context)

    def close(self) -> None:
        """Close the files of work that ended or was given up."""
        self._source_rows.close()

    # -- training ----------------------------------------------------------------------------------

    def train(self, origin: Origin, requested_by: str, imported: str = "") -> Generator[None, None, Generation]:
        """Prepare a generation from the candidate, or trained anew on the kept rows and matched to the active one.

        With origin "imported" it gets the staged codebooks of the fingerprint `imported`, whose codes keep their
        numbers. Raises CannotPrepareError, RowsGoneError, CodebookError, OSError or MemoryError; nothing has changed
        then.
        """
        active = self._active()
        through, total_rows = self._store.chunks.last_id(), active.items
        if origin == "imported":
            codebooks, sample_ND = yield from self._imported(imported, active, through)
        elif origin == "candidate":
            codebooks, sample_ND = yield from self._from_candidate(active, through)
        else:
            codebooks, sample_ND = yield from self._anew(active, through)
        baseline = yield from self._training.baseline(codebooks, sample_ND, total_rows)
        settings = training_settings(self._config.quantizer, self._config.training, total_rows)
        settings |= {"origin": origin, "based_on": active.fingerprint}
        fingerprint = save_codebooks(self._config.codebooks_dir, codebooks, settings)
        if fingerprint in self._store.generations.fingerprints():
            raise CannotPrepareError("these are the codebooks of a generation that exists: nothing has changed")
        new = NewGeneration(
            fingerprint,
            codebooks,
            total_rows,
            baseline,
            origin,
            self._config.generations.collisions,
            self._config.generations.bucket_capacity,
        )
        return self._store.generations.prepare(
            new, based_on=active.number, trained_through=through, requested_by=requested_by
        )

    def _from_candidate(self, active: Generation, through: int) -> Generator[None, None, _Prepared]:
        state = self._learner.candidate(active.number)
        if state is None or not state.rows:
            raise CannotPrepareError(
                f"nothing has been learned since generation {active.number} was trained;"
                " `semid train --from anew` trains on the whole catalogue"
            )
        codebooks = replace(self._encoders.get(active.number).codebooks, centroids_LKD=state.centroids_LKD)
        sample_ND = yield from self._sample(active, through, BASELINE_ROWS)
        return codebooks, sample_ND

    def _imported(self, fingerprint: str, active: Generation, through: int) -> Generator[None, None, _Prepared]:
        codebooks, _ = staged_codebooks(self._config, fingerprint)
        if codebooks.dim != active.dim:
            raise CannotPrepareError(f"the catalogue's embeddings have dim {active.dim}, the codebooks {codebooks.dim}")
        sample_ND = yield from self._sample(active, through, BASELINE_ROWS)
        return codebooks, sample_ND

    def _anew(self, active: Generation, through: int) -> Generator[None, None, _Prepared]:
        sample_ND = yield from self._sample(active, through, self._training.max_rows(active.dim))
        codes = self._config.quantizer.codebook_size
        if len(sample_ND) < codes:
            raise CannotPrepareError(f"{len(sample_ND):,} rows for {codes} codes")
        trainer = self._training.trainer()
        read_all = (lambda: self._embeddings(active, through)) if len(sample_ND) < active.items else None
        for _ in self._training.run(trainer, sample_ND, read_all):
            yield
        old = self._encoders.get(active.number)
        few_ND = sample_ND[:: 1 + len(sample_ND) // (4 * BASELINE_ROWS)]
        chunk_rows = self._config.ingest.chunk_rows
        new_NL = yield from encode_in_steps(Encoder(trainer.codebooks, self._training.device), few_ND, chunk_rows)
        old_NL = yield from encode_in_steps(old, few_ND, chunk_rows)
        self._context.say("training", "matching code numbers to the active generation's")
        matched = yield from run_in_background(
            lambda: match_codebooks(trainer.codebooks, old.codebooks, new_NL, old_NL)
        )
        return matched, few_ND

    def _sample(self, generation: Generation, through: int, max_rows: int) -> Generator[None, None, FloatArray]:
        """Rows of a generation's items from chunks up to `through` (N×D float32), every subset equally likely."""
        total_rows = generation.items
        seed = self._config.quantizer.seed
        sample = RowSample(total_rows=total_rows, max_rows=max_rows, dim=generation.dim, seed=seed)
        for embeddings_ND in self._embeddings(generation, through):
            sample.add(embeddings_ND)
            self._context.say("preparing", f"sampling: {sample.rows_seen:,} of {total_rows:,} items")
            yield
        # Items that are replaced meanwhile have their rows in later chunks.
        lacking = total_rows - sample.rows_seen
        if lacking and self._config.ingest.on_existing == "keep":
            raise CannotPrepareError(f"{lacking:,} of {total_rows:,} items have no kept embeddings")
        return sample.rows()

    def _embeddings(self, generation: Generation, through: int) -> Iterator[FloatArray]:
        for source in self._source_rows.catalogue(generation.number, through):
            if source.batch.item_ids:
                yield source.batch.embeddings_ND

    def _active(self) -> Generation:
        active = self._store.generations.active()
        assert active is not None
        return active

    # -- encoding the catalogue ----------------------------------------------------------------------

    def complete(self, number: int) -> Steps:
        """Give a generation the whole catalogue and compare it with the active one: then it may be promoted."""
        active = self._active()
        yield from self.backfill(number)
        yield from self._evaluation.compare(active.number, number)
        yield from self._evaluation.measure(number)
        self._store.generations.set_ready(number)

    def measure(self, number: int) -> Steps:
        """Record a generation's quality on a sample of its items."""
        yield from self._evaluation.measure(number)

    def backfill(self, number: int) -> Steps:
        """Give a generation that is not active every item that the active one has, chunk by chunk.

        Raises RowsGoneError where their embeddings are not kept.
        """
        active = self._active()
        while True:
            generation = self._store.generations.get(number)
            assert generation is not None
            chunk = next(iter(self._store.chunks.after(generation.encoded_through)), None)
            if chunk is None:
                break
            self._context.say("preparing", f"generation {number}: {generation.items:,} of {active.items:,} items")
            yield from self._encode_chunk(generation, chunk, self._source_rows.read(chunk, active.number))
            yield
        lacking = self._store.generations.lacking_items(number)
        if lacking:
            raise RowsGoneError(f"generation {number} lacks {lacking:,} items of generation {active.number}")

    def _encode_chunk(self, generation: Generation, chunk: Chunk, source: SourceChunk) -> Steps:
        """Encode a chunk's rows, learn from those that are new to the generation, and commit both together."""
        number, batch = generation.number, source.batch
        codes_NL = np.empty((0, generation.layers), np.int32)
        if batch.item_ids:
            what = f"generation {number}: encoding chunk {chunk.id}"
            codes_NL = yield from self._encoders.encode_watched(number, batch.embeddings_ND, what)
        plan = self._store.items.reassign(
            number, batch, codes_NL, source.contents, self._learner.ranked(number, batch.embeddings_ND, codes_NL)
        )
        update = None
        if chunk.id > generation.trained_through and not self._store.generations.was_trained_on(number, chunk.file_id):
            with device_errors():
                update = self._learner.learn(number, batch, codes_NL, plan)
        self._store.generations.backfill_chunk(
            generation, chunk, batch, plan, None if update is None else update.learned
        )
        self._learner.adopt(update)

    # -- deleting ------------------------------------------------------------------------------------

    def delete(self, number: int) -> Generator[None, None, str]:
        """Delete a generation's rows, then its codebooks. Returns their fingerprint."""
        fingerprint = self._store.generations.fingerprint(number)
        after: tuple[int, str] | None = (0, "")
        while after is not None:
            self._context.say("tidying", f"deleting generation {number}")
            after = self._store.generations.delete_rows(number, _ROWS_PER_DELETION, after)
            yield
        codebook_path(self._config.codebooks_dir, fingerprint).unlink(missing_ok=True)
        return fingerprint
