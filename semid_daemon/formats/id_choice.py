"""Which field of a file holds the item IDs. Made-up IDs are only for files that cannot hold real ones."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from semid_daemon.base.errors import BadFileError
from semid_daemon.formats.faults import show, show_names
from semid_daemon.formats.fields import MOST_TRIED
from semid_daemon.formats.sidecar import IdSource

# Names of item IDs, the first that a file has is taken. Case, underscores and other signs do not count: `itemid` is
# also item_id, ItemID, itemId and ITEM-ID, and `id` is also _id.
ID_NAMES = (
    *("itemids", "itemid", "ids", "id", "pid", "asin", "asins", "parentasin", "parentasins", "item", "items", "iid"),
    *("sku", "skus", "skuid", "spuid", "productid", "productids", "goodsid", "offerid", "variantid", "listingid"),
    *("docid", "docids", "docno", "documentid", "passageid", "chunkid", "corpusid", "articleid", "newsid", "paperid"),
    *("movieid", "videoid", "photoid", "imageid", "trackid", "songid", "artistid", "albumid", "bookid", "gameid"),
    *("postid", "noteid", "tweetid", "recipeid", "courseid", "jobid", "adid", "appid", "poiid", "businessid"),
    *("contentid", "entityid", "objectid", "nodeid", "pointid", "recordid", "vectorid", "externalid", "customid"),
    *("isbn", "gtin", "ean", "upc", "uid", "uuid", "guid", "key", "keys", "pk"),
)
# Of these, some hold only the number of the row; another field of item IDs is better than that.
_OFTEN_ROW_NUMBERS = ("itemids", "itemid", "ids", "id", "pid", "iid", "uid", "key", "pk")
PANDAS_INDEX = "__index_level_0__"

SAMPLE_ROWS = 1_000

_MADE_UP = (
    "has no item IDs: they are made of its path, its content and the row, and the same items in another file get"
    " others; write item IDs as a field item_id, or into {sidecar}"
)


def plain_name(name: str) -> str:
    """The name as `ID_NAMES` has it: lower case, letters and digits only."""
    return re.sub(r"[\W_]+", "", name).lower()


@dataclass(frozen=True, slots=True)
class IdChoice:
    """The field of item IDs, None where the file has none; `remark` is what its producer should know."""

    name: str | None
    remark: str | None = None


def choose_ids(
    names: Collection[str],
    id_source: IdSource,
    *,
    fits: Callable[[str], bool],
    sample: Callable[[str], Sequence[str]],
    index: Collection[str] = (),
) -> IdChoice:
    """The field of item IDs among a file's fields other than its vectors.

    `fits(name)` says whether a field has one text or integer per row; `sample(name)` gives the first of a field that
    does, as text; `index` are the fields that a data frame had as its index.

    The configured field, else the first of `ID_NAMES` that fits, else a data frame's index of text.
    Raises BadFileError when the configured field is not there, and when there is none of a known name but one that
    fits: unless a sidecar stands in for it.
    """
    configured, has_sidecar = id_source.fields.item_ids, id_source.sidecar is not None
    if configured is not None:
        if configured in names:
            return IdChoice(configured)
        if has_sidecar:
            return IdChoice(None)
        raise BadFileError(
            f"no field named {show(configured)} (found {show_names(names)}), which ingest.id_field in semid.toml asks"
            " for; rename the field, or change the setting"
        )
    known = sorted((name for name in names if plain_name(name) in ID_NAMES), key=_rank)
    if fitting := [name for name in known if fits(name)]:
        return _best(fitting, sample)
    if known:
        return IdChoice(known[0])
    texts = [name for name in names if name in index and fits(name) and not _are_integers(sample(name))]
    if texts:
        return IdChoice(texts[0])
    if has_sidecar:
        return IdChoice(None)
    if candidates := [name for name in itertools.islice(names, MOST_TRIED) if fits(name)]:
        raise BadFileError(_unknown(candidates, sample))
    return IdChoice(None, made_up_remark(id_source))


def made_up_remark(id_source: IdSource) -> str | None:
    """What is said of a file that holds nothing but vectors; None where a sidecar has its item IDs."""
    return None if id_source.sidecar is not None else _MADE_UP.format(sidecar=show(id_source.sidecar_wanted))


def _rank(name: str) -> int:
    return ID_NAMES.index(plain_name(name))


def _best(fitting: list[str], sample: Callable[[str], Sequence[str]]) -> IdChoice:
    """The first, unless it only counts the rows; a remark says what was passed over."""
    first, *others = fitting
    if not others:
        return IdChoice(first)
    real = [name for name in others if not _are_row_numbers(sample(name))]
    if plain_name(first) in _OFTEN_ROW_NUMBERS and real and _are_row_numbers(sample(first)):
        return IdChoice(
            real[0],
            f"item IDs are taken from {show(real[0])}, because {show(first)} only numbers the rows;"
            " ingest.id_field chooses another field",
        )
    return IdChoice(
        first,
        f"item IDs are taken from {show(first)}, not from {show_names(others)}; ingest.id_field chooses another field",
    )


def _unknown(candidates: list[str], sample: Callable[[str], Sequence[str]]) -> str:
    """Why a file is refused whose item IDs may be in one of these fields."""
    unique = candidates if len(candidates) == 1 else [name for name in candidates if _are_unique(sample(name))]
    if len(unique) == 1:
        name = unique[0]
        return (
            f"has no field of item IDs under a known name, but {show(name)} looks like it: rename it to item_id, or set"
            f" ingest.id_field = {show(repr(name))}"
        )
    return (
        f"has no field of item IDs under a known name, and they may be in {show_names(unique or candidates)}: rename"
        " the right one to item_id, set ingest.id_field to its name, or leave these fields out"
    )


def _are_unique(values: Sequence[str]) -> bool:
    return len(set(values)) == len(values)


def _are_integers(values: Sequence[str]) -> bool:
    return all(value.lstrip("-").isdecimal() for value in values)


def _are_row_numbers(values: Sequence[str]) -> bool:
    """Whether they count from 0 or 1."""
    return any(list(values) == list(map(str, range(start, start + len(values)))) for start in (0, 1))
