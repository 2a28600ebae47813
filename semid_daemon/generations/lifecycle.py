"""When a generation is prepared, promoted, rolled back to and deleted: on request, or as the settings say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from semid_daemon.base.errors import CodebookError, CommandError, error_text
from semid_daemon.command_client import Arguments
from semid_daemon.config import Config
from semid_daemon.generations.prepare import CannotPrepareError, GenerationBuilder
from semid_daemon.generations.source_rows import RowsGoneError
from semid_daemon.generations.steps import Steps, run_slice
from semid_daemon.ingest.learner import Learner
from semid_daemon.runtime.context import WorkContext
from semid_daemon.runtime.events import EventLog
from semid_daemon.store.write.generations import Generation, Origin
from semid_daemon.store.write.store import Store

_AUTO = "auto"  # the requests of the settings begin like this
_FAULTS = (CannotPrepareError, RowsGoneError, CodebookError, OSError, MemoryError)


@dataclass(frozen=True, slots=True)
class Request:
    """A generation to prepare, or to make the active one: requested by a command (`name`) or by the settings."""

    name: str
    kind: Literal["train", "switch"]
    origin: Origin = "anew"
    generation: int = 0  # to switch to
    codebooks: str = ""  # of origin "imported": the fingerprint of the staged codebooks


class GenerationLifecycle:
    """Executes queued requests in small steps.

    `before_switch` must close everything that uses the active generation; `wake` ends the waiting of an idle daemon.

    The handlers of commands return the answer, or None while the command is being carried out; they are called again
    then.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        events: EventLog,
        learner: Learner,
        builder: GenerationBuilder,
        context: WorkContext,
        *,
        before_switch: Callable[[], None],
        wake: Callable[[], None],
    ) -> None:
        self._settings = config.generations
        self._store = store
        self._events = events
        self._learner = learner
        self._builder = builder
        self._context = context
        self._before_switch = before_switch
        self._wake = wake
        self._requests: dict[str, Request] = {}  # by name, in the order in which they came
        self._failed: dict[str, str] = {}  # why, by the name of a request
        self._job: tuple[str, Steps] | None = None  # the name of a request or of a kind of work, and its further steps
        self._failed_at_chunk: dict[str, int] = {}  # by kind of work that nobody requested: the last chunk then

    # -- commands ------------------------------------------------------------------------------------

    def train(self, name: str, arguments: Arguments) -> str | None:
        """Prepare the next generation: {"from": "candidate" | "anew"}, by default the candidate where there is one."""
        if name in self._failed:
            raise CommandError(self._failed.pop(name))
        made = self._store.generations.requested_by(name)
        if made is not None and made.status != "preparing":
            if made.status in ("deleting", "deleted"):
                raise CommandError(f"generation {made.number} could not be completed; `semid status` says more")
            return (
                f"generation {made.number} is ready: `semid compare {made.based_on} {made.number}` shows what"
                f" would change, `semid promote {made.number}` makes it the active one"
            )
        if made is None and name not in self._requests:
            if self._store.generations.active() is None:
                raise CommandError("there is no generation yet: the first one is trained when there are enough rows")
            if arguments.get("from") == "imported":
                self._queue(Request(name, "train", "imported", codebooks=str(arguments.get("codebooks"))))
                return None
            origin = arguments.get("from", "candidate" if self._settings.mode == "continual" else "anew")
            if origin not in ("candidate", "anew"):
                raise CommandError('"from": give "candidate" or "anew"')
            if origin == "candidate" and self._settings.mode != "continual":
                raise CommandError(f'there is no candidate with generations.mode = "{self._settings.mode}"; train anew')
            self._queue(Request(name, "train", origin))
        return None

    def promote(self, name: str, arguments: Arguments) -> str | None:
        """Make a prepared generation the active one: {"generation": number}, by default the one that is ready."""
        ready = self._store.generations.by_status("ready")
        return self._switch(
            name, arguments, ready[-1] if ready else None, "no generation is ready; `semid train` first"
        )

    def rollback(self, name: str, arguments: Arguments) -> str | None:
        """Go back to a former generation: {"generation": number}, by default the last one that was active."""
        retired = self._store.generations.by_status("retired")
        return self._switch(name, arguments, retired[-1] if retired else None, "there is no former generation")

    def _switch(self, name: str, arguments: Arguments, default: Generation | None, lacking: str) -> str | None:
        if name in self._failed:
            raise CommandError(self._failed.pop(name))
        done = self._store.generations.switched_by(name)
        if done is not None:
            return f"generation {done.number} is active"
        if name in self._requests:
            return None
        wanted = arguments.get("generation")
        if wanted is not None and (not isinstance(wanted, int) or isinstance(wanted, bool)):
            raise CommandError('"generation": give a number')
        target = default if wanted is None else self._store.generations.get(wanted)
        if target is None:
            raise CommandError(lacking if wanted is None else f"there is no generation {wanted}")
        if target.status == "active":
            return f"generation {target.number} is active already"
        if target.status not in ("preparing", "ready", "retired"):
            raise CommandError(f"generation {target.number} was deleted")
        self._queue(Request(name, "switch", generation=target.number))
        return None

    def _queue(self, request: Request) -> None:
        self._requests[request.name] = request
        self._wake()

    # -- work ----------------------------------------------------------------------------------------

    @property
    def asked(self) -> bool:
        """Whether a request waits that is not begun."""
        return bool(self._requests) and self._job is None

    @property
    def busy(self) -> bool:
        """Whether work is half done."""
        return self._job is not None

    def work(self, *, idle: bool) -> bool:
        """Work for about half a second. Returns whether there was something to do.

        Some work waits until the daemon is `idle` otherwise.
        """
        if self._job is None:
            self._job = self._next_job(idle)
        if self._job is None:
            return False
        name, steps = self._job
        try:
            if run_slice(steps, self._context):
                self.close()
        except _FAULTS as error:
            self.close()
            self._fail(name, error)
        except BaseException:
            self.close()
            raise
        return True

    def close(self) -> None:
        """Give up work that is half done: it begins again, or goes on where it was, the next time."""
        if self._job is not None:
            self._job[1].close()
            self._job = None
        self._builder.close()

    def _fail(self, name: str, error: Exception) -> None:
        """Delete what was being prepared and could not be completed. Nothing that is published has changed."""
        self._learner.forget()
        why = error_text(error)
        request = self._requests.pop(name, None)
        for generation in self._store.generations.by_status("preparing"):
            requester = generation.requested_by or _AUTO
            if requester == name or (request is not None and request.generation == generation.number):
                self._store.generations.begin_deleting(generation.number)
                self._remember_failure(requester, why)
        self._remember_failure(name, why)
        self._events.warning(f"{_FAILURES.get(name, 'the generation was not prepared or promoted')}: {why}")

    def _remember_failure(self, name: str, why: str) -> None:
        if name.startswith(_AUTO) or name in _FAILURES:
            self._failed_at_chunk[_kind(name)] = self._store.chunks.last_id()
        else:
            self._failed[name] = why

    def _may_retry(self, kind: str) -> bool:
        """Work that failed and that nobody requested is tried again once more rows have come."""
        return self._failed_at_chunk.get(kind, -1) < self._store.chunks.last_id()

    # -- the next job ----------------------------------------------------------------------------------

    def _next_job(self, idle: bool) -> tuple[str, Steps] | None:
        active = self._store.generations.active()
        if active is None:
            return None
        job = self._urgent_job() or self._requested_job()
        if job is not None:
            return job
        request = self._request_of_settings(active)
        if request is not None:
            self._requests[request.name] = request
            return self._requested_job()
        excess = self._store.generations.by_status("retired")[: -self._settings.keep_retired or None]
        if excess:
            self._store.generations.begin_deleting(excess[0].number)
            return "delete", self._deleting(excess[0].number)
        return self._idle_job(active) if idle else None

    def _urgent_job(self) -> tuple[str, Steps] | None:
        """Deleting, or what a request prepares; a switch goes before the latter."""
        for generation in self._store.generations.by_status("deleting"):
            return "delete", self._deleting(generation.number)
        for request in self._requests.values():
            if request.kind == "switch":
                return request.name, self._switching(request)
        for generation in self._store.generations.by_status("preparing"):
            return generation.requested_by or _AUTO, self._completing(generation)
        return None

    def _requested_job(self) -> tuple[str, Steps] | None:
        for request in self._requests.values():
            return request.name, self._switching(request) if request.kind == "switch" else self._training(request)
        return None

    def _request_of_settings(self, active: Generation) -> Request | None:
        """What nobody requested but the settings."""
        settings = self._settings
        ready = self._store.generations.by_status("ready")
        if settings.refresh == "auto":
            for generation in ready:
                if (generation.requested_by or "").startswith(_AUTO) and self._may_retry(f"{_AUTO} promote"):
                    return Request(f"{_AUTO} promote", "switch", generation=generation.number)
        if ready or settings.refresh == "ask" or not self._may_retry(f"{_AUTO} train"):
            return None
        if self._learner.alarm(active.number):
            return Request(f"{_AUTO} train", "train", "candidate" if settings.mode == "continual" else "anew")
        return None

    def _idle_job(self, active: Generation) -> tuple[str, Steps] | None:
        for generation in self._store.generations.by_status("ready"):
            if self._store.chunks.after(generation.encoded_through) and self._may_retry("keep up"):
                return "keep up", self._builder.backfill(generation.number)
        if active.items and not self._store.comparisons.has_quality(active.number) and self._may_retry("measure"):
            return "measure", self._builder.measure(active.number)
        return None

    # -- jobs ------------------------------------------------------------------------------------------

    def _training(self, request: Request) -> Steps:
        for former in self._store.generations.by_status("ready"):
            # Only one generation is prepared at a time, and this one was not promoted.
            self._store.generations.begin_deleting(former.number)
            yield from self._deleting(former.number)
        requested_by = (
            f"{request.name} {self._store.chunks.last_id()}" if request.name.startswith(_AUTO) else request.name
        )
        generation = yield from self._builder.train(request.origin, requested_by, request.codebooks)
        active = self._store.generations.active()
        assert active is not None
        self._events.info(
            f"generation {generation.number} prepared from {_ORIGINS[request.origin]}: {generation.fingerprint};"
            f" {active.items:,} items are encoded with it now, none of them changes before `semid promote`"
        )
        self._requests.pop(request.name, None)

    def _completing(self, generation: Generation) -> Steps:
        number = generation.number
        active = self._store.generations.active()
        assert active is not None
        yield from self._builder.complete(number)
        self._events.info(
            f"generation {number} is ready: `semid compare {active.number} {number}` shows what would change,"
            f" `semid promote {number}` makes it the active one"
        )

    def _switching(self, request: Request) -> Steps:
        target = self._store.generations.get(request.generation)
        if target is None or target.status not in ("preparing", "ready", "retired"):
            raise CannotPrepareError(f"generation {request.generation} was deleted")
        if target.status == "preparing":
            yield from self._completing(target)
        yield from self._builder.backfill(request.generation)
        # Between this and the switch nothing else has its turn.
        active = self._store.generations.active()
        assert active is not None
        self._before_switch()
        self._store.generations.switch_to(request.generation, request.name)
        self._learner.forget()
        self._requests.pop(request.name, None)
        self._events.info(f"generation {request.generation} is active; it was generation {active.number} before")

    def _deleting(self, number: int) -> Steps:
        fingerprint = yield from self._builder.delete(number)
        self._events.info(f"generation {number} deleted: {fingerprint}")


def _kind(name: str) -> str:
    """The kind of a request of the settings: its name without the chunk at which it was made."""
    return " ".join(name.split()[:2])


_FAILURES = {
    "measure": "the quality of the codebooks was not measured",
    "keep up": "the prepared generation was not kept up to date",
    "delete": "a former generation was not deleted",
}
_ORIGINS = {
    "candidate": "the candidate",
    "anew": "the whole catalogue",
    "first": "the first rows",
    "imported": "imported codebooks",
}
