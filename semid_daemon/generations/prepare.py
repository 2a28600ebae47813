"""The next generation beside the active one: trained, given the whole catalogue, compared. Piece by piece.

Every long function here is a generator whose steps take about a second at most, so that files, commands and the
heartbeat have their turns in between. What is half done when a process dies is begun anew (a training) or gone on
with (everything else).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from semid_daemon.base.types import CodeArray, Codebooks, FloatArray, Tick, TrainingStep
from semid_daemon.codebooks.baseline import measure_baseline
from semid_daemon.codebooks.files import save_codebooks, staged_codebooks
from semid_daemon.codebooks.matching import match_codebooks
from semid_daemon.codebooks.sampling import max_sample_rows
from semid_daemon.codebooks.trainers import make_trainer, training_settings
from semid_daemon.config import Config
from semid_daemon.generations.source_rows import RowsGoneError, SourceChunk, SourceRows
from semid_daemon.ingest.learner import Learner
from semid_daemon.quantizer import Device, Encoder, neighbours, quantization_errors, shared_prefixes
from semid_daemon.quantizer.device_faults import device_errors, encode_rows
from semid_daemon.runtime.background import iterate_in_background, run_in_background
from semid_daemon.runtime.device_watchdog import Watchdog
from semid_daemon.runtime.events import EventLog
from semid_daemon.store.write.chunks import Chunk
from semid_daemon.store.write.generations import Generation, Origin
from semid_daemon.store.write.store import Store
from semid_daemon.store.write.telemetry import Metric

Steps = Generator[None, None, None]

_ROWS_AT_ONCE = 20_000
_BASELINE_ROWS = 65_536
# Neighbours are looked for among so many rows of so many chunks, for so many queries.
_QUALITY_ROWS = 32_768
_QUALITY_CHUNKS = 64
_QUALITY_BYTES = 256 << 20
_QUERIES = 1_024
_NEIGHBOURS = 10


class CannotPrepareError(Exception):
    """A generation cannot be prepared; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class _Trained:
    codebooks: Codebooks
    rows: int
    sample_ND: FloatArray


