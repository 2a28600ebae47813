"""Codebooks that were trained elsewhere: generation 1 of a catalogue that has none, or the next one of one that has."""

from __future__ import annotations

import time
from collections.abc import Callable

from semid_daemon.base.errors import BadFileError, CodebookError, CommandError, error_text
from semid_daemon.codebooks.files import staged_codebooks, unstage_codebooks
from semid_daemon.codebooks.sampling import RowsChangedError
from semid_daemon.command_client import Arguments
from semid_daemon.config import Config
from semid_daemon.drop.open_file import FileChangedError
from semid_daemon.generations.first_training import FirstTraining
from semid_daemon.generations.lifecycle import GenerationLifecycle
from semid_daemon.store.write.store import Store

_PATIENCE_S = 10.0
_FAULTS = (CodebookError, BadFileError, FileChangedError, RowsChangedError, OSError, MemoryError)


class CodebookImports:
    """Carries out `import-codebooks`: {"codebooks": fingerprint}, of codebooks that lie staged."""

    def __init__(
        self,
        config: Config,
        store: Store,
        first_training: FirstTraining,
        lifecycle: GenerationLifecycle,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._store = store
        self._first_training = first_training
        self._lifecycle = lifecycle
        self._wanted: tuple[str, str] | None = None  # command and fingerprint of what becomes generation 1
        self._wanted_at = 0.0
        self._now = now
        self._failed: dict[str, str] = {}
        first_training.superseded = lambda: self._wanted is not None

    def handle(self, name: str, arguments: Arguments) -> str | None:
        """The answer to a command, None while it is being carried out."""
        given = arguments.get("codebooks")
        try:
            answer = self._answer(name, given)
        except (CommandError, CodebookError) as error:
            unstage_codebooks(self._config, given)
            raise CommandError(str(error)) from error
        if answer is not None:
            unstage_codebooks(self._config, given)
        return answer

    def _answer(self, name: str, given: object) -> str | None:
        if name in self._failed:
            raise CommandError(self._failed.pop(name))
        active = self._store.generations.active()
        if active is not None and active.fingerprint == given:
            return f"generation {active.number} is active: it has these codebooks"
        if active is not None:
            return self._lifecycle.train(name, {"from": "imported", "codebooks": given})
        codebooks, _ = staged_codebooks(self._config, given)
        if self._config.quantizer.dim not in (None, codebooks.dim):
            raise CommandError(
                f"quantizer.dim in semid.toml is {self._config.quantizer.dim}, that of the codebooks {codebooks.dim}"
            )
        if self._wanted is None:
            self._wanted_at = self._now()
        self._wanted = (name, str(given))
        return None

    def work(self, unstable: bool) -> bool:
        """Publish generation 1, where that is asked for; whether it was. Files that come just now are waited for."""
        if self._wanted is None or (unstable and self._now() < self._wanted_at + _PATIENCE_S):
            return False
        name, given = self._wanted
        try:
            if self._store.generations.active() is None:
                self._first_training.begin_with(*staged_codebooks(self._config, given))
        except _FAULTS as error:
            self._failed[name] = error_text(error)
        self._wanted = None
        return True
