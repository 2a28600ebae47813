from __future__ import annotations

from pathlib import Path

import pytest

from semid_daemon.config import Config
from tests.tui.recorded import configured, copy_of, record


@pytest.fixture(scope="session")
def _recorded(tmp_path_factory: pytest.TempPathFactory) -> Config:
    config = configured(tmp_path_factory.mktemp("recorded"))
    record(config)
    return config


@pytest.fixture
def recorded(_recorded: Config, tmp_path: Path) -> Config:
    """A copy of the recorded catalogue, its daemon alive just now."""
    return copy_of(_recorded, tmp_path)
