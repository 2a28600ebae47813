"""semid.toml -> Config. Unknown keys and wrong values are refused with the key's name."""

from __future__ import annotations

import itertools
import json
import os
import re
import textwrap
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from semid_daemon.base.drop_file import FieldNames
from semid_daemon.base.errors import ConfigError

DEFAULT_NAME = "semid.toml"

_COMMENT_COLUMN = 25  # of the file that `semid init` writes
_TEMPLATE_WIDTH = 120

Positive = Annotated[int, Meta(ge=1)]
NonNegative = Annotated[int, Meta(ge=0)]
FieldName = Annotated[str, Meta(min_length=1)]
Device = Annotated[str, Meta(pattern=r"^(auto|cpu|mps|cuda(:[0-9]+)?)$")]


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of semid.toml."""


class Paths(_Section, frozen=True):
    """Directories; relative ones start at the directory of semid.toml."""

    drop: Annotated[str, Meta(description="producers put files of embeddings here (write elsewhere, rename in)")] = (
        "drop"
    )
    done: Annotated[str, Meta(description="a file is moved here once all of its rows are committed")] = "done"
    rejected: Annotated[
        str, Meta(description="unusable files are moved here, each with <name>.reason.txt beside it")
    ] = "rejected"
    state: Annotated[str, Meta(description="the database, the codebooks, the lock")] = "state"


class Drop(_Section, frozen=True):
    """How files are noticed, and where they go afterwards."""

    on_done: Annotated[
        Literal["move", "keep", "delete"],
        Meta(description='finished files: "move" to paths.done, "keep" in place, or "delete"'),
    ] = "move"
    settle_ms: Annotated[
        int,
        Meta(ge=10, le=600_000, description="a file is read once two checks this far apart find it unchanged"),
    ] = 200
    incomplete_grace_s: Annotated[
        float,
        Meta(
            ge=0,
            le=86_400,
            description="a file shorter than its header says is rejected once it is unchanged for this long",
        ),
    ] = 10.0
    rescan_s: Annotated[
        float,
        Meta(ge=0.1, le=3_600, description="the directory is scanned this often even when no change is reported"),
    ] = 30.0


class Quantizer(_Section, frozen=True):
    """The shape of a generation, and the device that computes."""

    dim: Annotated[
        Annotated[int, Meta(ge=1, le=65_536)] | None,
        Meta(description="length of an embedding; default: that of the first file", examples=[384]),
    ] = None
    layers: Annotated[int, Meta(ge=1, le=16, description="codes per semantic ID")] = 3
    codebook_size: Annotated[int, Meta(ge=2, le=65_536, description="centroids per layer")] = 256
    normalize_residuals: Annotated[
        bool, Meta(description="L2-normalize every layer's input (the first layer's too)")
    ] = True
    balanced: Annotated[
        bool, Meta(description="even buckets, at the price of a higher error and of slower encoding")
    ] = False
    beam_width: Annotated[
        int,
        Meta(
            ge=1,
            le=64,
            description="partial codes kept while a row is encoded; more give a lower error and take longer",
        ),
    ] = 1
    seed: Annotated[NonNegative, Meta(description="random seed: the same rows give the same codebooks")] = 42
    device: Annotated[
        Device, Meta(description='"auto", "cpu", "cuda", "cuda:1" or "mps"; "auto" takes CUDA where there is one')
    ] = "auto"


class Training(_Section, frozen=True):
    """The training that publishes generation 1."""

    trainer: Annotated[
        Literal["lloyd", "grid"],
        Meta(description='"lloyd", or "grid" for the mini-batch schedule of GRID\'s rkmeans_train_flat'),
    ] = "lloyd"
    min_rows: Annotated[Positive, Meta(description="rows to gather before the first training")] = 3072
    max_memory_mb: Annotated[
        int, Meta(ge=16, description="memory for training rows; where all rows need more, a sample is trained on")
    ] = 2048
    iterations: Annotated[Positive, Meta(description="lloyd: maximum iterations per layer")] = 100
    tolerance: Annotated[
        float,
        Meta(ge=0, lt=1, description="lloyd: a layer is done when its loss falls by less than this share"),
    ] = 1e-4
    epochs: Annotated[NonNegative, Meta(description="lloyd: passes over all rows after training on a sample")] = 2


class Ingest(_Section, frozen=True):
    """How rows are committed."""

    chunk_rows: Annotated[
        int,
        Meta(
            ge=16,
            le=1_000_000,
            description="maximum rows per transaction; rows are read and encoded in parts of at most 64 MB",
        ),
    ] = 32768
    on_existing: Annotated[
        Literal["keep", "replace"],
        Meta(description='an item that already has an ID: "keep" it, or "replace" it by that of the newest row'),
    ] = "keep"
    on_zero: Annotated[
        Literal["reject", "encode"],
        Meta(description='vectors of zeros: "reject" the row, or "encode" it like any other; both are counted'),
    ] = "reject"
    max_rejected_share: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="reject a file, before any row of it is committed, when more than this share of its rows cannot"
            " be used (the file is then read twice); 1: off",
        ),
    ] = 1.0
    retry_s: Annotated[
        float,
        Meta(
            gt=0,
            le=3_600,
            description="pause after the first machine fault with a file, or with the first training; doubles with"
            " each further one, up to 1 h",
        ),
    ] = 5.0
    watchdog_s: Annotated[
        float,
        Meta(ge=0, description="end the daemon when the device computes longer than this on one chunk; 0: never"),
    ] = 600.0
    max_wal_mb: Annotated[
        int, Meta(ge=16, description="stop writing while open readers keep the write-ahead log larger than this")
    ] = 1024
    vector_field: Annotated[
        FieldName | None, Meta(description="field of the vectors, if its name is not recognized", examples=["clip"])
    ] = None
    id_field: Annotated[
        FieldName | None, Meta(description="field of the item IDs; a file without it needs a sidecar", examples=["sku"])
    ] = None

    @property
    def fields(self) -> FieldNames:
        return FieldNames(self.vector_field, self.id_field)


class Generations(_Section, frozen=True):
    """How a published generation follows new rows, and when the next one is prepared."""

    mode: Annotated[
        Literal["continual", "assign"],
        Meta(description='new rows: "continual" trains a candidate beside the codebooks, "assign" only encodes'),
    ] = "continual"
    forgetting: Annotated[
        float,
        Meta(
            ge=0,
            lt=1,
            description="share of its past that a candidate forgets while as many rows arrive as the catalogue holds",
        ),
    ] = 0.3
    refresh: Annotated[
        Literal["ask", "prepare", "auto"],
        Meta(description='on drift: "ask" only reports it, "prepare" prepares a generation, "auto" also promotes it'),
    ] = "ask"
    drift_error_ratio: Annotated[
        float,
        Meta(
            gt=1, description="recommend a refresh when the error of recent rows is this many times that without drift"
        ),
    ] = 1.04
    drift_js: Annotated[
        float,
        Meta(
            gt=0,
            description="recommend a refresh when a layer's code usage diverges this much (Jensen-Shannon, in bits)",
        ),
    ] = 0.05
    drift_window_rows: Annotated[
        Positive, Meta(description="recent rows over which drift is measured (approximate)")
    ] = 8192
    keep_embeddings: Annotated[
        Literal["auto", "files", "spool", "nothing"],
        Meta(
            description='embeddings kept for encoding all items again: "files" (the finished files), "spool" (float16'
            ' copies in the state directory), or "nothing"; "auto": the files, or the spool where drop.on_done deletes'
            " them"
        ),
    ] = "auto"
    keep_retired: Annotated[
        NonNegative, Meta(description="former generations kept for `semid rollback`; older ones are deleted")
    ] = 2
    collisions: Annotated[
        Literal["suffix", "next-best", "shared"],
        Meta(
            description='items of one semantic ID: "suffix" numbers them; "next-best" gives items beyond'
            ' bucket_capacity the nearest last code with room; "shared" gives all of them suffix 0'
        ),
    ] = "suffix"
    bucket_capacity: Annotated[Positive, Meta(description='"next-best": items per semantic ID')] = 1


class Monitoring(_Section, frozen=True):
    """Metrics for other programs."""

    metrics_textfile: Annotated[
        str | None,
        Meta(
            description="Prometheus metrics, written every 10 s: a file in node_exporter's textfile directory",
            examples=["semid.prom"],
        ),
    ] = None


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All of semid.toml. `root` is the directory that relative paths start at."""

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
    def crash_marker(self) -> Path:
        return self.state_dir / "in-hand"

    @property
    def metrics_textfile(self) -> Path | None:
        return None if self.monitoring.metrics_textfile is None else self.root / self.monitoring.metrics_textfile

    @property
    def commands_dir(self) -> Path:
        return self.state_dir / "commands"


