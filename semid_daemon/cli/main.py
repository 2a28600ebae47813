"""The `semid` command. Data goes to stdout, everything else to stderr; heavy imports wait for who needs them."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import click

from semid_daemon.base.clock import seconds_until
from semid_daemon.base.errors import SemidError
from semid_daemon.cli import control as cli_asking
from semid_daemon.cli import generations as cli_generations
from semid_daemon.cli import transfer as cli_exchange
from semid_daemon.cli.group import Group
from semid_daemon.cli.options import config_option, escape, json_option
from semid_daemon.config import DEFAULT_NAME, Config, find_config, load_config, template
from semid_daemon.daemon.outcome import Outcome
from semid_daemon.runtime.logs import Form, form_of_log
from semid_daemon.store.read.status import Item, Reader, Status

_SILENT_S = 5.0  # a daemon that lives writes a heartbeat every second

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=Group, context_settings=CONTEXT)
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.version_option(package_name="semid", prog_name="semid")
def main(debug: bool) -> None:
    """Semantic IDs as a service.

    A daemon watches a drop directory for files of item embeddings, trains residual k-means codebooks once
    enough rows have come, and writes every item's semantic ID to SQLite, exactly once.

    \b
    semid demo                    see all of it
    semid init DIR                make a catalogue
    semid run -c DIR/semid.toml   work on what is dropped into DIR/drop

    Commands find their catalogue by -c FILE, else by $SEMID_CONFIG, else in the current directory. They print
    data to stdout, JSON with --json, and everything else to stderr.
    """


for command in (*cli_asking.COMMANDS, *cli_exchange.COMMANDS, *cli_generations.COMMANDS):
    main.add_command(command)


@main.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
def init(directory: Path) -> None:
    """Make a catalogue in DIRECTORY: semid.toml, the drop directory, and the database.

    An existing semid.toml is kept as it is; what is missing beside it is made.
    """
    from semid_daemon.daemon.state_lock import hold_state, make_directories
    from semid_daemon.store.write.writer import Writer

    directory.mkdir(parents=True, exist_ok=True)
    path = directory / DEFAULT_NAME
    if not path.exists():
        path.write_text(template(), encoding="utf-8")
    config = load_config(path)
    make_directories(config)
    with hold_state(config.state_dir):
        Writer(config.database).close()
    click.echo(f"settings   {path}", err=True)
    click.echo(f"drop into  {config.drop_dir}", err=True)
    click.echo(f"database   {config.database}", err=True)
    click.echo(f"next       semid run -c {path}", err=True)


@main.command()
@config_option
@click.option("--once", is_flag=True, help="Handle what is in the drop directory, then exit.")
@click.option("-q", "--quiet", is_flag=True, help="Say only what needs attention.")
@click.option("--log-json", is_flag=True, help="Log one JSON object a line: at, level, message.")
def run(config_path: Path | None, once: bool, quiet: bool, log_json: bool) -> None:
    """Run the daemon in the foreground; `semid install-service` has systemd run it.

    The log goes to stderr: a progress bar with lines above it on a terminal, lines with priorities in systemd's
    journal, plain lines elsewhere. The catalogue keeps the same events: SELECT * FROM events.

    SIGTERM or ctrl-C ends it after the chunk in hand, with exit status 0; a second one at once. Whatever
    ends it, the next run goes on where this one stopped.

    \b
    Exit status:
      0   stopped, or with --once: all done (or rows still missing before the first training)
      1   with --once: some file, or the drop directory, could not be read just now
      3   with --once: some file was rejected; `<name>.reason.txt` beside it says why
      75  another daemon holds the state directory
      78  the configuration cannot be used
    """
    from semid_daemon.daemon.run import run_daemon
    from semid_daemon.runtime.progress import start_logging, tell

    form = form_of_log(as_json=log_json)
    try:
        config = load_config(find_config(config_path))
        outcome = run_daemon(config, once=once, quiet=quiet, form=form)
        status = _report(outcome, config, form) if once else 0
    except SemidError as error:
        if form not in ("journal", "json"):
            raise
        start_logging(form)
        tell(form, str(error))
        status = error.exit_code
    sys.exit(status)


def _report(outcome: Outcome, config: Config, form: Form) -> int:
    """Say what `run --once` leaves undone; the exit status."""
    from semid_daemon.runtime.progress import tell

    if outcome.source_missing is not None:
        tell(form, f"source missing: {outcome.source_missing}")
    elif outcome.missing_rows and not outcome.stopped:
        tell(
            form,
            f"{outcome.missing_rows:,} more rows are needed before the first training"
            f" (training.min_rows = {config.training.min_rows:,}); the files stay pending",
        )
    if outcome.rejected:
        tell(form, f"{outcome.rejected} file(s) rejected; see {config.rejected_dir}")
        return 3
    return 1 if outcome.deferred or outcome.source_missing is not None else 0


@main.command()
@config_option
@json_option
def status(config_path: Path | None, as_json: bool) -> None:
    """Show the daemon's state, the catalogue, the health of the codebooks and the files by state."""
    config = load_config(find_config(config_path))
    with Reader(config.database) as reader:
        snapshot = reader.status()
    if as_json:
        click.echo(json.dumps({**dataclasses.asdict(snapshot), "heartbeat_age_s": _heartbeat_age_s(snapshot)}))
    else:
        click.echo(_status_text(snapshot))


