"""README.md and docs/ are true: consoles typed, commands, statements and examples run, tables equal to the code."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from semid_daemon.config import _REMOVED, parse_config, sections
from semid_daemon.export.forms import FORMS
from tests.catalogues import drop_npz
from tests.readme.blocks import DOCUMENTS, ROOT, Block, blocks, pattern, prose, tables
from tests.readme.newcomers import Newcomer, newcomer  # noqa: F401 (a fixture)
from tests.readme.reference import reference, written

# Everything here waits for real commands: the machine sets the pace.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

TEXTS = {document: document.read_text() for document in DOCUMENTS}
BLOCKS = [block for document in DOCUMENTS for block in blocks(document)]
TABLES = [table for document in DOCUMENTS for table in tables(document)]
# Told every ten seconds, on a machine that takes so long.
PROGRESS = re.compile(r"INFO .*: [\d,]+ of [\d,]+ (steps|rows|bytes), .*")
SOURCES = [
    *(ROOT / "semid_daemon").rglob("*.py"),
    *(ROOT / "semid_tui").rglob("*.py"),
    *(ROOT / "benchmarks").glob("*.py"),
    *(ROOT / "systemd").iterdir(),
    *(ROOT / "tests" / "export").glob("*.py"),
]
# What a test cannot do here, and why that is no loss.
DEMO = "semid demo --dir catalogue"  # the tour's first command, run once for all tests
# Commands that ask a daemon, which runs while their block does.
ASKS = {f"semid {name}" for name in ("retry", "rescan", "pause", "resume", "train", "promote", "rollback")}
NOT_RUN = {
    "python3 -m venv": "downloads gigabytes; the fixture installs the same wheel into a clean environment",
    "pip install": "like the above",
    "systemctl": "test_systemd runs the units under a service manager of its own",
    "journalctl": "needs the system's journal",
    "systemd-sysusers": "test_systemd runs it on another root",
    "systemd-tmpfiles": "test_systemd runs it on another root",
    "runuser": "needs the user that systemd-sysusers makes",
    "usermod": "changes the machine's users",
    "loginctl": "changes the machine",
    "datasette": "another program's server",
    "semid import-codebooks": "needs a checkpoint of GRID; test_importing makes its like",
}


@pytest.fixture(scope="module")
def catalogue(newcomer: Newcomer) -> Path:
    """The demo's catalogue, under the name that the examples have for one."""
    done = newcomer.type(DEMO)
    assert done.returncode == 0, done.stdout
    (newcomer.home / "demo.txt").write_text(done.stdout)
    (newcomer.home / "items.parquet").write_bytes((newcomer.home / "catalogue/done/packages-2.parquet").read_bytes())
    return newcomer.home / "catalogue"


def test_the_packages_are_whole(newcomer: Newcomer):
    names = sorted(path.name for path in newcomer.packages.iterdir())
    version = newcomer.type("semid --version").stdout.split()[-1]
    assert names == [f"semid-{version}-py3-none-any.whl", f"semid-{version}.tar.gz"]
    where = newcomer.type("python -c 'import semid_daemon, semid_tui; print(semid_daemon.__file__)'").stdout
    assert str(newcomer.bin.parent) in where  # the wheel, not the checkout
    done = newcomer.type("semid install-service --root unpacked")
    assert done.returncode == 0, done.stdout
    assert (newcomer.home / "unpacked/etc/systemd/system/semid-daemon.service").exists()
    listed = subprocess.run(
        ["tar", "-tzf", newcomer.packages / names[1]], capture_output=True, text=True, check=True
    ).stdout
    for path in (
        "README.md",
        "LICENSE",
        "systemd/gpu.conf",
        "docs/settings.md",
        "tests/conftest.py",
        "benchmarks/soak.py",
    ):
        assert f"semid-{version}/{path}\n" in listed


