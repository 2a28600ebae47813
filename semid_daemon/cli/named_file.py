"""Files named on the command line, opened as the daemon opens dropped files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from semid_daemon.base.drop_file import DropFile, FieldNames
from semid_daemon.base.errors import BadFileError
from semid_daemon.base.text import printable
from semid_daemon.drop.open_file import FileChangedError
from semid_daemon.drop.scan import possible_sidecars, signature_of
from semid_daemon.formats import SIDECAR_SUFFIXES, EmbeddingSource
from semid_daemon.ingest.open_embeddings import open_embeddings


@contextmanager
def open_named_file(
    path: Path, fields: FieldNames, directories: Sequence[Path] = (), dim: int | None = None
) -> Iterator[tuple[DropFile, EmbeddingSource]]:
    """Open a file as embeddings. On leaving without an exception, check that it has not changed meanwhile.

    `directories` are those whose files the daemon names by their path below them; `dim` is the catalogue's.
    Raises BadFileError for a file that cannot be used, OSError for one that cannot be read.
    """
    file = _named_file(path, fields, directories)
    try:
        with open_embeddings(file, dim=dim) as (opened, source):
            yield file, source
            opened.check_unchanged()
    except FileChangedError as error:
        raise BadFileError(str(error)) from error


def _named_file(path: Path, fields: FieldNames, directories: Sequence[Path]) -> DropFile:
    """The file and the sidecar beside it, as a scan of the drop directory would give them; links are followed."""
    named = path.absolute()
    found = named.resolve(strict=True)
    if not found.is_file():
        raise BadFileError("is no regular file; give the files of a directory one by one")
    sidecar = next((candidate for candidate in possible_sidecars(named, SIDECAR_SUFFIXES) if candidate.is_file()), None)
    inside = (named.relative_to(directory) for directory in directories if named.is_relative_to(directory))
    below = next(inside, Path(named.name))
    behind = sidecar.resolve() if sidecar else None
    return DropFile(
        path=found,
        name=printable(below),
        signature=signature_of(os.stat(found)),
        sidecar=behind,
        sidecar_signature=signature_of(os.stat(behind)) if behind else None,
        fields=fields,
    )
