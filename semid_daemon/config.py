"""semid.toml -> Config. Unknown keys and wrong values are refused with the key's name."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from semid_daemon.base.drop_file import FieldNames
from semid_daemon.base.errors import ConfigError

DEFAULT_NAME = "semid.toml"

Positive = Annotated[int, msgspec.Meta(ge=1)]
NonNegative = Annotated[int, msgspec.Meta(ge=0)]
FieldName = Annotated[str, msgspec.Meta(min_length=1)]
Device = Annotated[str, msgspec.Meta(pattern=r"^(auto|cpu|mps|cuda(:[0-9]+)?)$")]


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of semid.toml."""


class Paths(_Section, frozen=True):
    """Directories; relative ones start at the directory of semid.toml."""

    drop: str = "drop"
    done: str = "done"
    rejected: str = "rejected"
    state: str = "state"


class Drop(_Section, frozen=True):
    """How files are noticed, and what becomes of them."""

    on_done: Literal["move", "keep", "delete"] = "move"
    settle_ms: Annotated[int, msgspec.Meta(ge=10, le=600_000)] = 200
    incomplete_grace_s: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 10.0
    rescan_s: Annotated[float, msgspec.Meta(ge=0.1, le=3_600)] = 30.0


class Quantizer(_Section, frozen=True):
    """What a generation is made of, and the device that computes."""

    dim: Annotated[int, msgspec.Meta(ge=1, le=65_536)] | None = None
    layers: Annotated[int, msgspec.Meta(ge=1, le=16)] = 3
    codebook_size: Annotated[int, msgspec.Meta(ge=2, le=65_536)] = 256
    normalize_residuals: bool = True
    balanced: bool = False
    beam_width: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    seed: NonNegative = 42
    device: Device = "auto"


class Training(_Section, frozen=True):
    """The training that publishes generation 1."""

    trainer: Literal["lloyd", "grid"] = "lloyd"
    min_rows: Positive = 3072
    max_memory_mb: Annotated[int, msgspec.Meta(ge=16)] = 2048
    iterations: Positive = 100
    tolerance: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 1e-4
    epochs: NonNegative = 2
    grid_steps: Positive = 30
    grid_batch_rows: Positive = 2048
    grid_init_buffer_size: Positive = 3072


class Ingest(_Section, frozen=True):
    """How rows are committed."""

    chunk_rows: Annotated[int, msgspec.Meta(ge=16, le=1_000_000)] = 32768
    on_existing: Literal["keep", "replace"] = "keep"
    on_zero: Literal["reject", "encode"] = "reject"
    fairness: Literal["turns", "order"] = "turns"
    retry_s: Annotated[float, msgspec.Meta(gt=0, le=3_600)] = 5.0
    watchdog_s: Annotated[float, msgspec.Meta(ge=0)] = 600.0
    max_wal_mb: Annotated[int, msgspec.Meta(ge=16)] = 1024
    vector_field: FieldName | None = None
    id_field: FieldName | None = None

    @property
    def fields(self) -> FieldNames:
        return FieldNames(self.vector_field, self.id_field)


class Generations(_Section, frozen=True):
    """How a generation goes on once it is published, and how the next one comes about."""

    mode: Literal["continual", "assign", "train"] = "continual"
    forgetting: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.3
    retrain_share: Annotated[float, msgspec.Meta(gt=0)] = 0.5
    refresh: Literal["ask", "prepare", "auto"] = "ask"
    drift_error_ratio: Annotated[float, msgspec.Meta(gt=1)] = 1.04
    drift_js: Annotated[float, msgspec.Meta(gt=0)] = 0.05
    drift_window_rows: Positive = 8192
    keep_embeddings: Literal["auto", "files", "spool", "nothing"] = "auto"
    keep_retired: NonNegative = 2
    collisions: Literal["suffix", "next-best", "shared"] = "suffix"
    bucket_capacity: Positive = 1


