"""The catalogue's figures as a text file for the textfile collector of Prometheus' node_exporter."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from semid_daemon.base.atomic_file import atomic_write_text
from semid_daemon.base.errors import StoreError
from semid_daemon.config import Config
from semid_daemon.runtime.events import EventLog
from semid_daemon.store.read.connection import ReadConnection
from semid_daemon.store.read.metrics import Metrics, MetricsReader
from semid_daemon.store.read.status import Status, StatusQueries
from semid_daemon.store.write.telemetry import Gauge

_INTERVAL_S = 10.0


Sample = tuple[dict[str, str], float]  # labels and value


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: what it means, and its values by their labels."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    samples: list[Sample] = field(default_factory=list)


def exposition(families: Iterable[Family], labels: Mapping[str, str]) -> str:
    """The text format 0.0.4 of Prometheus; `labels` are put on every sample. Families without samples are left out."""
    lines = []
    for family in families:
        if not family.samples:
            continue
        lines += [f"# HELP {family.name} {_escaped(family.help)}", f"# TYPE {family.name} {family.kind}"]
        for own, value in family.samples:
            text = ",".join(f'{name}="{_escaped(label, quotes=True)}"' for name, label in {**labels, **own}.items())
            lines.append(f"{family.name}{{{text}}} {float(value)!r}")
    return "\n".join(lines) + "\n"


def _escaped(text: str, *, quotes: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quotes else text


def families(status: Status, metrics: Metrics, gauges: Mapping[str, Gauge], version: str) -> list[Family]:
    """What is worth an alert or a graph, of a consistent look at the database and what the daemon measures itself."""
    return [*_of_the_daemon(status, metrics, gauges, version), *_of_the_catalogue(status, metrics), *_of_drift(metrics)]


def _of_the_daemon(status: Status, metrics: Metrics, gauges: Mapping[str, Gauge], version: str) -> list[Family]:
    alive = None if status.heartbeat_at is None else datetime.fromisoformat(status.heartbeat_at).timestamp()
    info = {"version": version, "device": status.device or "", "fingerprint": status.fingerprint or ""}
    files: list[Sample] = [({"status": name}, count) for name, count in status.files.items()]
    rows: list[Sample] = [({"outcome": name}, count) for name, count in metrics.rows.items()]
    return [
        Family("semid_info", "gauge", "What runs: always 1.", [(info, 1)]),
        Family("semid_state", "gauge", "The state that the daemon is in: always 1.", [({"state": status.state}, 1)]),
        _gauge("semid_heartbeat_timestamp_seconds", alive, "When the daemon last said that it lives."),
        Family("semid_files", "gauge", "Files by state.", files),
        Family("semid_rows_total", "counter", "Rows committed, by what became of them.", rows),
        _gauge("semid_rows_per_second", gauges.get("rows_per_s"), "Rows committed per second, over the last 15 s."),
        _gauge("semid_backlog_bytes", gauges.get("bytes_left"), "Size of the files that wait."),
        _gauge("semid_process_resident_bytes", gauges.get("process_rss_bytes"), "The daemon's memory."),
        _gauge("semid_state_free_bytes", gauges.get("disk_free_bytes"), "Space left beside the database."),
        _gauge("semid_gpu_percent", gauges.get("gpu_percent"), "How busy the GPU is."),
        _gauge("semid_gpu_memory_used_bytes", gauges.get("gpu_memory_used_bytes"), "The GPU's memory in use."),
    ]


def _of_the_catalogue(status: Status, metrics: Metrics) -> list[Family]:
    coverage = {layer.layer: layer.coverage for layer in status.layers}
    dead_codes = {layer.layer: layer.dead_codes for layer in status.layers}
    perplexity = {layer.layer: layer.perplexity for layer in status.layers}
    return [
        _gauge("semid_generation", status.generation, "The active generation."),
        _gauge("semid_items", status.items, "Items that have a semantic ID in the active generation."),
        _gauge("semid_unique_rate", status.unique_rate, "Distinct semantic IDs per item."),
        _gauge("semid_singleton_rate", status.singleton_rate, "Share of the items that are alone under their ID."),
        _gauge("semid_largest_bucket_items", status.max_bucket, "Items under the semantic ID that has most."),
        _gauge("semid_exact_duplicate_items", status.exact_duplicates, "Items with the embedding of another item."),
        _by_layer("semid_loss", "Loss of the last training step.", metrics.loss),
        _by_layer("semid_coverage", "Share of codes in use.", coverage),
        _by_layer("semid_dead_codes", "Codes not in use.", dead_codes),
        _by_layer("semid_perplexity", "Exponential of the entropy of code use.", perplexity),
    ]


def _of_drift(metrics: Metrics) -> list[Family]:
    texts = {
        "drift_error_ratio": "Error of recent rows per error of the training rows.",
        "drift_error_over_base": "The same over what rows without drift have: 1 means no drift.",
        "drift_js": "Jensen-Shannon divergence in bits of recent rows' code use from the training rows'.",
        "drift_tail_share": "Share of recent rows whose error is beyond the training rows' 99th percentile.",
        "drift_dead_alive": "Codes that no training row used and recent rows do.",
        "drift_collision_rate": "Share of recent rows whose semantic ID was taken.",
    }
    samples: dict[str, list[Sample]] = {name: [] for name in texts}
    for (name, layer), value in metrics.drift.items():
        if name in samples:
            samples[name].append(({} if layer is None else {"layer": str(layer)}, value))
    return [Family(f"semid_{name}", "gauge", text, samples[name]) for name, text in texts.items()]


def _gauge(name: str, value: Gauge, text: str) -> Family:
    return Family(name, "gauge", text, [] if value is None or isinstance(value, str) else [({}, value)])


def _by_layer(name: str, text: str, values: Mapping[int, float]) -> Family:
    return Family(name, "gauge", text, [({"layer": str(layer)}, value) for layer, value in values.items()])


class MetricsFile:
    """Written every ten seconds, whole or not at all. That it cannot be written is told once and stops nothing."""

    def __init__(self, config: Config, version: str, events: EventLog, now: Callable[[], float] = time.monotonic):
        self._path = config.metrics_textfile
        self._database = config.database
        self._labels = {"catalogue": str(config.root)}
        self._version = version
        self._events = events
        self._now = now
        self._due = -float("inf")
        self._told: str | None = None

    def keep(self, *, at_once: bool = False) -> None:
        """Write the file when it is due, or `at_once`."""
        if self._path is None or (self._now() < self._due and not at_once):
            return
        self._due = self._now() + _INTERVAL_S
        fault = None
        try:
            with ReadConnection(self._database) as connection, connection.snapshot():
                status = StatusQueries(connection).status()
                metrics = MetricsReader(connection).read_metrics()
            text = exposition(families(status, metrics, self._events.figures, self._version), self._labels)
            # Readable for a collector that runs as another user, whatever the umask.
            # Not durable: figures are outdated in ten seconds, and a slow disk would hold up the loop.
            atomic_write_text(self._path, text, mode=0o644, durable=False)
        except (OSError, StoreError) as error:
            fault = getattr(error, "strerror", None) or str(error)
            if self._told != fault:
                self._events.warning(f"{self._path}: cannot be written: {fault}; see monitoring.metrics_textfile")
        self._told = fault
