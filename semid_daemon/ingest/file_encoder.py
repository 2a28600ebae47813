"""One drop file from its first row to its last: encoded, committed chunk by chunk, learned from."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial

from semid_daemon.base.errors import BadFileError
from semid_daemon.codebooks.spool import Spool
from semid_daemon.config import Ingest
from semid_daemon.drop.open_file import OpenFile, signature_text
from semid_daemon.formats import EmbeddingSource
from semid_daemon.ingest.chunk_stages import ChunkStages, EncodedChunk
from semid_daemon.ingest.crash_marker import CrashMarker
from semid_daemon.ingest.learner import ChunkUpdate, Learner
from semid_daemon.ingest.open_embeddings import (
    check_usable,
    open_embeddings,
    rows_at_once,
    usable,
    wrong_dimension,
)
from semid_daemon.ingest.pending import PendingFile
from semid_daemon.quantizer import Encoder
from semid_daemon.runtime.context import WorkContext
from semid_daemon.runtime.stage_timing import Stages
from semid_daemon.store.write.candidates import CandidateUpdate
from semid_daemon.store.write.files import LedgerFile
from semid_daemon.store.write.placement import BucketPlan
from semid_daemon.store.write.store import Store
from semid_daemon.store.write.telemetry import Metric


class FileEncoder:
    """Encodes and commits drop files. `encoder` gives the encoder of a generation; without a `spool` none is kept."""

    def __init__(
        self,
        context: WorkContext,
        store: Store,
        learner: Learner,
        spool: Spool | None,
        encoder: Callable[[int], Encoder],
        stages: ChunkStages,
        marker: CrashMarker,
    ) -> None:
        self._context = context
        self._store = store
        self._learner = learner
        self._spool = spool
        self._encoder = encoder
        self._stages = stages
        self._marker = marker

    def run(self, pending: PendingFile, generation: int) -> Generator[int, None, None]:
        """Encode a file chunk by chunk, from the row where it stopped before, with the generation it began with.

        Yields the number of rows read: first those committed by earlier runs, then those of each transaction, once it
        is committed, and 0 now and then while a chunk takes long. Chunks of long rows have few of them: several are
        committed at once, up to as many rows as are configured. Chunks are read and encoded ahead, and learned from
        while their rows are written; only their commits, here, touch the database, in order.
        Raises BadFileError, FileChangedError, DeviceError, MachineError, OSError or MemoryError.
        """
        settings, store = self._stages.settings, self._store
        begun = store.files.get(pending.ledger.id).generation or generation
        encoder = self._encoder(begun)
        with open_embeddings(pending.file, pending.ledger.digest, encoder.codebooks.dim) as (opened, source):
            if source.rows and source.dim != encoder.codebooks.dim:
                raise wrong_dimension(source.dim, encoder.codebooks.dim, f"generation {begun}")
            at_a_time = rows_at_once(settings, source.dim, self._context.limits.chunk_bytes)
            if settings.max_rejected_share < 1 and not pending.ledger.rows_done and pending.ledger.rows_usable is None:
                yield from _survey(source, at_a_time, settings)
            ledger = store.files.begin_loading(
                pending.ledger.id, rows=source.rows, dim=source.dim, generation=begun, chunk_rows=at_a_time
            )
            at_a_time = ledger.chunk_rows or at_a_time  # as it was begun
            yield ledger.rows_done
            if ledger.status != "loading":
                return
            chunks = self._stages.chunks(source, ledger.rows_done, at_a_time, encoder, pending.file.name)
            is_new = not store.generations.was_trained_on(begun, ledger.id)
            run = _Run(opened, ledger, begun, is_new, ledger.rows_done, self._context.now(), source.rows)
            with contextlib.closing(chunks):
                yield from self._commit(run, chunks, at_a_time)
            if run.row < source.rows:
                raise BadFileError(f"{run.row:,} rows can be read of the {source.rows:,} that it declares")

    def _commit(
        self, run: _Run, chunks: Generator[EncodedChunk | None, None, None], at_a_time: int
    ) -> Generator[int, None, None]:
        """Commit the chunks as they come, small ones several at once."""
        now, most_rows = self._context.now, self._stages.settings.chunk_rows
        one_by_one = 2 * at_a_time > most_rows
        signature = signature_text(run.opened.file)
        for chunk in chunks:
            if chunk is None:
                yield 0
                continue
            rows, fault = 0, None
            with contextlib.nullcontext() if one_by_one else self._at_once():
                until = now() + self._context.limits.commit_s
                while chunk is not None:
                    rows += self._commit_chunk(run, chunk)
                    chunk = None  # a file may be suspended for others, and chunks are large
                    if rows + at_a_time <= most_rows and now() < until:
                        chunk, fault = _following(chunks)
            self._marker.set(run.opened.file.name, signature, run.row)
            yield rows
            if fault is not None:
                raise fault
            run.started = now()

    @contextlib.contextmanager
    def _at_once(self) -> Iterator[None]:
        """One transaction for several chunks. What is remembered of them is forgotten when they are taken back."""
        end = None if self._spool is None else self._spool.end
        try:
            with contextlib.ExitStack() as transaction:
                transaction.enter_context(self._store.database.batch())
                yield
                with self._stages.timing.timed("commit"):
                    transaction.close()
        except BaseException:
            self._learner.forget()
            self._store.invalidate()
            if self._spool is not None:
                self._spool.reset(end)
            raise

    def _commit_chunk(self, run: _Run, chunk: EncodedChunk) -> int:
        """Commit a chunk, provided that the file is still the one that was hashed. Returns how many rows were read."""
        batch, codes_NL, timing = chunk.batch, chunk.codes_NL, self._stages.timing
        assert codes_NL is not None
        run.rejected.update(batch.rejected)
        if run.ledger.rows_done == 0 and batch.first_row + batch.rows_read == run.rows:
            check_usable(run.rows, run.rejected, self._stages.settings)
        with timing.timed("commit"):
            plan = self._store.items.assign(
                run.generation,
                run.ledger.id,
                batch,
                codes_NL,
                on_existing=self._stages.settings.on_existing,
                ranked=self._learner.ranked(run.generation, batch.embeddings_ND, codes_NL),
                hashes_N=chunk.contents,
            )
        learning = self._learn(run, chunk, plan) if run.is_new else None
        spooled = None
        if self._spool is not None and plan.written:
            with timing.timed("commit"):
                item_ids = [batch.item_ids[position] for position in plan.written]
                spooled = self._spool.append(item_ids, batch.embeddings_ND[plan.written])
        run.opened.check_unchanged()
        elapsed_s = self._context.now() - run.started
        with timing.timed("commit"):
            self._store.chunks.commit(
                run.ledger,
                batch,
                codes_NL,
                [Metric("rows_per_s", batch.rows_read / max(elapsed_s, 1e-9)), *timing.metrics()],
                plan=plan,
                update=partial(_learned, learning, timing),
                spooled=spooled,
            )
        if learning is not None:
            self._learner.adopt(learning.result())
        if self._spool is not None and spooled is not None:
            self._spool.committed(spooled)
        run.row, run.started = batch.first_row + batch.rows_read, self._context.now()
        return batch.rows_read

    def _learn(self, run: _Run, chunk: EncodedChunk, plan: BucketPlan) -> Future[ChunkUpdate | None]:
        """Begin to learn from a chunk's rows."""
        assert chunk.codes_NL is not None
        what = f"{run.opened.file.name}: learning from rows from {chunk.batch.first_row:,}"
        within = partial(self._stages.at_work, "learn", what)
        return self._learner.start(run.generation, chunk.batch, chunk.codes_NL, plan, within)


