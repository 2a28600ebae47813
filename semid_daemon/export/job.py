"""What a form is, and what it is given to write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from semid_daemon.base.errors import SemidError
from semid_daemon.base.types import Codebooks
from semid_daemon.store.read.export_items import Catalogue, Items, Order, Selection
from semid_daemon.store.read.generations import GenerationRow

DEFAULT_TEMPLATE = "<{layer}_{code}>"

IdType = Literal["auto", "text", "integer"]


class ExportError(SemidError):
    """This catalogue cannot be had in this form, or not at this place."""


@dataclass(slots=True)
class Job:
    """One export under way: a form takes `chunks()` once and writes them to a path of its own.

    `rows` is how many items are selected; `integer_ids` says whether item IDs go out as int64, where the form
    has a type for them; `final` is where the export will be found; `compact` asks for the consumer's own form, which
    later items may change; `order` is that of the chunks; `vocabulary_offset` is the number of the first token;
    `token_templates` are the texts of tokens, one for all layers or one for each; `first_code` is the code 0 in them;
    `warnings` are told to the user.
    """

    catalogue: Catalogue
    selection: Selection
    rows: int
    integer_ids: bool
    final: Path
    load_codebooks: Callable[[], Codebooks]
    on_chunk: Callable[[Items], None]
    form: Form
    compact: bool
    order: Order
    vocabulary_offset: int = 0
    token_templates: tuple[str, ...] = (DEFAULT_TEMPLATE,)
    first_code: int = 0
    warnings: list[str] = field(default_factory=list)

    @property
    def published(self) -> GenerationRow:
        return self.catalogue.published

    @property
    def has_suffixes(self) -> bool:
        """Whether suffixes are written.

        Never where items share semantic IDs by policy. Else always, except in a compact form of a generation in which
        no items share a semantic ID so far.
        """
        return self.published.collisions != "shared" and (not self.compact or self.published.max_bucket > 1)

    def chunks(self) -> Iterator[Items]:
        for items in self.catalogue.items(self.selection, order=self.order, buckets=self.compact and self.form.buckets):
            yield items
            self.on_chunk(items)

    def typed(self, item_ids: list[str]) -> list[Any]:
        """Item IDs as numbers where they go out as such."""
        return list(map(int, item_ids)) if self.integer_ids else item_ids


@dataclass(frozen=True, slots=True)
class Form:
    """How one form is written.

    `dense`: items are only told by their row, so that the map from row to item ID is written beside it.
    `directory`: it is a directory. `of_items`: it holds items, and not only codebooks. `id_type`: what item IDs
    are unless the user says; "auto" writes int64 where all of the generation's are integers, for consumers that
    look them up as such. `order` is the one that the form needs, None where it can have any. `compact` says what the
    compact form costs, None where there is none; `buckets`: the compact form needs the sizes of buckets;
    `numbers_tokens`: it holds numbers of tokens; `names_tokens`: it holds their texts.
    """

    name: str
    write: Callable[[Job, Path], None]
    dense: bool = False
    directory: bool = False
    of_items: bool = True
    id_type: IdType = "text"
    order: Order | None = None
    compact: str | None = None
    buckets: bool = False
    numbers_tokens: bool = False
    names_tokens: bool = False
