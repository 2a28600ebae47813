"""`semid compare`: two generations, figure by figure."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from semid_daemon.base.text import escape
from semid_daemon.cli.options import GENERATION, config_option, json_option
from semid_daemon.config import find_config, load_config
from semid_daemon.store.read.compare import ComparisonQueries
from semid_daemon.store.read.connection import ReadConnection
from semid_daemon.store.read.generations import Difference


@click.command()
@config_option
@click.argument("old", type=GENERATION, required=False)
@click.argument("new", type=GENERATION, required=False)
@click.option("--moved", is_flag=True, help="List every item that moves: item, old and new semantic ID, tab-separated.")
@json_option
def compare(config_path: Path | None, old: int | None, new: int | None, moved: bool, as_json: bool) -> None:
    """Compare two generations: how many items change their IDs, and the quality of both.

    Default: the active generation and the one that is ready. Churn is counted now, over all items of both, by layer
    and for whole semantic IDs. Error and neighbour recall were measured on the same rows when NEW was prepared beside
    OLD; recall is the share of an item's ten nearest neighbours by cosine that have its first code, its first two
    codes, ...

    \b
    semid compare
    semid compare 1 2 --moved
    """
    if (old is None) != (new is None):
        raise click.UsageError("give both generations, or none")
    with ReadConnection(load_config(find_config(config_path)).database) as connection:
        comparing = ComparisonQueries(connection)
        pair = comparing.default_pair() if old is None or new is None else (old, new)
        comparing.check(*pair)
        if moved:
            _list_moves(comparing, pair, as_json)
            return
        churn, quality = comparing.churn(*pair), comparing.quality(*pair)
    if as_json:
        figures = [dataclasses.asdict(figure) for figure in quality]
        click.echo(json.dumps({"old": pair[0], "new": pair[1], "churn": dataclasses.asdict(churn), "quality": figures}))
        return
    click.echo(f"generation {pair[0]} -> {pair[1]}, {churn.items:,} items that both have")
    total = max(churn.items, 1)
    for layer, count in enumerate(churn.moved_by_layer):
        click.echo(
            f"  code {layer}        {count:>11,} change ({count / total:7.2%}), {1 - count / total:7.2%} keep it"
        )
    click.echo(f"  semantic ID   {churn.moved:>11,} change ({churn.moved / total:7.2%}); `--moved` lists them")
    for figure in quality:
        click.echo(_difference_text(figure))


def _difference_text(figure: Difference) -> str:
    name = figure.name if figure.layer is None else f"{figure.name} {figure.layer}"
    return f"  {name:<20}{_number(figure.old):>12} -> {_number(figure.new)}"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value == int(value) and abs(value) >= 2 else f"{value:.4f}"


def _list_moves(comparing: ComparisonQueries, pair: tuple[int, int], as_json: bool) -> None:
    moves = (move for move in comparing.moves(*pair) if move.old != move.new)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(move) for move in moves]))
        return
    for move in moves:
        click.echo(f"{escape(move.item_id)}\t{move.old}\t{move.new}")
