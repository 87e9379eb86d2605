"""The ledger: every claim of five reports against our runs, each with the interval that decides it.

All terms and measures of a claim must hold. A term compares two scores by seed, on the same dev examples; a measure does
the same with a quantity that no table prints (`measures.py`). Claims, margins and rules stand in `declare/reported`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from common.declare import reported
from common.declare.reported import claims as declared_claims
from common.declare.reported.claims import Claim, Measure, Term
from common.declare.rows import reports, row
from common.results import intervals
from common.results.declared import demand, measure_demand, printed_difference, printed_measure
from common.results.intervals import INCONCLUSIVE, Verdict
from common.results.measures import measured
from common.results.scoring import difference_error, score_error
from common.runs.record import Record
from common.runs.session import Results, Study

NOT_RUN, OPEN, ONE_SEED = "not run", "open", "inconclusive, one seed"
LEDGER = ["claim", "report", "statement", "verdict", "estimate", "low", "high", "printed", "printed_compatible"]
LEDGER += ["effect_ratio", "false_share", "seeds", "share", "encoder", "contaminated", "runs", "decided_by"]
SHOWN = ["claim", "statement", "verdict", "estimate", "low", "high", "printed", "printed_compatible", "seeds"]
TERMS = ["claim", "comparison", "printed", "estimate", "low", "high", "verdict", "printed_compatible", "seeds"]
CONTAMINATED = ("minilm-l6",)  # its authors trained it for cosines, on Quora's duplicates among others


@dataclass(frozen=True)
class Outcome:
    """One term or measure: its demand in words, what a report prints of it, and what our runs say."""

    demand: str
    printed: float
    verdict: Verdict | None
    is_compatible: bool | None
    records: tuple[Record, ...] = ()


def ledger(lab: Study, results: Results, claims: Iterable[Claim] | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One line a claim, and one line a term or measure of it.

    Args:
        lab: the study that the results are of.
        results: the rows that claims name, as far as there are any; a claim of other rows is `not run`.
        claims: those to decide; None takes all of every report.

    Returns:
        The ledger, with `false_share`: the share of false verdicts among those of the report with as small a p-value;
        and its comparisons.
    """
    chosen = [c for report in reports() for c in declared_claims.load(report)] if claims is None else list(claims)
    outcomes = {claim.id: outcomes_of(lab, results, claim) for claim in chosen}
    lines = pd.DataFrame([_line(lab, claim, outcomes[claim.id]) for claim in chosen], columns=[*LEDGER, "p"])
    decided = lines[lines["verdict"].isin([intervals.REPRODUCED, intervals.CONTRADICTED])]
    lines["false_share"] = np.nan
    for _, part in decided.groupby("report"):  # so that a claim's verdict is the same whichever reports stand beside it
        lines.loc[part.index, "false_share"] = intervals.false_discovery(part["p"].tolist())
    lines.loc[lines["false_share"] > intervals.FALSE_SHARE, "verdict"] = INCONCLUSIVE
    terms = [_term_line(claim, outcome) for claim in chosen for outcome in outcomes[claim.id]]
    return lines[LEDGER], pd.DataFrame(terms, columns=TERMS)


def of(report: str) -> list[Claim]:
    """The claims of one report."""
    return declared_claims.load(report)


def outcomes_of(lab: Study, results: Results, claim: Claim) -> list[Outcome]:
    """Its terms and its measures, in the order of the file."""
    terms = [_term(lab, results, term) for term in claim.terms]
    return terms + [_measure(lab, results, measure) for measure in claim.measures]


def counts(frame: pd.DataFrame) -> pd.DataFrame:
    """How many claims of each report were reproduced, contradicted, and so on; the last line is all of them."""
    table = pd.crosstab(frame["report"], frame["verdict"])
    order = [name for name in (intervals.REPRODUCED, intervals.CONTRADICTED, INCONCLUSIVE) if name in table]
    table = table[[*order, *(name for name in table if name not in order)]]
    table.loc["all"] = table.sum()
    return table.rename_axis(columns=None).reset_index()


def _term(lab: Study, results: Results, term: Term) -> Outcome:
    printed = printed_difference(term, reported.printed_values())
    if not {term.a, term.b} <= set(results):
        return Outcome(demand(term), printed, None, None)
    first = _by_seed(results, term.a, term.metric, term.split)
    second = _by_seed(results, term.b, term.metric_b, term.split_b)
    pairs = [(first[seed], second[seed]) for seed in first if seed in second]
    names = (_metric(term.a, term.metric), _metric(term.b, term.metric_b))
    differences = [a.value(names[0], term.split) - b.value(names[1], term.split_b) for a, b in pairs]
    if (names[0], term.split) == (names[1], term.split_b):
        error = difference_error(lab, pairs, names[0], term.split)
    else:  # other examples on either side
        sides = ([a for a, _ in pairs], names[0], term.split), ([b for _, b in pairs], names[1], term.split_b)
        error = float(np.hypot(*(score_error(lab, *side) for side in sides)))
    records = tuple(record for pair in pairs for record in pair)
    return _outcome(demand(term), printed, differences, error, (term.op, term.margin, 0.0), records)


