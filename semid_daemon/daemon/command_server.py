"""Command files: carried out once each, recorded, never trusted."""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semid_daemon.base.errors import CommandError, DeviceError, MachineError, SemidError, StateLockedError
from semid_daemon.command_client import Arguments

if TYPE_CHECKING:
    from semid_daemon.store.write.store import Store

_log = logging.getLogger("semid")

MAX_BYTES = 1 << 20
_MOST_AT_ONCE = 100
# The machine's faults stop all work, or the process: the command waits, and is carried out after them.
_NOT_ANSWERS = (MachineError, DeviceError, StateLockedError)
_MOST_NAME, _MOST_TIME, _MOST_TEXT = 100, 40, 10_000  # characters of what is recorded


@dataclass(frozen=True, slots=True)
class Request:
    """One command file. `fault` says why it is none that can be carried out."""

    path: Path
    command: str
    arguments: Arguments
    arguments_text: str  # as JSON, as much of it as is recorded
    requested_at: str
    fault: str | None = None


def requests(paths: Iterable[Path]) -> Iterator[Request]:
    """What these files ask; one that has gone is passed over."""
    for path in paths:
        try:
            yield _parse(path, _read(path))
        except FileNotFoundError:
            continue
        except Exception as error:
            # Whatever a file holds, it is answered and consumed: what stopped the daemon would do so at every start.
            yield Request(path, "?", {}, "{}", "", fault=_clean(str(error) or type(error).__name__))


def _read(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        # Looked at before it becomes a Python file: that refuses a directory, and leaves its descriptor open.
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise CommandError("not a regular file")
        if status.st_size > MAX_BYTES:
            raise CommandError(f"larger than {MAX_BYTES:,} bytes")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_BYTES)
    finally:
        os.close(descriptor)


def _clean(text: str) -> str:
    """Text that a database can hold: JSON can spell half of a character, UTF-8 cannot."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _cleaned(value: Any) -> Any:
    """What JSON gave, every text in it clean."""
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    if isinstance(value, dict):
        return {_clean(key): _cleaned(item) for key, item in value.items()}
    return value


def _parse(path: Path, text: bytes) -> Request:
    given = _cleaned(json.loads(text))
    if not isinstance(given, dict) or not isinstance(given.get("command"), str):
        raise CommandError('not an object like {"command": "rescan", "arguments": {}}')
    arguments = given.get("arguments", {})
    if not isinstance(arguments, dict):
        raise CommandError("arguments: not an object")
    return Request(
        path,
        given["command"][:_MOST_NAME],
        arguments,
        json.dumps(arguments)[:_MOST_TEXT],
        str(given.get("requested_at", ""))[:_MOST_TIME],
    )


def _shown(name: str) -> str:
    """A file's name as the database can hold it."""
    return os.fsencode(name).decode(errors="backslashreplace")


class CommandFiles:
    """Reads command files into memory. What is read waits there, at most a hundred at a time, and is given once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._waiting: dict[str, Request] = {}  # by file name, oldest name first
        self._held: set[str] = set()  # names of those being carried out
        self._stuck: set[str] = set()  # names that are answered and cannot be removed
        self._fault_told: str | None = None

    def collect(self) -> None:
        """Read the files that have come, oldest name first."""
        room = _MOST_AT_ONCE - len(self._waiting)
        for request in requests(self._directory / name for name in self._names()[:room]):
            self._waiting[request.path.name] = request

    def waiting(self) -> list[Request]:
        """What is read and not held or removed yet."""
        return list(self._waiting.values())

    def hold(self, request: Request) -> None:
        """The request is being carried out: it is not read again."""
        self._waiting.pop(request.path.name, None)
        self._held.add(request.path.name)

    def remove(self, request: Request) -> None:
        """The request is answered."""
        name = request.path.name
        self._waiting.pop(name, None)
        self._held.discard(name)
        try:
            request.path.unlink()
        except FileNotFoundError:
            pass
        except OSError as error:
            self._stuck.add(name)
            _log.warning("%s: cannot be removed: %s; remove it by hand", request.path, error.strerror)

    def _names(self) -> list[str]:
        """Files that are not known yet. Names with a leading dot are unfinished."""
        try:
            names = os.listdir(self._directory)
        except FileNotFoundError:
            return []
        except OSError as error:
            if self._fault_told != error.strerror:
                _log.warning("%s: cannot be read: %s; commands wait", self._directory, error.strerror)
            self._fault_told = error.strerror
            return []
        self._fault_told = None
        self._stuck.intersection_update(names)
        known = {*self._waiting, *self._held, *self._stuck}
        return sorted(name for name in names if name not in known and not name.startswith("."))


class CommandServer:
    """Carries commands out, and records them and their answers. A crash in between: they are carried out again.

    `handlers` give the answer, or raise CommandError. `long_handlers` are given the command's name too, and None is
    their answer while it is still being carried out: they are asked again then, and again by the next process.
    """

    def __init__(
        self,
        files: CommandFiles,
        store: Store,
        handlers: Mapping[str, Callable[[Arguments], str]],
        long_handlers: Mapping[str, Callable[[str, Arguments], str | None]] | None = None,
    ) -> None:
        self._files = files
        self._store = store
        self._handlers = handlers
        self._long_handlers = long_handlers or {}
        self._under_way: dict[str, Request] = {}

    def poll(self) -> None:
        """Read the files that have come, and answer them."""
        self._files.collect()
        self.answer()

    def answer(self) -> None:
        """Answer what is read, and what was under way and is done now."""
        for name, request in list(self._under_way.items()):
            self._answer(name, request)
        for request in self._files.waiting():
            self._take_up(request)

    def _take_up(self, request: Request) -> None:
        name = _shown(request.path.name)
        state = self._store.commands.accept(name, request.command, request.arguments_text, request.requested_at)
        if state == "accepted":
            self._answer(name, request)
        else:
            self._files.remove(request)

    def _answer(self, name: str, request: Request) -> None:
        """Carry a command out, or see how far it is."""
        state, answer = self._carry_out(name, request)
        if answer is None:
            self._under_way[name] = request
            self._files.hold(request)
            return
        self._under_way.pop(name, None)
        self._store.commands.answer(name, state, _clean(answer)[:_MOST_TEXT])
        self._files.remove(request)

    def _carry_out(self, name: str, request: Request) -> tuple[str, str | None]:
        """State and answer; no answer yet where it takes long."""
        handler, long_handler = self._handlers.get(request.command), self._long_handlers.get(request.command)
        if request.fault is not None:
            return "failed", request.fault
        try:
            if long_handler is not None:
                return "done", long_handler(name, request.arguments)
            if handler is None:
                known = sorted([*self._handlers, *self._long_handlers])
                return "failed", f"no such command; there are {', '.join(known)}"
            return "done", handler(request.arguments)
        except _NOT_ANSWERS:
            raise
        except (SemidError, CommandError, OSError) as error:
            return "failed", str(error)
        except Exception as error:
            _log.exception("%s: the command %s failed", request.path, request.command)
            return "failed", f"{type(error).__name__}: {error}"
