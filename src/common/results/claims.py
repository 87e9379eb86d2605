"""The ledger: every claim of five reports against our runs, each with the interval that decides it.

All terms and measures of a claim must hold. A term compares two scores by seed, on the same dev examples; a measure
does the same with a quantity that no table prints (`measures.py`). Claims, margins and rules stand in
`declare/reported`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from common.declare import reported
from common.declare.effects import effects
from common.declare.reported import claims as declared_claims
from common.declare.reported.claims import Claim, Measure, Term
from common.declare.rows import reports, row
from common.files import atomic_write
from common.results import intervals
from common.results.declared import demand, measure_demand, printed_difference, printed_measure
from common.results.intervals import INCONCLUSIVE, Verdict, verdict
from common.results.measures import measured
from common.results.scoring import difference_error, score_error, value
from common.runs.record import Record
from common.runs.session import Results, Study

FILE = "claims.csv"
NOT_RUN, NOT_MEASURED, OPEN, ONE_SEED = "not run", "not measured here", "open", "inconclusive, one seed"
LEDGER = ["claim", "report", "statement", "verdict", "leaning", "estimate", "low", "high", "printed"]
LEDGER += ["printed_compatible", "effect_ratio", "false_share", "seeds", "share", "encoder", "contaminated", "runs"]
LEDGER += ["decided_by", "section", "topic", "clear_by"]
FINDINGS = 3
SHOWN = ["claim", "statement", "verdict", "estimate", "low", "high", "printed", "printed_compatible", "seeds"]
TERMS = ["claim", "comparison", "printed", "estimate", "low", "high", "verdict", "printed_compatible", "seeds"]
CONTAMINATED = ("minilm-l6",)  # its authors trained it for cosines, on Quora's duplicates among others


@dataclass(frozen=True)
class Outcome:
    """One term or measure: its demand in words, what a report prints of it, and what our runs say."""

    demand: str
    printed: float
    verdict: Verdict | str  # or why there is none
    is_compatible: bool | None = None
    records: tuple[Record, ...] = ()


def ledger(lab: Study, results: Results, claims: Iterable[Claim] | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One line a claim, and one line a term or measure of it.

    Args:
        lab: the study that the results are of.
        results: the rows that claims name, as far as there are any; a claim of other rows is `not run`.
        claims: those to decide; None takes all of every report.

    Returns:
        The ledger, with `false_share`: the share of false verdicts among those of the report with as small a p-value,
        counted over all its claims of two seeds or more; and its comparisons.
    """
    chosen = [c for report in reports() for c in declared_claims.load(report)] if claims is None else list(claims)
    outcomes = {claim.id: outcomes_of(lab, results, claim) for claim in chosen}
    lines = pd.DataFrame([_line(lab, claim, outcomes[claim.id]) for claim in chosen], columns=[*LEDGER, "p"])
    lines["false_share"] = np.nan
    for _, part in lines[lines["seeds"] > 1].groupby("report"):  # a verdict does not hang on which reports were run
        lines.loc[part.index, "false_share"] = intervals.false_discovery(part["p"].tolist())
    methods = {frozenset((effect.a, effect.b)): effect.method for effect in effects()}
    lines["topic"] = [_topic(claim, methods) for claim in chosen]
    is_decided = lines["verdict"].isin([intervals.REPRODUCED, intervals.CONTRADICTED])
    lines.loc[is_decided & (lines["false_share"] > intervals.FALSE_SHARE), "verdict"] = INCONCLUSIVE
    terms = [_term_line(claim, outcome) for claim in chosen for outcome in outcomes[claim.id]]
    whole = {"seeds": "Int64"}
    return lines[LEDGER].astype(whole), pd.DataFrame(terms, columns=TERMS).astype(whole)


def write(lab: Study, frame: pd.DataFrame) -> None:
    """Write a ledger as the profile's `claims.csv`."""
    text = frame.to_csv(index=False, lineterminator="\n", float_format="%.6g")
    atomic_write(lab.places.results / FILE, text.encode())


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


