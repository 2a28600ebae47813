"""`semid status`: the daemon, the catalogue, the codebooks, the files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import click

from semid_daemon.cli.options import config_option, json_option
from semid_daemon.config import find_config, load_config
from semid_daemon.published_settings import REMEDY, ignored_settings
from semid_daemon.store.read.status import Status, read_status
from semid_daemon.store.read.status_document import status_document

_FULL_BYTES = 1 << 20  # free space below which a disk counts as full


@click.command()
@config_option
@json_option
def status(config_path: Path | None, as_json: bool) -> None:
    """Show the state of the daemon, the catalogue, the health of the codebooks, and the number of files by state.

    \b
    semid status -c catalogue/semid.toml
    semid status --json | jq .items
    """
    config = load_config(find_config(config_path))
    found = read_status(config.database)
    ignored = ignored_settings(config, found.active)
    if as_json:
        click.echo(json.dumps({**status_document(config.database), "ignored_settings": ignored}))
    else:
        click.echo(_status_text(found))
        free_bytes = shutil.disk_usage(config.state_dir).free
        if free_bytes < _FULL_BYTES:
            place = f"{free_bytes:,} bytes free for {config.state_dir}"
            click.echo(f"disk        full: {place}; rows wait until there is room")
        for text in (*ignored, REMEDY) if ignored else ():
            click.echo(f"settings    {text}")


def _status_text(status: Status) -> str:
    age_s = status.heartbeat_age_s()
    overdue = status.liveness() in ("stale", "silent")
    if overdue and status.clock_was_set_back():
        fault = "; the clock was set back since, and no daemon runs"
    elif overdue and age_s is not None:
        fault = f"; no heartbeat for {age_s:,.0f} s: the daemon seems dead or stuck"
    else:
        fault = ""
    files = ", ".join(f"{count:,} {name}" for name, count in status.files.items() if count) or "none yet"
    lines = [
        f"daemon      {status.state}"
        + (f": {status.detail}" if status.detail else "")
        + (f", heartbeat {status.heartbeat_at}" if status.heartbeat_at else "")
        + fault,
        f"device      {status.device or '-'}",
        f"files       {files}",
    ]
    if status.generation is None:
        return "\n".join([*lines, "generation  none yet: rows are gathered until there are enough to train on"])
    lines.append(f"generation  {status.generation} ({status.fingerprint})")
    if status.next_generation is not None:
        pair = f"{status.generation} {status.next_generation}"
        ready = f"ready: `semid compare {pair}`, `semid promote {status.next_generation}`"
        lines.append(f"next        {status.next_generation}, {ready if status.next_ready else 'being prepared'}")
    if status.unique_rate is not None and status.singleton_rate is not None:
        lines.append(
            f"items       {status.items:,}, unique rate {status.unique_rate:.4f},"
            f" singleton rate {status.singleton_rate:.4f}, largest bucket {status.max_bucket}"
            + (f", {status.exact_duplicates:,} exact duplicates" if status.exact_duplicates else "")
        )
    for layer in status.layers:
        lines.append(
            f"layer {layer.layer:<5} coverage {layer.coverage:.1%}, {layer.dead_codes} dead codes,"
            f" perplexity {layer.perplexity:.1f}"
        )
    return "\n".join(lines)
