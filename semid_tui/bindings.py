"""The keys of the moment for the help and the palette, made from the bindings themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from textual.app import App, SystemCommand
from textual.binding import ActiveBinding, Binding
from textual.screen import Screen
from textual.widgets import Input

# Actions that command the daemon. The help shows them apart, and read-only mode forbids them.
COMMAND_ACTIONS = frozenset({"pause", "train", "retry", "rescan", "promote", "rollback"})


def bindings_here(app: App[Any], screen: Screen[Any]) -> Iterator[ActiveBinding]:
    """The bindings of the moment, without Textual's own and those that read-only mode forbids."""
    own = {
        (key, binding.action): binding
        for binding in app.BINDINGS
        if isinstance(binding, Binding)
        for key in binding.key.split(",")
    }
    for active in screen.active_bindings.values():
        node, binding, enabled, _ = active
        if not enabled or isinstance(node, Input):
            continue
        if node in (app, screen):
            # Textual's screen binds some keys to the app's actions, under names of its own.
            described = own.get((binding.key, binding.action))
            if described is not None:
                yield active._replace(binding=replace(binding, description=described.description))
        elif binding.description:
            yield active


def help_sections(app: App[Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Keys with their descriptions: of this screen, those that command the daemon, of every screen, the screens.

    Keys share a line where they do the same.
    """
    sections: dict[str, dict[tuple[str, str], list[str]]] = {
        "on this screen": {},
        "to the daemon, after a question": {},
        "everywhere": {},
        "screens": {},
    }
    for node, binding, *_ in bindings_here(app, app.screen):
        action = binding.action.removeprefix("app.")
        if action in COMMAND_ACTIONS:
            section = "to the daemon, after a question"
        elif action.startswith("show("):
            section = "screens"
        else:
            section = "everywhere" if node in (app, app.screen) else "on this screen"
        keys = sections[section].setdefault((action, binding.description), [])
        shown = binding.key_display or app.get_key_display(binding)
        if shown not in keys:
            keys.append(shown)
    return [
        (title, [(" ".join(keys), description) for (_, description), keys in section.items()])
        for title, section in sections.items()
        if section
    ]


def palette_commands(app: App[Any], screen: Screen[Any]) -> Iterable[SystemCommand]:
    """Every action that has a key, except the palette itself."""
    for node, binding, *_ in bindings_here(app, screen):
        if binding.action == "command_palette":
            continue
        keys = binding.key_display or app.get_key_display(binding)

        def run(action: str = binding.action, node: Any = node) -> None:
            app.call_later(app.run_action, action, node)

        yield SystemCommand(binding.description, f"key {keys}", run)
