"""One drop file on its way through: opened and known by its digest, surveyed, encoded, committed."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from semid_daemon.base.errors import BadFileError
from semid_daemon.base.row_hash import row_hashes
from semid_daemon.base.types import CodeArray, EmbeddingBatch
from semid_daemon.codebooks.spool import Spool
from semid_daemon.config import Ingest
from semid_daemon.drop.open_file import signature_text
from semid_daemon.formats import EmbeddingSource
from semid_daemon.ingest.crash_marker import CrashMarker
from semid_daemon.ingest.learner import ChunkUpdate, Learner
from semid_daemon.ingest.open_embeddings import open_embeddings, rows_at_once, usable, wrong_dimension
from semid_daemon.ingest.pending import PendingFile
from semid_daemon.ingest.pipeline import Backlog, mapped, prefetch
from semid_daemon.quantizer import Encoder, OnDevice, memory_for, reserve_core
from semid_daemon.quantizer.device_faults import copied, device_errors, encode_rows
from semid_daemon.runtime.device_watchdog import Watchdog
from semid_daemon.runtime.stage_timing import Stages
from semid_daemon.store.write.candidates import CandidateUpdate
from semid_daemon.store.write.files import LedgerFile
from semid_daemon.store.write.placement import Integers
from semid_daemon.store.write.store import Store
from semid_daemon.store.write.telemetry import Metric

_COMMIT_S = 0.5  # of chunks that are committed at once, after which none is added
_PATIENCE_S = 0.2  # without a chunk, before the daemon looks after other things


@dataclass(frozen=True, slots=True)
class Encoded:
    """A chunk on its way: read, with the hashes of its embeddings, then (where that takes a copy) on the device too,
    then with its codes (N×L)."""

    batch: EmbeddingBatch
    contents: Integers
    on_device: OnDevice | None = None
    codes_NL: CodeArray | None = None


def encode_steps(
    store: Store,
    pending: PendingFile,
    *,
    generation: int,
    encoder: Callable[[int], Encoder],
    learner: Learner,
    spool: Spool | None,
    settings: Ingest,
    crash_marker: CrashMarker,
    watchdog: Watchdog,
    stages: Stages,
) -> Generator[int, None, None]:
    """Encode and commit a file chunk by chunk, from the row where it stopped before, with the generation it began with.

    Yields the number of rows read: first those committed by earlier runs, then those of each chunk, once it is
    committed, and 0 now and then while one takes long. Chunks of long rows have few of them: several are committed
    at once, up to as many rows as are configured. Before each commit it looks whether the file is still the one
    that was hashed. Chunks are read and encoded ahead, and learned from while their rows are written; only their
    commits, here, touch the database, in order.
    """
    name, signature = pending.file.name, signature_text(pending.file)
    with open_embeddings(pending.file) as (opened, source):
        begun = store.files.get(pending.ledger.id).generation or generation
        encode = encoder(begun)
        if source.rows and source.dim != encode.codebooks.dim:
            raise wrong_dimension(source.dim, encode.codebooks.dim, f"generation {begun}")
        at_a_time = rows_at_once(settings, source.dim)
        ledger = store.files.begin_loading(
            pending.ledger.id, rows=source.rows, dim=source.dim, generation=begun, chunk_rows=at_a_time
        )
        at_a_time = ledger.chunk_rows or at_a_time  # as it was begun
        yield ledger.rows_done
        if ledger.status != "loading":
            return
        is_new = not store.generations.was_trained_on(begun, ledger.id)
        row, started = ledger.rows_done, time.monotonic()

        def commit(chunk: Encoded) -> int:
            """Commit a chunk; how many rows were read for it."""
            nonlocal row, started
            batch, codes_NL = chunk.batch, chunk.codes_NL
            assert codes_NL is not None
            with stages.timed("commit"):
                plan = store.items.assign(
                    begun,
                    ledger.id,
                    batch,
                    codes_NL,
                    on_existing=settings.on_existing,
                    ranked=learner.ranked(begun, batch.embeddings_ND, codes_NL),
                    hashes_N=chunk.contents,
                )
            learning = None
            if is_new:
                what = f"{name}: learning from rows from {batch.first_row:,}"
                within = partial(_at_work, "learn", stages, watchdog, what)
                learning = learner.start(begun, batch, codes_NL, plan, within)
            new = plan.written
            spooled = None
            if spool is not None and new:
                with stages.timed("commit"):
                    spooled = spool.append([batch.item_ids[each] for each in new], batch.embeddings_ND[new])
            opened.check_unchanged()
            elapsed_s = time.monotonic() - started
            with stages.timed("commit"):
                store.chunks.commit(
                    ledger,
                    batch,
                    codes_NL,
                    [Metric("rows_per_s", batch.rows_read / max(elapsed_s, 1e-9)), *stages.metrics()],
                    plan=plan,
                    update=partial(_learned, learning, stages),
                    spooled=spooled,
                )
            if learning is not None:
                learner.adopt(learning.result())
            if spool is not None and spooled is not None:
                spool.committed(spooled)
            row, started = batch.first_row + batch.rows_read, time.monotonic()
            return batch.rows_read

        at_once: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
        if 2 * at_a_time <= settings.chunk_rows:
            at_once = partial(_at_once, store, learner, spool, stages)
        with contextlib.closing(
            _encoded(source, ledger, at_a_time, encode, settings, watchdog, stages, name)
        ) as chunks:
            for chunk in chunks:
                if chunk is None:
                    yield 0
                    continue
                rows, fault = 0, None
                with at_once():
                    until = time.monotonic() + _COMMIT_S
                    while chunk is not None:
                        rows += commit(chunk)
                        chunk = None  # a file may be laid aside for others, and chunks are large
                        if rows + at_a_time <= settings.chunk_rows and time.monotonic() < until:
                            chunk, fault = _following(chunks)
                crash_marker.set(name, signature, row)
                yield rows
                if fault is not None:
                    raise fault
                started = time.monotonic()
        if row < source.rows:
            raise BadFileError(f"{row:,} rows can be read of the {source.rows:,} that it declares")


@contextlib.contextmanager
def _at_once(store: Store, learner: Learner, spool: Spool | None, stages: Stages) -> Iterator[None]:
    """One transaction for several chunks. What is remembered of them is forgotten when they are taken back."""
    end = None if spool is None else spool.end
    try:
        with contextlib.ExitStack() as transaction:
            transaction.enter_context(store.database.batch())
            yield
            with stages.timed("commit"):
                transaction.close()
    except BaseException:
        learner.forget()
        store.invalidate()
        if spool is not None:
            spool.reset(end)
        raise


def _following(chunks: Iterator[Encoded | None]) -> tuple[Encoded | None, Exception | None]:
    """The next chunk, None where there is none by now; or why it cannot be had, once those before it are committed."""
    try:
        return next(chunks, None), None
    except Exception as fault:
        return None, fault


@contextlib.contextmanager
def _at_work(stage: str, stages: Stages, watchdog: Watchdog, what: str) -> Iterator[None]:
    with stages.timed(stage), watchdog.watch(what), device_errors():
        yield


def _learned(learning: Future[ChunkUpdate | None] | None, stages: Stages) -> CandidateUpdate | None:
    """What a chunk leaves, once it has been learned from: the last that its commit waits for."""
    if learning is None:
        return None
    with stages.waiting("commit"):
        update = learning.result()
    return None if update is None else update.learned


def _encoded(
    source: EmbeddingSource,
    ledger: LedgerFile,
    at_a_time: int,
    encoder: Encoder,
    settings: Ingest,
    watchdog: Watchdog,
    stages: Stages,
    name: str,
) -> Generator[Encoded | None, None, None]:
    """The chunks still to be committed: one being read while one is copied to the device, while one is encoded."""

    def read() -> Generator[Encoded, None, None]:
        batches = source.batches(at_a_time, ledger.rows_done, empty=memory_for(encoder.device))
        while True:
            with stages.timed("read"):
                batch = next(batches, None)
                if batch is None:
                    return
                batch = usable(batch, settings)
                chunk = Encoded(batch, row_hashes(batch.embeddings_ND))
            yield chunk

    def copy(chunk: Encoded) -> Encoded:
        with _at_work("copy", stages, watchdog, f"{name}: copying rows from {chunk.batch.first_row:,}"):
            return dataclasses.replace(chunk, on_device=copied(encoder, chunk.batch.embeddings_ND))

    def encode(chunk: Encoded) -> Encoded:
        what = f"{name}: encoding rows from {chunk.batch.first_row:,}"
        # While chunks wait to be committed, commits get a core to themselves.
        with (
            _at_work("encode", stages, watchdog, what),
            reserve_core() if backlog.has_item else contextlib.nullcontext(),
        ):
            codes_NL = encode_rows(encoder, chunk.batch.embeddings_ND, chunk.on_device)
            return dataclasses.replace(chunk, on_device=None, codes_NL=codes_NL)

    backlog = Backlog()
    if source.rows - ledger.rows_done <= at_a_time:
        return mapped(encode, read())  # a single chunk has nothing to overlap with
    chunks = prefetch(read(), "read")
    if encoder.device.type != "cpu":
        chunks = prefetch(mapped(copy, chunks), "copy")
    return prefetch(mapped(encode, chunks), "encode", _PATIENCE_S, backlog)
