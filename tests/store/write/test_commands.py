"""Commands and their answers."""

from __future__ import annotations

from semid_daemon.store.write.store import Store
from tests.store.catalogue import rows_of


def test_a_command_seen_again_after_many_events_keeps_its_answer(store: Store):
    store.commands.accept("a", "rescan", "{}", "")
    store.commands.answer("a", "done", "scanning")
    store.telemetry.add_events([("info", "x")] * 1_500)
    assert store.commands.accept("a", "rescan", "{}", "") == "done"
    assert rows_of(store, "SELECT name FROM _commands") == [("a",)]