def findings(frame: pd.DataFrame) -> tuple[pd.DataFrame, bool]:
    """What matters most in a ledger, and whether it is decided; else these are leanings only.

    Of the claims about a method of `effects.yaml`, one a method: that whose deciding interval lies furthest from the
    bound of its demand. Decided claims count alone where there are any.
    """
    about = frame[frame["topic"].fillna("").ne("") & (frame["clear_by"] > 0)]
    decided = about[about["verdict"].isin([intervals.REPRODUCED, intervals.CONTRADICTED])]
    ranked = (about if decided.empty else decided).sort_values("clear_by", ascending=False, kind="stable")
    return ranked.drop_duplicates("topic").head(FINDINGS), not decided.empty


def _topic(claim: Claim, methods: dict[frozenset[str], str]) -> str:
    """The method that a term of it adds or takes away, and nothing but terms decides it: scores can be compared."""
    pairs = [] if claim.measures else [frozenset((term.a, term.b)) for term in claim.terms]
    return next((methods[pair] for pair in pairs if pair in methods), "")


def _term(lab: Study, results: Results, term: Term) -> Outcome:
    empty = Outcome(demand(term), printed_difference(term, reported.printed_values()), NOT_RUN)
    pairs = _pairs(results, (term.a, term.b))
    if not pairs:
        return empty
    names = (_metric(term.a, term.metric), _metric(term.b, term.metric_b))
    scores = [(value(lab, a, names[0], term.split), value(lab, b, names[1], term.split_b)) for a, b in pairs]
    if any(score is None for both in scores for score in both):
        return replace(empty, verdict=NOT_MEASURED)
    if (names[0], term.split) == (names[1], term.split_b):
        error = difference_error(lab, pairs, names[0], term.split)
    else:  # other examples on either side
        sides = ([a for a, _ in pairs], names[0], term.split), ([b for _, b in pairs], names[1], term.split_b)
        error = float(np.hypot(*(score_error(lab, *side) for side in sides)))
    return _outcome(empty, [a - b for a, b in scores], error, (term.op, term.margin, 0.0), pairs)


def _measure(lab: Study, results: Results, measure: Measure) -> Outcome:
    empty = Outcome(measure_demand(measure), printed_measure(measure, reported.printed_values()), NOT_RUN)
    groups = _pairs(results, measure.rows)
    if not groups:
        return empty
    asked = [
        of | ({"metric": _metric(name, of["metric"])} if "metric" in of else {})
        for name, of in zip(measure.rows, (measure.of, measure.of | measure.of_b), strict=False)
    ]
    found = [
        [measured(lab, record, measure.quantity, of) for record, of in zip(group, asked, strict=True)]
        for group in groups
    ]
    if any(one is None for group in found for one in group):
        return replace(empty, verdict=NOT_MEASURED)
    values = np.array([[one.value for one in group] for group in found])  # (S, 1 or 2)
    errors = np.mean([[one.error for one in group] for group in found], axis=0)
    if len(asked) == 1:
        numbers, error = values[:, 0], errors[0]
    elif measure.by == "ratio":
        if not values[:, 1].all():
            return replace(empty, verdict=NOT_MEASURED)
        (a, b), numbers = values.mean(0), values[:, 0] / values[:, 1]
        error = np.hypot(errors[0] / b, a * errors[1] / b**2)  # the delta method
    else:
        numbers, error = values[:, 0] - values[:, 1], np.hypot(*errors)
    return _outcome(empty, numbers.tolist(), float(error), (measure.op, measure.margin, measure.value), groups)


def _outcome(
    empty: Outcome,
    differences: Sequence[float],
    error: float,
    asked: tuple[str, float, float],
    groups: Sequence[tuple[Record, ...]],
) -> Outcome:
    if not np.isfinite(error):
        return replace(empty, verdict=NOT_MEASURED)
    is_known = not np.isnan(empty.printed) and len(differences) > 1
    fits = intervals.is_printed_compatible(empty.printed, differences, error) if is_known else None
    records = tuple(record for group in groups for record in group)
    return replace(empty, verdict=verdict(differences, error, *asked), is_compatible=fits, records=records)


