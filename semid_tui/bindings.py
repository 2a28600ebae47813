"""The keys of the moment for the help and the palette, made from the bindings themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from textual.app import App, SystemCommand
from textual.binding import ActiveBinding, Binding
from textual.screen import Screen
from textual.widgets import Input


def bindings_here(app: App[Any], screen: Screen[Any]) -> Iterator[ActiveBinding]:
    """The bindings of the moment, without Textual's own and those that read-only mode forbids."""
    own = {binding.action for binding in app.BINDINGS if isinstance(binding, Binding)}
    for active in screen.active_bindings.values():
        node, binding, enabled, _ = active
        foreign = isinstance(node, Input) or (node in (app, screen) and binding.action not in own)
        if enabled and binding.description and not foreign:
            yield active


def help_sections(app: App[Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Keys with their descriptions: of this screen, then of every screen."""
    sections: dict[str, dict[str, list[str]]] = {"on this screen": {}, "everywhere": {}}
    for node, binding, *_ in bindings_here(app, app.screen):
        section = sections["everywhere" if node in (app, app.screen) else "on this screen"]
        keys = section.setdefault(binding.description, [])
        shown = binding.key_display or app.get_key_display(binding)
        if shown not in keys:
            keys.append(shown)
    return [
        (title, [(" ".join(keys), description) for description, keys in section.items()])
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