@pytest.mark.parametrize(
    "document", [path for path in DOCUMENTS if "```console" in TEXTS[path]], ids=lambda path: path.name
)
def test_consoles_are_what_a_newcomer_sees(document: Path, newcomer: Newcomer, catalogue: Path):
    """One shell for each command, in the directory that the document has reached."""
    cwd = newcomer.home
    for block in BLOCKS:
        if block.document != document or block.language != "console":
            continue
        for command, printed in block.typed():
            if command.startswith("cd "):
                cwd = cwd / command[3:]
                continue
            if command == DEMO:
                text = (cwd / "demo.txt").read_text()
            else:
                done = newcomer.type(command, cwd)
                text = done.stdout
                assert done.returncode == 0, f"{command}\n{text}"
            shown = [line for line in text.splitlines() if not PROGRESS.fullmatch(line)]
            assert len(shown) == len(printed), f"$ {command}\n{text}"
            for line, expected in zip(shown, printed, strict=True):
                assert pattern(expected).fullmatch(line), f"$ {command}\n{line}\n{expected}"


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "sh"], ids=str)
def test_every_command_runs(block: Block, newcomer: Newcomer, catalogue: Path):
    commands = block.commands()
    asked = {" ".join(command.split()[:2]) for command in commands} & ASKS
    if "semid train" in asked:  # something new to learn from
        with np.load(catalogue / "done/packages-1.npz") as arrays:
            rows_ND = arrays["embeddings"][:700].astype(np.float32)
        rows_ND += 0.02 * np.random.default_rng(1).normal(size=rows_ND.shape).astype(np.float32)
        drop_npz(catalogue / "drop", "new.npz", [f"new-{row}" for row in range(700)], rows_ND)
        assert newcomer.type("semid run --once").returncode == 0
    with daemon(newcomer) if asked else contextlib.nullcontext():
        for command in commands:
            run_as_printed(command, newcomer)


def run_as_printed(command: str, newcomer: Newcomer) -> None:
    words = shlex.split(command)
    words = words[1:] if words[0] == "sudo" else words
    if any(command.removeprefix("sudo ").startswith(name) for name in NOT_RUN):
        return
    if words[:2] == ["semid", "run"] and "--once" not in words:
        with daemon(newcomer):
            pass
    elif words[:2] == ["semid", "install-service"]:
        assert newcomer.type(f"{shlex.join(words)} --root installed").returncode == 0
    elif words[0] == "sqlite-utils":
        assert newcomer.type(command.replace("sqlite-utils", "python -m sqlite_utils")).returncode == 0
    elif words[0] == "semid-tui":
        done = newcomer.type(f"{command} --once")
        assert done.returncode == 0, done.stdout
    elif words[0] == "python" and words[1].startswith(("benchmarks/", "tests/")):
        if words[1].startswith("benchmarks/"):
            done = newcomer.type(f"{shlex.join([*words[:2], '--help'])}", ROOT)
            assert done.returncode == 0, f"{command}\n{done.stdout}"
        assert (ROOT / words[1]).exists()
    else:
        done = newcomer.type(f"{command} --wait" if command == "semid train" else command)
        assert done.returncode == 0, f"{command}\n{done.stdout}"


@contextlib.contextmanager
def daemon(newcomer: Newcomer) -> Iterator[None]:
    """The daemon over the catalogue, from when it says that it is ready until SIGTERM ends it."""
    address = newcomer.home / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        environment = {**newcomer.environment, "NOTIFY_SOCKET": str(address)}
        command = ["semid", "run", "-c", "catalogue/semid.toml"]
        process = subprocess.Popen(command, cwd=newcomer.home, env=environment, stderr=subprocess.DEVNULL)
        try:
            while b"READY=1" not in manager.recv(4096):
                pass
            yield
            process.send_signal(signal.SIGTERM)
            assert process.wait() == 0
        finally:
            process.kill()
            process.wait()
            address.unlink()


def test_every_statement_runs(catalogue: Path):
    statements = [statement for block in BLOCKS if block.language == "sql" for statement in block.statements()]
    assert len(statements) >= 5
    with sqlite3.connect(f"{(catalogue / 'state/semid.db').as_uri()}?mode=ro", uri=True) as connection:
        for statement in statements:
            connection.execute(statement).fetchall()
    connection.close()


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "python"], ids=str)
def test_every_python_example_runs(block: Block, newcomer: Newcomer, catalogue: Path):
    script = newcomer.home / "example.py"
    script.write_text(block.text)
    done = newcomer.type(f"python {script.name}")
    missing = re.search(r"No module named '(duckdb|pandas|polars)'", done.stdout)
    if missing:
        pytest.skip(f"{missing[1]} is not installed")
    assert done.returncode == 0, done.stdout


def test_every_block_is_of_a_kind_that_is_tested():
    assert {block.language for block in BLOCKS} <= {"sh", "console", "sql", "python", "text", "toml"}
    for block in BLOCKS:
        if block.language == "toml":
            parse_config(block.text.encode(), source=block.document.name, root=Path("/x"))


def test_the_reference_of_the_settings_is_the_code():
    assert written() == reference(), "python tests/readme/reference.py writes it anew"


def told(kind: str, column: int = 0) -> list[str]:
    """What the tables headed by `kind` tell of, without its code marks; more than once where they do."""
    return sorted(row[column].strip("`") for table in TABLES if table.head[0] == kind for row in table.rows)