_GRID_SCHEDULE = 'trainer = "grid" uses GRID\'s own schedule; remove the line'

# Settings of earlier versions, `section.key` or `section.key = value`, and what to do about them.
_REMOVED = {
    "training.grid_steps": _GRID_SCHEDULE,
    "training.grid_batch_rows": _GRID_SCHEDULE,
    "training.grid_init_buffer_size": _GRID_SCHEDULE,
    "ingest.fairness": "remove the line; small files and huge ones always take turns",
    "generations.retrain_share": 'remove the line; refresh = "prepare" prepares a generation on drift',
    'generations.mode = "train"': 'use "continual", and refresh = "prepare" to prepare a generation on drift',
}


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
        _check_removed(raw, source)
        config = msgspec.convert(raw, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {_name_the_key(str(error))}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source}: not valid TOML: {error}") from None
    config = msgspec.structs.replace(config, root=root)
    _check_together(config, source)
    return config


def _check_removed(raw: dict[str, Any], source: str) -> None:
    """Raise ConfigError for a setting of an earlier version, with what to do about it."""
    for section, settings in raw.items():
        for key, value in settings.items() if isinstance(settings, dict) else ():
            for setting in (f"{section}.{key}", f"{section}.{key} = {json.dumps(value, default=str)}"):
                if setting in _REMOVED:
                    raise ConfigError(f"{source}: {setting} is no longer a setting: {_REMOVED[setting]}")


