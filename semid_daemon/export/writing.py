"""Writing an export so that it is there whole or not at all, with its map and where it came from beside it."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TextIO

from semid_daemon.base.clock import utc_now
from semid_daemon.base.errors import MachineError, StoreError
from semid_daemon.base.output import refuse_special
from semid_daemon.base.text import cut_name
from semid_daemon.base.types import Codebooks
from semid_daemon.export.companions import map_of, origin_of, publish
from semid_daemon.export.job import DEFAULT_TEMPLATE, ExportError, Form, IdType, Job
from semid_daemon.export.vocabulary import check_templates
from semid_daemon.store.read.export_items import Catalogue, Items, Selection


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: `paths` with the export itself last, and what the user should know of it."""

    rows: int
    paths: list[Path]
    warnings: list[str]


def export(
    catalogue: Catalogue,
    form: Form,
    out: Path,
    *,
    selection: Selection,
    id_type: IdType | None = None,
    compact: bool = False,
    by_item_id: bool = False,
    vocabulary_offset: int = 0,
    token_templates: tuple[str, ...] = (DEFAULT_TEMPLATE,),
    first_code: int = 0,
    load_codebooks: Callable[[], Codebooks],
    advance: Callable[[int], None] = lambda rows: None,
) -> Exported:
    """Write the selected items in a form to `out`, replacing a file that is there.

    Everything is written beside `out` first, made durable, and renamed: the export, the map from row to item ID
    (`<out>.ids.json`, dense forms), and last where the export came from and the digests of both (`<out>.semid.json`).
    `compact` asks for the form's compact variant; `by_item_id` orders rows by item ID, not by assignment;
    `vocabulary_offset` is the number of the first token; `token_templates` and `first_code` as in Job.
    `advance` is told of rows written. Raises ExportError when this cannot be had, StoreError or CodebookError
    when the catalogue cannot be read, MachineError when the machine does not let us write.
    """
    if not form.of_items and selection != Selection():
        raise ExportError(f"{form.name} holds no items: --prefix and --since make no sense with it")
    if compact and form.compact is None:
        raise ExportError(f"{form.name} has no compact form: leave --compact away")
    if vocabulary_offset and not form.numbers_tokens:
        raise ExportError(f"{form.name} holds no numbers of tokens: leave --vocabulary-offset away")
    if form.names_tokens:
        published = catalogue.published
        check_templates(token_templates, published.layers + (published.collisions != "shared"))
    elif first_code or token_templates != (DEFAULT_TEMPLATE,):
        raise ExportError(f"{form.name} holds no texts of tokens: leave --token-template and --first-code away")
    if by_item_id and (form.order is not None or not form.of_items):
        raise ExportError(f"{form.name} has an order of its own: leave --order away")
    check_place(form, out)
    rows = catalogue.count(selection) if form.of_items else 0
    with _machine_errors(out), _staging(out) as staging:
        with _RowMap(staging / "ids") if form.dense else _NoMap() as row_map:
            latest = ""
            written = 0

            def on_chunk(items: Items) -> None:
                nonlocal latest, written
                written += len(items.item_ids)
                row_map.add(items.item_ids)
                latest = max(latest, items.latest)
                advance(len(items.item_ids))

            job = Job(
                catalogue=catalogue,
                selection=selection,
                rows=rows,
                integer_ids=_integers(catalogue, id_type or form.id_type),
                final=out,
                load_codebooks=load_codebooks,
                on_chunk=on_chunk,
                form=form,
                compact=compact,
                vocabulary_offset=vocabulary_offset,
                token_templates=token_templates,
                first_code=first_code,
                order=form.order or ("items" if by_item_id else "assigned"),
            )
            form.write(job, staging / "export")
        if written != rows:
            raise StoreError(f"{rows:,} items are counted, {written:,} are there; run `semid doctor`")
        if row_map.misnumbered:
            job.warnings.append(
                f"item IDs are numbers, but rows are not item numbers: map them by {map_of(out).name}"
                + ("" if by_item_id else ", or export with --order item-id where they are all from 0 on")
            )
        if compact:
            job.warnings.append(f"--compact: {form.compact}")
        elif by_item_id and form.dense:
            job.warnings.append("--order item-id: a later item that sorts before others changes their rows")
        staged_map = staging / "ids" if form.dense else None
        paths = publish(staging / "export", staged_map, _origin(form, job, latest), out)
    return Exported(rows, paths, job.warnings)


def check_place(form: Form, out: Path) -> None:
    """Raises ExportError when an export of this form cannot go there."""
    for path in (out, map_of(out), origin_of(out)):
        refuse_special(path)
    if not out.parent.is_dir():
        raise ExportError(f"{out.parent}: no such directory; make it first")
    if form.directory and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportError(f"{out}: is there already; {form.name} makes a directory: give each its own name")
    if not form.directory and out.is_dir():
        raise ExportError(f"{out}: is a directory; {form.name} makes a file: name it")


def _integers(catalogue: Catalogue, id_type: IdType) -> bool:
    if id_type == "text":
        return False
    integers = catalogue.ids_are_integers()
    if id_type == "integer" and not integers and catalogue.published.items:
        raise ExportError("not every item ID of the generation is an integer; leave --item-ids away, or ask for text")
    return integers


def _origin(form: Form, job: Job, latest: str) -> dict[str, object]:
    """What tells where an export came from; `latest` is what to give to --since next time."""
    published = asdict(job.published)
    published.pop("max_bucket")
    catalogue_items = published.pop("items")
    return {
        "format": form.name,
        "rows": job.rows,
        **published,
        "catalogue_items": catalogue_items,
        "prefix": job.selection.prefix,
        "since": job.selection.since,
        "compact": job.compact,
        "vocabulary_offset": job.vocabulary_offset,
        "order": {"assigned": "assigned", "items": "item-id", "codes": "codes"}[job.order],
        "latest": latest or None,
        "exported_at": utc_now(),
        "semid": version("semid"),
    }


class _RowMap:
    """`["first item", "second item", …]`: the item ID of every row. One a line, in the order of the rows."""

    def __init__(self, path: Path) -> None:
        self._file: TextIO = open(path, "w", encoding="utf-8")  # noqa: SIM115 - closed by __exit__
        self._rows = 0
        self._numbered = self._numbers = True

    def __enter__(self) -> _RowMap:
        self._file.write("[")
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.write("\n]\n")
        self._file.close()

    def add(self, item_ids: list[str]) -> None:
        before = "\n" if not self._rows else ",\n"
        self._file.write(before + json.dumps(item_ids, separators=(",\n", ": "))[1:-1])
        rows = range(self._rows, self._rows + len(item_ids))
        self._numbered &= all(map(str.__eq__, item_ids, map(str, rows)))
        self._numbers &= all(item_id.isdecimal() for item_id in item_ids)
        self._rows += len(item_ids)

    @property
    def misnumbered(self) -> bool:
        return self._rows > 0 and self._numbers and not self._numbered


class _NoMap:
    """For forms that name their items."""

    misnumbered = False

    def __enter__(self) -> _NoMap:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def add(self, item_ids: list[str]) -> None:
        return None


@contextmanager
def _machine_errors(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MachineError(f"{out}: cannot be written: {error.strerror or error}") from error


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """A hidden directory beside `out`: on the same file system, so that renames are all that is left to do.

    Not `atomic_write`: a form writes several files or a directory, and all are renamed when the last is complete.
    """
    directory = Path(tempfile.mkdtemp(prefix=f".{cut_name(out.name, 200)}.", suffix=".part", dir=out.parent))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
