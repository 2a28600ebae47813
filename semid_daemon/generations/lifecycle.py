"""When a generation is prepared, promoted, rolled back to and deleted: what was asked for, and what settings say."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from semid_daemon.base.errors import CodebookError, CommandError, error_text
from semid_daemon.command_client import Arguments
from semid_daemon.config import Config
from semid_daemon.generations.prepare import CannotPrepareError, GenerationBuilder, Steps
from semid_daemon.generations.source_rows import RowsGoneError
from semid_daemon.ingest.learner import Learner
from semid_daemon.runtime.events import EventLog
from semid_daemon.store.write.generations import Generation, Origin
from semid_daemon.store.write.store import Store

_SLICE_S = 0.5
_AUTO = "auto"
_FAULTS = (CannotPrepareError, RowsGoneError, CodebookError, OSError, MemoryError)


@dataclass(frozen=True, slots=True)
class Request:
    """Something asked for that takes long: by the name of its command, or by the settings."""

    name: str
    kind: str  # train, switch
    origin: Origin = "anew"
    generation: int = 0
    codebooks: str = ""  # of origin "imported": the fingerprint of those that lie staged


class GenerationLifecycle:
    """Works off requests piece by piece. `before_switch` lets go of all that goes on with the active generation.
    `wake` ends an idle daemon's waiting.

    The handlers answer a command, or give None while it is being carried out; they are asked again then.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        events: EventLog,
        learner: Learner,
        builder: GenerationBuilder,
        *,
        stop: threading.Event,
        before_switch: Callable[[], None],
        wake: Callable[[], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = config.generations
        self._store = store
        self._events = events
        self._learner = learner
        self._builder = builder
        self._stop = stop
        self._before_switch = before_switch
        self._wake = wake
        self._now = now
        self._requests: dict[str, Request] = {}  # in the order in which they came
        self._failed: dict[str, str] = {}  # what became of requests that failed
        self._job: tuple[str, Steps] | None = None  # whose it is, and what is left of it
        self._not_again: dict[str, int] = {}  # what failed by itself, and the last chunk then

    # -- commands ------------------------------------------------------------------------------------

    def train(self, name: str, arguments: Arguments) -> str | None:
        """Prepare the next generation: {"from": "candidate" | "anew"}, by default what the mode has."""
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
                raise CommandError("there is no generation yet: the first one is trained when rows enough have come")
            if arguments.get("from") == "imported":
                self._request(Request(name, "train", "imported", codebooks=str(arguments.get("codebooks"))))
                return None
            origin = arguments.get("from", "candidate" if self._settings.mode == "continual" else "anew")
            if origin not in ("candidate", "anew"):
                raise CommandError('"from": give "candidate" or "anew"')
            if origin == "candidate" and self._settings.mode != "continual":
                raise CommandError(f'there is no candidate with generations.mode = "{self._settings.mode}"; train anew')
            self._request(Request(name, "train", origin))
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
        self._request(Request(name, "switch", generation=target.number))
        return None

    def _request(self, request: Request) -> None:
        self._requests[request.name] = request
        self._wake()

    # -- work ----------------------------------------------------------------------------------------

    @property
    def asked(self) -> bool:
        """Whether something was asked for that is not begun."""
        return bool(self._requests) and self._job is None

    @property
    def busy(self) -> bool:
        """Whether something is half done."""
        return self._job is not None

    def work(self, *, idle: bool) -> bool:
        """A slice of what is to be done; whether there was anything. Some of it waits until there is nothing else."""
        if self._job is None:
            self._job = self._next_job(idle)
        if self._job is None:
            return False
        name, steps = self._job
        until = self._now() + _SLICE_S
        try:
            for _ in steps:
                if self._stop.is_set() or self._now() >= until:
                    return True
            self.close()
        except _FAULTS as error:
            self.close()
            self._fail(name, error)
        except BaseException:
            self.close()
            raise
        return True

    def close(self) -> None:
        """Give up what is half done: it is begun anew, or gone on with, by whoever works next."""
        if self._job is not None:
            self._job[1].close()
            self._job = None
        self._builder.close()

    def _fail(self, name: str, error: Exception) -> None:
        """Nothing that is published has changed. What was being prepared, and could not be completed, goes."""
        self._learner.forget()
        why = error_text(error)
        request = self._requests.pop(name, None)
        for generation in self._store.generations.by_status("preparing"):
            whose = generation.requested_by or _AUTO
            if whose == name or (request is not None and request.generation == generation.number):
                self._store.generations.begin_deleting(generation.number)
                self._tell_failed(whose, why)
        self._tell_failed(name, why)
        self._events.warning(f"{_KINDS.get(name, 'the generation was not prepared or promoted')}: {why}")

    def _tell_failed(self, name: str, why: str) -> None:
        if name.startswith(_AUTO) or name in _KINDS:
            self._not_again[_kind(name)] = self._store.chunks.last_id()
        else:
            self._failed[name] = why

    def _next_job(self, idle: bool) -> tuple[str, Steps] | None:
        active = self._store.generations.active()
        if active is None:
            return None
        for generation in self._store.generations.by_status("deleting"):
            return "delete", self._builder.delete(generation.number)
        for request in self._requests.values():
            if request.kind == "switch":
                return request.name, self._switching(request)
        for generation in self._store.generations.by_status("preparing"):
            return generation.requested_by or _AUTO, self._completing(generation)
        for request in self._requests.values():
            return request.name, self._training(request)
        request_of_settings = self._by_settings(active)
        if request_of_settings is not None:
            self._requests[request_of_settings.name] = request_of_settings
            return self._next_job(idle)
        excess = self._store.generations.by_status("retired")[: -self._settings.keep_retired or None]
        if excess:
            self._store.generations.begin_deleting(excess[0].number)
            return "delete", self._builder.delete(excess[0].number)
        return self._when_idle(active) if idle else None

    def _when_idle(self, active: Generation) -> tuple[str, Steps] | None:
        for generation in self._store.generations.by_status("ready"):
            if self._store.chunks.after(generation.encoded_through) and self._may("keep up"):
                return "keep up", self._builder.backfill(generation.number)
        if active.items and not self._store.comparisons.has_quality(active.number) and self._may("measure"):
            return "measure", self._builder.measure(active.number)
        return None

    def _may(self, name: str) -> bool:
        """Whether something that failed is tried again: once more rows have come."""
        return self._not_again.get(name, -1) < self._store.chunks.last_id()

    def _by_settings(self, active: Generation) -> Request | None:
        """What no one has asked for but the settings."""
        settings = self._settings
        ready = self._store.generations.by_status("ready")
        if settings.refresh == "auto":
            for generation in ready:
                if (generation.requested_by or "").startswith(_AUTO) and self._may(f"{_AUTO} promote"):
                    return Request(f"{_AUTO} promote", "switch", generation=generation.number)
        if ready or not self._may(f"{_AUTO} train"):
            return None
        if settings.refresh != "ask" and self._learner.alarm(active.number):
            return Request(f"{_AUTO} train", "train", "candidate" if settings.mode == "continual" else "anew")
        return None

    def _training(self, request: Request) -> Steps:
        for former in self._store.generations.by_status("ready"):
            # One at a time is prepared: this one was not wanted.
            self._store.generations.begin_deleting(former.number)
            yield from self._builder.delete(former.number)
        requested_by = (
            f"{request.name} {self._store.chunks.last_id()}" if request.name.startswith(_AUTO) else request.name
        )
        yield from self._builder.train(request.origin, requested_by, request.codebooks)
        self._requests.pop(request.name, None)

    def _completing(self, generation: Generation) -> Steps:
        number = generation.number
        active = self._store.generations.active()
        assert active is not None
        yield from self._builder.backfill(number)
        yield from self._builder.compare(active.number, number)
        yield from self._builder.measure(number)
        self._store.generations.set_ready(number)
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


def _kind(name: str) -> str:
    """Of what the settings ask for, without the chunk at which they did."""
    return " ".join(name.split()[:2])


_KINDS = {
    "measure": "the quality of the codebooks was not measured",
    "keep up": "the prepared generation was not kept up to date",
    "delete": "a former generation was not deleted",
}
