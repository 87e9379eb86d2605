"""Where the reports contradict each other: contradictions.yaml, read strictly, and as a table.

An entry is {id, topic, positions, explanations, decided_by, rows}: what each report says, what could make them both
right, the comparison that settles it, and our rows that speak to it, controls included.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from importlib.resources import files

import pandas as pd
import yaml

from common.declare.reported import _bad
from common.declare.rows import reports, rows

FILE = "contradictions.yaml"
FIELDS = ("id", "topic", "positions", "explanations", "decided_by", "rows")


@dataclass(frozen=True)
class Contradiction:
    """A question on which reports disagree. positions: report -> what it says; the other fields as in the file."""

    id: str
    topic: str
    positions: dict[str, str]
    explanations: tuple[str, ...]
    decided_by: str
    rows: tuple[str, ...]


def contradictions(report: str | None = None) -> tuple[Contradiction, ...]:
    """All contradictions, or those in which one report has a position."""
    content = yaml.safe_load(files(__package__).joinpath(FILE).read_text(encoding="utf-8"))
    row_ids = {row.id for name in reports() for row in rows(name)}
    found = [_contradiction(entry, row_ids) for entry in content]
    names = [entry.id for entry in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise _bad(FILE, f"ids stand twice: {twice}")
    return tuple(entry for entry in found if report is None or report in entry.positions)


def contradictions_frame(report: str | None = None) -> pd.DataFrame:
    """One line per topic on which reports contradict each other: what each says, and what decides.

    With a report, only the topics it has a position on, its own position first.
    """
    found = contradictions(report)
    speaking = [name for name in reports() if any(name in entry.positions for entry in found)]
    names = sorted(speaking, key=lambda name: name != report)
    lines = [
        {"topic": entry.topic}
        | {name: entry.positions.get(name, "") for name in names}
        | {"decided by": entry.decided_by}
        for entry in found
    ]
    return pd.DataFrame(lines, columns=["topic", *names, "decided by"])


def _contradiction(entry: dict, row_ids: Collection[str]) -> Contradiction:
    where = f"{FILE}: {entry.get('id', '?')}"
    if set(entry) != set(FIELDS):
        raise _bad(where, f"fields {sorted(entry)}, expected {', '.join(FIELDS)}")
    if unknown := sorted(set(entry["positions"]) - set(reports())):
        raise _bad(where, f"unknown reports {unknown}")
    if unknown := sorted(set(entry["rows"]) - set(row_ids)):
        raise _bad(where, f"unknown rows {unknown}")
    texts = [entry["id"], entry["topic"], entry["decided_by"], *entry["positions"].values(), *entry["explanations"]]
    if not all(isinstance(text, str) and text for text in texts):
        raise _bad(where, f"a text is empty or no text: {texts}")
    if len(entry["positions"]) < 2:
        raise _bad(where, "fewer than two positions contradict nothing")
    return Contradiction(**{**entry, "explanations": tuple(entry["explanations"]), "rows": tuple(entry["rows"])})
