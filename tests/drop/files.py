"""A drop directory with files in it."""

from __future__ import annotations

from pathlib import Path

from semid_daemon.base.drop_file import DropFile
from semid_daemon.base.steps import finish
from semid_daemon.drop.scan import Scan, scan

SIDECARS = (".ids.txt", ".ids.npy")


def look(directory: Path) -> Scan:
    return finish(scan(directory, supported=lambda name: name.endswith((".npy", ".npz")), sidecar_suffixes=SIDECARS))


def only(directory: Path) -> DropFile:
    (file,) = look(directory).files.values()
    return file


def placed(tmp_path: Path, name: str = "a.npy", sidecar: str | None = None) -> DropFile:
    drop_dir = tmp_path / "drop"
    drop_dir.mkdir(exist_ok=True)
    (drop_dir / name).write_bytes(b"old")
    if sidecar:
        (drop_dir / sidecar).write_text("ids\n")
    return only(drop_dir)


def files_below(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}