def _heartbeat_age_s(status: Status) -> float | None:
    if status.heartbeat_at is None:
        return None
    return round(max(0.0, -seconds_until(status.heartbeat_at)), 3)


def _status_text(status: Status) -> str:
    age_s = _heartbeat_age_s(status)
    silent = age_s is not None and age_s > _SILENT_S and status.state != "stopped"
    files = ", ".join(f"{count:,} {name}" for name, count in status.files.items() if count) or "none yet"
    lines = [
        f"daemon      {status.state}"
        + (f": {status.detail}" if status.detail else "")
        + (f", heartbeat {status.heartbeat_at}" if status.heartbeat_at else "")
        + (f"; no heartbeat for {age_s:,.0f} s: the daemon seems dead or stuck" if silent else ""),
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


@main.command()
@config_option
@click.argument("items", nargs=-1, metavar="[ITEM]...")
@click.option("--prefix", metavar="CODES", help="All items whose semantic ID begins with these codes, like 12-250.")
@json_option
def lookup(config_path: Path | None, items: tuple[str, ...], prefix: str | None, as_json: bool) -> None:
    """Look up items' semantic IDs, or with --prefix the items of a semantic ID or of its beginning.

    \b
    semid lookup numpy scipy
    semid lookup --prefix 12-250
    """
    if bool(items) == (prefix is not None):
        raise click.UsageError("give items, or --prefix")
    config = load_config(find_config(config_path))
    missing = []
    with Reader(config.database) as reader:
        if prefix is not None:
            if not all(code.isdecimal() and code.isascii() for code in prefix.split("-")):
                raise click.BadParameter(f"{prefix!r} is not codes joined by '-', like 12-250", param_hint="--prefix")
            found: Iterable[Item] = reader.with_prefix(prefix)
        else:
            looked_up = {item_id: reader.lookup(item_id) for item_id in items}
            missing = [item_id for item_id, item in looked_up.items() if item is None]
            found = [item for item in looked_up.values() if item is not None]
        hits = 0
        if as_json:
            listed = [dataclasses.asdict(item) for item in found]
            hits = len(listed)
            click.echo(json.dumps(listed))
        else:
            for item in found:
                hits += 1
                click.echo(item_text(item))
    if prefix is not None and not hits:
        click.echo(f"semid: {prefix}: no semantic ID begins so in the active generation", err=True)
        click.get_current_context().exit(1)
    for item_id in missing:
        click.echo(f"semid: {escape(item_id)}: no such item in the active generation", err=True)
    if missing:
        sys.exit(1)


def item_text(item: Item) -> str:
    text = f"{escape(item.item_id)}\t{item.semantic_id}\tsuffix {item.suffix}\tgeneration {item.generation}"
    if item.siblings:
        text += "\n  near: " + ", ".join(escape(sibling) for sibling in item.siblings)
    return text


@main.command()
@config_option
@json_option
def doctor(config_path: Path | None, as_json: bool) -> None:
    """Check everything, change nothing, and say what to do.

    The database's integrity, every count in it against the rows themselves, the codebooks' fingerprints,
    directories and permissions, free space, watch limits, the device. Reads the whole database; the daemon may
    run meanwhile. With --json a list of objects: level, check, message, remedy.

    \b
    Exit status:
      0   nothing worse than a warning
      1   some error was found
    """
    from semid_daemon.cli.doctor import examine

    config = load_config(find_config(config_path))
    findings = []
    for finding in examine(config):
        findings.append(finding)
        if not as_json:
            click.echo(f"{finding.level:<8} {finding.check:<12} {escape(finding.message)}")
            if finding.remedy:
                click.echo(f"{'':<21} {finding.remedy}")
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(finding) for finding in findings]))
    if any(finding.level == "error" for finding in findings):
        sys.exit(1)


