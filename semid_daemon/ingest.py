"""One drop file on its way through: opened and known by its digest, surveyed, encoded, committed."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, MutableMapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

import numpy as np

from semid_daemon.config import Ingest
from semid_daemon.drop.reading import OpenFile, digest_of, open_drop_file, signature_text
from semid_daemon.errors import BadFileError, DeviceError, IncompleteFileError, MachineError
from semid_daemon.failpoints import failpoint
from semid_daemon.formats import EmbeddingSource, open_source
from semid_daemon.generations.spool import Spool
from semid_daemon.in_hand import InHand
from semid_daemon.learning import Learner, Lesson
from semid_daemon.pipeline import Demand, Stages, ahead, mapped
from semid_daemon.quantizer import Encoder, OnDevice, leaving_a_core, memory_for
from semid_daemon.records import CodeArray, DropFile, EmbeddingBatch, FloatArray
from semid_daemon.store.contents import content_hashes, zero_rows
from semid_daemon.store.placement import Integers
from semid_daemon.store.rows import ZERO_VECTOR
from semid_daemon.store.writer import Learned, LedgerFile, Metric, Writer
from semid_daemon.watchdog import Watchdog

_FEWEST_ROWS = 64  # a chunk that needs less than this on the device is not cut further
_CHUNK_BYTES = 64 << 20  # of float32 embeddings in a chunk; a few chunks are in memory at a time
_COMMIT_S = 0.5  # of chunks that are committed at once, after which none is added
_PATIENCE_S = 0.2  # without a chunk, before the daemon looks after other things

Tick = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A settled file in the drop directory whose rows are not all committed, and its ledger entry."""

    file: DropFile
    ledger: LedgerFile


class WaitingFiles(MutableMapping[int, Waiting]):
    """The files that wait, by ledger ID, in the order in which they came, and what is gathered in them.

    Everything is kept up to date with each change, so that asking costs the same however many there are.
    """

    def __init__(self) -> None:
        # Ordered dictionaries proper: looking for the first of a plain one passes all that were deleted before it.
        self._files: OrderedDict[int, Waiting] = OrderedDict()
        self._uncounted: OrderedDict[int, None] = OrderedDict()
        self._usable: OrderedDict[int, None] = OrderedDict()
        self.rows_usable = 0

    def __setitem__(self, file_id: int, waiting: Waiting) -> None:
        self._discount(file_id)
        self._files[file_id] = waiting
        rows = waiting.ledger.rows_usable
        if rows is None:
            self._uncounted[file_id] = None
        elif rows:
            self._usable[file_id] = None
            self.rows_usable += rows

    def __delitem__(self, file_id: int) -> None:
        self._discount(file_id)
        del self._files[file_id]

    def _discount(self, file_id: int) -> None:
        self._uncounted.pop(file_id, None)
        if file_id in self._usable:
            del self._usable[file_id]
            self.rows_usable -= self._files[file_id].ledger.rows_usable or 0

    def __getitem__(self, file_id: int) -> Waiting:
        return self._files[file_id]

    def __contains__(self, file_id: object) -> bool:
        return file_id in self._files

    def __iter__(self) -> Iterator[int]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def first_uncounted(self) -> Waiting | None:
        """A file whose usable rows are not counted yet."""
        return self._first(self._uncounted)

    def first_usable(self) -> Waiting | None:
        """The file that was the first found to hold rows that can be used."""
        return self._first(self._usable)

    def _first(self, among: OrderedDict[int, None]) -> Waiting | None:
        file_id = next(iter(among), None)
        return None if file_id is None else self._files[file_id]


@dataclass(frozen=True, slots=True)
class Registered:
    """What is known of a file after one look into it. `ledger` is None while it may still be being written."""

    ledger: LedgerFile | None
    problem: BadFileError | None = None


@contextlib.contextmanager
def open_embeddings(file: DropFile) -> Iterator[tuple[OpenFile, EmbeddingSource]]:
    """Open a settled file as embeddings.

    Raises BadFileError (IncompleteFileError when it is shorter than it says), FileChangedError, OSError.
    """
    with open_drop_file(file) as opened, _source_of(opened) as source:
        yield opened, source


@contextlib.contextmanager
def _source_of(opened: OpenFile) -> Iterator[EmbeddingSource]:
    failpoint("parsing")
    file = opened.file
    sidecar_name = file.sidecar.name if file.sidecar else ""
    source = open_source(
        opened.stream, file.name, sidecar=opened.sidecar, sidecar_name=sidecar_name, fields=file.fields
    )
    try:
        yield source
    finally:
        source.close()