def _pairs(results: Results, names: Sequence[str]) -> list[tuple[Record, ...]]:
    """The records of these rows, seed by seed that all of them have."""
    if not set(names) <= set(results):
        return []
    sides = [{record.seed: record for record in results[name].records} for name in names]
    return [tuple(side[seed] for side in sides) for seed in sides[0] if all(seed in side for side in sides)]


def _metric(row_id: str, metric: str) -> str:
    """An overall stands in the formula of the report that prints the row."""
    is_normalised = metric == "overall" and row(row_id).report in reported.NORMALISED_OVERALL
    return "overall_normalised" if is_normalised else metric


def _is_contaminated(lab: Study, claim: Claim) -> bool:
    """Whether it is of paraphrases or cosines, and the encoder learned them."""
    asked = [term.metric for term in claim.terms] + [text for m in claim.measures for text in m.of.values()]
    tasks = (task for name in claim.rows for spec in row(name).specs for task in spec.tasks)
    is_cosine = any(task.pair_method == "cosine" for task in tasks)
    return lab.encoder in CONTAMINATED and (is_cosine or any("para" in text for text in asked))


def _line(lab: Study, claim: Claim, outcomes: list[Outcome]) -> dict:
    known = {"claim": claim.id, "report": claim.id.partition("_")[0], "statement": claim.statement}
    known |= {"section": claim.section}
    known |= {"decided_by": claim.open or claim.rule, "encoder": lab.encoder, "printed_compatible": "not printed"}
    known["contaminated"] = _is_contaminated(lab, claim)
    decided = [outcome for outcome in outcomes if isinstance(outcome.verdict, Verdict)]
    missing = [outcome.verdict for outcome in outcomes if not isinstance(outcome.verdict, Verdict)]
    if claim.open or not decided:
        return known | {"verdict": OPEN if claim.open else NOT_RUN if NOT_RUN in missing else NOT_MEASURED}
    kind, p = intervals.joined([outcome.verdict for outcome in decided], len(missing))
    if missing and kind == INCONCLUSIVE:
        return known | {"verdict": NOT_RUN if NOT_RUN in missing else NOT_MEASURED}
    deciding = min(decided, key=lambda outcome: outcome.verdict.against)
    records = {r.run_id: r for outcome in decided for r in outcome.records}
    shown, seeds = deciding.verdict, min(outcome.verdict.n for outcome in decided)
    fits = [outcome.is_compatible for outcome in decided if outcome.is_compatible is not None]
    return known | {
        "verdict": ONE_SEED if seeds == 1 else kind,
        "leaning": "for" if all(o.verdict.met < o.verdict.against for o in decided) else "against",
        "p": p,
        "clear_by": shown.clear_by,
        "estimate": shown.estimate,
        "low": shown.low,
        "high": shown.high,
        "printed": deciding.printed,
        "printed_compatible": ("yes" if all(fits) else "no") if fits else "not printed" if seeds > 1 else "one seed",
        "effect_ratio": shown.estimate / deciding.printed if deciding.printed else np.nan,
        "seeds": seeds,
        "share": float(np.mean([record["share"] for record in records.values()])),
        "runs": " ".join(part for record in records.values() for part in record.parts),
    }


def _term_line(claim: Claim, outcome: Outcome) -> dict:
    fits = {True: "yes", False: "no", None: "not printed" if np.isnan(outcome.printed) else "one seed"}
    line = {"claim": claim.id, "comparison": outcome.demand, "printed": outcome.printed}
    found = outcome.verdict
    if not isinstance(found, Verdict):
        return line | {"verdict": found, "printed_compatible": ""}
    kind = ONE_SEED if found.n == 1 else found.kind
    numbers = {"estimate": found.estimate, "low": found.low, "high": found.high, "seeds": found.n}
    return line | numbers | {"verdict": kind, "printed_compatible": fits[outcome.is_compatible]}
