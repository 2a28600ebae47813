"""One drop file on its way through: opened and known by its digest, surveyed, encoded, committed."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, MutableMapping
from dataclasses import dataclass

import numpy as np

from semid_daemon.config import Ingest
from semid_daemon.drop.reading import OpenFile, digest_of, open_drop_file, signature_text
from semid_daemon.errors import BadFileError, DeviceError, IncompleteFileError, MachineError
from semid_daemon.failpoints import failpoint
from semid_daemon.formats import EmbeddingSource, open_source
from semid_daemon.in_hand import InHand
from semid_daemon.learning import Learner
from semid_daemon.quantizer import Encoder
from semid_daemon.records import CodeArray, DropFile, EmbeddingBatch, FloatArray
from semid_daemon.store.rows import ZERO_VECTOR
from semid_daemon.store.writer import LedgerFile, Metric, Writer
from semid_daemon.watchdog import Watchdog

_FEWEST_ROWS = 64  # a chunk that needs less than this on the device is not cut further

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
    keep = np.asarray(batch.embeddings_ND.any(axis=1))
    zeros = int(keep.size - np.count_nonzero(keep))
    if not zeros:
        return batch
    return dataclasses.replace(
        batch,
        item_ids=[item_id for item_id, kept in zip(batch.item_ids, keep.tolist(), strict=True) if kept],
        embeddings_ND=np.ascontiguousarray(batch.embeddings_ND[keep]),
        rejected={**batch.rejected, ZERO_VECTOR: zeros},
    )


def survey(writer: Writer, waiting: Waiting, settings: Ingest, check_dim: Callable[[int], None], tick: Tick) -> Waiting:
    """Read a file through while there are no codebooks yet: is it whole, and how many rows can be used?"""
    with open_embeddings(waiting.file) as (opened, source):
        if source.rows:
            check_dim(source.dim)
        rows = 0
        for batch in source.batches(settings.chunk_rows):
            rows += len(usable(batch, settings).item_ids)
            tick()
        opened.check_unchanged()
        writer.set_surveyed(waiting.ledger.id, rows=source.rows, dim=source.dim, rows_usable=rows)
    return Waiting(waiting.file, writer.file(waiting.ledger.id))


def rows_of(waiting: list[Waiting], settings: Ingest, tick: Tick) -> Iterator[EmbeddingBatch]:
    """All usable rows of several files, in order."""
    for each in waiting:
        with open_embeddings(each.file) as (opened, source):
            for batch in source.batches(settings.chunk_rows):
                yield usable(batch, settings)
                tick()
            opened.check_unchanged()


def encode_steps(
    writer: Writer,
    waiting: Waiting,
    *,
    generation: int,
    encoder: Callable[[int], Encoder],
    learner: Learner,
    settings: Ingest,
    in_hand: InHand,
    watchdog: Watchdog,
) -> Generator[int, None, None]:
    """Encode and commit a file chunk by chunk, from the row where it stopped before, with the generation it began with.

    Yields the number of rows read: first those committed by earlier runs, then those of each chunk, once
    it is committed. Before each commit it looks whether the file is still the one that was hashed.
    """
    name, signature = waiting.file.name, signature_text(waiting.file)
    with open_embeddings(waiting.file) as (opened, source):
        begun = waiting.ledger.generation or generation
        dim = encoder(begun).codebooks.dim
        if source.rows and source.dim != dim:
            raise wrong_dimension(source.dim, dim, f"generation {begun}")
        ledger = writer.begin_loading(
            waiting.ledger.id, rows=source.rows, dim=source.dim, generation=begun, chunk_rows=settings.chunk_rows
        )
        row = ledger.rows_done
        yield row
        if ledger.status != "loading":
            return
        is_new = not writer.was_trained_on(begun, ledger.id)
        started = time.monotonic()
        for read in source.batches(ledger.chunk_rows or settings.chunk_rows, row):
            batch = usable(read, settings)
            with watchdog.watch(f"{name}: encoding rows from {row:,}"):
                codes_NL = encode_rows(encoder(begun), batch.embeddings_ND)
            placement = writer.place(
                begun,
                ledger.id,
                batch,
                codes_NL,
                on_existing=settings.on_existing,
                ranked=learner.ranked(begun, batch.embeddings_ND, codes_NL),
            )
            learned = None
            if is_new:
                with watchdog.watch(f"{name}: learning from rows from {row:,}"), device_errors():
                    learned = learner.learn(begun, batch, codes_NL, placement)
            opened.check_unchanged()
            elapsed_s = time.monotonic() - started
            writer.commit_chunk(
                ledger,
                batch,
                codes_NL,
                [Metric("rows_per_s", batch.rows_read / max(elapsed_s, 1e-9))],
                placement=placement,
                learned=learned and learned[0],
            )
            learner.adopt(learned)
            row = batch.first_row + batch.rows_read
            in_hand.take(name, signature, row)
            rows = batch.rows_read
            del read, batch, codes_NL, placement, learned  # a file may be laid aside here for others
            yield rows
            started = time.monotonic()


def encode_rows(encoder: Encoder, embeddings_ND: FloatArray) -> CodeArray:
    """Codes (N×L), in halves where the device has not memory enough for all at once.

    Raises MachineError when even few rows do not fit, DeviceError when the device fails otherwise.
    """
    try:
        return encoder.encode(embeddings_ND)
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
