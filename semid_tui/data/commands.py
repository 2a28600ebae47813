"""The one way from the screens to the daemon: command files, refused in read-only mode."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from semid_daemon.base.errors import SemidError
from semid_daemon.command_client import send_command
from semid_daemon.store.read.monitor import CommandState
from semid_tui.context import SentCommand


class ReadOnlyError(SemidError):
    """Nothing is sent in read-only mode."""


class CommandGateway:
    """Sends commands, and follows their states."""

    def __init__(self, commands_dir: Path, *, readonly: bool) -> None:
        self._commands_dir = commands_dir
        self.readonly = readonly
        self.sent: tuple[SentCommand, ...] = ()

    def send(self, command: str, arguments: dict[str, Any], about: str = "") -> SentCommand:
        """Write a command file. Raises ReadOnlyError, or ConfigError where the directory cannot be written."""
        if self.readonly:
            raise ReadOnlyError("read-only: nothing is sent to the daemon")
        now = time.monotonic()
        sent = SentCommand(send_command(self._commands_dir, command, arguments), command, about, now, state_s=now)
        self.sent = (*self.sent, sent)[-50:]
        return sent

    def update(self, commands: Iterable[CommandState]) -> tuple[SentCommand, ...]:
        """Take over the states that the daemon recorded. Returns the commands whose state changed."""
        states = {command.name: command for command in commands}
        now = time.monotonic()
        changed = []
        updated = []
        for sent in self.sent:
            state = states.get(sent.name)
            if state is not None and state.state != sent.state:
                sent = replace(sent, state=state.state, state_s=now, answer=state.answer or "")
                changed.append(sent)
            updated.append(sent)
        self.sent = tuple(updated)
        return tuple(changed)
