"""The lookup screen."""

from __future__ import annotations

import pytest

from semid_daemon.config import Config
from semid_daemon.store.read.connection import ReadConnection
from semid_daemon.store.read.search import SearchQueries
from tests.tui.recorded import AppDriver, drive


@pytest.mark.slow
def test_lookup_item_codes_patterns_and_generations(recorded: Config):
    with ReadConnection(recorded.database) as connection:
        item = SearchQueries(connection).lookup("item-7")
        earlier = SearchQueries(connection).find("item-7").generations[1]
    assert item is not None
    first, second, third = item.codes

    async def script(ui: AppDriver) -> None:
        await ui.press("slash", *"item-7")
        text = await ui.sees(
            "semantic ID", item.semantic_id, "siblings", "in g1 ", f" {earlier[2]}  suffix {earlier[3]}  retired"
        )
        assert all(sibling in text for sibling in item.siblings[:3])
        assert "item-70" in text  # begins so
        for pattern in (item.semantic_id, f"{first}-{second}-*", f"{first}-*-{third}", f"*-{second}-{third}"):
            await ui.press("escape", "slash", *pattern)
            await ui.sees("matches", "item-7 ")
        await ui.press("escape", "slash", *"nothing-of-this-name")
        await ui.sees("nothing is called nothing-of-this-name")
        await ui.press("escape", "slash", *"a[b]c")
        await ui.sees("─a[b]c─")

    drive(recorded, script)


def test_keys_are_text_only_while_typing(recorded: Config):
    async def script(ui: AppDriver) -> None:
        await ui.press("5", "6")
        await ui.sees("tree · g2")
        await ui.press("5", "question_mark")
        await ui.sees("everywhere")
        await ui.press("escape", "enter", *"67?")
        await ui.sees("nothing is called 67?")
        await ui.press("escape", "7")
        await ui.sees("fingerprint")

    drive(recorded, script, (80, 45))
