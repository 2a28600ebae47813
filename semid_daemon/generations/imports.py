"""Imported codebooks: generation 1 of a catalogue that has none, or the next generation of one that has."""

from __future__ import annotations

from dataclasses import dataclass

from semid_daemon.base.errors import BadFileError, CodebookError, CommandError, error_text
from semid_daemon.codebooks.files import staged_codebooks, unstage_codebooks
from semid_daemon.codebooks.sampling import RowsChangedError
from semid_daemon.command_client import Arguments
from semid_daemon.config import Config
from semid_daemon.drop.open_file import FileChangedError
from semid_daemon.generations.first_training import FirstTraining
from semid_daemon.generations.lifecycle import GenerationLifecycle
from semid_daemon.generations.steps import Steps, run_slice
from semid_daemon.runtime.context import WorkContext
from semid_daemon.store.write.store import Store

_PATIENCE_S = 10.0  # for files that are still being written, whose rows new ones will be compared with
_FAULTS = (CodebookError, BadFileError, FileChangedError, RowsChangedError, OSError, MemoryError)


@dataclass(frozen=True, slots=True)
class _FirstImport:
    """A command that makes staged codebooks generation 1."""

    command: str
    fingerprint: str
    requested_at: float


class CodebookImports:
    """Carries out `import-codebooks`: {"codebooks": fingerprint}, of staged codebooks.

    An import of generation 1 holds back the first training; one into a catalogue that has a generation becomes a
    request of the life cycle.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        first_training: FirstTraining,
        lifecycle: GenerationLifecycle,
        context: WorkContext,
    ) -> None:
        self._config = config
        self._store = store
        self._first_training = first_training
        self._lifecycle = lifecycle
        self._context = context
        self._first: _FirstImport | None = None
        self._job: Steps | None = None
        self._failed: dict[str, str] = {}  # why, by command

    def handle(self, name: str, arguments: Arguments) -> str | None:
        """The answer to a command, None while it is being carried out. Raises CommandError where it is refused."""
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
        if self._first is None:
            self._first = _FirstImport(name, str(given), self._context.now())
            self._first_training.suspend()
        return None

    def work(self, unstable: bool) -> bool:
        """Publish generation 1 from imported codebooks, where that was asked for, for about half a second.

        Returns whether there was something to do. `unstable`: files are still being written; they are waited for.
        """
        if self._first is None:
            return False
        if self._job is None:
            if unstable and self._context.now() < self._first.requested_at + _PATIENCE_S:
                return False
            self._job = self._publishing(self._first)
        try:
            if not run_slice(self._job, self._context):
                return True
        except _FAULTS as error:
            self._failed[self._first.command] = error_text(error)
        except BaseException:
            self.close()
            raise
        self._job = self._first = None
        self._first_training.resume()
        return True

    def close(self) -> None:
        """End an import that is under way: it begins again."""
        if self._job is not None:
            self._job.close()
            self._job = None

    def _publishing(self, first: _FirstImport) -> Steps:
        if self._store.generations.active() is None:
            yield from self._first_training.publish_imported(*staged_codebooks(self._config, first.fingerprint))
