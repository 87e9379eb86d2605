"""Rows of the reports' tables, the runs behind them, and the store they live in: what a notebook imports."""

from common.study.baselines import baselines
from common.study.cards import data_card, parity_card
from common.study.reported.inconsistencies import inconsistencies_frame
from common.study.rows import Row, changes, examples, row, rows, variant
from common.study.session import Failure, Results, RowResult, Study, open_study

__all__ = [
    "Failure",
    "Results",
    "Row",
    "RowResult",
    "Study",
    "baselines",
    "changes",
    "data_card",
    "examples",
    "inconsistencies_frame",
    "open_study",
    "parity_card",
    "row",
    "rows",
    "variant",
]