def _measure(lab: Study, results: Results, measure: Measure) -> Outcome:
    printed = printed_measure(measure, reported.printed_values())
    text = measure_demand(measure)
    if not set(measure.rows) <= set(results):
        return Outcome(text, printed, None, None)
    sides = [
        {record.seed: measured(lab, record, measure.quantity, of) for record in results[name].records}
        for name, of in zip(measure.rows, (measure.of, measure.of | measure.of_b), strict=False)
    ]
    seeds = [seed for seed in sides[0] if all(side.get(seed) is not None for side in sides)]
    values = [[side[seed].value for side in sides] for seed in seeds]
    is_ratio = measure.by == "ratio"
    numbers = [v[0] if len(v) == 1 else v[0] / v[1] if is_ratio else v[0] - v[1] for v in values]
    errors = [np.mean([side[seed].error for seed in seeds]) if seeds else 0.0 for side in sides]
    error = 0.0 if is_ratio else float(np.hypot(*[*errors, 0.0][:2]))
    records = tuple(r for name in measure.rows for r in results[name].records if r.seed in seeds)
    return _outcome(text, printed, numbers, error, (measure.op, measure.margin, measure.value), records)


def _outcome(
    text: str,
    printed: float,
    differences: Sequence[float],
    error: float,
    asked: tuple[str, float, float],
    records: tuple[Record, ...],
) -> Outcome:
    if not differences:
        return Outcome(text, printed, None, None)
    is_known = not np.isnan(printed)
    fits = intervals.is_printed_compatible(printed, differences, error) if is_known else None
    return Outcome(text, printed, intervals.verdict(differences, error, *asked), fits, records)


def _metric(row_id: str, metric: str) -> str:
    """An overall stands in the formula of the report that prints the row."""
    is_normalised = metric == "overall" and row(row_id).report in reported.NORMALISED_OVERALL
    return "overall_normalised" if is_normalised else metric


def _by_seed(results: Results, row_id: str, metric: str, split: str) -> dict[int, Record]:
    name = _metric(row_id, metric)
    return {record.seed: record for record in results[row_id].records if record.value(name, split) is not None}


def _line(lab: Study, claim: Claim, outcomes: list[Outcome]) -> dict:
    known = {"claim": claim.id, "report": claim.id.partition("_")[0], "statement": claim.statement}
    known |= {"decided_by": claim.open or claim.rule, "encoder": lab.encoder}
    known["contaminated"] = lab.encoder in CONTAMINATED
    verdicts = [outcome.verdict for outcome in outcomes]
    if claim.open or not verdicts or not all(verdicts):
        return known | {"verdict": OPEN if claim.open else NOT_RUN, "printed_compatible": "not printed"}
    kind, p = intervals.joined(verdicts)
    deciding = min(outcomes, key=lambda outcome: outcome.verdict.against)
    records = {r.run_id: r for outcome in outcomes for r in outcome.records}
    shown, seeds = deciding.verdict, min(v.n for v in verdicts)
    fits = [outcome.is_compatible for outcome in outcomes if outcome.is_compatible is not None]
    return known | {
        "verdict": ONE_SEED if seeds == 1 else kind,
        "p": p,
        "estimate": shown.estimate,
        "low": shown.low,
        "high": shown.high,
        "printed": deciding.printed,
        "printed_compatible": ("yes" if all(fits) else "no") if fits else "not printed",
        "effect_ratio": shown.estimate / deciding.printed if deciding.printed else np.nan,
        "seeds": seeds,
        "share": float(np.mean([record["share"] for record in records.values()])),
        "runs": " ".join(part for record in records.values() for part in record.parts),
    }


def _term_line(claim: Claim, outcome: Outcome) -> dict:
    line = {"claim": claim.id, "comparison": outcome.demand, "printed": outcome.printed, "verdict": NOT_RUN}
    fits = {True: "yes", False: "no", None: "not printed"}[outcome.is_compatible]
    if outcome.verdict is None:
        return line | {"printed_compatible": fits}
    found = outcome.verdict
    kind = ONE_SEED if found.n == 1 else found.kind
    numbers = {"estimate": found.estimate, "low": found.low, "high": found.high, "seeds": found.n}
    return line | numbers | {"verdict": kind, "printed_compatible": fits}
