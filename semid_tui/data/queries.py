"""What screens ask of the database: each feed says what its answer depends on, and reads it as a frozen snapshot."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from semid_daemon.store.read.monitor import Pulse, Watch
from semid_daemon.store.read.search import Branch, Key

SLOW_S = 2.0  # a search that takes longer is given up


class Feed:
    """Read again when `depends` changes, and when the feed is replaced by another."""

    def depends(self, pulse: Pulse) -> Hashable:
        raise NotImplementedError

    def read(self, watch: Watch, pulse: Pulse) -> Any:
        raise NotImplementedError


@dataclass(frozen=True)
class LossFeed(Feed):
    run: str | None = None

    def depends(self, pulse: Pulse) -> Hashable:
        return pulse.metrics, self.run

    def read(self, watch: Watch, pulse: Pulse) -> Any:
        return watch.loss(self.run)


@dataclass(frozen=True)
class UsageFeed(Feed):
    generation: int | None = None

    def depends(self, pulse: Pulse) -> Hashable:
        return pulse.chunks, pulse.generations

    def read(self, watch: Watch, pulse: Pulse) -> Any:
        generation = self.generation or (pulse.active.generation if pulse.active else None)
        return None if generation is None else watch.usage(generation)


@dataclass(frozen=True)
class TroubleFeed(Feed):
    most: int = 8

    def depends(self, pulse: Pulse) -> Hashable:
        return pulse.files

    def read(self, watch: Watch, pulse: Pulse) -> Any:
        return watch.troubled_files(self.most)


@dataclass(frozen=True)
class EventsFeed(Feed):
    most: int = 50
    text: str = ""
    level: str = ""

    def depends(self, pulse: Pulse) -> Hashable:
        return pulse.events

    def read(self, watch: Watch, pulse: Pulse) -> Any:
        return watch.events(self.most, self.text, self.level)


@dataclass(frozen=True)
class CommandsFeed(Feed):
    most: int = 20

    def depends(self, pulse: Pulse) -> Hashable:
        return pulse.commands

    def read(self, watch: Watch, pulse: Pulse) -> Any:
        return watch.commands(self.most)


@dataclass(frozen=True)
class LineageFeed(Feed):
    def depends(self, pulse: Pulse) -> Hashable:
        return pulse.generations, pulse.metrics

    def read(self, watch: Watch, pulse: Pulse) -> Any:
        return watch.lineage()


@dataclass(frozen=True)
class FilesFeed(Feed):
    order: str = "newest"
    status: str = ""
    text: str = ""
    around: Key | None = None
    from_end: bool = False
    most: int = 100

    def depends(self, pulse: Pulse) -> Hashable:
        return pulse.files

    def read(self, watch: Watch, pulse: Pulse) -> Any:
        with watch.at_most(SLOW_S):
            return watch.files(
                order=self.order,
                status=self.status,
                text=self.text,
                around=self.around,
                from_end=self.from_end,
                most=self.most,
            )


@dataclass(frozen=True)
class RetriableFeed(Feed):
    """Names of the filtered files that can be tried again."""

    status: str
    text: str

    def depends(self, pulse: Pulse) -> Hashable:
        return pulse.files

    def read(self, watch: Watch, pulse: Pulse) -> Any:
        with watch.at_most(SLOW_S):
            return watch.retriable_files(self.status, self.text)


@dataclass(frozen=True)
class FindFeed(Feed):
    text: str = ""

    def depends(self, pulse: Pulse) -> Hashable:
        return pulse.chunks, pulse.generations

    def read(self, watch: Watch, pulse: Pulse) -> Any:
        with watch.at_most(SLOW_S):
            return watch.find(self.text)


@dataclass(frozen=True)
class SamplesFeed(Feed):
    """Some items that have a code."""

    generation: int
    layer: int
    code: int
    layers: int

    def depends(self, pulse: Pulse) -> Hashable:
        return None

    def read(self, watch: Watch, pulse: Pulse) -> Any:
        with watch.at_most(SLOW_S / 4):
            return watch.with_code(self.generation, self.layer, self.code, self.layers)


@dataclass(frozen=True)
class TreeFeed(Feed):
    """The children of some prefixes, as {prefix: (children, how many there are)}."""

    prefixes: frozenset[str]
    most: int = 500

    def depends(self, pulse: Pulse) -> Hashable:
        return pulse.chunks, pulse.generations

    def read(self, watch: Watch, pulse: Pulse) -> Any:
        children: dict[str, tuple[tuple[Branch, ...], int]] = {}
        if pulse.active is not None:
            for prefix in self.prefixes:
                children[prefix] = watch.children(pulse.active.generation, prefix, pulse.active.layers, self.most)
        return children
