"""Commands about generations: prepare the next one, compare, promote, go back."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import click

from semid_daemon.base.clock import seconds_until
from semid_daemon.cli.options import config_option, escape, json_option
from semid_daemon.config import Config, find_config, load_config
from semid_daemon.store.read.compare import Comparing, Difference
from semid_daemon.store.read.generations import GenerationRow
from semid_daemon.store.read.status import Reader

_PATIENCE_S = 5.0
_SILENT_S = 15.0

wait_option = click.option("--wait", is_flag=True, help="Wait for the end, however long it takes.")


@click.command()
@config_option
@json_option
def generations(config_path: Path | None, as_json: bool) -> None:
    """List the generations: what became of each, and what it came from."""
    with Reader(load_config(find_config(config_path)).database) as reader:
        rows = Comparing(reader).generations()
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(row) for row in rows]))
        return
    for row in rows:
        click.echo(_generation_text(row))


def _generation_text(row: GenerationRow) -> str:
    came = {
        "first": "the first rows",
        "anew": "all rows",
        "candidate": "the candidate",
        "imported": "codebooks trained elsewhere",
    }[row.origin]
    text = f"{row.generation:>4}  {row.status:<9}  {row.items:>11,} items  from {came}"
    text += f" of generation {row.based_on}" if row.origin == "candidate" else ""
    text += f", {row.collisions}" if row.collisions != "suffix" else ""
    text += f", {row.behind:,} items behind" if row.behind else ""
    return f"{text}  {row.published_at or 'not published'}  {row.fingerprint}"


@click.command()
@config_option
@click.option(
    "--from",
    "origin",
    type=click.Choice(["candidate", "anew"]),
    help="The candidate, which has learned from all rows since, or a training on the whole catalogue. Default: the"
    ' candidate where generations.mode is "continual".',
)
@wait_option
@json_option
def train(config_path: Path | None, origin: str | None, wait: bool, as_json: bool) -> None:
    """Prepare the next generation beside the active one; no published ID changes.

    From the candidate, codes keep their numbers by themselves; trained anew, they get those of the active generation
    they have most items in common with. All items are encoded with it, so that `semid compare` can tell what would
    change and `semid promote` can switch at once. A generation that was ready before is deleted. Files are encoded
    meanwhile as ever. Asks the daemon; while it is down, the command waits for it.
    """
    _ask_long(config_path, "train", {} if origin is None else {"from": origin}, wait, as_json)


@click.command()
@config_option
@click.argument("generation", type=int, required=False)
@wait_option
@json_option
def promote(config_path: Path | None, generation: int | None, wait: bool, as_json: bool) -> None:
    """Make a prepared generation the active one, at once for every item.

    Default: the generation that is ready. The former one is kept (generations.keep_retired) with all its IDs in the
    view `all_semantic_ids`; `semid rollback` goes back to it. Items that came since are given their IDs first.
    """
    _switch(config_path, "promote", generation, wait, as_json)


@click.command()
@config_option
@click.argument("generation", type=int, required=False)
@wait_option
@json_option
def rollback(config_path: Path | None, generation: int | None, wait: bool, as_json: bool) -> None:
    """Go back to a former generation: each of its items has the ID again that it had.

    Default: the one that was active last. Items that came since are given IDs of it first.
    """
    _switch(config_path, "rollback", generation, wait, as_json)


def _switch(config_path: Path | None, command: str, generation: int | None, wait: bool, as_json: bool) -> None:
    _ask_long(config_path, command, {} if generation is None else {"generation": generation}, wait, as_json)


def _ask_long(config_path: Path | None, command: str, arguments: dict[str, Any], wait: bool, as_json: bool) -> None:
    ask_long(load_config(find_config(config_path)), command, arguments, wait=wait, as_json=as_json)


def ask_long(config: Config, command: str, arguments: dict[str, Any], *, wait: bool, as_json: bool) -> None:
    """Put a command that may take long in the daemon's way, wait briefly or for its end, and print its answer."""
    from semid_daemon.command_client import send_command, wait_for_answer

    name = send_command(config.commands_dir, command, arguments)
    answered = wait_for_answer(config.database, name, _PATIENCE_S if _is_alive(config) else 0.0)
    while answered is None and wait and _is_alive(config):
        answered = wait_for_answer(config.database, name, _PATIENCE_S)
    state, answer = answered or ("accepted", "")
    if as_json:
        click.echo(json.dumps({"command": command, "state": state, "answer": answer or None}))
    elif answered is not None:
        click.echo(escape(answer))
    elif _is_alive(config):
        click.echo("semid: the daemon is at it; `semid status` and the view `commands` tell how far", err=True)
    else:
        click.echo(f"semid: the daemon does not answer; the command waits for it in {config.commands_dir}", err=True)
    if state == "failed":
        sys.exit(1)


def _is_alive(config: Config) -> bool:
    with Reader(config.database) as reader:
        status = reader.status()
    beat_at = status.heartbeat_at
    return status.state != "stopped" and beat_at is not None and -seconds_until(beat_at) < _SILENT_S


@click.command()
@config_option
@click.argument("old", type=int, required=False)
@click.argument("new", type=int, required=False)
@click.option("--moved", is_flag=True, help="List every item that moves: item, old and new semantic ID, tab-separated.")
@json_option
def compare(config_path: Path | None, old: int | None, new: int | None, moved: bool, as_json: bool) -> None:
    """Compare two generations: which items would move, and what each is worth.

    Default: the active one with the one that is ready. Churn is counted now over all items that both have, by layer
    and for whole semantic IDs. Error and neighbour recall (of a sample's ten nearest by cosine, how many share the
    first code, the first two, ...) were measured on the same rows when NEW was prepared beside OLD.
    """
    if (old is None) != (new is None):
        raise click.UsageError("give both generations, or none")
    with Reader(load_config(find_config(config_path)).database) as reader:
        comparing = Comparing(reader)
        pair = comparing.default_pair() if old is None or new is None else (old, new)
        comparing.check(*pair)
        if moved:
            _list_moves(comparing, pair, as_json)
            return
        churn, quality = comparing.churn(*pair), comparing.quality(*pair)
    if as_json:
        figures = [dataclasses.asdict(each) for each in quality]
        click.echo(json.dumps({"old": pair[0], "new": pair[1], "churn": dataclasses.asdict(churn), "quality": figures}))
        return
    click.echo(f"generation {pair[0]} -> {pair[1]}, {churn.items:,} items that both have")
    total = max(churn.items, 1)
    for layer, count in enumerate(churn.moved_by_layer):
        click.echo(
            f"  code {layer}        {count:>11,} change ({count / total:7.2%}), {1 - count / total:7.2%} keep it"
        )
    click.echo(f"  semantic ID   {churn.moved:>11,} change ({churn.moved / total:7.2%}); `--moved` lists them")
    for each in quality:
        click.echo(_difference_text(each))


def _difference_text(each: Difference) -> str:
    name = each.name if each.layer is None else f"{each.name} {each.layer}"
    return f"  {name:<20}{_number(each.old):>12} -> {_number(each.new)}"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value == int(value) and abs(value) >= 2 else f"{value:.4f}"


def _list_moves(comparing: Comparing, pair: tuple[int, int], as_json: bool) -> None:
    moves = (move for move in comparing.moves(*pair) if move.old != move.new)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(move) for move in moves]))
        return
    for move in moves:
        click.echo(f"{escape(move.item_id)}\t{move.old}\t{move.new}")


COMMANDS = (generations, train, compare, promote, rollback)