def register(
    writer: Writer, file: DropFile, root: str, on_hashed: Callable[[int], None], is_settled: Callable[[], bool]
) -> Registered:
    """Find the file's entry in the ledger by its content, or make one. Reads only what is not known by sight.

    A file shorter than it says is not registered until `is_settled` says that nobody is writing it any more.
    """
    signature = signature_text(file)
    known = writer.known_digest(file.name, signature)
    if known is not None:
        if known.status == "deferred" and known.retry_at is None:  # gone under another name, and still here
            known = writer.record_sighting(file.name, signature, known.digest, file.signature.size_bytes, root)
        return Registered(known)
    problem: BadFileError | None = None
    with open_drop_file(file) as opened:
        try:
            with _source_of(opened):
                pass
        except BadFileError as error:
            if isinstance(error, IncompleteFileError) and not is_settled():
                return Registered(None, error)
            problem = error
        digest = digest_of(opened, on_hashed)
    return Registered(writer.record_sighting(file.name, signature, digest, file.signature.size_bytes, root), problem)


def register_unopened(writer: Writer, file: DropFile, root: str, on_hashed: Callable[[int], None]) -> LedgerFile:
    """The file's entry in the ledger, from its bytes alone."""
    with open_drop_file(file) as opened:
        digest = digest_of(opened, on_hashed)
    return writer.record_sighting(file.name, signature_text(file), digest, file.signature.size_bytes, root)


def usable(batch: EmbeddingBatch, settings: Ingest) -> EmbeddingBatch:
    """The batch by the configured policy for vectors of zeros."""
    if settings.on_zero == "encode":
        return batch
    zeros = zero_rows(batch.embeddings_ND)
    if not zeros.size:
        return batch
    keep = np.ones(len(batch.item_ids), bool)
    keep[zeros] = False
    return dataclasses.replace(
        batch,
        item_ids=[item_id for item_id, kept in zip(batch.item_ids, keep.tolist(), strict=True) if kept],
        embeddings_ND=np.ascontiguousarray(batch.embeddings_ND[keep]),
        rejected={**batch.rejected, ZERO_VECTOR: zeros.size},
    )


