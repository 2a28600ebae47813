"""How good the codebooks of generations are, and how two generations compare: measured on the same sample of items."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np

from semid_daemon.base.types import CodeArray, FloatArray
from semid_daemon.config import Config
from semid_daemon.generations.encoder_cache import EncoderCache
from semid_daemon.generations.source_rows import SourceRows
from semid_daemon.generations.steps import Steps
from semid_daemon.quantizer import Encoder, neighbours, quantization_errors, shared_prefixes
from semid_daemon.quantizer.device_faults import encode_rows
from semid_daemon.runtime.context import WorkContext
from semid_daemon.store.comparison import Churn
from semid_daemon.store.write.store import Store
from semid_daemon.store.write.telemetry import Metric

# The sample is taken from so few chunks that reading them takes bounded time and memory.
_SAMPLE_ROWS = 32_768
_SAMPLE_CHUNKS = 64
_SAMPLE_BYTES = 256 << 20
_QUERIES = 1_024  # rows of the sample whose neighbours are looked for
_NEIGHBOURS = 10
_CHURN_ROWS = 20_000  # items compared in one step

Values = dict[tuple[str, int | None], list[float | None]]  # (name, layer): [of the old generation, of the new one]


def encode_in_steps(encoder: Encoder, rows_ND: FloatArray, chunk_rows: int) -> Generator[None, None, CodeArray]:
    """Codes (N×L int32) of rows (N×D float32), yielding after every `chunk_rows`. Raises as `encode_rows` does."""
    codes = []
    for start in range(0, len(rows_ND), chunk_rows):
        codes.append(encode_rows(encoder, rows_ND[start : start + chunk_rows]))
        yield
    return np.concatenate(codes)


class Evaluation:
    """Measures generations on rows of the active generation's items and records the results."""

    def __init__(
        self, config: Config, store: Store, source_rows: SourceRows, encoders: EncoderCache, context: WorkContext
    ) -> None:
        self._seed = config.quantizer.seed
        self._chunk_rows = config.ingest.chunk_rows
        self._store = store
        self._source_rows = source_rows
        self._encoders = encoders
        self._context = context

    def measure(self, number: int) -> Steps:
        """Record a generation's quality on a sample of its items."""
        (metrics,) = yield from self._qualities([number])
        self._store.comparisons.set_quality(number, metrics)

    def compare(self, old: int, new: int) -> Steps:
        """Measure two generations on the same rows, and record how they compare."""
        before, after = (self._store.comparisons.catalogue_metrics(number) for number in (old, new))
        values: Values = {key: [before.get(key), after.get(key)] for key in before | after}
        values |= yield from self._churn(old, new)
        qualities = yield from self._qualities([old, new])
        for side, metrics in enumerate(qualities):
            for metric in metrics:
                values.setdefault((metric.name, metric.layer), [None, None])[side] = metric.value
        self._store.comparisons.set(
            old, new, [(name, layer, pair[0], pair[1]) for (name, layer), pair in values.items()]
        )

    def _churn(self, old: int, new: int) -> Generator[None, None, Values]:
        """Share of items that change their code, by layer, and their whole semantic ID (layer None)."""
        churn, item_id = Churn(), ""
        while moves := self._store.comparisons.moves_after(old, new, _CHURN_ROWS, item_id):
            churn.add(moves)
            item_id = moves[-1].item_id
            yield
        items = max(churn.items, 1)
        shares: Values = {("churn", layer): [None, moved / items] for layer, moved in enumerate(churn.moved_by_layer)}
        return shares | {("churn", None): [None, churn.moved / items]}

    def _qualities(self, numbers: list[int]) -> Generator[None, None, list[list[Metric]]]:
        """Error and neighbour recall of generations on the same rows; nothing where the rows are too few."""
        rows_ND = yield from self._sample()
        if len(rows_ND) <= _NEIGHBOURS:
            return [[] for _ in numbers]
        codes = []
        for number in numbers:
            codes.append((yield from encode_in_steps(self._encoders.get(number), rows_ND, self._chunk_rows)))
        recalls = yield from self._recalls(rows_ND, codes)
        qualities = []
        for number, codes_NL, recall_L in zip(numbers, codes, recalls, strict=True):
            codebooks = self._encoders.get(number).codebooks
            errors_N = quantization_errors(codebooks, rows_ND, codes_NL, self._encoders.device)
            error = Metric("error", float(errors_N.mean(dtype=np.float64)))
            qualities.append(
                [error, *(Metric("neighbour_recall", recall, layer) for layer, recall in enumerate(recall_L))]
            )
        return qualities

    def _recalls(self, rows_ND: FloatArray, codes: list[CodeArray]) -> Generator[None, None, list[list[float]]]:
        """Of each codes (N×L): the mean share of a row's nearest neighbours with the same prefix, by layer."""
        self._context.say("preparing", "comparing neighbours")
        sums = [np.zeros(codes_NL.shape[1]) for codes_NL in codes]
        queries = 0
        for nearest_QC in neighbours(rows_ND, _QUERIES, self._encoders.device, _NEIGHBOURS):
            for sum_L, codes_NL in zip(sums, codes, strict=True):
                sum_L += np.array(shared_prefixes(codes_NL, queries, nearest_QC)) * len(nearest_QC)
            queries += len(nearest_QC)
            yield
        return [(sum_L / queries).tolist() for sum_L in sums]

    def _sample(self) -> Generator[None, None, FloatArray]:
        """Rows of the active generation's items (N×D float32) in random order, from a bounded number of chunks."""
        active = self._store.generations.active()
        assert active is not None
        random = np.random.default_rng(self._seed)
        sizes = self._store.chunks.sizes()
        most = min(_SAMPLE_ROWS, _SAMPLE_BYTES // (4 * active.dim))
        if len(sizes) > _SAMPLE_CHUNKS:
            weights = np.array([size for _, size in sizes], dtype=np.float64)
            drawn = random.choice(len(sizes), _SAMPLE_CHUNKS, replace=False, p=weights / weights.sum())
            sizes = [sizes[index] for index in np.sort(drawn)]
        total = sum(size for _, size in sizes)
        parts = [np.empty((0, active.dim), np.float32)]
        for chunk in self._store.chunks.by_ids([chunk_id for chunk_id, _ in sizes]):
            rows_ND = self._source_rows.read(chunk, active.number).batch.embeddings_ND
            share = min(len(rows_ND), -(-most * len(rows_ND) // max(total, 1)))
            if share:
                parts.append(rows_ND[random.choice(len(rows_ND), share, replace=False)])
            yield
        rows_ND = np.concatenate(parts)
        return rows_ND[random.permutation(len(rows_ND))][:most]
