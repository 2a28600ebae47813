"""docs/files.md names every field of item IDs that is known."""

from pathlib import Path

from semid_daemon.formats.id_choice import ID_NAMES


def test_every_known_name_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "files.md").read_text(encoding="utf-8")
    assert [name for name in ID_NAMES if f"`{name}`" not in text] == []