@dataclass(slots=True)
class _Run:
    """How far a file is."""

    opened: OpenFile
    ledger: LedgerFile  # as it was when its chunks were begun
    generation: int
    is_new: bool  # its rows are not among those that the generation was trained on
    row: int  # the first that is not committed
    started: float  # when the current chunk was begun
    rows: int  # of the file
    rejected: Counter[str] = field(default_factory=Counter)  # rows left out so far, by reason


def _survey(source: EmbeddingSource, at_a_time: int, settings: Ingest) -> Generator[int, None, None]:
    """Read a file through before any row of it is committed. Raises BadFileError where too few rows can be used."""
    rejected: Counter[str] = Counter()
    for batch in source.batches(at_a_time):
        rejected.update(usable(batch, settings).rejected)
        yield 0
    check_usable(source.rows, rejected, settings)


def _following(chunks: Iterator[EncodedChunk | None]) -> tuple[EncodedChunk | None, Exception | None]:
    """The next chunk, None where there is none by now; or why it cannot be had, once those before it are committed."""
    try:
        return next(chunks, None), None
    except Exception as fault:
        return None, fault


def _learned(learning: Future[ChunkUpdate | None] | None, timing: Stages) -> CandidateUpdate | None:
    """What a chunk leaves, once it has been learned from: the last that its commit waits for."""
    if learning is None:
        return None
    with timing.waiting("commit"):
        update = learning.result()
    return None if update is None else update.learned
