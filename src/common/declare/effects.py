"""What each method adds, as pairs of rows that differ by it: effects.yaml, written before the runs.

budget.yaml has the four pairs that are trained again on a larger budget.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

import yaml

from common.declare.rows import row
from common.errors import StudyError

FILE, BUDGET_FILE = "effects.yaml", "budget.yaml"


@dataclass(frozen=True)
class Effect:
    """A method, a row with it, a row without it, and what else differs between them (empty: nothing)."""

    method: str
    a: str
    b: str
    also: str = ""


def effects(file: str = FILE) -> tuple[Effect, ...]:
    """All pairs of a file, method by method.

    Raises:
        StudyError: a pair that names no row, one row twice, or rows of two reports.
    """
    content = yaml.safe_load(files(__package__).joinpath(file).read_text(encoding="utf-8"))
    found = tuple(Effect(method, *pair) for method, pairs in content.items() for pair in pairs)
    for effect in found:
        if effect.a == effect.b or row(effect.a).report != row(effect.b).report:
            what = f"{effect.method}: {effect.a} and {effect.b} are not two rows of one report."
            raise StudyError("E-TABLES", file, what, "Compare a row with the nearest one that lacks the method.")
    return found
