"""torch.save files: read without torch, and without running anything."""

from __future__ import annotations

import io
import os
import pickle
import tracemalloc
import zipfile
from pathlib import Path

import pytest
import torch

from semid_daemon.base.errors import BadFileError
from semid_daemon.formats import open_source
from semid_daemon.formats.torch_pickle import read_checkpoint_pickle, read_pickle
from tests.formats.files import read_all

VALUES = torch.tensor([[1.5, -2.0], [0.0, 3.25], [4.0, 5.0]])


def saved(value: object, **more: object) -> bytes:
    out = io.BytesIO()
    torch.save(value, out, **more)  # type: ignore[arg-type]
    return out.getvalue()


def rezipped(data: bytes, changes: dict[str, bytes]) -> bytes:
    """The same archive with other records, checksums right."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            record = info.filename.split("/", 1)[1]
            new.writestr(info.filename, changes.get(record, old.read(info)))
    return out.getvalue()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_tensor(dtype: torch.dtype) -> None:
    source = open_source(io.BytesIO(saved(VALUES.to(dtype))), "merged_predictions_tensor.pt")
    assert (source.rows, source.dim, source.dtype) == (3, 2, str(dtype).removeprefix("torch."))
    (batch,) = source.batches(10)
    assert batch.embeddings_ND.tolist() == VALUES.tolist()
    assert batch.item_ids[2] == "merged_predictions_tensor.pt@:2"


@pytest.mark.parametrize(
    "ids", [torch.tensor([5, 6, 7]), torch.tensor([5, 6, 7], dtype=torch.uint16), [5, "6", 7], ("5", "6", "7")]
)
def test_a_dict(ids: object) -> None:
    content = {"epoch": 3, "lr": 0.5, "note": None, "emb": torch.nn.Parameter(VALUES), "item_id": ids, 7: [True]}
    source = open_source(io.BytesIO(saved(content)), "a.pt")
    assert (source.vector_name, source.id_name) == ("emb", "item_id")
    (batch,) = source.batches(10)
    assert batch.item_ids == ["5", "6", "7"]
    assert batch.embeddings_ND.tolist() == VALUES.tolist()


def test_views_of_larger_storages() -> None:
    big = torch.arange(40.0).reshape(20, 2)
    for view in (big[4:7], big.t()[:, :], big.t(), big[:1], big[:, :1][:1], torch.arange(9.0)[3:][None]):
        (batch,) = read_all(saved(view), "a.pt")
        assert batch.embeddings_ND.tolist() == view.tolist()
    with pytest.raises(BadFileError, match=r"contiguous\(\)"):
        read_all(saved(big[:, :1]), "a.pt")


def test_expand_bomb() -> None:
    data = saved(torch.zeros(1).expand(10**6, 10**3))
    assert len(data) < 3000
    with pytest.raises(BadFileError, match="strides"):
        read_all(data, "a.pt")
    pretends = saved(torch.zeros(2, 4)).replace(b"K\x02K\x04\x86", b"M\xff\xffK\x04"[:4] + b"\x86")
    with pytest.raises(BadFileError):
        read_all(pretends, "a.pt")


def test_a_shape_beyond_its_storage() -> None:
    data = saved(torch.zeros(2, 4))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        pickled = archive.read("archive/data.pkl")
    assert pickled.count(b"K\x02K\x04\x86") == 1
    for shape in (b"K\x03K\x04\x86", b"J\xff\xff\xff\x7fK\x04\x86"):
        changed = rezipped(data, {"data.pkl": pickled.replace(b"K\x02K\x04\x86", shape)})
        with pytest.raises(BadFileError, match="more than its 32 bytes hold"):
            read_all(changed, "a.pt")
    with pytest.raises(BadFileError, match="declares 32 bytes, holds 28"):
        read_all(rezipped(data, {"data/0": bytes(28)}), "a.pt")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (VALUES.to_sparse(), "sparse"),
        (VALUES.to("meta"), "meta"),
        (VALUES.to(torch.complex64), "complex64"),
        (VALUES.int(), "int32"),
        (VALUES.bool(), "bool"),
        (VALUES.to(torch.float8_e4m3fn), "float8"),
        (VALUES[0], "1-dimensional"),
        (VALUES[None], "3-dimensional"),
        ([VALUES], "holds a list"),
        ({"x": VALUES.tolist()}, "is a list"),
        ({"weights": VALUES}, "weights looks like the vectors"),
        ({"x": VALUES, "ids": VALUES[:, 0]}, "float32"),
        ({"x": VALUES, "ids": [1, 2]}, "2 item IDs for 3 rows"),
        ({"x": VALUES, "ids": [1, 2, 3.5]}, "float at row 2"),
        ({"x": VALUES, "ids": "abc"}, "is a str"),
        ({"x": VALUES, "ids": VALUES.numpy()}, "numpy"),
        ({"x": VALUES, (1, 2): 3}, "key that is a tuple"),
        (torch.nn.Linear(2, 2), "never given"),
    ],
)
def test_refused_by_name(value: object, message: str) -> None:
    with pytest.raises(BadFileError, match=message):
        read_all(saved(value), "a.pt")


@pytest.mark.filterwarnings("ignore")
def test_sparse_rows_and_quantized_tensors_are_refused() -> None:
    with pytest.raises(BadFileError, match="sparse"):
        read_all(saved(VALUES.to_sparse_csr()), "a.pt")
    with pytest.raises(BadFileError, match="quantized|storage of type"):
        read_all(saved(torch.quantize_per_tensor(VALUES, 0.1, 0, torch.qint8)), "a.pt")


class _Payload:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return os.system, (f"touch {self.path}",)


def test_a_pickle_never_runs(tmp_path: Path) -> None:
    target = tmp_path / "made-by-pickle"
    payload = _Payload(str(target))
    for data in (
        saved({"x": VALUES, "ids": payload}),
        saved(payload),
        rezipped(saved(VALUES), {"data.pkl": pickle.dumps(payload, 4)}),
        rezipped(saved(VALUES), {"data.pkl": pickle.dumps(payload, 0)}),
    ):
        with pytest.raises(BadFileError):
            read_all(data, "a.pt")
    for protocol in (2, 4):
        with pytest.raises(BadFileError, match="pickle"):
            read_all(pickle.dumps(payload, protocol), "a.pt")
    assert not target.exists()


def test_legacy_files_say_how_to_save_again() -> None:
    with pytest.raises(BadFileError, match=r"PyTorch 1\.6 or newer"):
        read_all(saved(VALUES, _use_new_zipfile_serialization=False), "a.pt")


def test_byte_order_and_programs() -> None:
    with pytest.raises(BadFileError, match="little-endian"):
        read_all(rezipped(saved(VALUES), {"byteorder": b"big"}), "a.pt")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("m/data.pkl", b"\x80\x02N.")
        archive.writestr("m/constants.pkl", b"\x80\x02N.")
    with pytest.raises(BadFileError, match="TorchScript"):
        read_all(out.getvalue(), "a.pt")


def test_conjugated_and_negated_views_are_refused() -> None:
    negated = torch._neg_view(VALUES)
    with pytest.raises(BadFileError, match="negated"):
        read_all(saved(negated), "a.pt")


@pytest.mark.parametrize(
    "code",
    [
        b"", b"\x80\x02", b"\x80\x02.", b"\x80\x02N", b"\x80\x02h\x05.", b"\x80\x02a.", b"\x80\x02e.",
        b"\x80\x02(NNu.", b"\x80\x02X\xff\xff\xff\xff.", b"\x80\x02cos\nsystem\n)R.", b"\x80\x02NQ.",
        b"\x80\x02\x85.", b"\x80\x02}(Nu.", b"\x80\x02((((t.", b"\x80\x02q\x01.", b"\x80\x02)s.",
    ],
)  # fmt: skip
def test_damaged_pickles(code: bytes) -> None:
    with pytest.raises(BadFileError):
        read_all(rezipped(saved(VALUES), {"data.pkl": code}), "a.pt")


def test_plain_data() -> None:
    value = {"a": [1, -1, 300, 70_000, 2**70, 1.5, None, True, "é\ud800"], "b": ((), (1,), (1, 2), (1, 2, 3, 4)), 3: {}}
    value["self"] = value["a"]
    assert read_pickle(pickle.dumps(value, 2)) == value


@pytest.mark.slow
@pytest.mark.timeout(20)
@pytest.mark.parametrize("levels", [64, 200_000])
def test_a_key_of_nested_tuples_in_a_checkpoint(levels: int) -> None:
    """Its hash would take time that doubles with every level, or the whole C stack."""
    assert read_checkpoint_pickle(b"\x80\x02})" + b"q\x00h\x00\x86" * levels + b"Ns.") == {}


def test_memory_stays_bounded(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"embeddings": torch.zeros(60_000, 256), "ids": torch.arange(60_000)}, path)
    tracemalloc.start()
    with path.open("rb") as stream:
        rows = sum(batch.rows_read for batch in open_source(stream, "a.pt").batches(1024))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows == 60_000
    assert peak < 12 << 20
