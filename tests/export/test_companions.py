"""An export and what lies beside it are one thing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from semid_daemon.export.companions import check_export, row_items
from semid_daemon.export.job import ExportError
from semid_daemon.store.read.export_items import Selection
from tests.export.published import Published, write


def test_the_map_of_another_export_is_refused(packages: Published, tmp_path: Path):
    write(packages, "npy", tmp_path / "a.npy")
    write(packages, "npy", tmp_path / "b.npy", Selection(prefix=str(packages.rows[0].codes[0])))
    assert row_items(tmp_path / "a.npy") == [row.item_id for row in packages.expected()]
    assert check_export(tmp_path / "a.npy")["rows"] == len(packages.rows)
    shutil.copy(tmp_path / "b.npy.ids.json", tmp_path / "a.npy.ids.json")
    with pytest.raises(ExportError, match=r"a\.npy\.ids\.json: does not belong to a\.npy\.semid\.json"):
        row_items(tmp_path / "a.npy")


def test_other_data_and_missing_companions_are_refused(packages: Published, tmp_path: Path):
    out = tmp_path / "a.npy"
    write(packages, "npy", out)
    data = out.read_bytes()
    out.write_bytes(data[:-1] + b"\x01")
    with pytest.raises(ExportError, match=r"a\.npy: does not belong"):
        check_export(out)
    out.write_bytes(data)
    check_export(out)
    (tmp_path / "a.npy.ids.json").unlink()
    with pytest.raises(ExportError, match="ids.json: cannot be read"):
        check_export(out)
    (tmp_path / "a.npy.semid.json").write_text("{}")
    with pytest.raises(ExportError, match="says no digests"):
        check_export(out)
    (tmp_path / "a.npy.semid.json").write_text("{")
    with pytest.raises(ExportError, match="is no JSON"):
        check_export(out)


def test_a_form_without_a_map_replaces_one_with_it(packages: Published, tmp_path: Path):
    write(packages, "npy", tmp_path / "a")
    write(packages, "csv", tmp_path / "a")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.semid.json"]
    with pytest.raises(ExportError, match="names its items itself"):
        row_items(tmp_path / "a")


def test_a_directory_is_checked_file_by_file(packages: Published, tmp_path: Path):
    write(packages, "torcheasyrec", tmp_path / "v1")
    assert check_export(tmp_path / "v1")["format"] == "torcheasyrec"
    (tmp_path / "v1" / "manifest.json").write_text("{}")
    with pytest.raises(ExportError, match="v1: does not belong"):
        check_export(tmp_path / "v1")
