"""The tables of docs/settings.md, made from semid_daemon/config.py: `python tests/readme/reference.py` writes them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from semid_daemon.config import TEMPLATE, Config

SETTINGS = Path(__file__).parents[2] / "docs" / "settings.md"
_BEGIN, _END = "<!-- reference of semid.toml -->\n", "<!-- end of the reference -->\n"
_KEY = re.compile(r"(?:# )?(\w+) = (.+?)(?:\s+# (.*))?")


def comments() -> dict[str, tuple[str, str]]:
    """Value and comment of every key in the template that `semid init` writes, by `section.key`."""
    found: dict[str, tuple[str, str]] = {}
    section = last = ""
    for line in TEMPLATE.splitlines():
        if line.startswith("["):
            section, last = line.strip("[]"), ""
        elif line.startswith(" ") and last:
            value, comment = found[last]
            found[last] = (value, f"{comment} {line.strip().removeprefix('#').strip()}")
        elif section and (match := _KEY.fullmatch(line)):
            last = f"{section}.{match[1]}"
            found[last] = ("" if line.startswith("#") else match[2], match[3] or "")
    return found


def allowed(kind: Any) -> str:
    """The values that a key takes, in words."""
    inspect = msgspec.inspect
    if isinstance(kind, inspect.UnionType):
        return " or ".join(allowed(each) for each in kind.types if not isinstance(each, inspect.NoneType))
    if isinstance(kind, inspect.LiteralType):
        return ", ".join(f'`"{value}"`' for value in kind.values)
    if isinstance(kind, inspect.BoolType):
        return "`true`, `false`"
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        what = "integer" if isinstance(kind, inspect.IntType) else "number"
        low = f"{kind.ge:,}" if kind.ge is not None else f"above {kind.gt:,}" if kind.gt is not None else ""
        high = f"{kind.le:,}" if kind.le is not None else f"below {kind.lt:,}" if kind.lt is not None else ""
        more = low if kind.gt is not None else f"{low} or more"
        return what + (f", {low} to {high}" if low and high else f", {more}" if low else "")
    if isinstance(kind, inspect.StrType):
        return "text"
    raise TypeError(kind)


def reference() -> str:
    """The tables, one for each section."""
    said = comments()
    lines = []
    for section in msgspec.inspect.type_info(Config).fields:
        if not isinstance(section.type, msgspec.inspect.StructType):
            continue
        lines += [f"**`[{section.name}]`**", "", "| key | default | values | |", "| --- | --- | --- | --- |"]
        for field in section.type.fields:
            value, comment = said[f"{section.name}.{field.name}"]
            shown = f"`{value}`" if value else ""
            lines.append(f"| `{field.name}` | {shown} | {allowed(field.type)} | {_plain(comment)} |")
        lines.append("")
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Text in a cell, where Markdown would see more in it."""
    return text.replace("|", "&#124;").replace("<", "&lt;")


def written() -> str:
    """The tables as docs/settings.md has them."""
    return SETTINGS.read_text().split(_BEGIN)[1].split(_END)[0].strip("\n") + "\n"


def write() -> None:
    before, rest = SETTINGS.read_text().split(_BEGIN)
    SETTINGS.write_text(f"{before}{_BEGIN}\n{reference()}\n{_END}{rest.split(_END)[1]}")


if __name__ == "__main__":
    write()
