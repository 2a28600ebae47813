"""`semid doctor`: checks everything, changes nothing, says what to do."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pwd
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from semid_daemon.base.errors import CodebookError, ConfigError
from semid_daemon.base.process import working_directory
from semid_daemon.base.text import escape, path_of
from semid_daemon.cli.options import config_option, json_option
from semid_daemon.codebooks.files import codebook_path, load_codebooks
from semid_daemon.codebooks.spool import segment_path
from semid_daemon.config import Config, find_config, load_config
from semid_daemon.daemon.state_lock import user_name
from semid_daemon.drop.locate import find_source
from semid_daemon.formats import is_supported
from semid_daemon.published_settings import REMEDY, ignored_settings
from semid_daemon.store.read.checks import DatabaseReport, KeptFile, check_database
from semid_daemon.store.read.connection import UnavailableError, sqlite_version
from semid_daemon.store.read.status import read_status

_LOW_SPACE_BYTES = 1 << 30
_WAL_RESET_FIXED = (3, 51, 3)
_DIGEST_IN_NAME = re.compile(r"-([0-9a-f]{12})(?=[-.])")  # of a file whose name was taken in paths.done
_RESTORE = "stop the daemon and restore a backup"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `remedy` is empty where nothing has to be done."""

    level: Literal["ok", "warning", "error"]
    check: str
    message: str
    remedy: str = ""


@click.command()
@config_option
@json_option
def doctor(config_path: Path | None, as_json: bool) -> None:
    """Check everything, change nothing, and say what to do.

    Checks the integrity of the database, every count in it against the rows themselves, the fingerprints of the
    codebooks, directories and permissions, free space, watch limits, and the device. Reads the whole database; the
    daemon may run meanwhile. --json prints a list of objects: level, check, message, remedy.

    \b
    semid doctor -c catalogue/semid.toml

    \b
    Exit status:
      0   nothing worse than a warning
      1   some error was found
    """
    findings = []
    config = load_config(find_config(config_path))
    with working_directory(config.root):
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


def examine(config: Config) -> Iterator[Finding]:
    """Run every check, the most important first; each gives one finding or more. Writes nothing."""
    finished = _finished(config)  # before the database is read: a file is done there before it is moved
    report = None
    for finding in _database(config):
        if isinstance(finding, DatabaseReport):
            report = finding
        else:
            yield finding
    yield from _settings(config, report)
    yield from _codebooks(config, report)
    yield from _files(config, report)
    yield from _unknown(config, report, finished)
    yield from _embeddings(config, report)
    yield from _directories(config)
    yield from _owners(config)
    yield from _space(config)
    yield from _watching(config)
    yield from _device(config)
    yield _sqlite()


def _database(config: Config) -> Iterator[Finding | DatabaseReport]:
    path = config.database
    if not path.exists():
        yield Finding("error", "database", f"{path}: missing", "make one with `semid init`, or restore a backup")
        return
    try:
        report = check_database(path)
    except UnavailableError as error:
        yield Finding("error", "database", error.message, error.remedy)
        return
    for fault in report.faults:
        yield Finding("error", "database", f"{path}: {fault}", _RESTORE)
    if not report.faults:
        yield Finding("ok", "database", f"{path}: whole; every count equals its rows ({report.items:,} items)")
    yield report


def _settings(config: Config, report: DatabaseReport | None) -> Iterator[Finding]:
    """Does semid.toml say of the catalogue what it is?"""
    if report is None:
        return
    ignored = ignored_settings(config, read_status(config.database).active)
    for text in ignored:
        yield Finding("warning", "settings", text, REMEDY)
    if not ignored:
        yield Finding("ok", "settings", "none contradicts the active generation")


def _codebooks(config: Config, report: DatabaseReport | None) -> Iterator[Finding]:
    directory = config.codebooks_dir
    named = set() if report is None else set(report.fingerprints)
    faults = 0
    for fingerprint in sorted(named):
        try:
            load_codebooks(directory, fingerprint)
        except (CodebookError, OSError) as error:
            faults += 1
            yield Finding("error", "codebooks", str(error), "restore the file from a backup")
    if report is None or not directory.is_dir():
        return
    wanted = {codebook_path(directory, name) for name in named}
    orphans = sorted(path.name for path in directory.iterdir() if path not in wanted)
    if orphans:
        message = f"{directory}: {len(orphans)} files that belong to no generation: {', '.join(orphans[:5])}"
        yield Finding("warning", "codebooks", message, "the daemon removes them when it starts")
    if not faults:
        yield Finding("ok", "codebooks", f"{len(named)} generation(s), each matches its fingerprint")


