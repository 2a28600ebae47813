"""The group of commands: which configuration is used, how errors end, what --help says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from semid_daemon.cli.main import SECTIONS, main
from tests.catalogues import SMALL, Rows, drop_npz, ids
from tests.cli.tools import invoke, semid


@pytest.mark.slow
def test_init_run_status_lookup(tmp_path: Path, clustered: Rows):
    made = semid("init", tmp_path / "catalogue")
    assert made.returncode == 0
    root = tmp_path / "catalogue"
    assert sorted(path.name for path in root.iterdir()) == ["drop", "semid.toml", "state"]
    before = semid("status", cwd=root)
    assert (before.returncode, before.stderr) == (0, "")
    assert "none yet" in before.stdout

    (root / "semid.toml").write_text(SMALL)
    assert semid("init", root).returncode == 0
    assert (root / "semid.toml").read_text() == SMALL  # what the user wrote is kept
    drop_npz(root / "drop", "a.npz", ids("a", 40), clustered(40, 16, seed=1))
    gathering = semid("run", "--once", cwd=root)
    assert gathering.returncode == 0
    assert "24 more rows are needed" in gathering.stderr
    drop_npz(root / "drop", "b.npz", ids("b", 130), clustered(130, 16, seed=2))
    ran = semid("run", "--once", "-c", root / "semid.toml")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == ""

    status = json.loads(semid("status", "--json", cwd=root).stdout)
    promised = "state device generation items unique_rate singleton_rate max_bucket layers files heartbeat_at"
    assert set(promised.split()) <= set(status)
    assert (status["state"], status["generation"], status["items"]) == ("stopped", 1, 170)
    assert status["files"]["done"] == 2
    assert [set(layer) for layer in status["layers"]] == [{"layer", "coverage", "dead_codes", "perplexity"}] * 3

    (item,) = json.loads(semid("lookup", "a7", "--json", cwd=root).stdout)
    assert list(item) == [
        "item_id",
        "semantic_id",
        "suffix",
        "codes",
        "generation",
        "file",
        "assigned_at",
        "siblings",
    ]
    assert item["item_id"] == "a7"
    assert item["semantic_id"] == "-".join(map(str, item["codes"]))
    assert 0 < len(item["siblings"]) <= 20
    found = json.loads(semid("lookup", "--prefix", item["semantic_id"], "--json", cwd=root).stdout)
    assert "a7" in [item["item_id"] for item in found]
    unknown = semid("lookup", "a7", "nobody", cwd=root)
    assert unknown.returncode == 1
    assert unknown.stdout.startswith("a7\t")
    assert unknown.stderr == "semid: nobody: no such item in the active generation\n"


@pytest.mark.parametrize("arguments", [["run"], ["status"], ["lookup", "x"]])
def test_without_configuration(tmp_path: Path, arguments: list[str]):
    refused = semid(*arguments, cwd=tmp_path)
    assert refused.returncode == 78
    assert refused.stderr.startswith("semid: semid.toml: no such file")
    assert refused.stderr.count("\n") == 1


def test_wrong_configuration(small: Path):
    (small / "semid.toml").write_text("[quantizer]\ncodes = 3\n")
    refused = semid("run", "--once", cwd=small)
    assert refused.returncode == 78
    assert "unknown key quantizer.codes" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "Traceback" in semid("--debug", "run", "--once", cwd=small).stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["init", "/dev/null/x"],
        ["backup", "/dev/null/x.tar", "-c", "CATALOGUE"],
        ["lookup", "\udcff", "-c", "CATALOGUE"],
        ["lookup", "--prefix", "7-7", "-c", "CATALOGUE"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_mistakes_are_told_in_one_line(small: Path, arguments: list[str]):
    done = semid(*(str(small / "semid.toml") if word == "CATALOGUE" else word for word in arguments))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("semid: ")
    assert len(done.stderr.splitlines()) == 1
    assert len(done.stderr) > 20


def test_help_lists_every_command_and_imports_none():
    code = (
        "import sys; from semid_daemon.cli.main import main; main(['--help'], standalone_mode=False);"
        "print(*sorted(name for name in sys.modules if name.startswith('semid_daemon.cli.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *listed, imported = done.stdout.splitlines()
    assert imported == "semid_daemon.cli.group semid_daemon.cli.main"
    for title, section in SECTIONS.items():
        assert f"{title}:" in listed
        for name, command in section.items():
            assert [line.split(maxsplit=1) for line in listed].count([name, command.short_help]) == 1


@pytest.mark.parametrize("name", [name for section in SECTIONS.values() for name in section])
def test_every_command_has_help_with_an_example(name: str):
    done = invoke(name, "--help")
    assert done.exit_code == 0
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert lines[0].startswith(f"Usage: main {name} ")
    examples = [line for line in lines if line.startswith((f"semid {name} ", f"sudo semid {name} "))]
    assert examples or f"semid {name}" in lines


def test_names_of_commands_are_completed():
    completed = ShellComplete(main, {}, "semid", "_SEMID_COMPLETE").get_completions([], "re")
    assert [(item.value, item.help) for item in completed] == [
        ("retry", "try deferred and rejected files again"),
        ("rescan", "look at the drop directory anew"),
        ("resume", "go on"),
    ]
    (debug,) = ShellComplete(main, {}, "semid", "_SEMID_COMPLETE").get_completions([], "--de")
    assert debug.value == "--debug"


def test_an_unknown_command():
    done = semid("stat")
    assert (done.returncode, done.stdout) == (2, "")
    assert "No such command 'stat'" in done.stderr
