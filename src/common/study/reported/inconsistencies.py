"""Where a report contradicts itself: inconsistencies.yaml, read strictly, and as a table.

An entry is {id, report, sections, says, but, remark, kind}; the file's head says what each holds. Contradictions
between reports are in contradictions.py.
"""

from __future__ import annotations

from collections import Counter
from importlib.resources import files

import pandas as pd
import yaml

from common.study.reported import _bad
from common.study.rows import reports

FILE = "inconsistencies.yaml"
FIELDS = ("id", "report", "sections", "says", "but", "remark", "kind")
KINDS = {
    "arithmetic": "printed numbers that do not follow from each other, or from the settings",
    "table": "text against a table",
    "text": "text against text",
    "comparison": "a conclusion whose comparison is missing, or changes more than one thing",
    "fact": "against the data, or what an untrained model can reach",
    "open": "two passages that leave open which model or setting is meant",
    "slip": "a misprint",
}


def inconsistencies_frame(report: str | None = None) -> pd.DataFrame:
    """One line per place where a report contradicts itself, in the order of its file; of one report or of all.

    Raises:
        StudyError: an entry that does not follow the schema, with its id.
        ValueError: an unknown report.
    """
    content = yaml.safe_load(files(__package__).joinpath(FILE).read_text(encoding="utf-8"))
    if report is not None and report not in reports():
        raise ValueError(f"`report` must be one of {', '.join(reports())}, got {report!r}")
    for entry in content:
        _check(entry)
    if twice := sorted(name for name, count in Counter(entry["id"] for entry in content).items() if count > 1):
        raise _bad(FILE, f"ids stand twice: {twice}")
    frame = pd.DataFrame(content, columns=list(FIELDS)).drop(columns="id")
    return frame if report is None else frame[frame["report"] == report].drop(columns="report").reset_index(drop=True)


def _check(entry: dict) -> None:
    where = f"{FILE}: {entry.get('id', '?')}"
    if set(entry) != set(FIELDS):
        raise _bad(where, f"fields {sorted(entry)}, expected {', '.join(FIELDS)}")
    if wrong := [name for name in FIELDS if not isinstance(entry[name], str) or not (entry[name] or name == "remark")]:
        raise _bad(where, f"no text in {', '.join(wrong)}")
    if entry["report"] not in reports() or not entry["id"].startswith(f"{entry['report']}_i"):
        raise _bad(where, f"report {entry['report']!r} is unknown, or another one's id")
    if entry["kind"] not in KINDS:
        raise _bad(where, f"kind {entry['kind']!r}, known: {', '.join(KINDS)}")
