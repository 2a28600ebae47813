"""The text file for Prometheus: its format, its figures, and that it is there whole or not at all."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from semid_daemon.config import parse_config
from semid_daemon.daemon.prometheus import Family, exposition
from semid_daemon.daemon.service import Service
from semid_daemon.daemon.state_lock import make_directories
from semid_daemon.runtime.context import WorkContext
from semid_daemon.runtime.progress import PlainProgress
from semid_daemon.store.write.store import Store
from tests.catalogues import SMALL, Rows, drop_npz

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = rf'{_NAME}="(?:[^"\\\n]|\\["\\n])*"'
_SAMPLE = re.compile(rf"({_NAME})\{{({_LABEL}(?:,{_LABEL})*)\}} (\S+)")


def parsed(text: str) -> dict[str, float]:
    """Every sample by its name and labels, by the grammar of the text format 0.0.4."""
    assert text.endswith("\n")
    samples: dict[str, float] = {}
    family = None
    closed: set[str] = set()
    for line in text.splitlines():
        if line.startswith("# HELP "):
            family = line.split()[2]
            assert family not in closed, "one group for each name"
            closed.add(family)
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert (name, kind in ("gauge", "counter")) == (family, True)
            assert name.endswith("_total") == (kind == "counter")
        else:
            found = _SAMPLE.fullmatch(line)
            assert found, line
            assert found[1] == family
            assert f"{found[1]}{{{found[2]}}}" not in samples
            samples[f"{found[1]}{{{found[2]}}}"] = float(found[3])
    return samples


def test_labels_and_help_are_escaped():
    family = Family("x", "gauge", "a\nb\\c", [({"k": 'q"\\\n'}, 1), ({"k": "é"}, float("nan"))])
    assert exposition([family, Family("none", "gauge", "nothing")], {"catalogue": "/c"}) == (
        '# HELP x a\\nb\\\\c\n# TYPE x gauge\nx{catalogue="/c",k="q\\"\\\\\\n"} 1.0\nx{catalogue="/c",k="é"} nan\n'
    )


def test_the_daemon_keeps_it(tmp_path: Path, clustered: Rows):
    text = SMALL + 'drift_window_rows = 64\n[monitoring]\nmetrics_textfile = "collected/semid.prom"\n'
    config = parse_config(text.encode(), source="t", root=tmp_path)
    make_directories(config)
    drop_npz(config.drop_dir, "a.npz", [f"a{row}" for row in range(200)], clustered(200, 16))
    (config.drop_dir / "bad.npz").write_text("no archive")

    def run() -> None:
        with Store(config.database) as store:
            Service(config, store, PlainProgress(), WorkContext(once=True)).run()

    run()  # the directory is not there: told, and no more
    assert not (tmp_path / "collected").exists()
    (tmp_path / "collected").mkdir()
    drop_npz(config.drop_dir, "b.npz", [f"b{row}" for row in range(1500)], clustered(1500, 16, seed=3))
    umask = os.umask(0o027)  # as every command sets it
    try:
        run()
    finally:
        os.umask(umask)
    assert os.listdir(tmp_path / "collected") == ["semid.prom"]
    assert (tmp_path / "collected/semid.prom").stat().st_mode & 0o777 == 0o644  # for a collector of another user
    samples = parsed((tmp_path / "collected" / "semid.prom").read_text())

    def of(name: str, **labels: str) -> float:
        text = ",".join(f'{key}="{value}"' for key, value in {"catalogue": str(tmp_path), **labels}.items())
        return samples[f"semid_{name}{{{text}}}"]

    assert of("files", status="done") == 2
    assert of("files", status="rejected") == 1
    assert of("rows_total", outcome="assigned") == 1700
    assert of("items") == 1700
    assert of("generation") == 1
    assert of("state", state="stopped") == 1
    assert of("heartbeat_timestamp_seconds") == pytest.approx(
        (tmp_path / "collected/semid.prom").stat().st_mtime, abs=5
    )
    for layer in "012":
        assert of("coverage", layer=layer) > 0.5
        assert 1 <= of("perplexity", layer=layer) <= 8
        assert of("loss", layer=layer) > 0
        assert 0 <= of("drift_js", layer=layer) <= 1
    assert of("drift_error_ratio") > 0
    assert 0 < of("drift_error_over_base") < of("drift_error_ratio")
    assert 0 < of("unique_rate") <= 1
    with Store(config.database) as store:
        assert [e for (e,) in store.database.read("SELECT message FROM events") if "semid.prom: cannot be written" in e]
