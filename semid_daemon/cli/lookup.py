"""`semid lookup`: items' semantic IDs, or the items of a prefix."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

import click

from semid_daemon.base.text import escape
from semid_daemon.cli.options import config_option, json_option, prefix_option
from semid_daemon.config import find_config, load_config
from semid_daemon.store.read.connection import ReadConnection
from semid_daemon.store.read.search import Item, SearchQueries


@click.command()
@config_option
@click.argument("items", nargs=-1, metavar="[ITEM]...")
@prefix_option("All items whose semantic ID begins with these codes, like 12-250.")
@json_option
def lookup(config_path: Path | None, items: tuple[str, ...], prefix: str | None, as_json: bool) -> None:
    """Look up the semantic IDs of items, or with --prefix the items whose semantic ID begins with some codes.

    \b
    semid lookup numpy scipy
    semid lookup --prefix 12-250

    \b
    Exit status:
      0   everything was found
      1   an item, or the prefix, was not found
    """
    if bool(items) == (prefix is not None):
        raise click.UsageError("give items, or --prefix")
    with ReadConnection(load_config(find_config(config_path)).database) as connection:
        search = SearchQueries(connection)
        missing = _print_prefix(search, prefix, as_json) if prefix is not None else _print_items(search, items, as_json)
    for line in missing:
        click.echo(f"semid: {line}", err=True)
    if missing:
        click.get_current_context().exit(1)


def _print_items(search: SearchQueries, item_ids: Iterable[str], as_json: bool) -> list[str]:
    """Print those that are found. Returns a line for each that is not."""
    found = {item_id: search.lookup(item_id) for item_id in item_ids}
    _print([item for item in found.values() if item is not None], as_json)
    return [
        f"{escape(item_id)}: no such item in the active generation" for item_id, item in found.items() if item is None
    ]


def _print_prefix(search: SearchQueries, prefix: str, as_json: bool) -> list[str]:
    if _print(search.with_prefix(prefix), as_json):
        return []
    return [f"{prefix}: no semantic ID of the active generation begins with it"]


def _print(items: Iterable[Item], as_json: bool) -> int:
    """Print items, as they are read where that is possible. Returns their number."""
    if as_json:
        listed = [dataclasses.asdict(item) for item in items]
        click.echo(json.dumps(listed))
        return len(listed)
    count = 0
    for item in items:
        click.echo(item_text(item))
        count += 1
    return count


def item_text(item: Item) -> str:
    """An item in a line, and the items nearest to it by prefix in a second one."""
    text = f"{escape(item.item_id)}\t{item.semantic_id}\tsuffix {item.suffix}\tgeneration {item.generation}"
    if item.siblings:
        text += "\n  near: " + ", ".join(escape(sibling) for sibling in item.siblings)
    return text