class Monitoring(_Section, frozen=True):
    """What other programs see of the daemon while it runs."""

    metrics_textfile: str | None = None


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole of semid.toml. `root` is the directory that relative paths start at."""

    paths: Paths = Paths()
    drop: Drop = Drop()
    quantizer: Quantizer = Quantizer()
    training: Training = Training()
    ingest: Ingest = Ingest()
    generations: Generations = Generations()
    monitoring: Monitoring = Monitoring()
    root: Path = Path(".")

    @property
    def drop_dir(self) -> Path:
        return self.root / self.paths.drop

    @property
    def done_dir(self) -> Path:
        return self.root / self.paths.done

    @property
    def rejected_dir(self) -> Path:
        return self.root / self.paths.rejected

    @property
    def state_dir(self) -> Path:
        return self.root / self.paths.state

    @property
    def database(self) -> Path:
        return self.state_dir / "semid.db"

    @property
    def codebooks_dir(self) -> Path:
        return self.state_dir / "codebooks"

    @property
    def spool_dir(self) -> Path:
        return self.state_dir / "spool"

    @property
    def spools(self) -> bool:
        """Whether processed embeddings are copied into the spool."""
        keep = self.generations.keep_embeddings
        return keep == "spool" or (keep == "auto" and self.drop.on_done == "delete")

    @property
    def in_hand(self) -> Path:
        return self.state_dir / "in-hand"

    @property
    def metrics_textfile(self) -> Path | None:
        return None if self.monitoring.metrics_textfile is None else self.root / self.monitoring.metrics_textfile

    @property
    def commands_dir(self) -> Path:
        return self.state_dir / "commands"


def find_config(path: Path | None) -> Path:
    """The configuration file to use: `path`, else $SEMID_CONFIG, else ./semid.toml."""
    if path is not None:
        return path
    return Path(os.environ.get("SEMID_CONFIG") or DEFAULT_NAME)


def load_config(path: Path) -> Config:
    """Read and check a configuration file.

    Raises ConfigError naming the file, and the key where one is at fault.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; make one with `semid init DIR`, or name it with --config") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    return parse_config(text, source=str(path), root=path.absolute().parent)


def parse_config(text: bytes, *, source: str, root: Path) -> Config:
    """Parse and check the text of a semid.toml; see `load_config`."""
    try:
        raw = msgspec.toml.decode(text)
        if "root" in raw:
            raise msgspec.ValidationError("Object contains unknown field `root`")
        config = msgspec.convert(raw, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {_name_the_key(str(error))}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source}: not valid TOML: {error}") from None
    config = msgspec.structs.replace(config, root=root)
    _check_together(config, source)
    return config


def _name_the_key(message: str) -> str:
    """msgspec's "... - at `$.drop.settle_ms`" as "drop.settle_ms: ..."."""
    match = re.match(r"^(?P<what>.*?)(?: - at `\$\.?(?P<key>[^`]*)`)?$", message, re.DOTALL)
    what, key = (match["what"], match["key"]) if match else (message, None)
    unknown = re.match(r"^Object contains unknown field `(?P<field>[^`]*)`$", what)
    if unknown:
        name = f"{key}.{unknown['field']}" if key else unknown["field"]
        return f"unknown key {name}; `semid init` writes a file with every key that there is"
    return f"{key}: {what}" if key else what


def _check_together(config: Config, source: str) -> None:
    rows, codes = config.training.min_rows, config.quantizer.codebook_size
    if rows < codes:
        raise ConfigError(
            f"{source}: training.min_rows: {rows} rows cannot fill quantizer.codebook_size = {codes} codes;"
            f" raise min_rows to {codes} or more"
        )
    if config.generations.keep_embeddings == "files" and config.drop.on_done == "delete":
        raise ConfigError(
            f'{source}: generations.keep_embeddings: "files" are not kept with drop.on_done = "delete";'
            ' choose "spool", "nothing", or another drop.on_done'
        )
    if config.training.trainer == "grid" and config.training.grid_init_buffer_size < codes:
        raise ConfigError(
            f"{source}: training.grid_init_buffer_size: must be at least quantizer.codebook_size = {codes}"
        )
    directories = {
        "paths.drop": config.drop_dir,
        "paths.done": config.done_dir,
        "paths.rejected": config.rejected_dir,
        "paths.state": config.state_dir,
    }
    drop_dir = config.drop_dir.resolve()
    for key, directory in directories.items():
        if key != "paths.drop" and directory.resolve().is_relative_to(drop_dir):
            raise ConfigError(
                f"{source}: {key}: {directory} lies inside the drop directory {config.drop_dir};"
                " choose a directory outside it"
            )


