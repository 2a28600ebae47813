"""The queries of the screens. Each names the versions that its result depends on, and reads it as a frozen snapshot."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from semid_daemon.store.read.files import Key
from semid_daemon.store.read.monitor import MonitorReader, Overview
from semid_daemon.store.read.search import Branch

SLOW_S = 2.0  # a search that takes longer is given up


class Query:
    """Read again when the value of `depends` changes, and when another query takes its slot."""

    def depends(self, overview: Overview) -> Hashable:
        raise NotImplementedError

    def read(self, reader: MonitorReader, overview: Overview) -> Any:
        raise NotImplementedError


@dataclass(frozen=True)
class LossQuery(Query):
    run: str | None = None

    def depends(self, overview: Overview) -> Hashable:
        return overview.revisions.metrics, self.run

    def read(self, reader: MonitorReader, overview: Overview) -> Any:
        return reader.losses.curve(self.run)


@dataclass(frozen=True)
class UsageQuery(Query):
    generation: int | None = None

    def depends(self, overview: Overview) -> Hashable:
        return overview.revisions.chunks, overview.revisions.generations

    def read(self, reader: MonitorReader, overview: Overview) -> Any:
        generation = self.generation or (overview.active.generation if overview.active else None)
        return None if generation is None else reader.usage(generation)


@dataclass(frozen=True)
class TroubledFilesQuery(Query):
    most: int = 8

    def depends(self, overview: Overview) -> Hashable:
        return overview.revisions.files

    def read(self, reader: MonitorReader, overview: Overview) -> Any:
        return reader.files.troubled(self.most)


@dataclass(frozen=True)
class EventsQuery(Query):
    most: int = 50
    text: str = ""
    level: str = ""

    def depends(self, overview: Overview) -> Hashable:
        return overview.revisions.events

    def read(self, reader: MonitorReader, overview: Overview) -> Any:
        return reader.events(self.most, self.text, self.level)


@dataclass(frozen=True)
class CommandsQuery(Query):
    most: int = 20

    def depends(self, overview: Overview) -> Hashable:
        return overview.revisions.commands

    def read(self, reader: MonitorReader, overview: Overview) -> Any:
        return reader.commands(self.most)


@dataclass(frozen=True)
class GenerationsQuery(Query):
    def depends(self, overview: Overview) -> Hashable:
        return overview.revisions.generations, overview.revisions.metrics

    def read(self, reader: MonitorReader, overview: Overview) -> Any:
        return reader.generations.snapshot()


@dataclass(frozen=True)
class FilesQuery(Query):
    order: str = "newest"
    status: str = ""
    text: str = ""
    around: Key | None = None
    from_end: bool = False
    most: int = 100

    def depends(self, overview: Overview) -> Hashable:
        return overview.revisions.files

    def read(self, reader: MonitorReader, overview: Overview) -> Any:
        with reader.connection.time_limit(SLOW_S):
            return reader.files.page(
                order=self.order,
                status=self.status,
                text=self.text,
                around=self.around,
                from_end=self.from_end,
                most=self.most,
            )


@dataclass(frozen=True)
class RetriableFilesQuery(Query):
    """Names of the filtered files that can be tried again."""

    status: str
    text: str

    def depends(self, overview: Overview) -> Hashable:
        return overview.revisions.files

    def read(self, reader: MonitorReader, overview: Overview) -> Any:
        with reader.connection.time_limit(SLOW_S):
            return reader.files.retriable_names(self.status, self.text)


@dataclass(frozen=True)
class ItemSearchQuery(Query):
    text: str = ""

    def depends(self, overview: Overview) -> Hashable:
        return overview.revisions.chunks, overview.revisions.generations

    def read(self, reader: MonitorReader, overview: Overview) -> Any:
        with reader.connection.time_limit(SLOW_S):
            return reader.search.find(self.text)


@dataclass(frozen=True)
class SampleItemsQuery(Query):
    """A few items that have a code."""

    generation: int
    layer: int
    code: int
    layers: int

    def depends(self, overview: Overview) -> Hashable:
        return None

    def read(self, reader: MonitorReader, overview: Overview) -> Any:
        with reader.connection.time_limit(SLOW_S / 4):
            return reader.search.with_code(self.generation, self.layer, self.code, self.layers)


@dataclass(frozen=True)
class TreeQuery(Query):
    """The children of unfolded prefixes, as {prefix: (the first children, number of all)}."""

    prefixes: frozenset[str]
    most: int = 500

    def depends(self, overview: Overview) -> Hashable:
        return overview.revisions.chunks, overview.revisions.generations

    def read(self, reader: MonitorReader, overview: Overview) -> Any:
        children: dict[str, tuple[tuple[Branch, ...], int]] = {}
        if overview.active is not None:
            for prefix in self.prefixes:
                children[prefix] = reader.search.children(
                    overview.active.generation, prefix, overview.active.layers, self.most
                )
        return children
