"""What the reports claim: claims/<report>.yaml, read strictly.

A claim is {id, section, statement, rule} with `terms`, `measure` or both, or else `open`; all wording is ours, and
rule says in one sentence what decides. All terms and measures of a claim must hold.

A term compares a stored metric of two rows: [metric, split, a, op, b, margin] with up to two further entries, metric_b
and split_b, where b is read from another metric or split than a. With d = value(a) - value(b), the operators mean

    >, >=   d is at least margin; above 0 where margin is 0
    <       d is at most -margin; below 0 where margin is 0
    <=      d is at most margin: how "no gain" and "no more than margin lost" are written
    ~       |d| is at most margin: as good as equal

A measure does the same with a quantity that no table prints: {quantity, of, rows, op, margin} with one row or two.
quantities.yaml lists the quantities, each with its unit, its definition and what `of` has to name. Of one row, d is the
quantity less the number `value`. Of two rows, d is the difference of the two or, with `by: ratio`, the first over the
second, less `value`. `of_b` names what is other of the second; the two rows may then be the same.

Rows are rows of the experiments files, controls that no report prints included. `open` says why nothing that a run
leaves behind can decide; such a claim has no term and no measure. A term or measure may need numbers that a run lacks
(the test split of some data has no labels); it stays all the same.

Margins above 0 are ours, set before any run from the sampling error of the dev sets: SST 0.015, Quora 0.0025, STS 0.008
at r = 0.87, 0.026 at 0.5 and 0.030 at 0.35, the difference of two overalls 0.008.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection
from dataclasses import dataclass, field
from importlib.resources import files

import yaml

from common.declare.reported import METRICS, SPLITS, _bad
from common.declare.rows import reports, rows
from common.errors import StudyError

OPERATORS = (">", ">=", "<", "<=", "~")
EQUIVALENCES = ("<=", "~")
COMPARISONS = ("difference", "ratio")
TEXTS = ("id", "section", "statement", "rule")
DECIDED_BY = ("terms", "measure", "open")
MEASURE_KEYS = ("quantity", "of", "of_b", "rows", "by", "op", "value", "margin")


@dataclass(frozen=True)
class Term:
    """One comparison: value(a, metric, split) - value(b, metric_b, split_b) against margin; operators as above."""

    metric: str
    split: str
    a: str
    op: str
    b: str
    margin: float
    metric_b: str
    split_b: str


@dataclass(frozen=True)
class Quantity:
    """Something measured of one run: its unit, what has to be said of it, and what it is, in words."""

    unit: str
    of: tuple[str, ...]
    is_: str


@dataclass(frozen=True)
class Measure:
    """A quantity of one row against a number, or of two rows by their difference or ratio."""

    quantity: str
    rows: tuple[str, ...]
    op: str
    margin: float
    of: dict[str, str] = field(default_factory=dict)
    # What the quantity is taken of on the side of the second row: `of`, with what of_b replaces.
    of_b: dict[str, str] = field(default_factory=dict)
    by: str = "difference"
    value: float = 0.0


@dataclass(frozen=True)
class Claim:
    """A statement of a report, in our words, with the comparisons that decide it; all of them must hold.

    open is the reason why none can, and empty otherwise.
    """

    id: str
    section: str
    statement: str
    rule: str
    terms: tuple[Term, ...] = ()
    measures: tuple[Measure, ...] = ()
    open: str = ""

    @property
    def rows(self) -> tuple[str, ...]:
        """Ids of all rows that decide it, each once."""
        compared = [row for term in self.terms for row in (term.a, term.b)]
        return tuple(dict.fromkeys([*compared, *(row for measure in self.measures for row in measure.rows)]))


def load(report: str) -> list[Claim]:
    """The claims of a report, in the order of its file.

    Raises:
        StudyError: no such report, or a file that does not follow the schema; it names the claim.
    """
    folder = files(__package__).joinpath("claims")
    known = sorted(path.name.removesuffix(".yaml") for path in folder.iterdir() if path.name.endswith(".yaml"))
    if report not in known:
        raise StudyError("E-REPORTED", "claims", f"no claims of {report!r}.", f"Known: {', '.join(known)}.")
    content = yaml.safe_load(folder.joinpath(f"{report}.yaml").read_text(encoding="utf-8"))
    row_ids = {row.id for name in reports() for row in rows(name)}
    found = [_claim(f"claims/{report}.yaml", entry, row_ids) for entry in content]
    names = [claim.id for claim in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise _bad(f"claims/{report}.yaml", f"ids stand twice: {twice}")
    return found


def quantities() -> dict[str, Quantity]:
    """What a measure may name."""
    return {name: Quantity(q["unit"], tuple(q["of"]), q["is"]) for name, q in _vocabulary()["quantities"].items()}


@functools.cache  # asked twice for every measure
def _vocabulary() -> dict:
    return yaml.safe_load(files(__package__).joinpath("quantities.yaml").read_text(encoding="utf-8"))


def _claim(file: str, entry: dict, row_ids: Collection[str]) -> Claim:
    where = f"{file}: {entry.get('id', '?')}"
    if not set(TEXTS) <= set(entry) <= {*TEXTS, *DECIDED_BY}:
        raise _bad(where, f"fields {sorted(entry)}, expected {', '.join(TEXTS)} and some of {', '.join(DECIDED_BY)}")
    decided = [name for name in DECIDED_BY if name in entry]
    if empty := [name for name in (*TEXTS, *decided) if not entry[name]]:
        raise _bad(where, f"nothing in {', '.join(empty)}")
    if no_text := [name for name in (*TEXTS, "open") if not isinstance(entry.get(name, ""), str)]:
        raise _bad(where, f"no text in {', '.join(no_text)}")
    if not decided or ("open" in decided and len(decided) > 1):
        raise _bad(where, f"is decided by {decided}, expected terms, measure or both, or else open alone")
    terms = tuple(_term(where, values, row_ids) for values in entry.get("terms", ()))
    measures = tuple(_measure(where, values, row_ids) for values in entry.get("measure", ()))
    return Claim(**{name: entry[name] for name in TEXTS}, terms=terms, measures=measures, open=entry.get("open", ""))


def _term(where: str, values: list, row_ids: Collection[str]) -> Term:
    if not isinstance(values, list) or not 6 <= len(values) <= 8:
        raise _bad(where, f"a term has metric, split, a, op, b, margin and perhaps metric_b, split_b; found {values}")
    metric, split, a, op, b, margin = values[:6]
    metric_b, split_b = (*values[6:], *(metric, split)[len(values) - 6 :])
    known = all(name in METRICS for name in (metric, metric_b)) and all(name in SPLITS for name in (split, split_b))
    if not known:
        raise _bad(where, f"unknown metric or split in {values}")
    _check_rows(where, (a, b), row_ids)
    if (a, metric, split) == (b, metric_b, split_b):
        raise _bad(where, f"a term compares {a} with itself")
    _check_demand(where, op, margin)
    return Term(metric, split, a, op, b, margin, metric_b, split_b)


def _measure(where: str, values: dict, row_ids: Collection[str]) -> Measure:
    is_complete = isinstance(values, dict) and {"quantity", "rows", "op", "margin"} <= set(values) <= set(MEASURE_KEYS)
    if not (is_complete and isinstance(values["rows"], list)):
        raise _bad(where, f"a measure has quantity, rows, op, margin and perhaps of, of_b, by, value; found {values}")
    measure = Measure(**{**values, "rows": tuple(values["rows"])})
    place = f"{where}: {measure.quantity}"
    _check_of(place, measure)
    _check_rows(place, measure.rows, row_ids)
    if len(measure.rows) not in (1, 2) or (len(measure.rows) == 1 and (measure.of_b or "by" in values)):
        raise _bad(place, "has one row and a value, or two rows and perhaps by and of_b")
    if len(set(measure.rows)) == 1 < len(measure.rows) and measure.of | measure.of_b == measure.of:
        raise _bad(place, f"compares {measure.rows[0]} with itself")
    if measure.by not in COMPARISONS:
        raise _bad(place, f"by {measure.by!r}, known: {', '.join(COMPARISONS)}")
    if ("value" in values) == (len(measure.rows) == 2 and measure.by == "difference"):
        raise _bad(place, "a value belongs to one row and to a ratio, and not to a difference")
    if not (isinstance(measure.value, float) and math.isfinite(measure.value)):
        raise _bad(place, f"value {measure.value!r} is no number")
    _check_demand(place, measure.op, measure.margin)
    return measure


def _check_of(where: str, measure: Measure) -> None:
    """`of` names all that the quantity needs and nothing else, of_b some of it, each by a known word."""
    known, parts = quantities(), _vocabulary()["parts"]
    if str(measure.quantity) not in known:
        raise _bad(where, f"unknown quantity, known: {', '.join(known)}")
    needed = known[measure.quantity].of
    if set(measure.of) != set(needed) or not set(measure.of_b) <= set(needed):
        raise _bad(where, f"of {measure.of}, of_b {measure.of_b}, expected {', '.join(needed) or 'neither'}")
    for name, part in (*measure.of.items(), *measure.of_b.items()):
        if part not in parts[name]:
            raise _bad(where, f"{name} {part!r}, known: {', '.join(parts[name])}")


def _check_rows(where: str, named: Collection[str], row_ids: Collection[str]) -> None:
    if unknown := sorted(str(name) for name in named if str(name) not in row_ids):
        raise _bad(where, f"no experiments file has the row {', '.join(unknown)}")


def _check_demand(where: str, op: str, margin: float) -> None:
    if op not in OPERATORS:
        raise _bad(where, f"unknown operator {op!r}, known: {', '.join(OPERATORS)}")
    if not (isinstance(margin, float) and math.isfinite(margin) and margin >= 0):
        raise _bad(where, f"margin {margin!r} is no number of at least 0")
    if op in EQUIVALENCES and margin == 0:
        raise _bad(where, f"{op} needs a margin above 0, as no run can show that two numbers are the same")
