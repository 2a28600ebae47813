"""Drawing needs neither Textual nor anything heavy."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys

import pytest

import semid_tui.render

MODULES = [module.name for module in pkgutil.iter_modules(semid_tui.render.__path__, "semid_tui.render.")]


@pytest.mark.parametrize("module", [*MODULES, "semid_tui.once"])
def test_drawing_loads_no_textual(module: str):
    code = f"import json, sys, {module}; print(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(json.loads(done.stdout))
    assert "semid_tui" in loaded
    assert not loaded & {"textual", "torch", "numpy", "pyarrow", "sqlite_utils"}