def _files(config: Config, report: DatabaseReport | None) -> Iterator[Finding]:
    if report is None:
        return
    for status, count, names in (
        ("deferred", report.deferred, report.deferred_names),
        ("rejected", report.rejected, report.rejected_names),
    ):
        if count:
            where = f"SELECT file, reason FROM files WHERE status = '{status}'"
            remedy = f"{where} gives the reasons; `semid retry --all` tries them again"
            yield Finding(
                "warning",
                "files",
                f"{count:,} {status}" + (f", under {names:,} names" if names != count else ""),
                remedy,
            )


def _finished(config: Config) -> list[tuple[Path, int]]:
    """The files of embeddings in paths.done: name below it and size in bytes."""
    found = []
    for path in _below(config.done_dir):
        if is_supported(path.name) and not path.name.startswith(".") and path.is_file() and not path.is_symlink():
            with contextlib.suppress(FileNotFoundError):
                found.append((path.relative_to(config.done_dir), path.stat().st_size))
    return found


def _unknown(config: Config, report: DatabaseReport | None, finished: list[tuple[Path, int]]) -> Iterator[Finding]:
    """Are files in paths.done that the catalogue does not have: of another one, or of the time after a backup?"""
    if report is None:
        return
    known = {(str(path_of(name)), size_bytes) for name, _, size_bytes in report.done_names}
    digests = {digest[:12] for _, digest, _ in report.done_names}
    unknown = sorted(
        str(path)
        for path, size_bytes in finished
        if (str(path), size_bytes) not in known and digests.isdisjoint(_DIGEST_IN_NAME.findall(path.name))
    )
    if unknown:
        named = ", ".join(unknown[:5])
        message = f"{config.done_dir}: {len(unknown):,} files that the catalogue does not have: {named}"
        remedy = f"move them to {config.drop_dir}: items that the catalogue has already keep their IDs"
        yield Finding("warning", "finished", message, remedy)
    else:
        yield Finding("ok", "finished", f"{len(finished):,} files in paths.done, all of them known")


def _embeddings(config: Config, report: DatabaseReport | None) -> Iterator[Finding]:
    """Are the embeddings kept that a refresh would encode again? Checks names and sizes only."""
    if report is None or config.generations.keep_embeddings == "nothing":
        return
    faults = 0
    for segment, known_bytes in sorted(report.spool_ends.items()):
        path = segment_path(config.spool_dir, segment)
        size_bytes = path.stat().st_size if path.is_file() else 0
        if size_bytes < known_bytes:
            faults += 1
            message = f"{path}: {size_bytes:,} bytes of at least {known_bytes:,}"
            yield Finding("error", "embeddings", message, "restore the file from a backup")
    gone = [kept.names[0] for kept in report.in_files if not _is_kept(config, kept)]
    if gone:
        faults += 1
        message = f"{len(gone):,} files are missing from {config.done_dir}: {', '.join(gone[:5])}"
        remedy = "put them back: a refresh cannot give their items new IDs without their embeddings"
        yield Finding("warning", "embeddings", message, remedy)
    if not faults:
        yield Finding("ok", "embeddings", "all kept: a refresh can encode every item again")


def _is_kept(config: Config, kept: KeptFile) -> bool:
    return any(
        True
        for name in kept.names
        for _ in find_source(
            name, kept.digest, kept.size_bytes, config.drop_dir, config.done_dir, (), config.ingest.fields
        )
    )


def _directories(config: Config) -> Iterator[Finding]:
    directories = {
        "paths.drop": config.drop_dir,
        "paths.state": config.state_dir,
        "commands": config.commands_dir,
        "paths.done": config.done_dir,
        "paths.rejected": config.rejected_dir,
    }
    # The daemon runs as the owner of the state directory; a member of the group may run doctor.
    owner = config.state_dir.stat().st_uid if config.state_dir.is_dir() else os.geteuid()
    faults = 0
    for name, directory in directories.items():
        existing = directory
        while not existing.exists() and name in ("paths.done", "paths.rejected"):  # made when first needed
            existing = existing.parent
        if not existing.is_dir():
            faults += 1
            yield Finding("error", "directories", f"{name}: {directory} does not exist", "`semid init` makes it")
        elif not _may_work_in(existing, owner):
            faults += 1
            remedy = "give the daemon's user read, write and search permission"
            message = f"{name}: {existing} is not readable and writable for {user_name(owner)}"
            yield Finding("error", "directories", message, remedy)
    if not faults:
        yield Finding("ok", "directories", "all exist, readable and writable")