def _name_the_key(message: str) -> str:
    """msgspec's "... - at `$.drop.settle_ms`" as "drop.settle_ms: ..."."""
    match = re.match(r"^(?P<what>.*?)(?: - at `\$\.?(?P<key>[^`]*)`)?$", message, re.DOTALL)
    what, key = (match["what"], match["key"]) if match else (message, None)
    unknown = re.match(r"^Object contains unknown field `(?P<field>[^`]*)`$", what)
    if unknown:
        name = f"{key}.{unknown['field']}" if key else unknown["field"]
        return f"unknown key {name}; `semid init` writes a file with every key"
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
    done, rejected = config.done_dir.resolve(), config.rejected_dir.resolve()
    if done.is_relative_to(rejected) or rejected.is_relative_to(done):
        raise ConfigError(f"{source}: paths.rejected: {config.rejected_dir} and paths.done must lie apart")
    for key in ("paths.drop", "paths.done", "paths.rejected"):
        directory = directories[key].resolve()
        own = [path.resolve() for path in (config.commands_dir, config.codebooks_dir, config.spool_dir)]
        state = config.state_dir.resolve()
        if state.is_relative_to(directory) or any(directory.is_relative_to(path) for path in own):
            raise ConfigError(f"{source}: {key}: {directories[key]} would mix with the daemon's own files; move it")


def sections() -> dict[str, tuple[msgspec.inspect.Field, ...]]:
    """The tables of semid.toml and their keys, in order."""
    whole = msgspec.inspect.type_info(Config)
    assert isinstance(whole, msgspec.inspect.StructType)
    return {
        section.name: section.type.fields
        for section in whole.fields
        if isinstance(section.type, msgspec.inspect.StructType)
    }


def template() -> str:
    """The text of a new semid.toml: every key with its default value and what it means."""
    lines = [
        "# semid.toml: one catalogue. Every key is optional; the values shown are the defaults.",
        "# Relative paths start at the directory of this file.",
    ]
    for section, keys in sections().items():
        lines += ["", f"[{section}]", *itertools.chain.from_iterable(map(_template_lines, keys))]
    return "\n".join(lines) + "\n"


def _template_lines(field: msgspec.inspect.Field) -> list[str]:
    """`key = value   # description`; a key without a default is commented out and shows an example."""
    assert isinstance(field.type, msgspec.inspect.Metadata)
    about: dict[str, Any] = field.type.extra_json_schema or {}
    if field.default is None:
        key = f"# {field.name} = {toml_value(about['examples'][0])}"
    else:
        key = f"{field.name} = {toml_value(field.default)}"
    # A key too long for its column pushes the first line of its comment to the right.
    key = f"{key:<{_COMMENT_COLUMN}}" if len(key) < _COMMENT_COLUMN else f"{key}   "
    return textwrap.wrap(
        f"# {about['description']}",
        _TEMPLATE_WIDTH,
        initial_indent=key,
        subsequent_indent=f"{'':<{_COMMENT_COLUMN}}# ",
        break_on_hyphens=False,
    )


def toml_value(value: object) -> str:
    """A value of a setting as semid.toml has it."""
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)