class GenerationBuilder:
    """`doing` sets what the heartbeat says, `tick` lets it be said."""

    def __init__(
        self,
        config: Config,
        store: Store,
        events: EventLog,
        device: Device,
        encoder: Callable[[int], Encoder],
        learner: Learner,
        kept: SourceRows,
        watchdog: Watchdog,
        *,
        doing: Callable[[str, str], None],
        tick: Tick,
    ) -> None:
        self._config = config
        self._store = store
        self._events = events
        self._device = device
        self._encoder = encoder
        self._learner = learner
        self._kept = kept
        self._watchdog = watchdog
        self._doing = doing
        self._tick = tick

    def close(self) -> None:
        """Let go of what a piece of work that ended, or was given up, had open."""
        self._kept.close()

    # -- training ----------------------------------------------------------------------------------

    def train(self, origin: Origin, requested_by: str, imported: str = "") -> Steps:
        """Prepare a generation from the candidate, or trained anew on the kept rows and matched to the active one.

        With origin "imported" from the staged codebooks of that fingerprint, whose codes keep their numbers.

        Raises CannotPrepareError, RowsGoneError, RowsChangedError, OSError or MemoryError; nothing has changed then.
        """
        active = self._store.generations.active()
        assert active is not None
        through, total_rows = self._store.chunks.last_id(), active.items
        if origin == "imported":
            trained = yield from self._imported(imported, active, through, total_rows)
        else:
            work = self._from_candidate if origin == "candidate" else self._anew
            trained = yield from work(active, through, total_rows)
        settings = training_settings(self._config.quantizer, self._config.training, trained.rows)
        settings |= {"origin": origin, "based_on": active.fingerprint}
        baseline = measure_baseline(
            Encoder(trained.codebooks, self._device), trained.sample_ND, trained.rows, self._tick
        )
        fingerprint = save_codebooks(self._config.codebooks_dir, trained.codebooks, settings)
        if fingerprint in self._store.generations.fingerprints():
            raise CannotPrepareError(
                "the codebooks came out as those of a generation that there is: nothing has changed"
            )
        generation = self._store.generations.prepare(
            fingerprint,
            trained.codebooks,
            trained_rows=trained.rows,
            baseline=baseline,
            origin=origin,
            based_on=active.number,
            trained_through=through,
            requested_by=requested_by,
            collisions=self._config.generations.collisions,
            bucket_capacity=self._config.generations.bucket_capacity,
        )
        self._events.info(
            f"generation {generation.number} prepared from {_ORIGINS[origin]}: {fingerprint};"
            f" {active.items:,} items are encoded with it now, none of them changes before `semid promote`"
        )

    def _from_candidate(self, active: Generation, through: int, total_rows: int) -> Generator[None, None, _Trained]:
        state = self._learner.candidate(active.number)
        if state is None or not state.rows:
            raise CannotPrepareError(
                f"nothing has been learned since generation {active.number} was trained;"
                " `semid train --from anew` trains on the whole catalogue"
            )
        codebooks = replace(self._encoder(active.number).codebooks, centroids_LKD=state.centroids_LKD)
        sample_ND = yield from self._sample(active, through, total_rows, _BASELINE_ROWS)
        return _Trained(codebooks, total_rows, sample_ND)

    def _imported(
        self, name: str, active: Generation, through: int, total_rows: int
    ) -> Generator[None, None, _Trained]:
        codebooks, _ = staged_codebooks(self._config, name)
        if codebooks.dim != active.dim:
            raise CannotPrepareError(f"the catalogue's embeddings have dim {active.dim}, the codebooks {codebooks.dim}")
        sample_ND = yield from self._sample(active, through, total_rows, _BASELINE_ROWS)
        return _Trained(codebooks, total_rows, sample_ND)

    def _anew(self, active: Generation, through: int, total_rows: int) -> Generator[None, None, _Trained]:
        quantizer, training = self._config.quantizer, self._config.training
        sample_ND = yield from self._sample(
            active, through, total_rows, max_sample_rows(active.dim, training.max_memory_mb, quantizer.beam_width)
        )
        if len(sample_ND) < quantizer.codebook_size:
            raise CannotPrepareError(f"{len(sample_ND):,} rows for {quantizer.codebook_size} codes")
        trainer = make_trainer(quantizer, training, self._device)
        run = self._store.telemetry.next_training_run()
        steps: Iterator[TrainingStep] = iterate_in_background(trainer.train(sample_ND), self._tick)
        if len(sample_ND) < total_rows:

            def rest() -> Iterable[FloatArray]:
                return (kept.batch.embeddings_ND for kept in self._catalogue(active, through))

            steps = itertools.chain(steps, trainer.refine(rest, training.epochs))
        for step in self._watchdog.each(steps, "training: one step"):
            self._store.telemetry.add_training_steps(run, [step])
            self._doing("training", f"layer {step.layer} step {step.layer_step} loss {step.loss:.6g}")
            yield
        old = self._encoder(active.number)
        few_ND = sample_ND[:: 1 + len(sample_ND) // (4 * _BASELINE_ROWS)]
        new_NL = yield from self._encoded(Encoder(trainer.codebooks, self._device), few_ND)
        old_NL = yield from self._encoded(old, few_ND)
        self._doing("training", "matching code numbers to the active generation's")
        matched = run_in_background(
            lambda: match_codebooks(trainer.codebooks, old.codebooks, new_NL, old_NL), self._tick
        )
        return _Trained(matched, total_rows, few_ND)

    def _encoded(self, encoder: Encoder, rows_ND: FloatArray) -> Generator[None, None, CodeArray]:
        codes = []
        for start in range(0, len(rows_ND), self._config.ingest.chunk_rows):
            codes.append(encode_rows(encoder, rows_ND[start : start + self._config.ingest.chunk_rows]))
            yield
        return np.concatenate(codes)

    # -- kept rows -----------------------------------------------------------------------------------

    def _sample(
        self, generation: Generation, through: int, total_rows: int, max_rows: int
    ) -> Generator[None, None, FloatArray]:
        """Rows of the catalogue, every subset equally likely, read in steps."""
        found = []
        wanted = np.arange(total_rows)
        if total_rows > max_rows:
            random = np.random.default_rng(self._config.quantizer.seed)
            wanted = np.sort(random.choice(total_rows, size=max_rows, replace=False))
        seen = 0
        for kept in self._catalogue(generation, through):
            rows = len(kept.batch.item_ids)
            low, high = np.searchsorted(wanted, [seen, seen + rows])
            found.append(kept.batch.embeddings_ND[wanted[low:high] - seen])
            seen += rows
            self._doing("preparing", f"sampling: {seen:,} of {total_rows:,} items")
            yield
        if seen != total_rows and self._config.ingest.on_existing == "keep":
            raise CannotPrepareError(f"{total_rows - seen:,} of {total_rows:,} items have no kept embeddings")
        return np.concatenate([each for each in found if len(each)])

    def _catalogue(self, generation: Generation, through: int) -> Iterator[SourceChunk]:
        """The rows of a generation's items from chunks up to one, in the order of their commits."""
        after = 0
        while chunks := self._store.chunks.after(after, most=1_000):
            for chunk in chunks:
                if chunk.id > through:
                    return
                yield self._kept.read(chunk, generation.number)
                self._tick()
            after = chunks[-1].id

    # -- taking over ---------------------------------------------------------------------------------

    def backfill(self, number: int) -> Steps:
        """Give a generation that is not active every item that the active one has, chunk by chunk."""
        active = self._store.generations.active()
        assert active is not None
        while True:
            generation = self._store.generations.get(number)
            assert generation is not None
            chunk = next(iter(self._store.chunks.after(generation.encoded_through)), None)
            if chunk is None:
                break
            self._doing("preparing", f"generation {number}: {generation.items:,} of {active.items:,} items")
            self._encode_chunk(generation, chunk, self._kept.read(chunk, active.number))
            yield
        lacking = self._store.generations.lacking_items(number)
        if lacking:
            raise RowsGoneError(f"generation {number} lacks {lacking:,} items of generation {active.number}")

    def _encode_chunk(self, generation: Generation, chunk: Chunk, kept: SourceChunk) -> None:
        number, batch = generation.number, kept.batch
        if not batch.item_ids:
            codes_NL = np.empty((0, generation.layers), np.int32)
        else:
            with self._watchdog.watch(f"generation {number}: encoding chunk {chunk.id}"):
                encoder = self._encoder(number)
                codes_NL = run_in_background(lambda: encode_rows(encoder, batch.embeddings_ND), self._tick)
        plan = self._store.items.reassign(
            number, batch, codes_NL, kept.contents, self._learner.ranked(number, batch.embeddings_ND, codes_NL)
        )
        lesson = None
        if chunk.id > generation.trained_through and not self._store.generations.was_trained_on(number, chunk.file_id):
            with device_errors():
                lesson = self._learner.learn(number, batch, codes_NL, plan)
        self._store.generations.backfill_chunk(
            generation, chunk, batch, plan, None if lesson is None else lesson.learned
        )
        self._learner.adopt(lesson)

    # -- comparing -----------------------------------------------------------------------------------

    def compare(self, old: int, new: int) -> Steps:
        """Measure both generations on the same rows, and keep how they compare."""
        values = {(name, layer): [value, None] for name, layer, value in self._store.comparisons.catalogue_metrics(old)}
        for name, layer, value in self._store.comparisons.catalogue_metrics(new):
            values.setdefault((name, layer), [None, None])[1] = value
        values |= yield from self._churn(old, new)
        qualities = yield from self._qualities([old, new])
        for side, metrics in enumerate(qualities):
            for metric in metrics:
                values.setdefault((metric.name, metric.layer), [None, None])[side] = metric.value
        self._store.comparisons.set(
            old, new, [(name, layer, pair[0], pair[1]) for (name, layer), pair in values.items()]
        )

    def _churn(self, old: int, new: int) -> Generator[None, None, dict[tuple[str, int | None], list[float | None]]]:
        """Share of items that change their code, by layer, and their whole semantic ID (layer None)."""
        items, moved, after = 0, np.zeros(0, np.int64), ""
        whole = 0
        while True:
            pairs, last = self._store.items.semantic_id_pairs(old, new, _ROWS_AT_ONCE, after)
            if pairs:
                befores, nows = ([semantic_id.split("-") for semantic_id in side] for side in zip(*pairs, strict=True))
                common = min(len(befores[0]), len(nows[0]))
                differ_NL = np.array([row[:common] for row in befores]) != np.array([row[:common] for row in nows])
                moved = differ_NL.sum(axis=0) + (moved if moved.size else 0)
                whole += sum(before != now for before, now in pairs)
                items += len(pairs)
            if last is None:
                break
            after = last
            yield
        shares: dict[tuple[str, int | None], list[float | None]] = {
            ("churn", layer): [None, float(count) / max(items, 1)] for layer, count in enumerate(moved)
        }
        return shares | {("churn", None): [None, whole / max(items, 1)]}

    def measure(self, number: int) -> Steps:
        """Record a generation's quality on a sample of its items."""
        (metrics,) = yield from self._qualities([number])
        self._store.comparisons.set_quality(number, metrics)

    def _qualities(self, numbers: list[int]) -> Generator[None, None, list[list[Metric]]]:
        """Error and neighbour recall of generations on the same rows, in bounded time and memory."""
        rows_ND = yield from self._quality_rows()
        if len(rows_ND) <= _NEIGHBOURS:
            return [[] for _ in numbers]
        codes = []
        for number in numbers:
            codes.append((yield from self._encoded(self._encoder(number), rows_ND)))
        self._doing("preparing", "comparing neighbours")
        sums, queries = np.zeros((len(numbers), max(each.shape[1] for each in codes))), 0
        for nearest_QC in neighbours(rows_ND, _QUERIES, self._device, _NEIGHBOURS):
            for index, codes_NL in enumerate(codes):
                ours = shared_prefixes(codes_NL, queries, nearest_QC)
                sums[index, : len(ours)] += np.array(ours) * len(nearest_QC)
            queries += len(nearest_QC)
            yield
        qualities = []
        for index, (number, codes_NL) in enumerate(zip(numbers, codes, strict=True)):
            codebooks = self._encoder(number).codebooks
            error = float(quantization_errors(codebooks, rows_ND, codes_NL, self._device).mean(dtype=np.float64))
            recalls = (sums[index, : codebooks.layers] / queries).tolist()
            qualities.append(
                [
                    Metric("error", error),
                    *(Metric("neighbour_recall", recall, layer) for layer, recall in enumerate(recalls)),
                ]
            )
        return qualities

    def _quality_rows(self) -> Generator[None, None, FloatArray]:
        """A sample of the catalogue's rows in random order, from so few chunks that reading them takes bounded time."""
        active = self._store.generations.active()
        assert active is not None
        random = np.random.default_rng(self._config.quantizer.seed)
        sizes = self._store.chunks.sizes()
        most = min(_QUALITY_ROWS, _QUALITY_BYTES // (4 * active.dim))
        if len(sizes) > _QUALITY_CHUNKS:
            weights = np.array([size for _, size in sizes], dtype=np.float64)
            drawn = random.choice(len(sizes), _QUALITY_CHUNKS, replace=False, p=weights / weights.sum())
            sizes = [sizes[index] for index in np.sort(drawn)]
        total = sum(size for _, size in sizes)
        found = []
        for chunk in self._store.chunks.by_ids([chunk_id for chunk_id, _ in sizes]):
            rows_ND = self._kept.read(chunk, active.number).batch.embeddings_ND
            share = min(len(rows_ND), -(-most * len(rows_ND) // max(total, 1)))
            found.append(rows_ND[random.choice(len(rows_ND), share, replace=False)])
            yield
        if not found:
            return np.empty((0, active.dim), np.float32)
        rows_ND = np.concatenate([each for each in found if len(each)])
        return rows_ND[random.permutation(len(rows_ND))][:most]

    # -- deleting ------------------------------------------------------------------------------------

    def delete(self, number: int) -> Steps:
        """Delete a generation's rows, then its codebooks."""
        fingerprint = self._store.generations.fingerprint(number)
        after: tuple[int, str] | None = (0, "")
        while after is not None:
            self._doing("tidying", f"deleting generation {number}")
            after = self._store.generations.delete_rows(number, _ROWS_AT_ONCE, after)
            yield
        path = self._config.codebooks_dir / f"{fingerprint}.safetensors"
        path.unlink(missing_ok=True)
        self._events.info(f"generation {number} deleted: {fingerprint}")


_ORIGINS = {
    "candidate": "the candidate",
    "anew": "the whole catalogue",
    "first": "the first rows",
    "imported": "codebooks trained elsewhere",
}