def rows_at_once(settings: Ingest, dim: int) -> int:
    """How many rows make a chunk: as many as configured, unless they take more memory than a chunk may."""
    return min(settings.chunk_rows, max(_FEWEST_ROWS, _CHUNK_BYTES // (4 * max(dim, 1))))


def survey(writer: Writer, waiting: Waiting, settings: Ingest, check_dim: Callable[[int], None], tick: Tick) -> Waiting:
    """Read a file through while there are no codebooks yet: is it whole, and how many rows can be used?"""
    with open_embeddings(waiting.file) as (opened, source):
        if source.rows:
            check_dim(source.dim)
        rows = 0
        for batch in source.batches(rows_at_once(settings, source.dim)):
            rows += len(usable(batch, settings).item_ids)
            tick()
        opened.check_unchanged()
        writer.set_surveyed(waiting.ledger.id, rows=source.rows, dim=source.dim, rows_usable=rows)
    return Waiting(waiting.file, writer.file(waiting.ledger.id))


def rows_of(waiting: list[Waiting], settings: Ingest, tick: Tick) -> Iterator[EmbeddingBatch]:
    """All usable rows of several files, in order."""
    for each in waiting:
        with open_embeddings(each.file) as (opened, source):
            for batch in source.batches(rows_at_once(settings, source.dim)):
                yield usable(batch, settings)
                tick()
            opened.check_unchanged()


@dataclass(frozen=True, slots=True)
class Encoded:
    """A chunk on its way: read, with the hashes of its embeddings, then (where that takes a copy) on the device too,
    then with its codes (N×L)."""

    batch: EmbeddingBatch
    contents: Integers
    on_device: OnDevice | None = None
    codes_NL: CodeArray | None = None


def encode_steps(
    writer: Writer,
    waiting: Waiting,
    *,
    generation: int,
    encoder: Callable[[int], Encoder],
    learner: Learner,
    spool: Spool | None,
    settings: Ingest,
    in_hand: InHand,
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
    name, signature = waiting.file.name, signature_text(waiting.file)
    with open_embeddings(waiting.file) as (opened, source):
        begun = writer.file(waiting.ledger.id).generation or generation
        encode = encoder(begun)
        if source.rows and source.dim != encode.codebooks.dim:
            raise wrong_dimension(source.dim, encode.codebooks.dim, f"generation {begun}")
        at_a_time = rows_at_once(settings, source.dim)
        ledger = writer.begin_loading(
            waiting.ledger.id, rows=source.rows, dim=source.dim, generation=begun, chunk_rows=at_a_time
        )
        at_a_time = ledger.chunk_rows or at_a_time  # as it was begun
        yield ledger.rows_done
        if ledger.status != "loading":
            return
        is_new = not writer.was_trained_on(begun, ledger.id)
        row, started = ledger.rows_done, time.monotonic()

        def commit(chunk: Encoded) -> int:
            """Commit a chunk; how many rows were read for it."""
            nonlocal row, started
            batch, codes_NL = chunk.batch, chunk.codes_NL
            assert codes_NL is not None
            with stages.timed("commit"):
                placement = writer.place(
                    begun,
                    ledger.id,
                    batch,
                    codes_NL,
                    on_existing=settings.on_existing,
                    ranked=learner.ranked(begun, batch.embeddings_ND, codes_NL),
                    contents=chunk.contents,
                )
            learning = None
            if is_new:
                what = f"{name}: learning from rows from {batch.first_row:,}"
                within = partial(_at_work, "learn", stages, watchdog, what)
                learning = learner.start(begun, batch, codes_NL, placement, within)
            new = placement.new
            spooled = None
            if spool is not None and new:
                with stages.timed("commit"):
                    spooled = spool.append([batch.item_ids[each] for each in new], batch.embeddings_ND[new])
            opened.check_unchanged()
            elapsed_s = time.monotonic() - started
            with stages.timed("commit"):
                writer.commit_chunk(
                    ledger,
                    batch,
                    codes_NL,
                    [Metric("rows_per_s", batch.rows_read / max(elapsed_s, 1e-9)), *stages.metrics()],
                    placement=placement,
                    learned=partial(_learned, learning, stages),
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
            at_once = partial(_at_once, writer, learner, spool, stages)
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
                in_hand.take(name, signature, row)
                yield rows
                if fault is not None:
                    raise fault
                started = time.monotonic()
        if row < source.rows:
            raise BadFileError(f"{row:,} rows can be read of the {source.rows:,} that it declares")


@contextlib.contextmanager
def _at_once(writer: Writer, learner: Learner, spool: Spool | None, stages: Stages) -> Iterator[None]:
    """One transaction for several chunks. What is remembered of them is forgotten when they are taken back."""
    end = None if spool is None else spool.end
    try:
        with contextlib.ExitStack() as transaction:
            transaction.enter_context(writer.at_once())
            yield
            with stages.timed("commit"):
                transaction.close()
    except BaseException:
        learner.forget()
        writer.forget_cached()
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


def _learned(learning: Future[Lesson | None] | None, stages: Stages) -> Learned | None:
    """What a chunk leaves, once it has been learned from: the last that its commit waits for."""
    if learning is None:
        return None
    with stages.waiting("commit"):
        lesson = learning.result()
    return None if lesson is None else lesson.learned


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
                chunk = Encoded(batch, content_hashes(batch.embeddings_ND))
            yield chunk

    def copy(chunk: Encoded) -> Encoded:
        with _at_work("copy", stages, watchdog, f"{name}: copying rows from {chunk.batch.first_row:,}"):
            return dataclasses.replace(chunk, on_device=copied(encoder, chunk.batch.embeddings_ND))

    def encode(chunk: Encoded) -> Encoded:
        what = f"{name}: encoding rows from {chunk.batch.first_row:,}"
        # While chunks wait to be committed, commits get a core to themselves.
        with (
            _at_work("encode", stages, watchdog, what),
            leaving_a_core() if demand.is_met else contextlib.nullcontext(),
        ):
            codes_NL = encode_rows(encoder, chunk.batch.embeddings_ND, chunk.on_device)
            return dataclasses.replace(chunk, on_device=None, codes_NL=codes_NL)

    demand = Demand()
    if source.rows - ledger.rows_done <= at_a_time:
        return mapped(encode, read())  # a single chunk has nothing to overlap with
    chunks = ahead(read(), "read")
    if encoder.device.type != "cpu":
        chunks = ahead(mapped(copy, chunks), "copy")
    return ahead(mapped(encode, chunks), "encode", _PATIENCE_S, demand)


def copied(encoder: Encoder, embeddings_ND: FloatArray) -> OnDevice | None:
    """Rows on the device; None where it has not memory enough for all at once. Raises DeviceError when it fails."""
    try:
        with device_errors():
            return encoder.copy(embeddings_ND)
    except MachineError:
        return None


def encode_rows(encoder: Encoder, embeddings_ND: FloatArray, on_device: OnDevice | None = None) -> CodeArray:
    """Codes (N×L), in halves where the device has not memory enough for all at once.

    `on_device` are the same rows, where they were copied there already. Raises MachineError when even few rows do
    not fit, DeviceError when the device fails otherwise.
    """
    try:
        return encoder.encode(embeddings_ND) if on_device is None else encoder.encode_copied(on_device)
    except (MemoryError, RuntimeError) as error:
        # torch's own kind is told by its name: torch stays in its room.
        if not isinstance(error, MemoryError) and type(error).__name__ != "OutOfMemoryError":
            raise DeviceError(f"the device failed: {_first_line(error)}; start the daemon again") from error
        rows = embeddings_ND.shape[0]
        if rows <= _FEWEST_ROWS:
            raise MachineError(f"out of memory while encoding {rows} rows: {_first_line(error)}") from error
    half = rows // 2
    return np.concatenate([encode_rows(encoder, embeddings_ND[:half]), encode_rows(encoder, embeddings_ND[half:])])


@contextlib.contextmanager
def device_errors() -> Iterator[None]:
    """A device's failure as DeviceError, its lack of memory as MachineError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # torch's own kind is told by its name: torch stays in its room.
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            raise MachineError(f"out of memory: {_first_line(error)}") from error
        raise DeviceError(f"the device failed: {_first_line(error)}; start the daemon again") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def wrong_dimension(found: int, expected: int, whose: str) -> BadFileError:
    return BadFileError(f"wrong dimension: {found}, expected {expected} ({whose})")