TEMPLATE = """\
# semid.toml: one catalogue. Every key is optional; the values shown are the defaults.
# Relative paths start at the directory of this file.

[paths]
drop = "drop"            # producers put files of embeddings here (write elsewhere, rename in)
done = "done"            # where a file goes once all of its rows are committed
rejected = "rejected"    # where a file goes that cannot be used, with <name>.reason.txt beside it
state = "state"          # the database, the codebooks, the lock

[drop]
on_done = "move"         # finished files: "move" to paths.done, "keep" in place, or "delete"
settle_ms = 200          # a file is read once two looks this far apart find it unchanged
incomplete_grace_s = 10  # a file shorter than its header says is rejected after resting this long
rescan_s = 30            # the directory is scanned this often even when nothing was heard of it

[quantizer]
# dim = 384              # length of an embedding; learnt from the first file if absent
layers = 3               # codes per semantic ID
codebook_size = 256      # centroids per layer
normalize_residuals = true   # L2-normalize every layer's input (the first layer's too)
balanced = false         # even buckets, at the price of a higher error and of slower encoding
beam_width = 1           # partial codes kept while a row's are searched; more is better and slower
seed = 42                # of everything random: the same rows give the same codebooks
device = "auto"          # "auto", "cpu", "cuda", "cuda:1" or "mps"; "auto" takes CUDA where there is one

[training]
trainer = "lloyd"        # "lloyd", or "grid" for the mini-batch schedule of GRID's rkmeans_train_flat
min_rows = 3072          # rows to gather before the first training
max_memory_mb = 2048     # training rows are a sample no larger than this
iterations = 100         # lloyd: at most so many per layer and run
tolerance = 1e-4         # lloyd: a layer is done when its loss falls by less than this share
epochs = 2               # lloyd: passes over all rows afterwards, where only a sample fits in max_memory_mb
grid_steps = 30          # grid: steps in all, shared out over the layers
grid_batch_rows = 2048   # grid: rows per step
grid_init_buffer_size = 3072   # grid: rows that k-means++ draws a layer's first centroids from

[ingest]
chunk_rows = 32768       # rows per transaction at most; they are read and encoded in parts of 64 MB at most
on_existing = "keep"     # an item that has an ID: "keep" it for ever, or "replace" it by that of its newest row
on_zero = "reject"       # vectors of zeros: "reject" the row, or "encode" it like any other; counted either way
fairness = "turns"       # "turns": small files do not wait for a huge one to end; "order": first come, first served
retry_s = 5              # pause after the machine's first fault with a file; doubled each time, an hour at most
watchdog_s = 600         # end the daemon when the device computes on one chunk for longer than this; 0 never
max_wal_mb = 1024        # wait for readers to end when they let the write-ahead log grow beyond this
# vector_field = "clip"  # the field of vectors in drop files, where it is none of those found by themselves
# id_field = "sku"       # the field of item IDs; a file without it needs a sidecar

[generations]
mode = "continual"       # new rows: "continual" trains a candidate beside the codebooks, "assign" only encodes,
                         # "train" prepares a new generation as soon as retrain_share has come
forgetting = 0.3         # share of what a candidate has learned that it forgets while the catalogue comes once more
retrain_share = 0.5      # "train": as a share of the rows that the active generation was trained on
refresh = "ask"          # drift: "ask" only says so, "prepare" prepares a generation, "auto" also promotes it
drift_error_ratio = 1.04 # recommend a refresh when new rows' error is so many times what it would be without drift,
drift_js = 0.05          # or their use of some layer's codes differs so much (Jensen-Shannon, in bits, 0 to 1),
drift_window_rows = 8192 # over about so many recent rows
keep_embeddings = "auto" # to encode all again: "files" (those that were finished), "spool" (float16 copies in the
                         # state directory), "nothing"; "auto": files, or the spool where drop.on_done deletes them
keep_retired = 2         # former generations that one can go back to; older ones are deleted
collisions = "suffix"    # items of one semantic ID: told apart by a "suffix"; "next-best": beyond bucket_capacity
                         # items the nearest last code with room; "shared": one ID for all, suffix 0
bucket_capacity = 1      # "next-best": items per semantic ID

[monitoring]
# metrics_textfile = "semid.prom"   # figures for Prometheus, every 10 s: in the directory that node_exporter was
                         # given with --collector.textfile.directory
"""
