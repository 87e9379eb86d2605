"""Rows of the reports' tables, the runs behind them, and the store they live in: what a notebook imports."""

from __future__ import annotations

import importlib

from common.study.cards import data_card, parity_card
from common.study.reported.inconsistencies import inconsistencies_frame
from common.study.rows import Row, changes, examples, row, rows, variant

# Modules that import rows of this package themselves are loaded when one asks for what they hold. None may be named as
# something here is: a module would take its place.
_LATER = {
    "Failure": "common.runs.session",
    "Results": "common.runs.session",
    "RowResult": "common.runs.session",
    "Study": "common.runs.session",
    "baselines": "common.study.untrained",
    "open_study": "common.runs.session",
}
__all__ = [
    "Row",
    "changes",
    "data_card",
    "examples",
    "inconsistencies_frame",
    "parity_card",
    "row",
    "rows",
    "variant",
    *_LATER,
]


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)
