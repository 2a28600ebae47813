"""Which files have stopped changing: the same signature in two looks at least `settle_s` apart."""

from __future__ import annotations

from dataclasses import dataclass

from semid_daemon.base.drop_file import DropFile, Signature


@dataclass(frozen=True, slots=True)
class _Seen:
    signatures: tuple[Signature, Signature | None]
    since: float


class StableFiles:
    """Remembers, per name, since when a file has looked the way it looks. Monotonic seconds, never mtimes."""

    def __init__(self, settle_s: float) -> None:
        self._settle_s = settle_s
        self._seen: dict[str, _Seen] = {}

    def look(self, files: dict[str, DropFile], now: float) -> tuple[list[DropFile], bool]:
        """The stable files, in the order of `files`, and whether there are unstable ones."""
        seen: dict[str, _Seen] = {}
        stable = []
        for name, file in files.items():
            signatures = (file.signature, file.sidecar_signature)
            before = self._seen.get(name)
            seen[name] = before if before and before.signatures == signatures else _Seen(signatures, now)
            if now - seen[name].since >= self._settle_s:
                stable.append(file)
        self._seen = seen
        return stable, len(stable) < len(files)

    def stable_for_s(self, name: str, now: float) -> float:
        """How long the file has looked the same, in seconds."""
        return now - self._seen[name].since if name in self._seen else 0.0