def test_every_setting_is_told_once():
    assert told("key") == sorted(field.name for keys in sections().values() for field in keys)


@pytest.fixture(scope="module")
def views(catalogue: Path) -> dict[str, list[str]]:
    """The columns of every view, in their order."""
    with sqlite3.connect(f"{(catalogue / 'state/semid.db').as_uri()}?mode=ro", uri=True) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'view'")]
        found = {name: [row[1] for row in connection.execute(f"PRAGMA table_info({name})")] for name in names}
    connection.close()
    return found


def test_every_view_is_told_once_with_its_columns(views: dict[str, list[str]]):
    assert told("view") == sorted(views)
    rows = [row for table in TABLES if table.head[0] == "view" for row in table.rows]
    assert {row[0].strip("`"): row[1].strip("`").split(", ") for row in rows} == views


def test_every_column_is_told_once(views: dict[str, list[str]]):
    assert told("column") == sorted({column for columns in views.values() for column in columns})


def test_every_command_is_told_once(newcomer: Newcomer):
    listed = "from semid_daemon.cli.main import main; print(*main.list_commands(None))"
    commands = newcomer.type(f"python -c '{listed}'").stdout.split()
    assert told("command") == sorted(f"semid {name}" for name in commands)


def test_every_form_of_export_is_told_once():
    assert told("form") == sorted(FORMS)


def test_every_package_is_told_once():
    packages = [path for path in (ROOT / "semid_daemon").glob("*.py") if not path.name.startswith("__")]
    for top in ("semid_daemon", "semid_tui"):
        packages += [path.parent for path in (ROOT / top).glob("*/__init__.py")]
    assert told("layer", 1) == sorted(["semid_tui", *(str(path.relative_to(ROOT)) for path in packages)])


def test_every_benchmark_is_told():
    scripts = sorted(path.name for path in (ROOT / "benchmarks").glob("[a-z]*.py"))
    listed = [block for block in BLOCKS if block.language == "sh" and block.document.name == "benchmarks.md"]
    assert sorted(re.findall(r"benchmarks/(\w+\.py)", "".join(block.text for block in listed))) == scripts


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_nothing_removed_is_told(document: Path):
    """No removed setting; no value, path, option, command or identifier that the code does not have."""
    removed = {name.split(".")[1] for name in _REMOVED if " = " not in name}
    assert removed & set(re.findall(r"\w+", TEXTS[document])) == set()
    words = set(re.findall(r"[\w-]+", "".join(path.read_text() for path in SOURCES)))
    commands = {command.removeprefix("semid ") for command in told("command")}
    section_of = {field.name: section for section, keys in sections().items() for field in keys}
    for code in re.findall(r"`([^`]+)`", prose(document)):
        for path in re.findall(r"\b(?:semid_daemon|semid_tui|benchmarks|tests|systemd)/[\w./]+", code):
            assert (ROOT / path).exists(), code
        if setting := re.fullmatch(r"(?:\w+\.)?(\w+) = (.+)", code):
            text = f"[{section_of[setting[1]]}]\n{setting[1]} = {setting[2]}"
            parse_config(text.encode(), source=document.name, root=Path("/x"))
        if command := re.match(r"semid ([a-z-]+)", code):
            assert command[1] in commands, code
        names = re.findall(r"--[a-z][a-z-]+|(?<![\w/])[a-z]+(?:_[a-z]+)+", code)
        assert [name for name in names if not {name, name.removeprefix("semid_")} & words] == [], code


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a document."""
    headings = re.findall(r"^#+ (.*)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path):
    for target in re.findall(r"\]\(([^)]+)\)", TEXTS[document]):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        path = (document.parent / name).resolve() if name else document
        assert path.exists(), target
        assert path.is_relative_to(ROOT), target
        assert not anchor or anchor in anchors(path), target


def test_every_document_is_linked_from_the_entrance():
    linked = set(re.findall(r"\]\((docs/[\w-]+\.md)\)", TEXTS[ROOT / "README.md"]))
    assert linked == {f"docs/{path.name}" for path in (ROOT / "docs").iterdir()}


def test_completion_of_the_shell(newcomer: Newcomer):
    done = newcomer.type("_SEMID_COMPLETE=bash_complete COMP_WORDS='semid install' COMP_CWORD=1 semid")
    assert done.stdout.split() == ["plain,install-service"]
    if shutil.which("bash"):
        done = newcomer.type('eval "$(_SEMID_COMPLETE=bash_source semid)" && complete -p semid')
        assert "_semid_completion" in done.stdout
