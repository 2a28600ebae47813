"""The fenced blocks of README.md and docs/*.md, and the commands and SQL statements in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@dataclass(frozen=True)
class Block:
    """A fenced block: its document, its language, its text, the heading above it."""

    document: Path
    language: str
    text: str
    heading: str

    def __str__(self) -> str:
        first = self.commands()[0] if self.language == "sh" else self.text.splitlines()[0]
        return re.sub(r"\W+", "-", f"{self.document.stem} {self.heading} {first}").strip("-")

    def commands(self) -> list[str]:
        """The commands of an sh block, or those typed after "$ " in a console block, without comments."""
        lines = self.text.splitlines()
        if self.language == "console":
            return [line[2:] for line in lines if line.startswith("$ ")]
        return [line.split("  #")[0].strip() for line in lines if line.strip() and not line.startswith("#")]

    def typed(self) -> list[tuple[str, list[str]]]:
        """Of a console block, each command with the lines that follow it."""
        found: list[tuple[str, list[str]]] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
        return found

    def statements(self) -> list[str]:
        return [text.strip() for text in re.sub(r"--.*", "", self.text).split(";") if text.strip()]


def blocks(document: Path) -> list[Block]:
    """The fenced blocks of a Markdown file, in their order."""
    found: list[Block] = []
    heading = language = ""
    lines: list[str] | None = None
    for line in document.read_text().splitlines():
        if line.startswith("```"):
            if lines is None:
                language, lines = line[3:], []
            else:
                found.append(Block(document, language, "\n".join(lines), heading))
                lines = None
        elif lines is not None:
            lines.append(line)
        elif line.startswith("#"):
            heading = line.lstrip("# ")
    return found


@dataclass(frozen=True)
class Table:
    """A Markdown table: its document, the cells of its head, the cells of its rows."""

    document: Path
    head: list[str]
    rows: list[list[str]]


def prose(document: Path) -> str:
    """A document without its fenced blocks."""
    return re.sub(r"^```.*?^```\n", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)


def tables(document: Path) -> list[Table]:
    """The tables of a Markdown file, in their order."""
    found = []
    for text in re.findall(r"(?:^\|.*\n)+", prose(document), re.MULTILINE):
        head, _, *rows = ([cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines())
        found.append(Table(document, head, rows))
    return found


def pattern(line: str) -> re.Pattern[str]:
    """What a printed line may be on another machine: every number, time, path and ID another; "..." anything."""
    parts = re.split(r"(\.\.\.|[0-9a-f]{32}|\d{4}-\d\d-\d\dT[\d:.]+Z|\d[\d,.]*(?:-\d+)*)", line)
    made = ""
    for number, part in enumerate(parts):
        if number % 2 == 0:
            made += re.escape(part)
        elif part == "...":
            made += ".*"
        else:
            made += r"[0-9a-f]{32}" if len(part) == 32 else r"\d[\d,.:TZ]*(?:-\d[\d:.TZ]*)*"
    return re.compile(made)
