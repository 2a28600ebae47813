"""`index-json`: `{"0": ["<a_12>", "<b_250>", "<c_7>"], …}` by dense row: LC-Rec, LETTER, MiniOneRec."""

from __future__ import annotations

from pathlib import Path

from semid_daemon.export.job import Form, Job
from semid_daemon.export.vocabulary import token_rows


def write(job: Job, path: Path) -> None:
    """Every list ends in a token for the suffix; in the compact form only where any two items have the same codes.

    Where items share their IDs by policy there is none.
    """
    with open(path, "w", encoding="utf-8") as file:
        file.write("{")
        for items in job.chunks():
            lines = (
                '"{}": ["{}"]'.format(row, '", "'.join(tokens))
                for row, tokens in enumerate(token_rows(job, items), start=items.first_row)
            )
            file.write((",\n" if items.first_row else "\n") + ",\n".join(lines))
        file.write("\n}\n")


FORM = Form(
    "index-json",
    write,
    dense=True,
    names_tokens=True,
    compact="every item gets one token more as soon as two items of the generation have the same codes",
)
