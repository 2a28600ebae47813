"""`rpg`: the JSON object `{item: [codes]}` that RPG reads as its `.sem_ids`."""

from __future__ import annotations

import json
from pathlib import Path

from semid_daemon.export.job import Form, Job


def write(job: Job, path: Path) -> None:
    """Codes from 0 on, without suffixes: RPG shifts them into its vocabulary itself."""
    with open(path, "w", encoding="utf-8") as file:
        file.write("{")
        for items in job.chunks():
            # In one call; a line break within an item ID is spelled otherwise.
            names = json.dumps(items.item_ids, separators=("\n", ": "))[1:-1].split("\n")
            lines = map("{}: {}".format, names, items.codes_NL.tolist())
            file.write((",\n" if items.first_row else "\n") + ",\n".join(lines))
        file.write("\n}\n")


FORM = Form("rpg", write)
