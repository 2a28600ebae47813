"""The generations screen."""

from __future__ import annotations

from semid_daemon.config import Config
from semid_daemon.store.write.store import Store
from tests.tui.recorded import AppDriver, drive, execute


def test_generations_compared_and_drifting(recorded: Config):
    with Store(recorded.database) as store:
        store.comparisons.set(1, 2, [("items", None, 64.0, 700.0), ("churn", 1, None, 0.25), ("error", None, 0.5, 0.4)])
        for step in range(20):
            execute(
                recorded,
                "INSERT INTO _metrics (run, step, layer, name, value, at) VALUES ('drift-2', ?, NULL,"
                " 'drift_error_ratio', ?, '')",
                step,
                1 + step / 100,
            )

    async def script(ui: AppDriver) -> None:
        await ui.press("7")
        text = await ui.sees("comparison · g1 → g2", "64 → 700", "churn L1", "- → 0.25", "0.5 → 0.4", "-20.0%")
        assert "error, times that of training          1.19  ▁" in text
        await ui.press("down")
        text = await ui.sees("g1 retired", "comparison · g1 → g2")
        assert "drift ·" not in text

    drive(recorded, script, (80, 30))
