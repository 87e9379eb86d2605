"""The figures of the reports that show no result: which are drawn here, from what, and which are left out and why.

Their result figures are in figures.csv (`reported.panels`); diagrams.csv holds the rest, so that every figure of a
report is in one of the two. `drawn` is a row, whose diagram `architecture` draws from its spec, a saved figure, or
empty.
"""

from __future__ import annotations

import pandas as pd

from common.declare.reported import DRAWN, _bad, _lines
from common.declare.rows import is_row, reports

FILE = "diagrams.csv"
COLUMNS = ("report", "figure", "section", "shows", "drawn", "reason")
LEFT_OUT = "left out"


def diagrams_frame(report: str | None = None) -> pd.DataFrame:
    """One line per figure without a result, of one report or all.

    Raises:
        StudyError: a line that does not follow the schema, with its place.
    """
    lines = []
    for where, line in _lines(FILE, COLUMNS):
        if line["report"] not in reports():
            raise _bad(where, f"report {line['report']!r}, known: {', '.join(reports())}")
        if empty := [name for name in COLUMNS if name != "drawn" and not line[name]]:
            raise _bad(where, f"no text in {', '.join(empty)}")
        if line["drawn"] and not (is_row(line["drawn"]) or DRAWN.fullmatch(line["drawn"])):
            raise _bad(where, f"drawn {line['drawn']!r} is no row and no figure name like 04_toy")
        lines.append(line | {"drawn": line["drawn"] or LEFT_OUT})
    frame = pd.DataFrame(lines, columns=list(COLUMNS))
    if twice := frame[frame.duplicated(["report", "figure"])].to_dict("records"):
        raise _bad(FILE, f"figure {twice[0]['figure']} of {twice[0]['report']} stands twice")
    return frame if report is None else frame[frame["report"] == report].reset_index(drop=True)
