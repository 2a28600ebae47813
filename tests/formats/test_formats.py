"""What holds for every format."""

from __future__ import annotations

import errno
import io
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from semid_daemon.base.errors import BadFileError, IncompleteFileError
from semid_daemon.formats import is_supported, open_source
from tests.formats.files import WRITERS, Writer, example, read_all


@pytest.fixture(params=WRITERS)
def written(request: pytest.FixtureRequest) -> tuple[str, Writer]:
    return WRITERS[request.param]


def test_values_and_ids(written: tuple[str, Writer]) -> None:
    name, write = written
    values, ids = example()
    (batch,) = read_all(write(values, ids), name)
    assert batch.embeddings_ND.dtype == np.float32
    assert batch.embeddings_ND.flags.c_contiguous
    np.testing.assert_array_equal(batch.embeddings_ND, values)
    assert batch.item_ids == ids
    assert (batch.first_row, batch.rows_read, batch.rejected) == (0, 20, {})


def test_chunks_are_aligned(written: tuple[str, Writer]) -> None:
    name, write = written
    bounds = [(b.first_row, b.rows_read) for b in read_all(write(*example()), name, 8, 3)]
    assert bounds == [(3, 5), (8, 8), (16, 4)]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.integers(1, 40), chunk_rows=st.integers(1, 45), start=st.integers(0, 42), seed=st.integers(0, 99))
def test_any_chunking_reads_the_same(
    written: tuple[str, Writer], rows: int, chunk_rows: int, start: int, seed: int
) -> None:
    name, write = written
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((rows, 4)).astype(np.float32)
    values[rng.random(rows) < 0.2, 1] = np.nan
    ids = ["" if rng.random() < 0.1 else f"é{row}" for row in range(rows)]
    batches = read_all(write(values, ids), name, chunk_rows, start)
    good = [r for r in range(start, rows) if ids[r] and np.isfinite(values[r]).all()]
    assert [i for b in batches for i in b.item_ids] == [ids[r] for r in good]
    if batches:
        np.testing.assert_array_equal(np.concatenate([b.embeddings_ND for b in batches]), values[good])
    for batch in batches:
        assert len(batch.item_ids) + batch.rows_rejected == batch.rows_read
    assert sum(b.rows_read for b in batches) == max(0, rows - start)


def test_row_faults_are_counted_once(written: tuple[str, Writer]) -> None:
    name, write = written
    values, ids = example(8)
    values[1, 0] = np.nan
    values[2, 2] = np.inf
    values[3] = np.nan
    ids[3] = ""
    ids[4] = "x" * 1025
    ids[5] = "é" * 513  # 1026 bytes
    ids[6] = "a\0b"
    values[7] = 3e38  # finite, though its sum is not
    (batch,) = read_all(write(values, ids), name)
    assert batch.item_ids == [ids[0], ids[7]]
    np.testing.assert_array_equal(batch.embeddings_ND, values[[0, 7]])
    assert batch.rejected == {
        "not finite": 2,
        "empty item ID": 1,
        "item ID too long": 2,
        "item ID has a NUL character": 1,
    }


def test_zero_rows(written: tuple[str, Writer]) -> None:
    name, write = written
    data = write(np.empty((0, 3), np.float32), [])
    source = open_source(io.BytesIO(data), name)
    assert source.rows == 0
    assert list(source.batches(10)) == []


