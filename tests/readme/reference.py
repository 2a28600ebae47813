"""The tables of docs/settings.md, made from semid_daemon/config.py: `python tests/readme/reference.py` writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from semid_daemon.config import sections, toml_value

SETTINGS = Path(__file__).parents[2] / "docs" / "settings.md"
_BEGIN, _END = "<!-- reference of semid.toml -->\n", "<!-- end of the reference -->\n"


def allowed(kind: Any) -> str:
    """The values that a key takes, in words."""
    inspect = msgspec.inspect
    if isinstance(kind, inspect.UnionType):
        return " or ".join(allowed(member) for member in kind.types if not isinstance(member, inspect.NoneType))
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
    lines = []
    for section, keys in sections().items():
        lines += [f"## {section}", "", "| key | default | values | meaning |", "| --- | --- | --- | --- |"]
        for field in keys:
            assert isinstance(field.type, msgspec.inspect.Metadata)
            about = field.type.extra_json_schema or {}
            value = "" if field.default is None else f"`{toml_value(field.default)}`"
            lines.append(f"| `{field.name}` | {value} | {allowed(field.type.type)} | {_plain(about['description'])} |")
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
