"""Arrays of numpy: .npy, .npz and sidecars."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from semid_daemon.base.errors import BadFileError, IncompleteFileError
from semid_daemon.formats import open_source
from semid_daemon.formats.vectors import BFLOAT16, FloatType, _convert
from tests.formats.files import example, read_all, write_npz, write_npz_deflated


def npy(array: np.ndarray, **more: bool) -> bytes:  # type: ignore[type-arg]
    out = io.BytesIO()
    np.lib.format.write_array(out, array, **more)
    return out.getvalue()


def npy_with(header: str, data: bytes = b"", version: bytes = b"\1\0") -> bytes:
    form = "<H" if version[0] == 1 else "<I"
    return b"\x93NUMPY" + version + struct.pack(form, len(header)) + header.encode() + data


class _Payload:
    def __reduce__(self) -> object:
        return os.mkdir, (self.path,)

    def __init__(self, path: str) -> None:
        self.path = path


@pytest.mark.parametrize("dtype", ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_float_and_order(dtype: str, order: str) -> None:
    values, _ = example(50, 37)
    source = open_source(io.BytesIO(npy(np.array(values, dtype, order=order))), "dir/my.items.npy")
    assert (source.rows, source.dim, source.format, source.id_name) == (50, 37, "npy", None)
    assert source.dtype == f"float{int(dtype[2]) * 8}"
    batches = list(source.batches(16))
    np.testing.assert_array_equal(np.concatenate([b.embeddings_ND for b in batches]), values)
    assert batches[1].item_ids[0] == "dir/my.items.npy@:16"


def test_every_float16_converts_exactly() -> None:
    raw = np.arange(65536, dtype=np.uint16)
    out = np.empty(65536, np.float32)
    _convert(raw.view(np.float16), out, FloatType("float16", np.dtype("<f2")))
    np.testing.assert_array_equal(out, raw.view(np.float16).astype(np.float32))


def test_bfloat16_by_hand() -> None:
    out = np.empty(3, np.float32)
    _convert(np.array([0x3F80, 0xC040, 0x7F80], "<u2"), out, BFLOAT16)
    assert out.tolist() == [1.0, -3.0, np.inf]


def test_float64_beyond_float32_leaves_the_row_out() -> None:
    (batch,) = read_all(npy(np.array([[1.0, 2.0], [1e300, 0.0]])), "a.npy")
    assert batch.item_ids == ["a.npy@:0"]
    assert batch.rejected == {"not finite": 1}


@pytest.mark.parametrize(
    ("array", "named"),
    [
        (np.zeros((2, 2), np.int8), "int8"),
        (np.zeros((2, 2), np.uint16), "uint16"),
        (np.zeros((2, 2), bool), "bool"),
        (np.zeros((2, 2), np.complex64), "complex64"),
        (np.zeros((2, 2), "M8[ns]"), r"M8\[ns\]"),
        (np.zeros((2, 2), "V2"), "bfloat16"),
        (np.zeros((2, 2), "U3"), "str"),
        (np.zeros((2, 2), np.longdouble), "longdouble|float128"),
        (np.zeros((2,), [("a", "f4")]), "structured"),
        (np.float32(1), "0-dimensional"),
        (np.zeros(3, np.float32), "1-dimensional"),
        (np.zeros((1, 2, 3), np.float32), "3-dimensional"),
        (np.zeros((3, 0), np.float32), "length 0"),
        (np.zeros((1, 70_000), np.float32), "70,000"),
    ],
)
def test_refused_by_name(array: np.ndarray, named: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(BadFileError, match=named):
        read_all(npy(np.asarray(array)), "a.npy")


def test_a_pickle_never_runs(tmp_path: Path) -> None:
    target = tmp_path / "made-by-pickle"
    data = npy(np.array([_Payload(str(target))], object), allow_pickle=True)
    with pytest.raises(BadFileError, match="pickle"):
        read_all(data, "a.npy")
    out = io.BytesIO()
    np.savez(out, embeddings=np.zeros((1, 2), "f4"), item_ids=np.array([_Payload(str(target))], object))
    with pytest.raises(BadFileError, match="object of type posix.mkdir"):
        read_all(out.getvalue(), "a.npz")
    assert not target.exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (npy_with("{'descr': '<f4', 'fortran_order': False, 'shape': (10**9, 8)}"), "damaged"),
        (npy_with("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 8)}"), "32,000,0"),
        (npy_with("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 8)}"), "impossible shape"),
        (npy_with("{'descr': '<f4', 'fortran_order': False, 'shape': (True, 8)}"), "impossible shape"),
        (npy_with("{'descr': '<f4', 'fortran_order': 0, 'shape': (1, 8)}"), "damaged"),
        (npy_with("{'descr': '<f4', 'shape': (1, 8)}"), "damaged"),
        (npy_with("{'descr': '<f3', 'fortran_order': False, 'shape': (1, 8)}"), "damaged"),
        (npy_with("(" * 9000), "damaged"),
        (npy_with("{'descr': ("), "damaged"),
        (npy_with("{'descr': '<f4', 'fortran_order': False, 'shape': (1L, 8), }"), "damaged"),
        (npy_with("{'descr': '<f\\x34', 'fortran_order': False, 'shape': (1, 8), }"), "damaged"),
        (npy_with("{'descr': [(1, 2, 3)], 'fortran_order': False, 'shape': (1, 8), }"), "damaged"),
        (npy_with("{'descr': ('<f4', (2, 3)), 'fortran_order': False, 'shape': (1, 8), }"), "dtype"),
        (npy_with("[" * 90), "damaged"),
        (npy_with(" " * 20_000), "10,000"),
        (npy_with("{}", version=b"\2\0"), "damaged"),
        (npy_with("{}", version=b"\7\0"), "version"),
    ],
)
def test_lying_headers(data: bytes, message: str) -> None:
    with pytest.raises(BadFileError, match=message):
        read_all(data + b"\0" * 64 if "damaged" in message else data, "a.npy")


@pytest.mark.parametrize("version", [b"\1\0", b"\2\0", b"\3\0"])
def test_header_versions(version: bytes) -> None:
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }\n"
    (batch,) = read_all(npy_with(header, np.array([1, 2], "<f4").tobytes(), version), "a.npy")
    assert batch.embeddings_ND.tolist() == [[1.0, 2.0]]


def test_short_and_long_say_the_sizes() -> None:
    data = npy(np.zeros((4, 4), np.float32))
    with pytest.raises(IncompleteFileError, match="declares 192 bytes, holds 190"):
        read_all(data[:-2], "a.npy")
    with pytest.raises(BadFileError, match="3 bytes follow") as caught:
        read_all(data + b"abc", "a.npy")
    assert not isinstance(caught.value, IncompleteFileError)


def savez(**arrays: np.ndarray) -> bytes:  # type: ignore[type-arg]
    out = io.BytesIO()
    np.savez(out, **arrays)  # type: ignore[arg-type]
    return out.getvalue()


VECTORS = np.arange(6, dtype=np.float32).reshape(3, 2)


@pytest.mark.parametrize(
    ("ids", "texts"),
    [
        (np.array([7, -8, 9], np.int8), ["7", "-8", "9"]),
        (np.array([2**64 - 1, 0, 1], ">u8"), ["18446744073709551615", "0", "1"]),
        (np.array(["a", "ü", "物"]), ["a", "ü", "物"]),
        (np.array(["a", "ü", "物"], ">U2"), ["a", "ü", "物"]),
        (np.array([b"a", "ü".encode(), b"c"]), ["a", "ü", "c"]),
    ],
)
def test_id_dtypes(ids: np.ndarray, texts: list[str]) -> None:  # type: ignore[type-arg]
    (batch,) = read_all(savez(x=VECTORS, pid=ids), "a.npz")
    assert batch.item_ids == texts


def test_ids_that_are_no_text() -> None:
    (batch,) = read_all(savez(x=VECTORS, ids=np.array([b"a", b"\xff", b""])), "a.npz")
    assert batch.item_ids == ["a"]
    assert batch.rejected == {"item ID is not text": 1, "empty item ID": 1}
    wild = np.array([ord("a"), 0x110000, 0xD800], "<u4").view("<U1")
    (batch,) = read_all(savez(x=VECTORS, ids=wild), "a.npz")
    assert batch.item_ids == ["a"]
    assert batch.rejected == {"item ID is not text": 2}


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.zeros(3), "float64"),
        (np.zeros(3, bool), "bool"),
        (np.zeros(3, "M8[s]"), "M8"),
        (np.zeros(2, int), "2 item IDs for 3 rows"),
        (np.zeros((3, 1), int), "1-D"),
    ],
)
def test_ids_that_are_refused(ids: np.ndarray, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(BadFileError, match=message):
        read_all(savez(x=VECTORS, ids=ids), "a.npz")


def test_names_are_taken_in_order_of_preference() -> None:
    data = savez(x=VECTORS + 9, embedding=VECTORS, asin=np.arange(3) + 5, id=np.arange(3) + 2)
    source = open_source(io.BytesIO(data), "a.npz")
    assert (source.vector_name, source.id_name) == ("embedding", "id")
    (batch,) = source.batches(9)
    assert batch.item_ids == ["2", "3", "4"]
    np.testing.assert_array_equal(batch.embeddings_ND, VECTORS)


def test_other_names_are_listed() -> None:
    with pytest.raises(BadFileError, match="found feats, n.*feats looks like the vectors"):
        read_all(savez(feats=VECTORS, n=np.zeros(3)), "a.npz")
    with pytest.raises(BadFileError, match="found one, two.*name the vectors embeddings"):
        read_all(savez(one=VECTORS, two=VECTORS), "a.npz")


def zipped(members: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return out.getvalue()


@pytest.mark.parametrize("name", ["../x.npy", "/x.npy", "a/../../x.npy", "..\\x.npy", "C:x.npy"])
def test_unsafe_member_names(name: str) -> None:
    with pytest.raises(BadFileError, match="unsafe name"):
        read_all(zipped([("x.npy", npy(VECTORS)), (name, b"")]), "a.npz")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_members() -> None:
    with pytest.raises(BadFileError, match="twice"):
        read_all(zipped([("x.npy", npy(VECTORS)), ("x.npy", npy(VECTORS))]), "a.npz")


def test_encrypted_and_exotic_members() -> None:
    data = bytearray(zipped([("x.npy", npy(VECTORS))]))
    data[data.rindex(b"PK\1\2") + 8] |= 1
    with pytest.raises(BadFileError, match="encrypted"):
        read_all(bytes(data), "a.npz")
    with pytest.raises(BadFileError, match="method 14"):
        read_all(zipped([("x.npy", npy(VECTORS))], zipfile.ZIP_LZMA), "a.npz")


def test_bomb() -> None:
    data = zipped([("x.npy", npy(np.zeros((70 << 20, 1), np.uint8)))], zipfile.ZIP_DEFLATED)
    assert len(data) < 100_000
    with pytest.raises(BadFileError, match="more than 1,000 times"):
        read_all(data, "a.npz")


def test_a_flipped_bit_is_noticed_before_the_first_row() -> None:
    values, ids = example(100, 8)
    data = bytearray(write_npz(values, ids))
    data[data.index(values[90].tobytes())] ^= 1
    batches = open_source(io.BytesIO(bytes(data)), "a.npz").batches(4)
    with pytest.raises(BadFileError, match="checksum"):
        next(batches)


def read_with(sidecar: bytes, name: str, vectors: np.ndarray = VECTORS):  # type: ignore[no-untyped-def, type-arg]
    source = open_source(io.BytesIO(npy(vectors)), "a.npy", sidecar=io.BytesIO(sidecar), sidecar_name=name)
    assert source.id_name == "sidecar"
    return source


def test_sidecars() -> None:
    for data in (b"a\nb b\n\xc3\xbc\n", b"a\r\nb b\r\n\xc3\xbc", b"\xef\xbb\xbfa\nb b\n\xc3\xbc"):
        (batch,) = read_with(data, "a.ids.txt").batches(10)
        assert batch.item_ids == ["a", "b b", "ü"]
    (batch,) = read_with(npy(np.array([5, 6, 7])), "a.ids.npy").batches(10)
    assert batch.item_ids == ["5", "6", "7"]


def test_sidecars_at_fault() -> None:
    (batch,) = read_with(b"\n\xff\n" + b"x" * 3_000_000, "a.ids.txt").batches(10)
    assert batch.rejected == {"empty item ID": 1, "item ID is not text": 1, "item ID too long": 1}
    with pytest.raises(BadFileError, match="4 item IDs for 3 rows"):
        read_with(b"a\nb\nc\nd", "a.ids.txt")
    with pytest.raises(BadFileError, match="2 item IDs for 3 rows"):
        read_with(npy(np.array([5, 6])), "a.ids.npy")
    with pytest.raises(BadFileError, match="float64"):
        read_with(npy(np.array([5.0, 6, 7])), "a.ids.npy")
    with pytest.raises(BadFileError, match=r"\.ids\.txt or \.ids\.npy"):
        read_with(b"a\nb\nc\n", "a.ids.csv")


def test_a_long_sidecar_is_read_from_any_row() -> None:
    rows = 200_000
    lines = "".join(f"item number {row}\n" for row in range(rows)).encode()  # several blocks
    source = read_with(lines, "a.ids.txt", np.zeros((rows, 1), np.float16))
    for start in (0, 150_000, 70_001):
        wanted = [f"item number {row}" for row in range(start, rows)]
        assert [i for b in source.batches(30_000, start) for i in b.item_ids] == wanted


def test_ids_in_the_file_come_before_a_sidecar() -> None:
    source = open_source(
        io.BytesIO(savez(x=VECTORS, id=np.arange(3))), "a.npz", sidecar=io.BytesIO(b"a\n"), sidecar_name="a.ids.txt"
    )
    assert source.id_name == "id"


@pytest.mark.parametrize("kind", ["npy", "npy-fortran", "npz", "npz-deflated", "wide ids"])
def test_memory_stays_bounded(kind: str, tmp_path: Path) -> None:
    rows, dim = 60_000, 256  # 60 MB as float32
    values = np.zeros((rows, dim), np.float32)
    values[:, 0] = np.arange(rows)
    path = tmp_path / ("a.npy" if kind.startswith("npy") else "a.npz")
    if kind == "npy":
        np.save(path, values)
    elif kind == "npy-fortran":
        np.save(path, np.asfortranarray(values))
    elif kind == "npz":
        np.savez(path, embeddings=values)
    elif kind == "npz-deflated":
        path.write_bytes(write_npz_deflated(values, ["x"] * rows))
    else:
        np.savez(path, embeddings=values[:2000], ids=np.full(2000, "x" * 9000))  # 72 MB of item IDs
    del values
    tracemalloc.start()
    with path.open("rb") as stream:
        for batch in open_source(stream, path.name).batches(1024):
            assert batch.rows_read <= 1024
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < (48 << 20 if kind == "wide ids" else 12 << 20)