def test_truncated_files_are_refused(written: tuple[str, Writer]) -> None:
    name, write = written
    data = write(*example())
    for size in sorted({0, 1, 5, 8, 9, 12, 40, len(data) // 2, len(data) - 9, len(data) - 1}):
        with pytest.raises(BadFileError):
            read_all(data[:size], name)
    for size in (0, len(data) // 2, len(data) - 1):
        with pytest.raises(IncompleteFileError):
            open_source(io.BytesIO(data[:size]), name)


def test_trailing_bytes_are_refused(written: tuple[str, Writer]) -> None:
    name, write = written
    with pytest.raises(BadFileError):
        read_all(write(*example()) + b"more", name)


def test_a_file_that_shrinks_while_it_is_read_is_refused(written: tuple[str, Writer]) -> None:
    name, write = written
    values = np.random.default_rng(0).standard_normal((400, 64)).astype(np.float32)
    stream = io.BytesIO(write(values, [str(row) for row in range(400)]))
    batches = open_source(stream, name).batches(10)
    stream.truncate(700)
    with pytest.raises(BadFileError):
        list(batches)


class _FailingDisk(io.BytesIO):
    broken = False

    def _check(self) -> None:
        if self.broken:
            raise OSError(errno.EIO, "Input/output error")

    def read(self, size: int | None = -1, /) -> bytes:
        self._check()
        return super().read(size)

    def readinto(self, buffer, /) -> int:  # type: ignore[no-untyped-def]
        self._check()
        return super().readinto(buffer)


def test_io_errors_propagate(written: tuple[str, Writer]) -> None:
    name, write = written
    values = np.random.default_rng(0).standard_normal((400, 64)).astype(np.float32)
    stream = _FailingDisk(write(values, [str(row) for row in range(400)]))
    batches = open_source(stream, name).batches(10)
    stream.broken = True
    with pytest.raises(OSError, match="Input/output error") as caught:
        list(batches)
    assert caught.value.errno == errno.EIO
    with pytest.raises(OSError, match="Input/output error"):
        open_source(stream, name)


def test_streams_stay_open(written: tuple[str, Writer]) -> None:
    name, write = written
    stream = io.BytesIO(write(*example()))
    source = open_source(stream, name)
    list(source.batches(7))
    source.close()
    del source
    assert not stream.closed


def _mutated(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(0, len(changed)))
        # Half of the changes go where headers, footers and directories are.
        if rng.random() < 0.5:
            edge = min(len(changed), 200)
            at = int(rng.integers(0, edge)) if rng.random() < 0.5 else len(changed) - 1 - int(rng.integers(0, edge))
        match int(rng.integers(0, 5)):
            case 0:
                changed[at] ^= 1 << int(rng.integers(0, 8))
            case 1:
                changed[at] = int(rng.integers(0, 256))
            case 2:
                changed[at : at + 4] = b"\xff\xff\xff\x7f"
            case 3:
                del changed[at : at + int(rng.integers(1, 9))]
            case _:
                changed[at:at] = rng.bytes(int(rng.integers(1, 9)))
        if not changed:
            return b""
    return bytes(changed)


# Formats whose checksums cover every row: what is read is right or refused.
_CHECKSUMMED = {"npz", "npz-deflated", "npz-fortran", "pt", "pt-transposed", "parquet", "parquet-fixed"}


@pytest.mark.slow
@pytest.mark.parametrize("format_name", WRITERS)
def test_damaged_files_are_refused_or_read_whole(format_name: str) -> None:
    name, write = WRITERS[format_name]
    values, ids = example(20, 6)
    data = write(values, ids)
    rng = np.random.default_rng(len(format_name))
    reasons = []
    for _ in range(400):
        damaged = _mutated(data, rng)
        seen = 0
        try:
            source = open_source(io.BytesIO(damaged), name)
            for batch in source.batches(6):
                assert batch.first_row == seen
                seen += batch.rows_read
                assert batch.embeddings_ND.shape == (len(batch.item_ids), source.dim)
                assert batch.embeddings_ND.dtype == np.float32
                assert np.isfinite(batch.embeddings_ND).all()
                assert len(batch.item_ids) + batch.rows_rejected == batch.rows_read
                if format_name in _CHECKSUMMED and source.id_name and source.dim == 6:
                    rows = [ids.index(item_id) for item_id in batch.item_ids]
                    np.testing.assert_array_equal(batch.embeddings_ND, values[rows])
            assert seen == source.rows
        except BadFileError as error:
            reasons.append(str(error))
    assert len(reasons) > 100
    assert all(reason and reason.isprintable() for reason in reasons)


def test_mismatch_of_extension_and_content_names_both() -> None:
    values, ids = example()
    parquet = WRITERS["parquet"][1](values, ids)
    with pytest.raises(BadFileError, match=r"named \.npy .* parquet"):
        read_all(parquet, "a.npy")
    npz = WRITERS["npz"][1](values, ids)
    with pytest.raises(BadFileError, match=r"named \.safetensors .* zip"):
        read_all(npz, "a.safetensors")
    with pytest.raises(BadFileError, match=r"data\.pkl"):
        read_all(npz, "a.pt")
    with pytest.raises(BadFileError, match="no field named"):
        read_all(WRITERS["pt"][1](values, ids), "a.npz")
    with pytest.raises(BadFileError, match=r"named \.npz but begins with"):
        read_all(b"hello, I am text", "a.npz")
    for head, what in ((b"FEA1" + b"\0" * 20, "version 1"), (b"\xff\xff\xff\xff" + b"\0" * 20, "stream")):
        with pytest.raises(BadFileError, match=what):
            read_all(head, "a.arrow")
    with pytest.raises(BadFileError, match="extension"):
        read_all(npz, "a.csv")


def test_supported_names() -> None:
    for name in ("a.npy", "a.npz", "b/c.safetensors", "a.parquet", "a.arrow", "a.feather", "a.pt", "a.pth"):
        assert is_supported(name)
    for name in ("a.csv", "npy", ".npy", "a.npy.tmp", "a.ids.npy", "a.npy.ids.txt", "a.txt"):
        assert not is_supported(name)


def test_importing_the_room_loads_no_parser_library() -> None:
    code = "import sys, semid_daemon.formats; print(sorted({'torch', 'pyarrow'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
