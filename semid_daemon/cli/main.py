"""The `semid` command. Data goes to stdout, everything else to stderr."""

from __future__ import annotations

import click

from semid_daemon.cli.group import LazyCommand, LazyGroup

SECTIONS = {
    "Begin": {
        "demo": LazyCommand("demo:demo", "all of it on real embeddings, in a directory of its own"),
        "init": LazyCommand("init:init", "make a catalogue: settings, drop directory, database"),
        "run": LazyCommand("run:run", "the daemon; --once handles what is there and exits"),
        "install-service": LazyCommand("install_service:install_service", "have systemd run the daemon"),
    },
    "Look": {
        "status": LazyCommand("status:status", "the daemon, the catalogue, the codebooks, the files"),
        "lookup": LazyCommand("lookup:lookup", "items' semantic IDs, or the items of a prefix"),
        "inspect": LazyCommand("inspect:inspect", "what would be read of a file"),
        "generations": LazyCommand("generations:generations", "the generations: what became of each"),
        "compare": LazyCommand("compare:compare", "two generations, figure by figure"),
        "doctor": LazyCommand("doctor:doctor", "check everything, change nothing, say what to do"),
    },
    "Ask the daemon": {
        "retry": LazyCommand("control:retry", "try deferred and rejected files again"),
        "rescan": LazyCommand("control:rescan", "look at the drop directory anew"),
        "pause": LazyCommand("control:pause", "stop working, until `resume`"),
        "resume": LazyCommand("control:resume", "go on"),
        "train": LazyCommand("generations:train", "prepare a new generation"),
        "import-codebooks": LazyCommand(
            "import_codebooks:import_codebooks", "start from codebooks that were trained elsewhere"
        ),
        "promote": LazyCommand("generations:promote", "make a prepared generation the active one"),
        "rollback": LazyCommand("generations:rollback", "go back to an earlier generation"),
    },
    "Take out": {
        "export": LazyCommand("export:export", "the catalogue in the form that another program reads"),
        "encode": LazyCommand("encode:encode", "semantic IDs for files, publishing nothing"),
        "backup": LazyCommand("backup:backup", "database, codebooks and settings in one file, while the daemon runs"),
    },
}


@click.group(
    cls=LazyGroup,
    sections=SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
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