@main.command()
@config_option
@click.argument("target", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
def backup(config_path: Path | None, target: Path) -> None:
    """Write the database, the codebooks and semid.toml to FILE, a tar archive, while the daemon runs.

    \b
    To restore: stop the daemon, empty the state directory, then
      tar -xf FILE -C STATE_DIRECTORY
    Files that were finished after the backup have to be moved from done/ back to the drop directory.
    """
    from semid_daemon.cli.backup import make_backup

    path = find_config(config_path)
    size_bytes = make_backup(load_config(path), path, target)
    click.echo(f"{target}: {size_bytes / 2**20:,.1f} MB", err=True)


@main.command("install-service")
@click.option("--user", is_flag=True, help="For your own service manager (systemctl --user), without root.")
@click.option("--instance", metavar="N", help="One daemon of several: semid-daemon@N, over a catalogue of its own.")
@click.option("--gpu", is_flag=True, help="Let the service use NVIDIA GPUs.")
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/"),
    help="Write below this directory instead of /, to look at it first or to make a package.",
)
def install_service(user: bool, instance: str | None, gpu: bool, root: Path) -> None:
    """Write the systemd units that keep the daemon running, and say what to type next.

    Installs a hardened unit that starts this semid, a user and a group called semid, and the catalogue's
    directories below /var/lib/semid (with --instance N /var/lib/semid-N, with --user ~/.local/state/semid).
    Nothing is started or enabled. Files written earlier are replaced: keep changes of yours in `systemctl edit`.

    \b
    sudo semid install-service --gpu
    semid install-service --user --instance music
    """
    from semid_daemon.cli.install_service import below, plan, write

    to_do = plan(user=user, instance=instance, gpu=gpu)
    write(to_do.files, root)
    for file in to_do.files:
        click.echo(f"wrote {below(root, file.path)}: {file.why}")
    click.echo("\nnext:")
    for step in to_do.next_steps:
        click.echo(f"  {step}")
    for warning in to_do.warnings:
        click.echo(f"semid: {warning}", err=True)


@main.command()
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to make the demo's catalogue. Default: a new temporary directory.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps.")
def demo(directory: Path | None, device: str) -> None:
    """Run everything on real embeddings: 3,618 well-known Python packages, dropped in two files.

    Makes a catalogue, trains codebooks, gives every package its semantic ID, and looks a few of them up.
    """
    from semid_daemon.cli.demo import run_demo

    run_demo(directory, device)
