"""`semid generations`, `train`, `promote`, `rollback`: the list of generations, and the way from one to the next."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from semid_daemon.cli.options import GENERATION, config_option, json_option, wait_option
from semid_daemon.cli.requests import ask
from semid_daemon.config import find_config, load_config
from semid_daemon.store.read.connection import ReadConnection
from semid_daemon.store.read.generations import GenerationQueries, GenerationRow

_ORIGINS = {
    "first": "the first rows",
    "anew": "all rows",
    "candidate": "the candidate",
    "imported": "codebooks trained elsewhere",
}


@click.command()
@config_option
@json_option
def generations(config_path: Path | None, as_json: bool) -> None:
    """List the generations: number, status, items, origin, time of publication, fingerprint.

    \b
    semid generations -c catalogue/semid.toml
    """
    with ReadConnection(load_config(find_config(config_path)).database) as connection:
        rows = GenerationQueries(connection).generations()
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(row) for row in rows]))
        return
    for row in rows:
        click.echo(_generation_text(row))


def _generation_text(row: GenerationRow) -> str:
    text = f"{row.generation:>4}  {row.status:<9}  {row.items:>11,} items  from {_ORIGINS[row.origin]}"
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
    help='"candidate": the candidate, which has learned from all later rows; "anew": a training on the whole catalogue.'
    ' Default: the candidate if generations.mode is "continual".',
)
@wait_option
@json_option
def train(config_path: Path | None, origin: str | None, wait: bool, as_json: bool) -> None:
    """Prepare the next generation beside the active one; no published ID changes.

    All items are encoded with the new generation, so that `semid compare` shows what would change and `semid promote`
    switches at once. The candidate keeps the numbers of its codes; codes trained anew are matched to those of the
    active generation with which they share most items. A generation that was ready before is deleted. The daemon
    goes on encoding files meanwhile. While the daemon is down, the command waits for it.

    \b
    semid train --wait
    semid train --from anew
    """
    arguments = {} if origin is None else {"from": origin}
    ask(load_config(find_config(config_path)), "train", arguments, wait=wait, as_json=as_json)


@click.command()
@config_option
@click.argument("generation", type=GENERATION, required=False)
@wait_option
@json_option
def promote(config_path: Path | None, generation: int | None, wait: bool, as_json: bool) -> None:
    """Make a prepared generation the active one, at once for every item.

    Default: the generation that is ready. Items that arrived after its preparation are encoded first. The former
    generation is kept (generations.keep_retired), with all its IDs in the view `all_semantic_ids`; `semid rollback`
    goes back to it.

    \b
    semid promote --wait
    """
    _switch(config_path, "promote", generation, wait, as_json)


@click.command()
@config_option
@click.argument("generation", type=GENERATION, required=False)
@wait_option
@json_option
def rollback(config_path: Path | None, generation: int | None, wait: bool, as_json: bool) -> None:
    """Go back to a former generation: each of its items gets its former ID back.

    Default: the generation that was active before. Items that arrived since are encoded with it first.

    \b
    semid rollback --wait
    """
    _switch(config_path, "rollback", generation, wait, as_json)


def _switch(config_path: Path | None, command: str, generation: int | None, wait: bool, as_json: bool) -> None:
    arguments = {} if generation is None else {"generation": generation}
    ask(load_config(find_config(config_path)), command, arguments, wait=wait, as_json=as_json)