def _may_work_in(directory: Path, user: int) -> bool:
    """Whether a user may read, write and search a directory; for another user than ours by its permission bits."""
    if user == os.geteuid():
        return os.access(directory, os.R_OK | os.W_OK | os.X_OK)
    status = directory.stat()
    if status.st_uid == user:
        return status.st_mode & 0o700 == 0o700
    try:
        account = pwd.getpwuid(user)
        groups = os.getgrouplist(account.pw_name, account.pw_gid)
    except KeyError:
        groups = []
    wanted = 0o070 if status.st_gid in groups else 0o007
    return user == 0 or status.st_mode & wanted == wanted


def _owners(config: Config) -> Iterator[Finding]:
    """Does everything that the daemon writes belong to its user? Commands may come from others."""
    if not config.state_dir.is_dir():
        return
    owner = config.state_dir.stat().st_uid
    foreign = [path for path in _below(config.state_dir) if config.commands_dir not in path.parents]
    for directory in (config.done_dir, config.rejected_dir):
        if directory.is_dir():  # its files belong to their producers
            foreign += [path for path in (directory, *_below(directory)) if path.is_dir() and not path.is_symlink()]
    foreign = [path for path in foreign if os.path.lexists(path) and path.lstat().st_uid != owner]
    if foreign:
        named = ", ".join(map(str, foreign[:5]))
        message = f"{len(foreign):,} files and directories do not belong to {user_name(owner)}: {named}"
        places = " ".join(str(path) for path in (config.state_dir, config.done_dir, config.rejected_dir))
        yield Finding("error", "owners", message, f"stop the daemon, then `chown -R {user_name(owner)} {places}`")
    else:
        yield Finding("ok", "owners", f"all files of the daemon belong to {user_name(owner)}")


def _below(directory: Path) -> Iterator[Path]:
    for path, directories, names in os.walk(directory):
        yield from (Path(path, name) for name in (*directories, *names))


def _space(config: Config) -> Iterator[Finding]:
    low = 0
    for name, directory in {"paths.state": config.state_dir, "paths.done": config.done_dir.parent}.items():
        if not directory.exists():
            continue
        free = shutil.disk_usage(directory).free
        nodes = os.statvfs(directory)
        if free < _LOW_SPACE_BYTES or (nodes.f_files and nodes.f_favail < 1000):
            low += 1
            message = f"{name}: {free / 2**20:,.0f} MB and {nodes.f_favail:,} inodes free on the disk of {directory}"
            yield Finding("warning", "space", message, "free space: files are deferred while it is lacking")
    if not low:
        yield Finding("ok", "space", "more than 1 GB free")


def _watching(config: Config) -> Iterator[Finding]:
    limit = _number(Path("/proc/sys/fs/inotify/max_user_watches"))
    if limit is None or not config.drop_dir.is_dir():
        return
    needed = sum(1 for _ in os.walk(config.drop_dir))
    if needed > limit // 2:
        message = f"{needed:,} directories to watch; the system allows {limit:,} watches in total"
        remedy = (
            "raise fs.inotify.max_user_watches; until then only the scans every drop.rescan_s seconds find new files"
        )
        yield Finding("warning", "watching", message, remedy)
    else:
        yield Finding("ok", "watching", f"{needed:,} of {limit:,} inotify watches needed")


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _device(config: Config) -> Iterator[Finding]:
    # torch takes seconds to import; the other findings do not wait for it.
    from semid_daemon.quantizer import describe_device, resolve_device

    try:
        yield Finding("ok", "device", describe_device(resolve_device(config.quantizer.device)))
    except ConfigError as error:
        yield Finding("error", "device", str(error), 'set quantizer.device to a device of this machine, or to "auto"')


def _sqlite() -> Finding:
    version = sqlite_version()
    text = f"SQLite {'.'.join(map(str, version))}"
    if version < _WAL_RESET_FIXED:
        # Reported of 3.7.0 to 3.51.2, for several writing connections.
        return Finding("ok", "sqlite", f"{text}: sound as long as the daemon alone writes to the database")
    return Finding("ok", "sqlite", text)
