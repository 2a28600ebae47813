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

from semid_daemon.config import parse_config
from tests.catalogues import drop_npz
from tests.readme.blocks import DOCUMENTS, ROOT, Block, blocks, pattern
from tests.readme.newcomers import Newcomer, newcomer  # noqa: F401 (a fixture)
from tests.readme.reference import reference, written

# Everything here waits for real commands: the machine sets the pace.
pytestmark = pytest.mark.timeout(3600)

TEXTS = {document: document.read_text() for document in DOCUMENTS}
BLOCKS = [block for document in DOCUMENTS for block in blocks(document)]
# Told every ten seconds, on a machine that takes so long.
PROGRESS = re.compile(r"INFO .*: [\d,]+ of [\d,]+ (steps|rows|bytes), .*")
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


def test_the_views_are_those_of_the_database(catalogue: Path):
    """Every view, with all of its columns in their order."""
    told = {
        name: re.findall(r"\w+", columns)
        for name, columns in re.findall(r"^\| `(\w+)` \| `([\w, ]+)`", TEXTS[ROOT / "docs/sql.md"], re.MULTILINE)
    }
    with sqlite3.connect(f"{(catalogue / 'state/semid.db').as_uri()}?mode=ro", uri=True) as connection:
        views = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'view'")]
        there = {name: [row[1] for row in connection.execute(f"PRAGMA table_info({name})")] for name in views}
    connection.close()
    assert {name: told.get(name) for name in there if name != "all_semantic_ids"} == {
        name: columns for name, columns in there.items() if name != "all_semantic_ids"
    }


def test_every_command_and_every_benchmark_is_told(newcomer: Newcomer):
    text = "".join(TEXTS.values())
    commands = newcomer.type(
        "python -c 'from semid_daemon.cli.main import main; print(*main.list_commands(None))'"
    ).stdout.split()
    assert [name for name in commands if f"semid {name}" not in text] == []
    assert "More:" not in newcomer.type("semid --help").stdout, "put it into a section of cli_group"
    scripts = [path.name for path in (ROOT / "benchmarks").glob("[a-z]*.py")]
    assert [name for name in scripts if f"python benchmarks/{name}" not in TEXTS[ROOT / "docs/benchmarks.md"]] == []


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives the headings of a document."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
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
        assert not anchor or anchor in anchors(TEXTS[path]), target


def test_every_document_is_linked_from_the_entrance():
    linked = set(re.findall(r"\]\((docs/\w+\.md)\)", TEXTS[ROOT / "README.md"]))
    assert linked == {f"docs/{path.name}" for path in (ROOT / "docs").iterdir()}


def test_completion_of_the_shell(newcomer: Newcomer):
    done = newcomer.type("_SEMID_COMPLETE=bash_complete COMP_WORDS='semid install' COMP_CWORD=1 semid")
    assert done.stdout.split() == ["plain,install-service"]
    if shutil.which("bash"):
        done = newcomer.type('eval "$(_SEMID_COMPLETE=bash_source semid)" && complete -p semid')
        assert "_semid_completion" in done.stdout
