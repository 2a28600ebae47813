"""Which test shows which numbered fault: README.md beside this file, made of the tests' own names and docstrings.

`python tests/faults/test_fault_table.py` writes it anew.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
PLANNED = 65  # from 1 on, without a gap; those that users found have the numbers after them


def fault_tests() -> list[tuple[int, str, str]]:
    """Number, fault and test of every numbered test, by number."""
    found = []
    for path in sorted(HERE.glob("test_*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and (match := re.match(r"test_fault_(\d\d)_", node.name)):
                said = (ast.get_docstring(node) or "").splitlines()[0]
                found.append((int(match[1]), said, f"{path.name}::{node.name}"))
    return sorted(found)


def table() -> str:
    lines = [
        "# Faults and their tests",
        "",
        "After each fault the daemon is started again and drains the drop directory; then every valid row is there",
        "exactly once, every count in the database equals its rows, and `PRAGMA integrity_check` is ok.",
        "",
        "| | fault, and what becomes of it | test |",
        "| --- | --- | --- |",
    ]
    lines += [f"| {number} | {said.replace('|', '/')} | `{test}` |" for number, said, test in fault_tests()]
    return "\n".join(lines) + "\n"


def test_every_fault_has_a_test():
    assert {number for number, _, _ in fault_tests()} >= set(range(1, PLANNED + 1))
    assert all(said for _, said, _ in fault_tests())


def test_the_table_is_what_the_tests_say():
    assert (HERE / "README.md").read_text() == table()


if __name__ == "__main__":
    (HERE / "README.md").write_text(table())
